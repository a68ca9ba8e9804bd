"""Every script runs in Tcl against the tables of what Vivado has; misspellings are caught by name."""

import re

import amaranth_boards.arty_z7
import amaranth_boards.genesys2
import amaranth_boards.ulx3s
import pytest
from stub_core import memory_stub, stub
from vivado_model import COMMANDS, ModelError, Vivado, module_ports

import streamtrain as st
from streamtrain import vivado
from streamtrain.bus.generate import generate_ip
from streamtrain.bus.packets import PacketFormat
from streamtrain.explore.devices import known_boards
from streamtrain.pipeline.generate import verilog_of
from streamtrain.vivado.project import ADDRESSES

AMD = [name for name in known_boards() if st.load_board(name).device.family != "ecp5"]
WITH_PS = [name for name in AMD if st.load_board(name).ps]
ASKED_FOR = {
    "pynq_z1", "pynq_z2", "zybo_z7_20", "zedboard", "arty_z7_20", "zc706", "zynq7100", "zcu102", "kv260",
}  # fmt: skip


def built(folder, **options):
    model = Vivado(**options)
    model.run(folder / "vivado" / "build.tcl")
    return model


def installed(board):
    part = st.load_board(board).ps.board_part
    return [f"{part}:1.1"] if part else []


def test_every_board_asked_for_has_a_processor_system():
    assert set(WITH_PS) >= ASKED_FOR


@pytest.mark.parametrize("files", [True, False], ids=["board files", "no board files"])
@pytest.mark.parametrize("board", WITH_PS)
def test_builds_on(board, files, make_project):
    folder = make_project(board)
    model = built(folder, boards=installed(board) if files else [])
    assert model.validated
    assert model.steps == ["synth_1", "impl_1"]
    assert {"utilization.rpt", "timing_summary.rpt", "power.rpt"} <= set(model.reports)
    for suffix in ("bit", "hwh", "xsa"):
        assert (folder / "vivado" / f"streamtrain.{suffix}").is_file()
    assert model.cells["ps"].get("preset", False) == (files and bool(installed(board)))


@pytest.mark.parametrize("board", WITH_PS)
def test_a_second_run_replaces_the_first(board, make_project):
    folder = make_project(board)
    built(folder)
    built(folder)


@pytest.mark.parametrize("board", AMD)
def test_routes_out_of_context_on(board, make_project):
    folder = make_project(board, clock_mhz=125.0)
    model = Vivado()
    model.run(folder / "vivado" / "out_of_context.tcl")
    assert model.steps[0] == "synth_design" and model.steps[-1] == "route_design"
    assert model.clocks == {"aclk": 8.0}
    assert (folder / "vivado" / "reports_out_of_context" / "power.rpt").is_file()


def test_tables_have_only_what_scripts_use(make_project):
    used = set()
    for board, kind in (("pynq_z2", vivado.Ip), ("kv260", vivado.MemoryIp)):
        folder = make_project(board, kind)
        for script in ("build", "out_of_context"):
            model = Vivado(boards=installed(board))
            model.run(folder / "vivado" / f"{script}.tcl")
            used |= model.used
    assert used == COMMANDS.keys()


# -- what the design is --------------------------------------------------------------------------------


@pytest.mark.parametrize("board", ["pynq_z2", "zcu102"])
def test_addresses_are_those_that_drivers_rely_on(board, make_project):
    model = built(make_project(board))
    expected = ADDRESSES[st.load_board(board).ps.type]
    assert model.assigned["/ps/Data", "/axi_dma/S_AXI_LITE/Reg"] == (expected["axi_dma"], 65536)
    assert model.assigned["/ps/Data", "/trainer/s_axi_ctrl/reg0"] == (expected["core"], 4096)
    memory = [segment for space, segment in model.assigned if space == "/axi_dma/Data_S2MM"]
    assert len(memory) == 1 and "HP0_DDR_LOW" in memory[0]


def test_the_dma_is_simple_and_as_wide_as_the_core(make_project):
    dma = built(make_project(bytes=8)).cells["axi_dma"]["parameters"]
    assert (dma["c_include_sg"], dma["c_sg_length_width"]) == ("0", "26")
    assert dma["c_m_axis_mm2s_tdata_width"] == dma["c_m_axi_s2mm_data_width"] == "64"


