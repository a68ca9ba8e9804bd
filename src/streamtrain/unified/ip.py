"""The core as an IP: AXI4-Lite in front, AXI4 memory behind, an interrupt when a program is through."""

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus import Field, Register, RegisterMap, Value
from streamtrain.bus.axi import AxiLite, AxiRead, AxiWrite, flat, join_flat
from streamtrain.bus.register_file import RegisterFile
from streamtrain.unified.core import CoreFault
from streamtrain.unified.program import begin_fields

__all__ = ["IDENTITY", "UnifiedIP", "unified_registers"]


IDENTITY = int.from_bytes(b"STUK", "little")
"""What the register ID reads."""

_FAULTS = {
    CoreFault.NONE: "The last program is through, or runs.",
    CoreFault.UNALIGNED: "An address is no beat's.",
    CoreFault.EMPTY: "A record asks for nothing.",
    CoreFault.BEYOND: "A record asks for memory beyond the last address.",
    CoreFault.SLVERR: "The memory answered SLVERR.",
    CoreFault.DECERR: "There is no memory at the address.",
    CoreFault.PROGRAM: "It is no program for this core.",
}


def unified_registers(configuration=""):
    """The registers of a unified core with this configuration."""
    core = begin_fields(configuration)["core"]
    kinds = tuple(Value(kind.name, kind.value, doc) for kind, doc in _FAULTS.items())
    return RegisterMap(
        "streamtrain_unified",
        "Runs programs that train a network, one mini-batch at a time",
        (
            Register("CONTROL", 0x00, "What to do.", (
                Field("start", 0, 1, "Run the program at PROGRAM.", "pulse"),
            )),
            Register("STATUS", 0x04, "What is going on.", (
                Field("busy", 0, 1, "A program runs, or is being stopped.", "ro"),
                Field("fault", 1, 3, "What stopped the last program.", "ro", values=kinds),
                Field("write", 4, 1, "It was a write.", "ro"),
            )),
            Register("PROGRAM", 0x08, "Where the program is.", (
                Field("address", 0, 32, "In bytes, a multiple of those of a word of DRAM. `st.connect` makes programs."),
            )),
            Register("RATE", 0x0C, "What gradients are multiplied with.", (
                Field("code", 0, 32, "Minus the learning rate over the mini-batch, as the core's numbers have it."),
            )),
            Register("CYCLES", 0x10, "How long the program has run, or ran.", (
                Field("count", 0, 32, "Clock cycles.", "ro"),
            )),
            Register("FAULT_ADDRESS", 0x14, "Where a program was stopped.", (
                Field("address", 0, 32, "Of the burst; of what is no program, its own.", "ro"),
            )),
            Register("FAULT_LOADS", 0x18, "How far reads had come.", (
                Field("count", 0, 32, "Loads whose words were all there.", "ro"),
            )),
            Register("FAULT_WRITES", 0x1C, "How far writes had come.", (
                Field("count", 0, 32, "Writes that were done.", "ro"),
            )),
            Register("ID", 0x20, "What this is.", (
                Field("identity", 0, 32, "A unified core.", "ro", IDENTITY, constant=True),
            )),
            Register("CORE", 0x24, "Which core this is.", (
                Field("low", 0, 32, "Hash of its configuration, as programs have it.", "ro",
                      core & 0xFFFFFFFF, constant=True),
            )),
            Register("CORE_HIGH", 0x28, "Which core this is.", (
                Field("high", 0, 32, "The upper half.", "ro", core >> 32, constant=True),
            )),
        ),
    )  # fmt: skip


class UnifiedIP(wiring.Component):
    """A :class:`~streamtrain.unified.core.UnifiedCore` with the ports of an IP.

    Parameters
    ----------
    core : :class:`~streamtrain.unified.core.UnifiedCore`

    Members
    -------
    aclk, aresetn : :py:`In(1)`
    s_axi_ctrl_* : AXI4-Lite
        The registers of :func:`unified_registers`.
    m_axi_* : AXI4
        The memory.
    irq : :py:`Out(1)`
        No program runs.

    Timing
    ------
    That of the core.
    """

    def __init__(self, core):
        self.core = core
        if core.address_bits != 32:
            raise ValueError(f"Registers hold addresses of 32 bits, not {core.address_bits}")
        self.table = unified_registers(core.configuration)
        self.data_bits = core.data_bits
        super().__init__({
            "aclk": In(1),
            "aresetn": In(1),
            "irq": Out(1),
            **flat("s_axi_ctrl", AxiLite(self.table.address_bits).flip()),
            **flat("m_axi", AxiRead(core.data_bits, core.address_bits)),
            **flat("m_axi", AxiWrite(core.data_bits, core.address_bits)),
        })

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain("sync", local=True)
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        m.submodules.registers = registers = RegisterFile(self.table)
        m.submodules.core = core = self.core
        join_flat(m, self, "s_axi_ctrl", registers.bus)
        join_flat(m, self, "m_axi", core.read)
        join_flat(m, self, "m_axi", core.write)
        m.d.comb += [
            core.start.eq(registers.control_start),
            core.address.eq(registers.program_address),
            core.rate.eq(registers.rate_code),
            registers.status_busy.eq(core.busy),
            registers.status_fault.eq(core.fault.kind),
            registers.status_write.eq(core.fault.write),
            registers.fault_address_address.eq(core.fault.address),
            registers.fault_loads_count.eq(core.fault.loads),
            registers.fault_writes_count.eq(core.fault.writes),
            self.irq.eq(~core.busy),
        ]
        cycles = Signal(32)
        m.d.comb += registers.cycles_count.eq(cycles)
        with m.If(core.start & ~core.busy):
            m.d.sync += cycles.eq(0)
        with m.Elif(core.busy):
            m.d.sync += cycles.eq(cycles + 1)
        return m
