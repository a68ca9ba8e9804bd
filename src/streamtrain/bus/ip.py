"""The trainer as an IP: AXI4-Stream in and out, registers behind AXI4-Lite, an interrupt."""

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.axi import flat, join_flat
from streamtrain.bus.trainer import BusTrainer

__all__ = ["TrainerIP"]

_NAMES = {"samples": "s_axis", "results": "m_axis", "bus": "s_axi_ctrl"}
"""What the ports of a :class:`~streamtrain.bus.trainer.BusTrainer` are called by those who wire it up."""


class TrainerIP(wiring.Component):
    """A :class:`~streamtrain.bus.trainer.BusTrainer` that a hardware project can take in as it is.

    Names and behaviour are those that Vivado's IP packager and others infer: AXI4-Stream with TKEEP and
    TLAST, AXI4-Lite, an interrupt that stays until its event is cleared.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`

    Members
    -------
    aclk, aresetn : :py:`In(1)`
        Clock, and reset, which is active low and synchronous.
    s_axis_*, m_axis_*, s_axi_ctrl_* : as AXI has them
        ``samples``, ``results`` and ``bus`` of the trainer.
    irq : :py:`Out(1)`
        An event is set whose interrupt is enabled.

    Timing
    ------
    As :class:`~streamtrain.bus.trainer.BusTrainer`.
    """

    def __init__(self, fmt):
        self.fmt = fmt
        self._trainer = trainer = BusTrainer(fmt)
        self.table = trainer.table
        members = {"aclk": In(1), "aresetn": In(1), "irq": Out(1)}
        for port, prefix in _NAMES.items():
            members |= flat(prefix, trainer.signature.members[port].signature)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain("sync", local=True)
        m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
        m.submodules.trainer = trainer = self._trainer
        m.d.comb += self.irq.eq(trainer.irq)
        for port, prefix in _NAMES.items():
            join_flat(m, self, prefix, getattr(trainer, port))
        return m
