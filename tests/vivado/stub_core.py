"""A core with the ports of the real one, to package and wire up."""


def stub(name="streamtrain", bytes=4):
    """A core with the ports of the real one, and nothing inside."""
    control = [
        *(("input", 12, n) for n in ("awaddr", "araddr")),
        *(("input", 3, n) for n in ("awprot", "arprot")),
        *(("input", 1, n) for n in ("awvalid", "wvalid", "bready", "arvalid", "rready")),
        ("input", 32, "wdata"),
        ("input", 4, "wstrb"),
        *(("output", 1, n) for n in ("awready", "wready", "bvalid", "arready", "rvalid")),
        *(("output", 2, n) for n in ("bresp", "rresp")),
        ("output", 32, "rdata"),
    ]
    stream = [("input", 8 * bytes, "tdata"), ("input", bytes, "tkeep"), ("input", 1, "tlast")]
    stream += [("input", 1, "tvalid"), ("output", 1, "tready")]
    other = {"input": "output", "output": "input"}
    ports = [("input", 1, "aclk"), ("input", 1, "aresetn"), ("output", 1, "irq")]
    ports += [(way, bits, f"s_axis_{n}") for way, bits, n in stream]
    ports += [(other[way], bits, f"m_axis_{n}") for way, bits, n in stream]
    ports += [(way, bits, f"s_axi_ctrl_{n}") for way, bits, n in control]
    lines = ",\n".join(f"    {way} wire [{bits - 1}:0] {n}" for way, bits, n in ports)
    return f"module {name} (\n{lines}\n);\nendmodule\n"
