"""What brings the weights of the next pass into the array, while it computes with those of this one."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.gates import delayed
from streamtrain.unified.buffers import READ_LATENCY
from streamtrain.unified.command import Loop, command_layout

__all__ = ["WeightsWalker"]


class WeightsWalker(wiring.Component):
    """Goes through the blocks of weights of each command, a pass ahead of the array.

    Parameters
    ----------
    lanes : :class:`int`
        Rows of a block.
    depth : :class:`int`
        Rows of half a weights buffer.

    Members
    -------
    command : :py:`In(stream.Signature(command_layout()))`
        Those with weights: of FP and BP.
    full : :py:`In(2)`
        Halves of the weights buffer that hold weights.
    emptied : :py:`Out(2)`
        Pulses: the engine is through with a half.
    half, address : :py:`Out(...)`
        The row that is read; it comes :data:`~streamtrain.unified.buffers.READ_LATENCY` cycles later.
    number, transposed, write : :py:`Out(...)`
        Where in the array the row that comes now is written.
    ready : :py:`Out(1)`
        The next pass's weights are complete.
    taken : :py:`In(1)`
        The next pass begins: its weights count as taken.
    swap : :py:`In(1)`
        The array has moved them: there is room for others.

    Timing
    ------
    ``lanes + READ_LATENCY + 2`` cycles from ``swap`` to ``ready``.
    """

    def __init__(self, lanes, depth):
        self.lanes = lanes
        self.depth = depth
        super().__init__({
            "command": In(stream.Signature(command_layout())),
            "full": In(2),
            "emptied": Out(2),
            "half": Out(1),
            "address": Out(range(depth)),
            "number": Out(range(lanes)),
            "transposed": Out(1),
            "write": Out(1),
            "ready": Out(1),
            "taken": In(1),
            "swap": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        current, active = Signal(command_layout()), Signal()
        m.submodules.loop = loop = Loop(
            ("taps_col", "taps_row", "tiles"),
            {"block": ("block", ("block_col", "block_row", "block_tile"))},
        )
        row, room = Signal(range(self.lanes)), Signal(init=1)
        reading, last_row, through = Signal(), Signal(), Signal()
        m.d.comb += [
            loop.command.eq(self.command.payload),
            loop.current.eq(current),
            reading.eq(active & room & self.full.bit_select(self.half, 1)),
            last_row.eq(row == self.lanes - 1),
            through.eq(reading & last_row & loop.last),
            loop.advance.eq(reading & last_row),
            self.command.ready.eq(~active | through),
            loop.start.eq(self.command.valid & self.command.ready),
            self.address.eq(loop.block + row),
            self.emptied.eq((through & current.done_weights) << self.half),
        ]
        with m.If(through):
            m.d.sync += active.eq(0)
        with m.If(loop.start):
            m.d.sync += [active.eq(1), current.eq(self.command.payload)]
        with m.If(self.swap):
            m.d.sync += room.eq(1)
        with m.If(reading):
            m.d.sync += row.eq(row + 1)
            with m.If(last_row):
                m.d.sync += [row.eq(0), room.eq(0)]
        with m.If(through & current.done_weights):
            m.d.sync += self.half.eq(~self.half)

        # What belongs to a row comes with it.
        arriving = {"row": range(self.lanes), "transposed": 1, "write": 1, "last": 1}
        mark = Signal(data.StructLayout(arriving))
        m.d.comb += [
            mark.row.eq(row),
            mark.transposed.eq(current.transposed),
            mark.write.eq(reading),
            mark.last.eq(reading & last_row),
        ]
        arrived = data.View(mark.shape(), delayed(m, mark.as_value(), READ_LATENCY, "mark")[-1])
        m.d.comb += [
            self.number.eq(arrived.row),
            self.transposed.eq(arrived.transposed),
            self.write.eq(arrived.write),
        ]
        with m.If(self.taken):
            m.d.sync += self.ready.eq(0)
        with m.If(arrived.last):
            m.d.sync += self.ready.eq(1)
        return m