@pytest.mark.parametrize("bytes, memory", [(1, "32"), (4, "32"), (64, "512")])
def test_streams_of_every_width(bytes, memory, make_project):
    dma = built(make_project(bytes=bytes)).cells["axi_dma"]["parameters"]
    assert dma["c_m_axi_mm2s_data_width"] == dma["c_m_axi_s2mm_data_width"] == memory


@pytest.mark.parametrize("board, pin", [("pynq_z2", "ps/IRQ_F2P"), ("kv260", "ps/pl_ps_irq0")])
def test_interrupts_reach_the_processor_in_order(board, pin, make_project):
    nets = built(make_project(board)).nets
    assert {"interrupts/dout", pin} in nets
    for position, source in enumerate((
        "axi_dma/mm2s_introut",
        "axi_dma/s2mm_introut",
        "trainer/irq",
    )):
        assert {source, f"interrupts/In{position}"} in nets


@pytest.mark.parametrize("board", ["pynq_z2", "zcu102"])
def test_one_clock_and_one_reset_drive_everything(board, make_project):
    model = built(make_project(board, clock_mhz=62.5))
    clocks = [net for net in model.nets if "trainer/aclk" in net]
    assert len(clocks) == 1 and len(clocks[0]) == 1 + 2 + 1 + 2 + 3 + 1
    assert {"resets/peripheral_aresetn", "trainer/aresetn", "axi_dma/axi_resetn"} <= next(
        net for net in model.nets if "trainer/aresetn" in net
    )
    assert "62.5" in model.cells["ps"]["parameters"].values()


def test_another_memory_port_can_be_chosen(tmp_path, make_project):
    folder = make_project("pynq_z2")
    settings = folder / "vivado" / "settings.tcl"
    settings.write_text(settings.read_text().replace("set dma_port {0}", "set dma_port {2}"))
    model = built(folder)
    assert ("memory/M00_AXI", "ps/S_AXI_HP2") in model.links
    assert "/ps/S_AXI_HP2/HP2_DDR_LOWOCM" in {segment for _, segment in model.assigned}


def test_board_files_are_asked_for_without_their_revision(make_project):
    model = built(make_project("pynq_z2"), boards=["tul.com.tw:pynq-z2:part0:1.0"])
    assert model.board_parts_asked == ["tul.com.tw:pynq-z2:part0:*"]
    assert not any("WARNING" in message for message in model.messages)


def test_missing_board_files_are_said_and_the_crystal_is_set(make_project):
    model = built(make_project("pynq_z2"))
    assert any("no board files for tul.com.tw:pynq-z2:part0" in m for m in model.messages)
    parameters = model.cells["ps"]["parameters"]
    assert parameters["PCW_CRYSTAL_PERIPHERAL_FREQMHZ"] == "50"
    assert parameters["PCW_UIPARAM_DDR_PARTNO"] == "MT41J256M16 RE-125"
    assert parameters["PCW_UIPARAM_DDR_BUS_WIDTH"] == "16 Bit"


def test_other_names_and_versions(make_project):
    model = built(make_project(name="trainer", version="2.7"))
    assert "streamtrain.org:ip:trainer:2.7" in model.catalogue
    assert ("axi_dma/M_AXIS_MM2S", "trainer/s_axis") in model.links


# -- what is caught ----------------------------------------------------------------------------------

