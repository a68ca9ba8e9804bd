"""What the compute engine is told about a tile."""

from amaranth import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["STEP", "Loop", "command_layout"]

COUNT = unsigned(16)
STEP = signed(20)
"""Shape of an address, a row or a column, and of what a loop adds to it."""

_FLAGS = (
    "update", "folded", "paired", "first", "biased", "transposed", "done_x", "done_e", "done_weights",
    "done",
)  # fmt: skip
_COUNTS = ("tiles", "taps_row", "taps_col", "images", "rows", "cols", "map_rows", "map_cols")
_STEPS = (
    "step", "x", "x_row", "x_image", "tap", "tap_row", "tap_tile", "row", "col", "block", "block_col",
    "block_row", "block_tile", "o", "o_col", "o_row", "o_image", "bias",
)  # fmt: skip


def command_layout():
    """A tile of a layer in one phase.

    A command is a loop over *passes* and one over *pixels*, in one another. FP and BP take all pixels
    in each pass, so that a sum is met again when it is done; WU takes all passes in each pixel.

    ====================  ==========================================================================
    field                 meaning
    ====================  ==========================================================================
    update                WU
    folded                taps lie side by side; ``taps_col`` counts passes
    paired                in WU, a pass is a pixel: its error comes from ``o`` and the pass's column, is zero where there
                          is no input, and has gradients of biases of its own
    tiles, taps_row,      loops of passes, from the outside: tiles of input channels, rows and columns of
    taps_col              the kernel
    images, rows, cols    loops of pixels
    map_rows, map_cols    the input map; what is outside is zero
    step                  rows and columns of the input map between two pixels
    x, x_row, x_image     address of the vector that the first pixel has there, were it not for the tap; what a
                          new row and a new image add to it
    tap, tap_row,         what the first tap adds to it (the next one in a row adds one more); what a new row of
    tap_tile              taps and a new tile add to that
    row, col              row and column of the first tap at the first pixel, in the input map
    block, block_col,     first row of the first block of weights (in WU, number of the first block of
    block_row, block_tile gradients); what a new column and row of taps and a new tile add to it
    o, o_col, o_row,      address of the first sum or error; what a new column, row and image add to it
    o_image
    bias                  vector of biases, or of their gradients
    first                 sums start with the bias if ``biased``, else with zero; gradients with zero
    biased                in WU, gradients of biases are added up
    transposed            blocks of weights are transposed (BP)
    done_x, done_e,       these halves of the buffers are not needed any more
    done_weights
    done                  this half of sums, or of gradients, is complete
    ====================  ==========================================================================
    """
    return data.StructLayout({
        **dict.fromkeys(_FLAGS, 1), **dict.fromkeys(_COUNTS, COUNT), **dict.fromkeys(_STEPS, STEP),
    })  # fmt: skip


class Loop(wiring.Component):
    """Nested counters, and values that change by a step of their own whenever one of them counts.

    Parameters
    ----------
    counts : sequence of :class:`str`
        Fields of the command, of the inner counter first.
    values : dict of (start, steps) by name
        The field or number that a value starts with, and for each counter the field or number that it adds
        when it counts; None takes the value back to its start.

    Members
    -------
    command : :py:`In(command_layout())`
        What ``start`` starts with; ``current`` from the next cycle on.
    current : :py:`In(command_layout())`
    start, advance : :py:`In(1)`
    first, last : :py:`Out(1)`
        At the beginning; at the end, from which ``advance`` goes back to the beginning.

    Each value is a member, too.

    Timing
    ------
    Values are there in the cycle after ``start`` or ``advance``.
    """

    def __init__(self, counts, values):
        self.counts = tuple(counts)
        self.values = dict(values)
        super().__init__({
            "command": In(command_layout()),
            "current": In(command_layout()),
            "start": In(1),
            "advance": In(1),
            "first": Out(1),
            "last": Out(1),
            **{name: Out(STEP) for name in self.values},
        })

    def elaborate(self, platform):
        m = Module()
        counters = [Signal(COUNT, name=f"{name}_counter") for name in self.counts]
        ends = Signal(len(counters))
        m.d.comb += [
            ends.eq(
                Cat(c == self.current[n] - 1 for c, n in zip(counters, self.counts, strict=True))
            ),
            self.first.eq(~Cat(counters).any()),
            self.last.eq(ends.all()),
        ]

        def of(command, term):
            return command[term] if isinstance(term, str) else term

        with m.If(self.start):
            m.d.sync += [counter.eq(0) for counter in counters]
            for name, (start, _) in self.values.items():
                m.d.sync += getattr(self, name).eq(of(self.command, start))
        with m.Elif(self.advance):
            for level, counter in enumerate(counters):
                with m.If(ends[:level].all() if level else 1):
                    m.d.sync += counter.eq(counter + 1)
                with m.If(ends[: level + 1].all()):
                    m.d.sync += counter.eq(0)
            for name, (start, steps) in self.values.items():
                value = getattr(self, name)
                for level, step in enumerate(steps):  # the outermost one that counts comes last
                    with m.If(ends[:level].all() if level else 1):
                        if step is None:
                            m.d.sync += value.eq(of(self.current, start))
                        else:
                            m.d.sync += value.eq(value + of(self.current, step))
                with m.If(self.last):
                    m.d.sync += value.eq(of(self.current, start))
        return m
