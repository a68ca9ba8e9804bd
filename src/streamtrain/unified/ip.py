"""The core as an IP: AXI4-Lite in front, AXI4 memory behind, an interrupt when a program is through."""

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus import Field, Register, RegisterMap
from streamtrain.bus.axi import AxiLite, AxiRead, AxiWrite, flat, join_flat
from streamtrain.bus.register_file import RegisterFile

__all__ = ["UnifiedIP", "unified_registers"]


def unified_registers():
    """The registers of a unified core."""
    return RegisterMap(
        "streamtrain_unified",
        "Runs programs that train a network, one mini-batch at a time.",
        (
            Register("CONTROL", 0x00, "What to do.", (
                Field("start", 0, 1, "Run the program at PROGRAM.", "pulse"),
            )),
            Register("STATUS", 0x04, "What is going on.", (
                Field("busy", 0, 1, "A program runs.", "ro"),
            )),
            Register("PROGRAM", 0x08, "Where the program is.", (
                Field("address", 0, 32, "In bytes."),
            )),
            Register("RATE", 0x0C, "What gradients are multiplied with.", (
                Field("code", 0, 32, "Minus the learning rate over the mini-batch, as a code."),
            )),
            Register("CYCLES", 0x10, "How long the program has run, or ran.", (
                Field("count", 0, 32, "Clock cycles.", "ro"),
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
        self.table = unified_registers()
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
            self.irq.eq(~core.busy),
        ]
        cycles = Signal(32)
        m.d.comb += registers.cycles_count.eq(cycles)
        with m.If(core.start):
            m.d.sync += cycles.eq(0)
        with m.Elif(core.busy):
            m.d.sync += cycles.eq(cycles + 1)
        return m