SPELT_WRONG = [
    # what, file, right, wrong, what is said
    ("command", "vivado/build.tcl", "open_run impl_1", "open_runs impl_1", 'invalid command name "open_runs"'),
    ("packager's command", "ip/package_ip.tcl", "ipx::save_core", "ipx::save", 'invalid command name "ipx::save"'),
    ("option", "vivado/build.tcl", "-to_step", "-to_steps", "launch_runs has no option -to_steps (UG835, launch_runs)"),
    ("option", "vivado/out_of_context.tcl", "-top $ip_name", "-tops $ip_name", "synth_design has no option -tops"),
    ("constraint's option", "vivado/out_of_context.xdc", "-period", "-periods", "create_clock has no option -periods"),
    ("needed option", "vivado/build.tcl", "make_wrapper -files $design_file", "make_wrapper", "make_wrapper needs -files"),
    ("arguments", "vivado/build.tcl", "open_run impl_1", "open_run impl_1 synth_1", "open_run takes 1 arguments, not 2"),
    ("property", "vivado/build.tcl", "set_property ip_repo_paths", "set_property ip_repos", "a project has no property ip_repos"),
    ("packager's property", "ip/package_ip.tcl", "set_property physical_name", "set_property physical", "a ipx port map has no property physical"),
    ("step", "vivado/build.tcl", "-to_step write_bitstream", "-to_step bitstream", "there is no step bitstream"),
    ("run", "vivado/build.tcl", "finish impl_1", "finish impl1", "there is no run impl1"),
    ("IP", "vivado/block_design.tcl", "[newest axi_dma]", "[newest axi_dmac]", "catalogue has no IP axi_dmac"),
    ("parameter", "vivado/block_design.tcl", "CONFIG.c_sg_length_width", "CONFIG.c_sg_len_width", "xilinx.com:ip:axi_dma:7.1 has no parameter CONFIG.c_sg_len_width"),
    ("value", "vivado/block_design.tcl", "c_sg_length_width 26", "c_sg_length_width 32", "CONFIG.c_sg_length_width cannot be 32"),
    ("PS7 parameter", "vivado/processor.tcl", "CONFIG.PCW_IRQ_F2P_INTR", "CONFIG.PCW_IRQ_F2P", "processing_system7:5.5 has no parameter CONFIG.PCW_IRQ_F2P"),
    ("interface", "vivado/block_design.tcl", "axi_dma/M_AXIS_MM2S", "axi_dma/M_AXIS_MMS2", "xilinx.com:ip:axi_dma:7.1 has no interface M_AXIS_MMS2"),
    ("pin", "vivado/block_design.tcl", "axi_dma/mm2s_introut", "axi_dma/mm2s_intr_out", "xilinx.com:ip:axi_dma:7.1 has no pin mm2s_intr_out"),
    ("core's pin", "vivado/block_design.tcl", "trainer/irq", "trainer/interrupt", "streamtrain.org:ip:streamtrain:1.0 has no pin interrupt"),
    ("cell", "vivado/block_design.tcl", "resets/slowest_sync_clk", "reset/slowest_sync_clk", "there is no cell reset"),
    ("rule", "vivado/processor.tcl", "bd_rule:processing_system7", "bd_rule:processing_system", "has no rule xilinx.com:bd_rule:processing_system"),
    ("space", "vivado/block_design.tcl", "axi_dma/Data_S2MM", "axi_dma/Data_SMM2", "there is no address space axi_dma/Data_SMM2"),
    ("segment", "vivado/block_design.tcl", "axi_dma/S_AXI_LITE/Reg", "axi_dma/S_AXI_LITE/Regs", "there is no address segment axi_dma/S_AXI_LITE/Regs"),
    ("core's port", "ip/package_ip.tcl", "{CLK aclk}", "{CLK clk}", "CLK = clk, but the core has no such port"),
    ("bus signal", "ip/package_ip.tcl", "{CLK aclk}", "{CLOCK aclk}", "clock has no such signal"),
    ("bus type", "ip/package_ip.tcl", "interface:axis $mode", "interface:axi_stream $mode", "no bus definition axi_stream"),
    ("associated bus", "ip/package_ip.tcl", "[join $buses :]", "[join $buses :]:s_axi", "ASSOCIATED_BUSIF names s_axi,"),
    ("variable", "vivado/build.tcl", "-part $part", "-part $parts", 'can\'t read "parts"'),
]  # fmt: skip


@pytest.mark.parametrize(
    "file, right, wrong, said",
    [row[1:] for row in SPELT_WRONG],
    ids=[row[0] for row in SPELT_WRONG],
)
def test_misspelt(file, right, wrong, said, make_project):
    folder = make_project("pynq_z2")
    change(folder / file, right, wrong)
    script = "build" if "out_of_context" not in file else "out_of_context"
    with pytest.raises(ModelError, match=re.escape(said)):
        Vivado().run(folder / "vivado" / f"{script}.tcl")


