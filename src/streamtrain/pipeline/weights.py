"""Where a stage's weights live, and how gradients change them."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric import Chain, Lfsr, Round, lane_bits, link, requantize, round_value
from streamtrain.pipeline.frozen import weight_members
from streamtrain.pipeline.gates import balanced_sum, delayed, word_memory
from streamtrain.pipeline.layouts import scan_width
from streamtrain.pipeline.optimizer import (
    CLIP_BITS,
    clip_frac,
    gradient_frac,
    held_words,
    update_terms,
)
from streamtrain.pipeline.plan import ceil_log2

__all__ = ["WeightStore"]


def _top(value, bits):
    """The value without its lowest ``bits`` bits, at least its sign."""
    return value[min(bits, len(value) - 1) :].as_signed()


class WeightStore(wiring.Component):
    """Weights and biases of a stage: read as operands, updated by gradients, scanned by the host.

    A word holds the weights of one block: those that all multipliers need in one cycle. Its update
    is ``stored - round(gradient)`` in each lane, saturated. In a design for mini-batches a second
    memory accumulates gradients until the last sample of the batch. With momentum there is a memory of
    velocities beside that of the weights: the gradients that were subtracted, with what the array added
    to them.

    The registers that hold an updated word on its way to memory are also a shift register: the host's
    way to every weight, one at a time.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    stage : :class:`~streamtrain.pipeline.plan.Stage`
        One of the plan's.
    gradient_width, bias_gradient_width : :class:`int`
        Bits of a gradient, with what the optimiser adds to it.

    Members
    -------
    Those of :func:`~streamtrain.pipeline.frozen.weight_members`, and:

    finish : :py:`In(1)`
        A block's gradient is final in two cycles.
    finish_word, finish_block : :py:`In(...)`
        Its word, and its group of output channels.
    finish_bias : :py:`In(1)`
        Biases are updated with this block.
    apply : :py:`In(1)`
        Update the weights; accumulate the gradient otherwise.
    sum : :py:`In(1)`
        With clipping: a block's gradient is final in two cycles, and at ``finish`` what is to be added
        to it, if anything.
    limit : :py:`In(CLIP_BITS)`
        With clipping: the largest magnitude of a gradient.
    bias_product : :py:`In(ArrayLayout(signed(...), Pm))`
        With clipping, and something to add: what is added to the bias gradients.
    hold : :py:`In(1)`
        With weight decay: the word that was read two cycles ago is finished in the next cycle.
    read_v : :py:`In(1)`
        With momentum: read the velocities of ``word``.
    v : :py:`Out(ArrayLayout(velocity, Pm * Pn * Pk))`
        These, until the next ``read_v``.
    term_block : :py:`In(range(M / Pm))`
    bias_v : :py:`Out(ArrayLayout(velocity, Pm))`
        Velocities of a block's biases, with momentum.
    bias_w : :py:`Out(ArrayLayout(stage.weights, Pm))`
        A block's biases, with weight decay.
    fresh : :py:`In(1)`
        This sample begins a mini-batch.
    gradient, bias_gradient : :py:`In(ArrayLayout(signed(...), ...))`
    scan_velocity : :py:`In(1)`
        With momentum: velocities are scanned, not weights. Then ``scan_i`` and ``scan_o`` are as wide as
        the wider one of both formats.
    saturated : :py:`Out(32)`
        Weights and biases saturated since reset.
    saturated_velocity : :py:`Out(32)`
        Velocities saturated since reset, with momentum.
    random : :py:`In(Chain())`
        State of the random bits, if updates are rounded stochastically.

    Timing
    ------
    ``w`` and ``v`` follow ``read`` and ``read_v`` after two cycles, ``bias`` its block after one, as do
    ``bias_v`` and ``bias_w``. A ``read`` finds the updated word :attr:`finish_latency` cycles after
    ``finish``; :attr:`fetch_latency` cycles after ``scan_fetch``, the shift register is loaded. A ``read`` must not come in the cycle that is :attr:`finish_read` after ``finish`` or
    ``scan_fetch``: the memory has one read port. With weight decay, which has read the word, only
    ``scan_fetch`` takes it.
    """

    def __init__(self, plan, stage, *, gradient_width, bias_gradient_width):
        self.plan = plan
        self.stage = stage
        self.gradient_width = gradient_width
        self.bias_gradient_width = bias_gradient_width
        self.accumulates = plan.max_batch > 1
        self.terms = update_terms(plan, stage)
        self.velocity = self.terms.velocity
        self.clips = plan.network.optimizer.clip is not None
        self.finish_read = int(plan.late)
        self.finish_latency = 4 + int(plan.late)
        self.held = held_words(plan, stage)
        self.fetch_latency = self.finish_latency - 1 + self.held
        pm, pn, pk = stage.folding
        lanes = pm * pn * pk
        scanned = stage.stored if self.velocity is None else signed(scan_width(plan, stage))
        members = {
            **weight_members(stage, scanned),
            "finish": In(1),
            "finish_word": In(range(stage.words)),
            "finish_block": In(range(stage.blocks[0])),
            "finish_bias": In(1),
            "apply": In(1),
            "fresh": In(1),
            "gradient": In(data.ArrayLayout(signed(gradient_width), lanes)),
            "bias_gradient": In(data.ArrayLayout(signed(bias_gradient_width), pm)),
            "saturated": Out(32),
        }
        if stage.round_weights is Round.STOCHASTIC:
            members["random"] = In(Chain())
        if self.clips:
            members |= {"sum": In(1), "limit": In(CLIP_BITS)}
            if self.terms.count:
                product = signed(self.terms.sum_bits(0))
                members["bias_product"] = In(data.ArrayLayout(product, pm))
        if self.terms.count:
            members["term_block"] = In(range(stage.blocks[0]))
        if self.terms.decay:
            members |= {"hold": In(1), "bias_w": Out(data.ArrayLayout(stage.weights, pm))}
        if self.velocity is not None:
            members |= {
                "read_v": In(1),
                "v": Out(data.ArrayLayout(self.velocity, lanes)),
                "bias_v": Out(data.ArrayLayout(self.velocity, pm)),
                "scan_velocity": In(1),
                "saturated_velocity": Out(32),
            }
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
            return word_memory(m, name, width, depth, plan.lutram_depth)

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

        def events(finish, registers, name):
            event = Signal(now, name=f"{name}0")
            m.d.comb += [
                event.finish.eq(finish),
                event.fetch.eq(self.scan_fetch),
                event.word.eq(Mux(self.scan_fetch, self.scan_word, self.finish_word)),
                event.block.eq(Mux(self.scan_fetch, self.scan_block, self.finish_block)),
                event.bias.eq(self.finish_bias),
                event.apply.eq(self.apply),
                event.fresh.eq(self.fresh),
            ]
            return delayed(m, event, registers, name)

        line = events(self.finish, self.finish_latency - 1 + max(0, self.held - 1), "line")
        sums = events(self.sum, 3, "sum") if self.clips and self.terms.count else line
        reading, updating = line[self.finish_read], line[self.finish_read + 2]
        storing = line[self.finish_read + 3]
        loading = line[self.finish_read + 2 + self.held].fetch

        # Operands, for FP and BP, or for the update.
        bias_take = reading.finish | reading.fetch
        take = reading.fetch if self.held else bias_take
        taken, bias_taken = Signal(), Signal()
        m.d.comb += [
            read.en.eq(self.read | take),
            read.addr.eq(Mux(take, reading.word, self.word)),
        ]
        if stage.bias:
            m.d.comb += [
                bias_read.addr.eq(self.bias_block),
                bias_fetch.en.eq(bias_take),
                bias_fetch.addr.eq(reading.block),
            ]
        m.d.sync += [taken.eq(read.en), bias_taken.eq(bias_take)]

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
        if self.held:
            olds = self._held(m, olds, line)
        for number in range(n_biases):
            old = Signal(signed(stored.width), name=f"old_bias{number}", reset_less=True)
            olds.append(old)
            with m.If(bias_taken):
                m.d.sync += old.eq(lane(bias_fetch.data, number))
            m.d.comb += self.bias[number].eq(lane(bias_read.data, number, of_operand=True))
        if stage.bias and self.terms.decay:
            bias_term = biases.read_port()
            m.d.comb += bias_term.addr.eq(self.term_block)
            for number in range(n_biases):
                m.d.comb += self.bias_w[number].eq(lane(bias_term.data, number, of_operand=True))

        # The update.
        gradients = [self.gradient[n] for n in range(lanes)]
        bias_gradients = [self.bias_gradient[n] for n in range(n_biases)]
        shift, bias_shift = plan.weight_shift(stage), plan.bias_shift(stage)
        if self.terms.count and not self.clips:
            bias_shift = shift  # what is added to them has the weights' fractional bits
        if self.accumulates:
            gradients = self._accumulate(m, memory, sums, gradients, shift)
            if stage.bias:
                bias_gradients = self._accumulate(
                    m, memory, sums, bias_gradients, bias_shift, of_biases=True
                )
        if self.clips:
            gradients = self._clipped(m, sums[2], line[2], gradients)
            bias_gradients = self._clipped(m, sums[2], line[2], bias_gradients, of_biases=True)
            if self.terms.count:
                bias_shift = shift
        random = None
        if stage.round_weights is Round.STOCHASTIC:
            m.submodules.lfsr = lfsr = Lfsr(plan.random_seed(stage, "weights"))
            m.d.comb += lfsr.advance.eq(updating.finish & updating.apply)
            random = lfsr.state
            link(m, self.random, [lfsr.chain])
        news, saturated = [], []
        update = loading | (updating.finish & updating.apply)
        for number, (old, gradient) in enumerate(
            zip(olds, gradients + bias_gradients, strict=True)
        ):
            drop = shift if number < lanes else bias_shift
            new = Signal(stored, name=f"new{number}", reset_less=True)
            lane_random = random if random is None else lane_bits(random, number, drop)
            changed = self._changed(old, gradient, drop, lane_random)
            code, clipped = requantize(m, changed, 0, stored, Round.TRUNCATE)
            with m.If(update):
                m.d.sync += new.eq(Mux(loading, old, code))
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
        store = storing.finish & storing.apply
        scan_store = self.scan_store
        if self.velocity is not None:
            scan_store = self.scan_store & ~self.scan_velocity
            self._velocities(m, memory, line, gradients + bias_gradients, random, store)

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

        m.d.comb += write.data.eq(packed(news[:lanes]))
        if stage.bias:
            m.d.comb += bias_write.data.eq(packed(news[lanes:]))
        self._store(m, write, bias_write if stage.bias else None, storing, store, scan_store)
        return m

    def _store(self, m, write, bias_write, storing, store, scan_store):
        """Write a word, and its biases if it has them, for an update or for the host."""
        ports = [(write, self.scan_word, 1, storing.word, 1)]
        if bias_write is not None:
            ports.append((bias_write, self.scan_block, self.scan_bias, storing.block, storing.bias))
        for port, scanned, scans, stored, stores in ports:
            m.d.comb += [
                port.en.eq((store & stores) | (scan_store & scans)),
                port.addr.eq(Mux(self.scan_store, scanned, stored)),
            ]

    def _accumulate(self, m, memory, line, gradients, shift, *, of_biases=False):
        """Add the mini-batch's gradient so far, and remember the sum unless it is applied."""
        name = "bias_sums" if of_biases else "sums"
        drop = self.plan.batch_shift(shift)
        bits = len(gradients[0])
        if self.terms.count:  # nothing is added to what is accumulated
            bits = min(bits, self._pixel_bits(of_biases))
        kept = max(1, bits - drop) + ceil_log2(self.plan.max_batch)
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
            width = kept + drop
            if self.terms.count:
                width = max(width, len(gradient)) + 1
            total = Signal(signed(width), name=f"{name}_total{number}", reset_less=True)
            with m.If(line[2].finish):
                m.d.sync += total.eq(Cat(Const(0, drop), earlier).as_signed() + gradient)
            totals.append(total)
        m.d.comb += write.data.eq(Cat(_top(total, drop)[:kept] for total in totals))
        return totals

    def _pixel_bits(self, of_biases):
        """Bits of one sample's gradient, without what the optimiser adds."""
        stage = self.stage
        errors = stage.errors.width + self.plan.rate_shifts + ceil_log2(stage.pixels)
        fractions = 0 if self.clips else stage.input.frac
        return errors + (fractions if of_biases else stage.input.width)

    def _held(self, m, words, line):
        """The word that weight decay has read, until it is updated."""
        read = self.finish_read + 2
        steps = [self.hold | line[read].fetch, line[1].finish | line[read + 1].fetch]
        for age, step in enumerate(steps[: self.held]):
            held = []
            for number, word in enumerate(words):
                register = Signal.like(word, name=f"held{age}_{number}", reset_less=True)
                with m.If(step):
                    m.d.sync += register.eq(word)
                held.append(register)
            words = held
        return words

    def _clipped(self, m, summed, finished, gradients, *, of_biases=False):
        """Gradients of a magnitude up to the limit, and what is added to them."""
        stage, plan = self.stage, self.plan
        frac = gradient_frac(plan, stage) - (stage.input.frac if of_biases else 0)
        drop = frac - clip_frac(plan)
        name = "bias_" if of_biases else ""
        limit = Cat(self.limit, Const(0, 1)).as_signed()
        found = []
        for number, gradient in enumerate(gradients):
            if not self.accumulates:  # otherwise it is in a register already
                register = Signal.like(gradient, name=f"{name}summed{number}", reset_less=True)
                with m.If(summed.finish):
                    m.d.sync += register.eq(gradient)
                gradient = register
            sign = gradient[-1]
            # A negative number's upper bits, inverted, are at least the limit just when it is below.
            upper = _top(gradient, drop)
            upper = upper ^ sign.replicate(len(upper)).as_signed()
            over = Signal(name=f"{name}over{number}")
            clipped = Signal(
                signed(max(len(gradient), drop + CLIP_BITS + 1)), name=f"{name}clipped{number}"
            )
            m.d.comb += [
                over.eq(upper >= limit),
                clipped.eq(gradient),
            ]
            with m.If(over):
                m.d.comb += clipped.eq(Cat(Const(0, drop), Mux(sign, -limit, limit)).as_signed())
            if self.terms.count:
                added = self.bias_product[number] if of_biases else self.gradient[number]
                if of_biases:
                    clipped = Cat(Const(0, stage.input.frac), clipped).as_signed()
                bits = self.terms.sum_bits(0)
                width = max(len(clipped), bits) + 1
                total = Signal(signed(width), name=f"{name}total{number}", reset_less=True)
                with m.If(finished.finish):
                    m.d.sync += total.eq(clipped + added[:bits].as_signed())
                clipped = total
            found.append(clipped)
        return found

    def _velocities(self, m, memory, line, gradients, random, store):
        """Keep what is subtracted from the weights, for the next update."""
        stage, fmt, lanes = self.stage, self.velocity, self.stage.multipliers
        words = memory("velocities", lanes * fmt.width, stage.words)
        write, read = words.write_port(), words.read_port()
        reading, updating = line[self.finish_read], line[self.finish_read + 2]
        storing = line[self.finish_read + 3]
        load = self.finish_read + 2 + self.held
        loading = line[load].fetch
        taken = Signal(name="velocity_taken")
        m.d.comb += [
            read.en.eq(self.read_v | reading.fetch),
            read.addr.eq(Mux(reading.fetch, reading.word, self.word)),
        ]
        m.d.sync += taken.eq(read.en)
        olds = []
        for number in range(lanes):
            old = Signal(fmt, name=f"v{number}", reset_less=True)
            with m.If(taken):
                m.d.sync += old.eq(read.data[number * fmt.width : (number + 1) * fmt.width])
            m.d.comb += self.v[number].eq(old)
            olds.append(old)
        if stage.bias:
            pm = stage.folding[0]
            biases = memory("bias_velocities", pm * fmt.width, stage.blocks[0])
            bias_write, bias_read = biases.write_port(), biases.read_port()
            before = line[load - 1]
            m.d.comb += bias_read.addr.eq(Mux(before.fetch, before.block, self.term_block))
            for number in range(pm):
                value = bias_read.data[number * fmt.width : (number + 1) * fmt.width]
                m.d.comb += self.bias_v[number].eq(value)
                olds.append(value.as_signed())
        news, saturated = [], []
        drop = self.terms.velocity_shift
        for number, (old, gradient) in enumerate(zip(olds, gradients, strict=True)):
            dice = random if random is None else lane_bits(random, number, drop)
            code, clipped = requantize(m, gradient, drop, fmt, stage.round_weights, dice)
            new = Signal(fmt, name=f"new_v{number}", reset_less=True)
            with m.If(loading | (updating.finish & updating.apply)):
                m.d.sync += new.eq(Mux(loading, old, code))
            used = updating.finish if number < lanes else updating.finish & updating.bias
            flag = Signal(name=f"clipped_v{number}")
            m.d.sync += flag.eq(clipped & used & updating.apply)
            news.append(new)
            saturated.append(flag)
        with m.If(self.scan_shift):
            for new, following in zip(news, [*news[1:], self.scan_i], strict=True):
                m.d.sync += new.eq(following)
        with m.If(self.scan_velocity):
            m.d.comb += self.scan_o.eq(news[0])
        m.d.sync += self.saturated_velocity.eq(self.saturated_velocity + balanced_sum(saturated))
        scan_store = self.scan_store & self.scan_velocity
        m.d.comb += write.data.eq(Cat(news[:lanes]))
        if stage.bias:
            m.d.comb += bias_write.data.eq(Cat(news[lanes:]))
        self._store(m, write, bias_write if stage.bias else None, storing, store, scan_store)

    def _changed(self, old, gradient, drop, random):
        """``old - round(gradient)``."""
        missing = max(0, drop + 2 - len(gradient))
        gradient = Cat(gradient, gradient[-1].replicate(missing)).as_signed()
        if self.stage.round_weights is Round.NEAREST:
            # With g = gradient >> drop - 1, whose lowest bit is the half: (2 old + 1 + ~g) >> 1 is
            # old - round(g / 2), in one adder instead of two.
            half = _top(gradient, drop - 1)
            return (Cat(Const(1, 1), old).as_signed() + ~half)[1:].as_signed()
        delta = round_value(gradient, drop, self.stage.round_weights, random)
        return old - delta
