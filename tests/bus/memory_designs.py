"""Designs with memory behind them, for tests: one that copies, and one whose master is driven by hand."""

from amaranth import Cat, ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus import Field, Register, RegisterMap
from streamtrain.bus.axi import AxiLite, AxiRead, AxiWrite, flat, join_flat
from streamtrain.bus.bursts import request_layout
from streamtrain.bus.memory import MemoryReader, MemoryWriter
from streamtrain.bus.register_file import RegisterFile
from streamtrain.pipeline.generate import verilog_of
from streamtrain.simulate.memory import SimulatedMemory, compile_memory_design
from streamtrain.stream import Queue

__all__ = ["COPY", "DRIVEN", "CopyEngine", "Copying", "DrivenMaster", "simulated"]


def _word(name, address, access="rw"):
    return Register(name, address, "", (Field("it", 0, 32, "", access),))


COPY = RegisterMap(
    "copy",
    "",
    (
        _word("SOURCE", 0x00),
        _word("SOURCE_HIGH", 0x04),
        _word("DESTINATION", 0x08),
        _word("DESTINATION_HIGH", 0x0C),
        _word("BEATS", 0x10),
        Register(
            "PUSH", 0x14, "", (Field("read", 0, 1, "", "pulse"), Field("write", 1, 1, "", "pulse"))
        ),
        Register("CONTROL", 0x18, "", (Field("run", 0, 1, ""), Field("abort", 1, 1, ""))),
        Register("PAUSE", 0x1C, "", (Field("cycles", 0, 8, ""),)),
        Register(
            "STATUS",
            0x20,
            "",
            (Field("reading", 0, 1, "", "ro"), Field("writing", 1, 1, "", "ro")),
        ),
        _word("DONE", 0x24, "ro"),
        _word("CYCLES", 0x28, "ro"),
        Register(
            "ERROR", 0x2C, "", (Field("read", 0, 3, "", "ro"), Field("write", 8, 3, "", "ro"))
        ),
        _word("READ_ERROR", 0x30, "ro"),
        _word("READ_ERROR_HIGH", 0x34, "ro"),
        _word("WRITE_ERROR", 0x38, "ro"),
        _word("WRITE_ERROR_HIGH", 0x3C, "ro"),
    ),
)


class _MemoryDesign(wiring.Component):
    """Ports that a design with memory has."""

    def __init__(self, data_bits, address_bits, table):
        self.data_bits, self.address_bits, self.table = data_bits, address_bits, table
        super().__init__({
            "aclk": In(1),
            "aresetn": In(1),
            "irq": Out(1),
            **flat("s_axi_ctrl", AxiLite(table.address_bits).flip()),
            **flat("m_axi", AxiRead(data_bits, address_bits)),
            **flat("m_axi", AxiWrite(data_bits, address_bits)),
        })

    def _begin(self):
        m = Module()
        m.domains.sync = ClockDomain("sync", local=True)
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        m.submodules.registers = registers = RegisterFile(self.table)
        join_flat(m, self, "s_axi_ctrl", registers.bus)
        return m, registers


class CopyEngine(_MemoryDesign):
    """Copies, by a program of up to 64 reads and 64 writes, which may be of different lengths.

    The interrupt is high when all writes of the program are done, or something went wrong.
    """

    def __init__(self, data_bits, address_bits=32, **options):
        self.options = options
        super().__init__(data_bits, address_bits, COPY)

    def elaborate(self, platform):
        m, registers = self._begin()
        bits = self.address_bits
        m.submodules.reader = reader = MemoryReader(self.data_bits, bits, **self.options)
        m.submodules.writer = writer = MemoryWriter(self.data_bits, bits, **self.options)
        join_flat(m, self, "m_axi", reader.axi)
        join_flat(m, self, "m_axi", writer.axi)
        pushed = Signal(32)
        for name, master, low, high in (
            ("read", reader, registers.source_it, registers.source_high_it),
            ("write", writer, registers.destination_it, registers.destination_high_it),
        ):
            m.submodules[f"{name}s"] = program = Queue(request_layout(bits), 64)
            m.d.comb += [
                program.i.valid.eq(getattr(registers, f"push_{name}")),
                program.i.payload.address.eq(Cat(low, high)),
                program.i.payload.beats.eq(registers.beats_it),
                master.request.payload.eq(program.o.payload),
                master.request.valid.eq(program.o.valid & registers.control_run),
                program.o.ready.eq(master.request.ready & registers.control_run),
                master.abort.eq(registers.control_abort),
                getattr(registers, f"error_{name}").eq(master.error.kind),
                Cat(
                    getattr(registers, f"{name}_error_it"),
                    getattr(registers, f"{name}_error_high_it"),
                ).eq(master.error.address),
            ]
        m.d.sync += pushed.eq(pushed + registers.push_write)
        with m.If(registers.control_abort):
            m.d.sync += pushed.eq(0)

        paused = Signal(8)
        moving = reader.o.valid & writer.i.ready & (paused == 0)
        m.d.comb += [
            writer.i.payload.eq(reader.o.payload.data),
            writer.i.valid.eq(reader.o.valid & (paused == 0)),
            reader.o.ready.eq(writer.i.ready & (paused == 0)),
        ]
        with m.If(moving):
            m.d.sync += paused.eq(registers.pause_cycles)
        with m.Elif(paused != 0):
            m.d.sync += paused.eq(paused - 1)

        failed = (reader.error.kind.as_value() != 0) | (writer.error.kind.as_value() != 0)
        m.d.comb += [
            self.irq.eq((pushed != 0) & (writer.done == pushed) | failed),
            registers.status_reading.eq(reader.busy),
            registers.status_writing.eq(writer.busy),
            registers.done_it.eq(writer.done),
        ]
        with m.If(registers.control_run & ~self.irq):
            m.d.sync += registers.cycles_it.eq(registers.cycles_it + 1)
        return m