WRONG_DESIGN = [
    ("clock left out", "vivado/block_design.tcl", "axi_dma/m_axi_s2mm_aclk trainer/aclk", "trainer/aclk", "nothing drives axi_dma/m_axi_s2mm_aclk"),
    ("reset left out", "vivado/block_design.tcl", " axi_dma/axi_resetn", "", "nothing drives axi_dma/axi_resetn"),
    ("interrupt left out", "vivado/block_design.tcl", "wire trainer/irq interrupts/In2", "", "nothing drives interrupts/In2"),
    ("stream left out", "vivado/block_design.tcl", "link trainer/m_axis axi_dma/S_AXIS_S2MM", "", "axi_dma/S_AXIS_S2MM is not joined"),
    ("ports not external", "vivado/processor.tcl", '"FIXED_IO, DDR"', '"DDR"', "ps/FIXED_IO is not joined"),
    ("scatter-gather on", "vivado/block_design.tcl", "c_include_sg 0", "c_include_sg 1", "nothing drives axi_dma/m_axi_sg_aclk"),
    ("too many ports", "vivado/block_design.tcl", "CONFIG.NUM_SI 2", "CONFIG.NUM_SI 3", "memory/S02_AXI is not joined"),
    ("two masters", "vivado/block_design.tcl", "link axi_dma/M_AXIS_MM2S trainer/s_axis", "link axi_dma/M_AXIS_MM2S trainer/m_axis", "are both masters"),
    ("stream at a bus", "vivado/block_design.tcl", "link axi_dma/M_AXIS_MM2S trainer/s_axis", "link axi_dma/M_AXIS_MM2S trainer/s_axi_ctrl", "axi_dma/M_AXIS_MM2S is axis, but"),
    ("joined twice", "vivado/block_design.tcl", "memory/S01_AXI", "memory/S00_AXI", "memory/S00_AXI is joined to something else already"),
    ("two drivers", "vivado/block_design.tcl", "wire trainer/irq interrupts/In2", "wire trainer/irq interrupts/In1", "drive the same net"),
    ("other width", "vivado/settings.tcl", "set stream_bits {32}", "set stream_bits {64}", "axi_dma/M_AXIS_MM2S has 64 bits, but trainer/s_axis has 32"),
    ("addresses overlap", "vivado/settings.tcl", "{0x43C00000}", "{0x40401000}", "overlap in /ps/Data"),
    ("address outside", "vivado/settings.tcl", "{0x43C00000}", "{0x83C00000}", "/trainer/s_axi_ctrl/reg0 at 0x83c00000 is outside of M_AXI_GP0"),
    ("address not aligned", "vivado/settings.tcl", "{0x40400000}", "{0x40401000}", "is not aligned"),
    ("direction", "ip/ip_settings.tcl", "m_axis master", "m_axis slave", "has the wrong direction"),
    ("port in no bus", "ip/package_ip.tcl", "{TDATA TKEEP TLAST TVALID TREADY}", "{TDATA TLAST TVALID TREADY}", "no bus has the ports m_axis_tkeep, s_axis_tkeep"),
    ("registers' size", "ip/ip_settings.tcl", "{4096}", "{65536}", "has 65536 bytes, but 12 address bits"),
    ("not validated", "vivado/block_design.tcl", "validate_bd_design", "", "not validated and saved"),
]  # fmt: skip


@pytest.mark.parametrize(
    "file, right, wrong, said",
    [row[1:] for row in WRONG_DESIGN],
    ids=[row[0] for row in WRONG_DESIGN],
)
def test_wrong_design(file, right, wrong, said, make_project):
    folder = make_project("pynq_z2")
    change(folder / file, right, wrong)
    with pytest.raises(ModelError, match=re.escape(said)):
        built(folder)


def test_a_preset_with_another_port_would_be_caught(make_project):
    folder = make_project("zcu102")
    change(folder / "vivado" / "processor.tcl", "    CONFIG.PSU__USE__M_AXI_GP2 0 \\\n", "")
    with pytest.raises(ModelError, match="nothing drives ps/maxihpm0_lpd_aclk"):
        built(folder, boards=installed("zcu102"))


def change(file, right, wrong):
    text = file.read_text(encoding="utf-8")
    assert right in text, f"{file.name} has no {right}"
    file.write_text(text.replace(right, wrong), encoding="utf-8")


# -- the unified core, which reads and writes memory by itself --------------------------------------------


