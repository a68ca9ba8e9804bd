"""Which operation of which command the array computes in each cycle, and where its operands are."""

from dataclasses import dataclass

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.unified.command import STEP, Loop, command_layout

__all__ = ["BUFFERS", "Fold", "Sequencer", "operation_layout"]

BUFFERS = ("x", "e", "biases", "sums", "gradients")
"""Double buffers that an operation reads or writes."""


@dataclass(frozen=True)
class Fold:
    """A first layer that puts several taps of its kernel side by side into the lanes.

    Parameters
    ----------
    group : :class:`int`
        Lanes of a tap.
    kernel, columns : :class:`int`
        Of the layer's kernel, and of its input map.
    """

    group: int
    kernel: int
    columns: int


def operation_layout(groups):
    """An operation: one vector of inputs, with what the array does with it.

    ``fresh`` begins a sum or a gradient anew. ``x`` and ``inside`` are for each group of lanes: the address of its
    inputs, and whether they are in the map. ``half`` and ``done`` are for each of :data:`BUFFERS`.
    """
    return data.StructLayout({
        "valid": 1, "update": 1, "paired": 1, "fresh": 1, "biased": 1, "weights": 1, "counts_bias": 1,
        "x": data.ArrayLayout(STEP, groups), "inside": groups,
        "o": STEP, "block": STEP, "bias": STEP,
        "half": data.StructLayout(dict.fromkeys(BUFFERS, 1)),
        "done": data.StructLayout(dict.fromkeys(BUFFERS, 1)),
    })  # fmt: skip


