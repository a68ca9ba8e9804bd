"""Cores with the ports of the real ones, to package and wire up."""

_OTHER = {"input": "output", "output": "input"}


def _control():
    return [
        *(("input", 12, n) for n in ("awaddr", "araddr")),
        *(("input", 3, n) for n in ("awprot", "arprot")),
        *(("input", 1, n) for n in ("awvalid", "wvalid", "bready", "arvalid", "rready")),
        ("input", 32, "wdata"),
        ("input", 4, "wstrb"),
        *(("output", 1, n) for n in ("awready", "wready", "bvalid", "arready", "rvalid")),
        *(("output", 2, n) for n in ("bresp", "rresp")),
        ("output", 32, "rdata"),
    ]


def stub(name="streamtrain", bytes=4):
    """A core with the ports of the streaming core, and nothing inside."""
    stream = [("input", 8 * bytes, "tdata"), ("input", bytes, "tkeep"), ("input", 1, "tlast")]
    stream += [("input", 1, "tvalid"), ("output", 1, "tready")]
    ports = [(way, bits, f"s_axis_{n}") for way, bits, n in stream]
    ports += [(_OTHER[way], bits, f"m_axis_{n}") for way, bits, n in stream]
    return _module(name, ports)


def memory_stub(name="streamtrain_unified", data_bits=64):
    """A core with the ports of the unified core, and nothing inside."""
    memory = [
        *((1, n) for n in ("awid", "awvalid", "wlast", "wvalid", "bready")),
        *((1, n) for n in ("arid", "arvalid", "rready")),
        *((bits, f"{c}{n}") for c in ("aw", "ar") for bits, n in (
            (32, "addr"), (8, "len"), (3, "size"), (2, "burst"), (4, "cache"), (3, "prot"),
        )),
        (data_bits, "wdata"), (data_bits // 8, "wstrb"),
    ]  # fmt: skip
    answers = [
        *((1, n) for n in ("awready", "wready", "bid", "bvalid", "arready", "rid", "rlast", "rvalid")),
        (2, "bresp"), (2, "rresp"), (data_bits, "rdata"),
    ]  # fmt: skip
    ports = [("output", bits, f"m_axi_{n}") for bits, n in memory]
    ports += [("input", bits, f"m_axi_{n}") for bits, n in answers]
    return _module(name, ports)


def _module(name, ports):
    ports = [("input", 1, "aclk"), ("input", 1, "aresetn"), ("output", 1, "irq"), *ports]
    ports += [(way, bits, f"s_axi_ctrl_{n}") for way, bits, n in _control()]
    lines = ",\n".join(f"    {way} wire [{bits - 1}:0] {n}" for way, bits, n in ports)
    return f"module {name} (\n{lines}\n);\nendmodule\n"