@pytest.mark.parametrize("board", WITH_PS)
def test_a_core_with_a_master_builds_on(board, make_project):
    model = built(make_project(board, vivado.MemoryIp), boards=installed(board))
    assert model.validated
    assert not any("axi_dma" in cell for cell in model.cells)
    kind = st.load_board(board).ps.type
    port = {"PS7": "ps/S_AXI_HP0", "PS8": "ps/S_AXI_HP0_FPD"}[kind]
    assert {("trainer/m_axi", "memory/S00_AXI"), ("memory/M00_AXI", port)} <= set(model.links)
    assert {"trainer/irq", {"PS7": "ps/IRQ_F2P", "PS8": "ps/pl_ps_irq0"}[kind]} in model.nets
    core = ADDRESSES[kind]["core"]
    assert model.assigned["/ps/Data", "/trainer/s_axi_ctrl/reg0"] == (core, 4096)
    (memory,) = (segment for space, segment in model.assigned if space == "/trainer/m_axi")
    assert "HP0_DDR_LOW" in memory and model.assigned["/trainer/m_axi", memory] == (0, 0)


@pytest.mark.parametrize("bits", [32, 64, 128, 256, 512])
def test_masters_of_every_width(bits, make_project):
    model = built(make_project("zcu102", vivado.MemoryIp, data_bits=bits))
    assert "streamtrain.org:ip:streamtrain_unified:1.0" in model.catalogue


@pytest.mark.parametrize("board", ["pynq_z2", "nexys_video"])
def test_a_core_with_a_master_routes_out_of_context(board, make_project):
    folder = make_project(board, vivado.MemoryIp)
    model = Vivado()
    model.run(folder / "vivado" / "out_of_context.tcl")
    assert model.steps[-1] == "route_design"


def test_readme_says_where_the_core_is(make_project):
    text = (make_project("zcu102", vivado.MemoryIp) / "vivado" / "README.md").read_text()
    assert "| registers of `streamtrain_unified` | 0xA0010000 |" in text
    assert "| interrupts of the core | 121 at the GIC |" in text
    assert "DMA" not in text


WRONG_MEMORY_DESIGN = [
    ("no space", "ip/package_ip.tcl", "set_property master_address_space_ref $name $master", "", "there is no address space trainer/m_axi"),
    ("misspelt space", "ip/package_ip.tcl", "ipx::add_address_space", "ipx::add_space", 'invalid command name "ipx::add_space"'),
    ("width", "ip/ip_settings.tcl", "{m_axi 64}", "{m_axi 128}", "m_axi has 64 bits, 32 of an address, not ('128', '128', '4G')"),
    ("range", "ip/package_ip.tcl", "range 4G", "range 2G", "m_axi has 64 bits, 32 of an address, not ('64', '64', '2G')"),
    ("port in no bus", "ip/package_ip.tcl", "ARCACHE ", "", "no bus has the ports m_axi_arcache"),
    ("not a signal", "ip/package_ip.tcl", "ARCACHE ", "ARCACHE ARQOS ", "ARQOS = m_axi_arqos, but the core has no such port"),
    ("clock left out", "vivado/block_design.tcl", "memory/aclk trainer/aclk", "trainer/aclk", "nothing drives memory/aclk"),
    ("memory left out", "vivado/block_design.tcl", "link memory/M00_AXI $ps_slave", "", "/trainer/m_axi does not see /ps/S_AXI_HP0/HP0_DDR_LOWOCM"),
    ("interrupt left out", "vivado/block_design.tcl", "wire trainer/irq $ps_irq", "", "nothing drives ps/IRQ_F2P"),
    ("no address", "vivado/block_design.tcl", "give_memory trainer/m_axi", "", "has no address in /trainer/m_axi"),
]  # fmt: skip


@pytest.mark.parametrize(
    "file, right, wrong, said",
    [row[1:] for row in WRONG_MEMORY_DESIGN],
    ids=[row[0] for row in WRONG_MEMORY_DESIGN],
)
def test_wrong_memory_design(file, right, wrong, said, make_project):
    folder = make_project("pynq_z2", vivado.MemoryIp)
    change(folder / file, right, wrong)
    with pytest.raises(ModelError, match=re.escape(said)):
        built(folder)


