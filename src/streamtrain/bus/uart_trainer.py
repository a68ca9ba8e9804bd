"""A trainer whose only neighbour is a serial line: what boards without a processor hold."""

from operator import index

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.trainer import BusTrainer
from streamtrain.bus.uart import UartBridge

__all__ = ["UartTrainer"]


class UartTrainer(wiring.Component):
    """A :class:`~streamtrain.bus.trainer.BusTrainer` behind a :class:`~streamtrain.bus.uart.UartBridge`.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`
    divisor : :class:`int`
        Clock cycles in a bit, at least 4.

    Members
    -------
    rx, tx : :py:`In(1)`, :py:`Out(1)`
        The line.
    irq : :py:`Out(1)`

    Timing
    ------
    That of the line.
    """

    def __init__(self, fmt, divisor):
        self.fmt, self.divisor = fmt, index(divisor)
        super().__init__({
            "rx": In(1, init=1),
            "tx": Out(1, init=1),
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.trainer = trainer = BusTrainer(self.fmt)
        m.submodules.bridge = bridge = UartBridge(
            self.fmt.size, trainer.table.address_bits, self.divisor
        )
        wiring.connect(m, bridge.samples, trainer.samples)
        wiring.connect(m, trainer.results, bridge.results)
        wiring.connect(m, bridge.bus, trainer.bus)
        m.d.comb += [
            bridge.rx.eq(self.rx),
            self.tx.eq(bridge.tx),
            self.irq.eq(trainer.irq),
        ]
        return m
