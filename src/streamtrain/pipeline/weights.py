"""Where a stage's weights live, and how gradients change them."""

from amaranth import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from streamtrain.numeric import Chain, Lfsr, Round, lane_bits, link, requantize, round_value
from streamtrain.pipeline.gates import balanced_sum, delayed
from streamtrain.pipeline.plan import ceil_log2
from streamtrain.stream import memory_style

__all__ = ["WeightStore"]


def _top(value, bits):
    """The value without its lowest ``bits`` bits, at least its sign."""
    return value[min(bits, len(value) - 1) :].as_signed()


class WeightStore(wiring.Component):
    """Weights and biases of a stage: read as operands, updated by gradients, scanned by the host.

    A word holds the weights of one block: those that all multipliers need in one cycle. Its update
    is ``stored - round(gradient)`` in each lane, saturated. In a design for mini-batches a second
    memory accumulates gradients until the last sample of the batch.

    The registers that hold an updated word on its way to memory are also a shift register: the host's
    way to every weight, one at a time.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    stage : :class:`~streamtrain.pipeline.plan.Stage`
        One of the plan's.
    gradient_width, bias_gradient_width : :class:`int`
        Bits of a gradient.

    Members
    -------
    read : :py:`In(1)`
    word : :py:`In(range(words))`
    w : :py:`Out(ArrayLayout(stage.weights, Pm * Pn * Pk))`
        Operands, until the next ``read``.
    bias_block : :py:`In(range(M / Pm))`
    bias : :py:`Out(ArrayLayout(stage.weights, Pm))`
    finish : :py:`In(1)`
        A block's gradient is final in two cycles.
    finish_word, finish_block : :py:`In(...)`
        Its word, and its group of output channels.
    finish_bias : :py:`In(1)`
        Biases are updated with this block.
    apply : :py:`In(1)`
        Update the weights; accumulate the gradient otherwise.
    fresh : :py:`In(1)`
        This sample begins a mini-batch.
    gradient, bias_gradient : :py:`In(ArrayLayout(signed(...), ...))`
    scan_word, scan_block, scan_bias : :py:`In(...)`
        Word that is scanned, its group of output channels, and whether biases are stored with it.
    scan_fetch, scan_store, scan_shift : :py:`In(1)`
        Load the shift register from memory, store it, move it by one lane. A word's lanes are
        followed by Pm biases.
    scan_i, scan_o : :py:`In(stage.stored)`, :py:`Out(stage.stored)`
        The last lane's next value; the first lane's value.
    saturated : :py:`Out(32)`
        Weights and biases saturated since reset.
    random : :py:`In(Chain())`
        State of the random bits, if updates are rounded stochastically.

    Timing
    ------
    ``w`` follows ``read`` after two cycles, ``bias`` its block after one. A ``read`` finds the updated
    word :attr:`finish_latency` cycles after ``finish``; one cycle less after ``scan_fetch``, the
    shift register is loaded. A ``read`` must not come in the cycle that is :attr:`finish_read` after
    ``finish`` or ``scan_fetch``: the memory has one read port.
    """

    def __init__(self, plan, stage, *, gradient_width, bias_gradient_width):
        self.plan = plan
        self.stage = stage
        self.gradient_width = gradient_width
        self.bias_gradient_width = bias_gradient_width
        self.accumulates = plan.max_batch > 1
        self.finish_read = int(self.accumulates)
        self.finish_latency = 4 + int(self.accumulates)
        self.fetch_latency = self.finish_latency - 1
        pm, pn, pk = stage.folding
        lanes = pm * pn * pk
        members = {
            "read": In(1),
            "word": In(range(stage.words)),
            "w": Out(data.ArrayLayout(stage.weights, lanes)),
            "bias_block": In(range(stage.blocks[0])),
            "bias": Out(data.ArrayLayout(stage.weights, pm)),
            "finish": In(1),
            "finish_word": In(range(stage.words)),
            "finish_block": In(range(stage.blocks[0])),
            "finish_bias": In(1),
            "apply": In(1),
            "fresh": In(1),
            "gradient": In(data.ArrayLayout(signed(gradient_width), lanes)),
            "bias_gradient": In(data.ArrayLayout(signed(bias_gradient_width), pm)),
            "scan_word": In(range(stage.words)),
            "scan_block": In(range(stage.blocks[0])),
            "scan_bias": In(1),
            "scan_fetch": In(1),
            "scan_store": In(1),
            "scan_shift": In(1),
            "scan_i": In(stage.stored),
            "scan_o": Out(stage.stored),
            "saturated": Out(32),
        }
        if stage.round_weights is Round.STOCHASTIC:
            members["random"] = In(Chain())
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        stage, plan = self.stage, self.plan
        pm, pn, pk = stage.folding
        lanes = pm * pn * pk
        stored, operand = stage.stored, stage.weights
        wide = stored != operand  # then a lane holds the operand, too, rounded when it is written
        lane_width = stored.width + (operand.width if wide else 0)

        def memory(name, width, depth):
            memory = Memory(
                shape=unsigned(width),
                depth=depth,
                init=[],
                attrs=memory_style(depth, plan.lutram_depth),
            )
            m.submodules[name] = memory
            return memory

        words = memory("words", lanes * lane_width, stage.words)
        write, read = words.write_port(), words.read_port()
        n_biases = pm if stage.bias else 0
        if stage.bias:
            biases = memory("biases", pm * lane_width, stage.blocks[0])
            bias_write = biases.write_port()
            bias_read, bias_fetch = biases.read_port(), biases.read_port()

        # What happens when, from `finish` or `scan_fetch` on.
        now = data.StructLayout({
            "finish": 1,
            "fetch": 1,
            "word": range(stage.words),
            "block": range(stage.blocks[0]),
            "bias": 1,
            "apply": 1,
            "fresh": 1,
        })
        event = Signal(now, name="line0")
        m.d.comb += [
            event.finish.eq(self.finish),
            event.fetch.eq(self.scan_fetch),
            event.word.eq(Mux(self.scan_fetch, self.scan_word, self.finish_word)),
            event.block.eq(Mux(self.scan_fetch, self.scan_block, self.finish_block)),
            event.bias.eq(self.finish_bias),
            event.apply.eq(self.apply),
            event.fresh.eq(self.fresh),
        ]
        line = delayed(m, event, self.finish_latency - 1, "line")
        reading, updating = line[self.finish_read], line[self.finish_read + 2]
        storing = line[self.finish_read + 3]

        # Operands, for FP and BP, or for the update.
        take = reading.finish | reading.fetch
        taken, bias_taken = Signal(), Signal()
        m.d.comb += [
            read.en.eq(self.read | take),
            read.addr.eq(Mux(take, reading.word, self.word)),
        ]
        if stage.bias:
            m.d.comb += [
                bias_read.addr.eq(self.bias_block),
                bias_fetch.en.eq(take),
                bias_fetch.addr.eq(reading.block),
            ]
        m.d.sync += [taken.eq(read.en), bias_taken.eq(take)]

        def lane(word, number, *, of_operand=False):
            low = number * lane_width
            if of_operand and wide:
                low += stored.width
            width = operand.width if of_operand else stored.width
            return word[low : low + width].as_signed()

        olds = []
        for number in range(lanes):
            old = Signal(signed(stored.width), name=f"old{number}", reset_less=True)
            olds.append(old)
            with m.If(taken):
                m.d.sync += old.eq(lane(read.data, number))
            w = old
            if wide:
                w = Signal(signed(operand.width), name=f"w{number}", reset_less=True)
                with m.If(taken):
                    m.d.sync += w.eq(lane(read.data, number, of_operand=True))
            m.d.comb += self.w[number].eq(w)
        for number in range(n_biases):
            old = Signal(signed(stored.width), name=f"old_bias{number}", reset_less=True)
            olds.append(old)
            with m.If(bias_taken):
                m.d.sync += old.eq(lane(bias_fetch.data, number))
            m.d.comb += self.bias[number].eq(lane(bias_read.data, number, of_operand=True))

        # The update.
        gradients = [self.gradient[n] for n in range(lanes)]
        bias_gradients = [self.bias_gradient[n] for n in range(n_biases)]
        shift, bias_shift = plan.weight_shift(stage), plan.bias_shift(stage)
        if self.accumulates:
            gradients = self._accumulate(m, memory, line, gradients, shift)
            if stage.bias:
                bias_gradients = self._accumulate(
                    m, memory, line, bias_gradients, bias_shift, of_biases=True
                )
        random = None
        if stage.round_weights is Round.STOCHASTIC:
            m.submodules.lfsr = lfsr = Lfsr(plan.random_seed(stage, "weights"))
            m.d.comb += lfsr.advance.eq(updating.finish & updating.apply)
            random = lfsr.state
            link(m, self.random, [lfsr.chain])
        news, saturated = [], []
        update = updating.fetch | (updating.finish & updating.apply)
        for number, (old, gradient) in enumerate(
            zip(olds, gradients + bias_gradients, strict=True)
        ):
            drop = shift if number < lanes else bias_shift
            new = Signal(stored, name=f"new{number}", reset_less=True)
            lane_random = random if random is None else lane_bits(random, number, drop)
            changed = self._changed(old, gradient, drop, updating.fetch, lane_random)
            code, clipped = requantize(m, changed, 0, stored, Round.TRUNCATE)
            with m.If(update):
                m.d.sync += new.eq(code)
            used = updating.finish if number < lanes else updating.finish & updating.bias
            flag = Signal(name=f"clipped{number}")
            m.d.sync += flag.eq(clipped & used & updating.apply)
            news.append(new)
            saturated.append(flag)
        with m.If(self.scan_shift):
            for new, following in zip(news, [*news[1:], self.scan_i], strict=True):
                m.d.sync += new.eq(following)
        m.d.comb += self.scan_o.eq(news[0])
        m.d.sync += self.saturated.eq(self.saturated + balanced_sum(saturated))

        def packed(lane_news):
            parts = []
            for new in lane_news:
                parts.append(new)
                if wide:
                    narrowed, _ = requantize(
                        m, new, stored.frac - operand.frac, operand, Round.NEAREST
                    )
                    parts.append(narrowed[: operand.width])
            return Cat(parts)

        store = storing.finish & storing.apply
        m.d.comb += [
            write.en.eq(store | self.scan_store),
            write.addr.eq(Mux(self.scan_store, self.scan_word, storing.word)),
            write.data.eq(packed(news[:lanes])),
        ]
        if stage.bias:
            m.d.comb += [
                bias_write.en.eq((store & storing.bias) | (self.scan_store & self.scan_bias)),
                bias_write.addr.eq(Mux(self.scan_store, self.scan_block, storing.block)),
                bias_write.data.eq(packed(news[lanes:])),
            ]
        return m

    def _accumulate(self, m, memory, line, gradients, shift, *, of_biases=False):
        """Add the mini-batch's gradient so far, and remember the sum unless it is applied."""
        name = "bias_sums" if of_biases else "sums"
        drop = self.plan.batch_shift(shift)
        kept = max(1, len(gradients[0]) - drop) + ceil_log2(self.plan.max_batch)
        sums = memory(
            name, kept * len(gradients), self.stage.blocks[0] if of_biases else self.stage.words
        )
        write, read = sums.write_port(), sums.read_port()
        where = [stage.block if of_biases else stage.word for stage in line]
        m.d.comb += [
            read.en.eq(line[0].finish),
            read.addr.eq(where[0]),
            write.en.eq(line[3].finish & ~line[3].apply & (line[3].bias | (not of_biases))),
            write.addr.eq(where[3]),
        ]
        totals = []
        for number, gradient in enumerate(gradients):
            earlier = Signal(signed(kept), name=f"{name}{number}", reset_less=True)
            with m.If(line[1].finish):
                m.d.sync += earlier.eq(
                    Mux(line[1].fresh, 0, read.data[number * kept : (number + 1) * kept])
                )
            total = Signal(signed(kept + drop), name=f"{name}_total{number}", reset_less=True)
            with m.If(line[2].finish):
                m.d.sync += total.eq(Cat(Const(0, drop), earlier).as_signed() + gradient)
            totals.append(total)
        m.d.comb += write.data.eq(Cat(_top(total, drop)[:kept] for total in totals))
        return totals

    def _changed(self, old, gradient, drop, keep, random):
        """``old - round(gradient)``, or ``old``."""
        missing = max(0, drop + 2 - len(gradient))
        gradient = Cat(gradient, gradient[-1].replicate(missing)).as_signed()
        if self.stage.round_weights is Round.NEAREST:
            # With g = gradient >> drop - 1, whose lowest bit is the half: (2 old + 1 + ~g) >> 1 is
            # old - round(g / 2), in one adder instead of two.
            half = Mux(keep, 0, _top(gradient, drop - 1))
            return (Cat(Const(1, 1), old).as_signed() + ~half.as_signed())[1:].as_signed()
        delta = round_value(gradient, drop, self.stage.round_weights, random)
        return old - Mux(keep, 0, delta)