def test_the_real_unified_core_is_packaged_and_wired_up(tmp_path):
    net = st.Network((1, 4, 4), [st.Flatten(), st.Linear(2)])
    plan = st.plan(net, core="unified", lanes=4, numbers="fixed<16,6>", data_bits=128).plan
    info = vivado.MemoryIp(data_bits=128)
    verilog = verilog_of(plan.hardware(), info.name)
    vivado.write_project(tmp_path, verilog, info, st.load_board("pynq_z2"))
    assert built(tmp_path).validated
    stub = tmp_path / "stub.v"
    stub.write_text(memory_stub(data_bits=128))
    ports = module_ports(tmp_path / "ip" / f"{info.name}.v", info.name)
    assert ports == module_ports(stub, info.name)


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "board, said",
    [
        ("ulx3s_85f", r"^Vivado is for AMD's parts, but ulx3s_85f has a part of ecp5"),
        ("xc7z020", r"^Vivado needs a part with its package, but xc7z020-1 has none"),
    ],
)
def test_refuses(board, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        vivado.write_project(tmp_path, "", vivado.Ip(), st.load_board(board))
    assert not list(tmp_path.iterdir())


def test_a_board_without_a_processor_has_no_block_design(tmp_path, make_project):
    folder = make_project("nexys_video")
    assert not (folder / "vivado" / "build.tcl").exists()
    assert (folder / "vivado" / "out_of_context.tcl").exists()
    with pytest.raises(ValueError, match=r"^nexys_video has no processor system"):
        vivado.block_design(tmp_path, vivado.Ip(), st.load_board("nexys_video"))


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"name": "a-b"}, r"^name must be a Verilog name, not 'a-b'$"),
        ({"version": "1"}, r"^version must be MAJOR.MINOR, not '1'$"),
        ({"bytes": 3}, r"^bytes must be a power of two up to 128, not 3$"),
        ({"clock_mhz": 0}, r"^clock_mhz must be positive, not 0$"),
    ],
)
def test_ip_refuses(fields, said):
    with pytest.raises(ValueError, match=said):
        vivado.Ip(**fields)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"name": "a-b"}, r"^name must be a Verilog name, not 'a-b'$"),
        ({"data_bits": 48}, r"^data_bits must be 32, 64, 128, 256 or 512, not 48$"),
        ({"clock_mhz": 0}, r"^clock_mhz must be positive, not 0$"),
    ],
)
def test_memory_ip_refuses(fields, said):
    with pytest.raises(ValueError, match=said):
        vivado.MemoryIp(**fields)


@pytest.mark.parametrize(
    "info", [vivado.Ip(version="3.1", bytes=8), vivado.MemoryIp(version="3.1", data_bits=128)]
)
def test_ip_travels_as_json(info):
    assert type(info).from_json(info.to_json()) == info


def test_returns_what_it_wrote(tmp_path):
    written = vivado.write_project(tmp_path, stub(), vivado.Ip(), st.load_board("pynq_z2"))
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


# -- boards that amaranth-boards describes, too ----------------------------------------------------------


@pytest.mark.parametrize(
    "board, platform",
    [
        ("arty_z7_20", amaranth_boards.arty_z7.ArtyZ720Platform),
        ("genesys2", amaranth_boards.genesys2.Genesys2Platform),
    ],
)
def test_part_is_that_of_amaranth_boards(board, platform):
    expected = f"{platform.device}{platform.package}-{platform.speed}"
    assert st.load_board(board).part == expected.lower()


def test_ulx3s_is_that_of_amaranth_boards():
    platform = amaranth_boards.ulx3s.ULX3S_85F_Platform
    expected = f"{platform.device}-{platform.speed}{platform.package}C"
    assert st.load_board("ulx3s_85f").part == expected


def test_the_real_core_is_packaged_and_wired_up(tmp_path):
    """Its ports are those that the packaging declares, in width and direction."""
    net = st.Network((1, 4, 4), [st.Flatten(), st.Linear(2)])
    fmt = PacketFormat(st.plan(net, multipliers=1).plan, size=8)
    info = vivado.Ip(bytes=fmt.size)
    vivado.write_project(tmp_path, generate_ip(fmt, info.name), info, st.load_board("pynq_z2"))
    assert built(tmp_path).validated
    ports = module_ports(tmp_path / "ip" / "streamtrain.v", "streamtrain")
    assert ports == module_ports(stub_file(tmp_path, bytes=8), "streamtrain")


def stub_file(folder, **fields):
    path = folder / "stub.v"
    path.write_text(stub(**fields))
    return path