class Sequencer(wiring.Component):
    """Go through the operations of commands, as fast as buffers and the array's adders allow.

    Parameters
    ----------
    groups : :class:`int`
        Of lanes that read inputs at addresses of their own.
    fold : :class:`Fold` or None
    spacing : :class:`int`
        Cycles between two operations on the same sum or gradient.
    runout : :class:`int`
        Cycles between the last operation of FP or BP and the first one of WU.

    Members
    -------
    command : :py:`In(stream.Signature(command_layout()))`
    full : :py:`In(data.StructLayout({name: 2 for name in BUFFERS}))`
        Halves that are full. Those of ``sums`` and ``gradients`` count from their last word's writing.
    filled : :py:`In(data.StructLayout({name: 2 ...}))`
        Pulses: halves of sums and gradients whose last word is being written.
    weights_ready : :py:`In(1)`
        The next pass's weights are in the array.
    operation : :py:`Out(operation_layout(groups))`

    Timing
    ------
    An operation in each cycle. A round of the inner loop takes at least ``spacing`` cycles.
    """

    def __init__(self, groups, fold, *, spacing, runout):
        self.groups = groups
        self.fold = fold
        self.spacing = spacing
        self.runout = runout
        halves = data.StructLayout(dict.fromkeys(BUFFERS, 2))
        super().__init__({
            "command": In(stream.Signature(command_layout())),
            "full": In(halves),
            "filled": In(halves),
            "weights_ready": In(1),
            "operation": Out(operation_layout(groups)),
        })

    def elaborate(self, platform):
        m = Module()
        current, active, start = Signal(command_layout()), Signal(), Signal()
        issue, through = Signal(), Signal()
        m.submodules.passes = passes = Loop(
            ("taps_col", "taps_row", "tiles"),
            {
                "tap": ("tap", (1, "tap_row", "tap_tile")),
                "row": ("row", (0, 1, None)),
                "col": ("col", (1, None, None)),
                "block": ("block", ("block_col", "block_row", "block_tile")),
            },
        )
        m.submodules.pixels = pixels = Loop(
            ("cols", "rows", "images"),
            {
                "x": ("x", ("step", "x_row", "x_image")),
                "row": (0, (0, "step", None)),
                "col": (0, ("step", None, None)),
                "o": ("o", ("o_col", "o_row", "o_image")),
            },
        )
        m.d.comb += [
            self.command.ready.eq(~active | through),
            start.eq(self.command.valid & self.command.ready),
            passes.advance.eq(issue & (current.update | pixels.last)),
            pixels.advance.eq(issue & (~current.update | passes.last)),
            through.eq(issue & passes.last & pixels.last),
        ]
        for loop in (passes, pixels):
            m.d.comb += [
                loop.command.eq(self.command.payload),
                loop.current.eq(current),
                loop.start.eq(start),
            ]
        with m.If(through):
            m.d.sync += active.eq(0)
        with m.If(start):
            m.d.sync += [active.eq(1), current.eq(self.command.payload)]

        may, half, done = self._halves(m, current, through)
        spaced = self._spaced(m, current, issue, passes, pixels)
        m.d.comb += issue.eq(active & may & spaced)

        operation = self.operation
        fresh = Mux(current.update, pixels.first, passes.first)
        m.d.sync += [
            operation.valid.eq(issue),
            operation.update.eq(current.update),
            operation.fresh.eq(current.first & fresh),
            operation.biased.eq(current.biased),
            operation.weights.eq(issue & ~current.update & pixels.first),
            operation.paired.eq(current.paired),
            operation.counts_bias.eq(
                issue & current.update & current.biased & (passes.first | current.paired)
            ),
            operation.o.eq(pixels.o + Mux(current.paired, passes.col, 0)),
            operation.block.eq(passes.block),
            operation.bias.eq(Mux(current.paired, passes.block, current.bias)),
            *(operation.half[name].eq(half[name]) for name in BUFFERS),
            *(operation.done[name].eq(done[name]) for name in BUFFERS),
        ]
        folded = self._folded_taps(m, current, passes, start) if self.fold else None
        for group in range(self.groups):
            tap, row, col, exists = passes.tap, passes.row, passes.col, 1
            if folded:
                own = folded[group]
                tap = Mux(current.folded, current.tap + own.tap, tap)
                row = Mux(current.folded, current.row + own.row, row)
                col = Mux(current.folded, current.col + own.col, col)
                exists = ~current.folded | (own.row < self.fold.kernel)
            y, q = pixels.row + row, pixels.col + col
            inside = (y >= 0) & (y < current.map_rows) & (q >= 0) & (q < current.map_cols)
            m.d.sync += [
                operation.x[group].eq(pixels.x + tap),
                operation.inside[group].eq(exists & inside),
            ]
        return m

    def _halves(self, m, current, through):
        """Whether all halves are as a command needs them; which they are; with which it is done."""
        half = {name: Signal(name=f"{name}_half") for name in BUFFERS}
        done = {
            "x": current.done_x,
            "e": current.update & current.done_e,
            "biases": ~current.update & current.done_weights,
            "sums": ~current.update & current.done,
            "gradients": current.update & current.done,
        }
        done = {name: through & condition for name, condition in done.items()}
        taken = {}
        for name in BUFFERS:
            with m.If(done[name]):
                m.d.sync += half[name].eq(~half[name])
            full = self.full[name]
            if name in ("sums", "gradients"):  # full as soon as the last operation is issued
                coming = Signal(2, name=f"{name}_coming")
                m.d.sync += coming.eq((coming | done[name] << half[name]) & ~self.filled[name])
                full |= coming
            taken[name] = full.bit_select(half[name], 1)
        may = taken["x"] & Mux(
            current.update,
            taken["e"] & ~taken["gradients"],
            taken["biases"] & ~taken["sums"],
        )
        return may, half, done

    def _spaced(self, m, current, issue, passes, pixels):
        """Whether the adders, and in a new pass the weights, are ready for the next operation."""
        round_first = Mux(current.update, passes.first, pixels.first)
        since_round = Signal(range(self.spacing + 1), init=self.spacing)
        since_sum = Signal(range(self.runout + 1), init=self.runout)
        with m.If(issue & round_first):
            m.d.sync += since_round.eq(1)
        with m.Elif(since_round != self.spacing):
            m.d.sync += since_round.eq(since_round + 1)
        with m.If(issue & ~current.update):
            m.d.sync += since_sum.eq(0)
        with m.Elif(since_sum != self.runout):
            m.d.sync += since_sum.eq(since_sum + 1)
        ready = Signal()  # what is ready is taken by the operation that is registered now
        m.d.comb += ready.eq(self.weights_ready & ~self.operation.weights)
        return (~round_first | (since_round == self.spacing)) & Mux(
            current.update, since_sum == self.runout, ~pixels.first | ready
        )

    def _folded_taps(self, m, current, passes, start):
        """For each group of lanes, its tap in this pass: offset of its address, row and column."""
        kernel, columns = self.fold.kernel, self.fold.columns
        found = []
        for group in range(self.groups):
            layout = data.StructLayout({"tap": STEP, "row": STEP, "col": STEP})

            def at(tap):
                row, col = divmod(tap, kernel)
                return {"tap": row * columns + col, "row": row, "col": col}

            own = Signal(layout, name=f"group{group}")
            rows, cols = divmod(self.groups, kernel)
            wraps = own.col + cols >= kernel
            step = rows * columns + cols
            with m.If(start | passes.advance & passes.last):
                m.d.sync += [own[name].eq(value) for name, value in at(group).items()]
            with m.Elif(passes.advance):
                m.d.sync += [
                    own.col.eq(own.col + cols - Mux(wraps, kernel, 0)),
                    own.row.eq(own.row + rows + wraps),
                    own.tap.eq(own.tap + step + Mux(wraps, columns - kernel, 0)),
                ]
            found.append(own)
        return found
