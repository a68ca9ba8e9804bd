"""The engine that takes tiles through the array: what is read, computed and kept in each cycle."""

from operator import index

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from streamtrain.pipeline.gates import delayed
from streamtrain.stream import Queue
from streamtrain.unified.array import MultiplyAccumulateArray
from streamtrain.unified.buffers import READ_LATENCY, DoubleBuffer, ReadPort, WritePort
from streamtrain.unified.command import command_layout
from streamtrain.unified.sequencer import BUFFERS, Sequencer
from streamtrain.unified.weights_walker import WeightsWalker

__all__ = ["ComputeEngine"]

_OPERANDS = READ_LATENCY + 1  # cycles from an operation to its operands at the array

_WRITTEN = ("x", "e", "weights", "biases")  # buffers that others fill
_READ = ("sums", "gradients", "bias_gradients")  # buffers that others empty


class ComputeEngine(wiring.Component):
    """Computes tiles, command after command: operands in double buffers, results in double buffers.

    A command starts when what it reads is there and where it writes is free. So whoever loads, and whoever
    stores, only has to do so in the same order.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.FloatArithmetic` or :class:`~streamtrain.numeric.FixedArithmetic`
    lanes : :class:`int`
    depths : :class:`~streamtrain.unified.buffers.Depths`
    fold : :class:`Fold`, optional
        How a first layer is folded into the lanes.

    Attributes
    ----------
    sizes : dict of (bits, words) by name
        Of each half of the buffers.
    groups : :class:`int`
        Of lanes that read inputs at addresses of their own.
    spacing : :class:`int`
        Cycles between two operations on the same sum or gradient: the least that a round of the inner loop
        takes.
    runout : :class:`int`
        Cycles that the array runs empty between FP or BP and WU.

    Members
    -------
    command : :py:`In(stream.Signature(command_layout()))`
    x_write, e_write, weights_write, biases_write : :py:`In(WritePort(...))`
        Words are vectors of ``lanes`` operands; of biases, of accumulators.
    x_filled, e_filled, weights_filled : :py:`In(2)`
        Pulses: a half is complete. Biases belong to the weights.
    x_full, e_full, weights_full : :py:`Out(2)`
        Halves that are still needed.
    sums_read, gradients_read, bias_gradients_read : :py:`In(ReadPort(...))`
        Words are ``lanes`` accumulators; of gradients, those of a block, row by row.
    sums_full, gradients_full : :py:`Out(2)`
    sums_emptied, gradients_emptied : :py:`In(2)`

    Timing
    ------
    An operation in each cycle. A round of the inner loop takes at least ``spacing`` cycles, and a pass at
    least as long as the weights of the next one take to arrive, ``lanes + 9``. Results are full
    ``sum_latency + add_latency + 5`` cycles after the last operation.
    """

    def __init__(self, arithmetic, lanes, depths, fold=None):
        self.arithmetic = arithmetic
        self.lanes = index(lanes)
        self.depths = depths
        self.fold = fold
        self.groups = self.lanes // fold.group if fold else 1
        self.array = MultiplyAccumulateArray(arithmetic, self.lanes)
        self.spacing = READ_LATENCY + self.array.add_latency + 1
        self.runout = self.array.sum_latency - self.array.product_latency
        self.sizes = depths.sizes(arithmetic, self.lanes)
        super().__init__({
            "command": In(stream.Signature(command_layout())),
            **{f"{name}_write": In(WritePort(*self.sizes[name])) for name in _WRITTEN},
            **{f"{name}_filled": In(2) for name in _WRITTEN[:3]},
            **{f"{name}_full": Out(2) for name in _WRITTEN[:3]},
            **{f"{name}_read": In(ReadPort(*self.sizes[name])) for name in _READ},
            **{f"{name}_full": Out(2) for name in _READ[:2]},
            **{f"{name}_emptied": In(2) for name in _READ[:2]},
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = self.array
        m.submodules.sequencer = sequencer = Sequencer(
            self.groups, self.fold, spacing=self.spacing, runout=self.runout
        )
        m.submodules.walker = walker = WeightsWalker(self.lanes, self.depths.weights)
        m.submodules.queue = queue = Queue(command_layout(), depth=2)
        buffers = self._buffers(m)
        weighted = ~self.command.payload.update
        m.d.comb += [  # the walker begins with a command's weights while another is computed
            queue.i.payload.eq(self.command.payload),
            walker.command.payload.eq(self.command.payload),
            queue.i.valid.eq(self.command.valid & (walker.command.ready | ~weighted)),
            walker.command.valid.eq(self.command.valid & queue.i.ready & weighted),
            self.command.ready.eq(queue.i.ready & (walker.command.ready | ~weighted)),
            *(sequencer.full[name].eq(buffers[name].full) for name in BUFFERS),
            *(sequencer.filled[name].eq(buffers[name].filled) for name in BUFFERS),
            sequencer.weights_ready.eq(walker.ready),
        ]
        connect(m, queue.o, sequencer.command)

        weights = buffers["weights"]
        swap = delayed(m, sequencer.operation.weights, _OPERANDS - 1, "swap")[-1]
        m.d.comb += [
            walker.taken.eq(sequencer.operation.weights),
            walker.swap.eq(swap),
            walker.full.eq(weights.full),
            weights.read.half.eq(walker.half),
            weights.read.address.eq(walker.address),
            weights.emptied.eq(walker.emptied),
            array.row.as_value().eq(weights.read.data),
            array.number.eq(walker.number),
            array.transposed.eq(walker.transposed),
            array.write.eq(walker.write),
            array.swap.eq(swap),
        ]
        self._operands(m, sequencer.operation, buffers)
        self._results(m, sequencer.operation, buffers)
        return m

    def _buffers(self, m):
        """All buffers by name. That of the inputs is in as many parts as there are groups of lanes."""
        buffers = {}
        for name in self.sizes:
            if name not in ("x", "routes"):
                buffers[name] = m.submodules[name] = DoubleBuffer(*self.sizes[name])
        part = self.sizes["x"][0] // self.groups
        self._parts = []
        for number in range(self.groups):
            buffer = m.submodules[f"x{number}"] = DoubleBuffer(part, self.depths.x)
            m.d.comb += [
                buffer.write.half.eq(self.x_write.half),
                buffer.write.address.eq(self.x_write.address),
                buffer.write.data.eq(self.x_write.data.word_select(number, part)),
                buffer.write.enable.eq(self.x_write.enable),
            ]
            self._parts.append(buffer)
        buffers["x"] = self._parts[0]
        for name in _WRITTEN[1:]:
            connect(m, flipped(getattr(self, f"{name}_write")), buffers[name].write)
        for name in _READ:
            connect(m, flipped(getattr(self, f"{name}_read")), buffers[name].read)
        for name in ("x", "e", "weights"):
            m.d.comb += buffers[name].filled.eq(getattr(self, f"{name}_filled"))
        for name in ("sums", "gradients"):
            m.d.comb += buffers[name].emptied.eq(getattr(self, f"{name}_emptied"))
        for name in ("x", "e", "sums", "gradients"):
            m.d.comb += getattr(self, f"{name}_full").eq(buffers[name].full)
        m.d.comb += [
            buffers["biases"].filled.eq(self.weights_filled),
            self.weights_full.eq(buffers["weights"].full | buffers["biases"].full),
        ]
        return buffers

    def _operands(self, m, operation, buffers):
        """Read inputs and errors, and hand them to the array: zeros where there are no inputs."""
        inputs = []
        for number, buffer in enumerate(self._parts):
            inside = delayed(m, operation.inside[number], READ_LATENCY, f"inside{number}_")[-1]
            operand = Signal.like(buffer.read.data, name=f"x{number}_operand")
            m.d.comb += [
                buffer.read.half.eq(operation.half.x),
                buffer.read.address.eq(operation.x[number]),
            ]
            m.d.sync += operand.eq(Mux(inside, buffer.read.data, 0))
            inputs.append(operand)
        error = buffers["e"]
        operand = Signal.like(error.read.data, name="e_operand")
        none = operation.paired & ~operation.inside[0]
        none = delayed(m, none, READ_LATENCY, "no_error")[-1]
        m.d.sync += operand.eq(Mux(none, 0, error.read.data))
        m.d.comb += [
            error.read.half.eq(operation.half.e),
            error.read.address.eq(operation.o),
            buffers["x"].emptied.eq(operation.done.x << operation.half.x),
            error.emptied.eq(operation.done.e << operation.half.e),
            self.array.x.as_value().eq(Cat(inputs)),
            self.array.e.as_value().eq(operand),
            self.array.update.eq(
                delayed(m, operation.valid & operation.update, _OPERANDS, "updates")[-1]
            ),
        ]

    def _results(self, m, operation, buffers):
        """Read what is added to, and write what it becomes."""
        array, sums = self.array, buffers["sums"]
        line = delayed(
            m, operation.as_value(), _OPERANDS + array.sum_latency + array.add_latency, "line"
        )

        def later(cycles):
            return data.View(operation.shape(), line[cycles])

        # FP and BP: the sum of a pixel, or the bias that it starts with.
        at = _OPERANDS + array.sum_latency
        reads, adds, ends = later(at - READ_LATENCY), later(at), later(at + array.add_latency)
        bias = buffers["biases"]
        m.d.comb += [
            sums.look.half.eq(reads.half.sums),
            sums.look.address.eq(reads.o),
            sums.look.enable.eq(reads.valid & ~reads.update),
            bias.read.half.eq(reads.half.biases),
            bias.read.address.eq(reads.bias),
            array.partial.as_value().eq(
                Mux(adds.fresh, Mux(adds.biased, bias.read.data, 0), sums.look.data)
            ),
            bias.emptied.eq(adds.done.biases << adds.half.biases),
            sums.write.half.eq(ends.half.sums),
            sums.write.address.eq(ends.o),
            sums.write.data.eq(array.sums.as_value()),
            sums.write.enable.eq(ends.valid & ~ends.update),
            sums.filled.eq(ends.done.sums << ends.half.sums),
        ]

        # WU: the gradients of a block of weights; once in each pixel, those of the biases.
        at = _OPERANDS + array.product_latency
        reads, adds, ends = later(at - READ_LATENCY), later(at), later(at + array.add_latency)
        for name, address, gradient, result, counts in (
            ("gradients", "block", array.gradient, array.gradients, "update"),
            ("bias_gradients", "bias", array.bias_gradient, array.bias_gradients, "counts_bias"),
        ):
            buffer = buffers[name]
            m.d.comb += [
                buffer.look.half.eq(reads.half.gradients),
                buffer.look.address.eq(reads[address]),
                buffer.look.enable.eq(reads.valid & reads.update),
                gradient.as_value().eq(Mux(adds.fresh, 0, buffer.look.data)),
                buffer.write.half.eq(ends.half.gradients),
                buffer.write.address.eq(ends[address]),
                buffer.write.data.eq(result.as_value()),
                buffer.write.enable.eq(ends.valid & ends[counts]),
            ]
        m.d.comb += buffers["gradients"].filled.eq(ends.done.gradients << ends.half.gradients)