_ADDRESS = (("addr", 32), ("len", 8), ("size", 3), ("burst", 2))
_DRIVEN_FIELDS = {
    **{f"{channel}_{name}": bits for channel in ("ar", "aw") for name, bits in _ADDRESS},
    "w_data": 32,
    "w_last": 1,
    "valid": 3,  # of AR, AW and W
}
DRIVEN = RegisterMap(
    "driven",
    "",
    tuple(
        Register(name.upper(), 4 * number, "", (Field("it", 0, bits, ""),))
        for number, (name, bits) in enumerate(_DRIVEN_FIELDS.items())
    ),
)


class DrivenMaster(_MemoryDesign):
    """A master of 32 bits that does whatever its registers say, wrong or right.

    VALID keeps its value when the design is reset.
    """

    def __init__(self):
        super().__init__(32, 32, DRIVEN)

    def elaborate(self, platform):
        m, registers = self._begin()
        for channel in ("ar", "aw"):
            for name, _ in _ADDRESS:
                port = getattr(self, f"m_axi_{channel}{name}")
                m.d.comb += port.eq(getattr(registers, f"{channel}_{name}_it"))
        valid = Signal(3, reset_less=True)
        m.d.sync += valid.eq(registers.valid_it)
        with m.If(~self.aresetn):
            m.d.sync += valid.eq(valid)
        m.d.comb += [
            self.m_axi_wdata.eq(registers.w_data_it),
            self.m_axi_wstrb.eq(0xF),
            self.m_axi_wlast.eq(registers.w_last_it),
            Cat(self.m_axi_arvalid, self.m_axi_awvalid, self.m_axi_wvalid).eq(valid),
            self.m_axi_rready.eq(1),
            self.m_axi_bready.eq(1),
        ]
        return m


def simulated(design, size=1 << 16, **options):
    """A design with memory behind it, compiled and running."""
    library = compile_memory_design(lambda: verilog_of(design, "streamtrain"), design.data_bits)
    return SimulatedMemory(library, size, **options)


class Copying:
    """A :class:`CopyEngine` in simulation, and what is asked of it."""

    def __init__(self, engine, **options):
        self.engine = engine
        self.model = simulated(engine, **options)
        self.beat_bytes = engine.data_bits // 8

    def read(self, name):
        return self.model.read(COPY[name].address)

    def write(self, name, value):
        self.model.write(COPY[name].address, value)

    def push(self, source, destination, beats):
        """Add a copy to the program; a side that is None is left out."""
        for name, address in (("SOURCE", source), ("DESTINATION", destination)):
            if address is not None:
                self.write(name, address & 0xFFFFFFFF)
                self.write(f"{name}_HIGH", address >> 32)
        self.write("BEATS", beats)
        self.write("PUSH", (source is not None) | (destination is not None) << 1)

    def run(self, cycles):
        """Run the program, which takes at most so many cycles. Returns how many."""
        before = self.read("CYCLES")
        self.write("CONTROL", 1)
        self.model.wait_for_irq(cycles)
        taken = self.read("CYCLES") - before
        self.write("CONTROL", 0)
        return taken

    def error(self, side):
        """Kind and address of what went wrong, of ``"READ"`` or ``"WRITE"``."""
        kind = self.read("ERROR") >> (8 if side == "WRITE" else 0) & 7
        return kind, self.read(f"{side}_ERROR") | self.read(f"{side}_ERROR_HIGH") << 32
