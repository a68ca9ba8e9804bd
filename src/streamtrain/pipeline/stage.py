"""One stage of the pipeline: a layer's memories, its multiplier array, and what it does when.

A stage has three sequencers, one for each phase. Each walks through its phase of one sample as
operands arrive and results find room, and each cycle the array takes an operation from one of them.
Nothing in the datapath waits: an operation is issued only if its operands are there and its result
has a place, and from then on it moves one register per cycle.
"""

from dataclasses import dataclass, replace

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric import Chain, Lfsr, Round, lane_bits, link, requantize
from streamtrain.pipeline.array import MultiplierArray
from streamtrain.pipeline.frozen import FrozenWeights
from streamtrain.pipeline.gates import balanced_sum, delayed
from streamtrain.pipeline.layouts import forward_layout, scan_width, token_layout
from streamtrain.pipeline.optimizer import update_terms
from streamtrain.pipeline.plan import ceil_log2
from streamtrain.pipeline.terms import WordOperations
from streamtrain.pipeline.weights import WeightStore
from streamtrain.stream import Cursor, Queue, WindowShape, WindowStore, connect

__all__ = ["TrainingStage", "error_windows", "input_windows"]

_RESULTS = 32  # results on their way or waiting: more than the datapath's latency


def input_windows(plan, stage):
    """Windows of a stage's input map, for FP and WU."""
    _, pn, pk = stage.folding
    return WindowShape(
        rows=stage.rows,
        cols=stage.cols,
        places=(stage.out_rows, stage.out_cols),
        kernel=stage.kernel,
        pad=stage.pad,
        taps=pk,
        lanes=pn,
        blocks=stage.blocks[1],
        slots=plan.in_flight,
        lutram_depth=plan.lutram_depth,
    )


def error_windows(plan, stage):
    """Windows of a stage's error map: for BP, the errors that an input pixel went into."""
    pm, _, pk = stage.folding
    kernel = stage.kernel if stage.back else 1  # WU alone needs no windows
    return WindowShape(
        rows=stage.out_rows,
        cols=stage.out_cols,
        places=(stage.rows, stage.cols) if stage.back else (stage.out_rows, stage.out_cols),
        kernel=kernel,
        pad=kernel - 1 - stage.pad if stage.back else 0,
        taps=pk if stage.back else 1,
        lanes=pm,
        blocks=stage.blocks[0],
        slots=plan.in_flight,
        square=stage.pool,
        lutram_depth=plan.lutram_depth,
    )


@dataclass
class _Counter:
    """Nested loop: ``value`` counts to ``size``, ``last`` is its last pass."""

    value: Signal
    last: Signal


def _nest(m, step, sizes, name, *, outer=1):
    """Count through nested loops, the innermost first, one pass each time ``step`` is high.

    ``step`` comes late in a cycle, so all that it is combined with is in registers.

    Returns a counter for each loop; whether this is the last pass of all; and whether it is and
    ``outer`` holds, which may only change after such a last pass.
    """
    counters = []
    done, following = Const(1), Const(1)  # all loops inside are in their last pass, now and next
    for number, size in enumerate(sizes):
        value = Signal(range(size), name=f"{name}{number}")
        last = Signal(init=size == 1, name=f"{name}{number}_last")
        with m.If(step & done):
            m.d.sync += [
                value.eq(Mux(last, 0, value + 1)),
                last.eq(Mux(last, size == 1, value == size - 2)),
            ]
        counters.append(_Counter(value, last))
        if size == 1:
            continue
        # The innermost loop reaches its last pass while those around it stay where they are.
        following = (value == size - 2) if isinstance(done, Const) else following & last
        done = Signal(name=f"{name}{number}_done")
        with m.If(step):
            m.d.sync += done.eq(following)
    if isinstance(done, Const):
        return counters, done, outer
    all_done = Signal(name=f"{name}_done")
    with m.If(step):
        m.d.sync += all_done.eq(following & outer)
    return counters, done, all_done


class TrainingStage(wiring.Component):
    """Forward pass, back-propagation and weight update of one weighted layer.

    Each sample is announced by a token, which passes from sequencer to sequencer: FP, then BP,
    then WU. FP waits for a weight update that is still to come, so that samples see the weights that
    they would see one after another.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    stage : :class:`~streamtrain.pipeline.plan.Stage`
        One of the plan's.

    Members
    -------
    token : :py:`In(stream.Signature(token_layout(plan, stage)))`
        ``train``: BP and WU follow FP. ``update``: the mini-batch ends with this sample. ``shift``:
        of the learning rate. ``frozen``: without WU, the weights remain. ``read``, ``write``: no
        sample, but the weights are scanned out or in, or with ``velocity`` their velocities.
        ``momentum``, ``decay``, ``clip``: the optimiser's.
    i : :py:`In(stream.Signature(ArrayLayout(stage.input, Pn)))`
        Samples: pixels in raster order, channels innermost.
    o : :py:`Out(stream.Signature(forward_layout(stage.output, Pm)))`
        Outputs before pooling, in the same order.
    dz : :py:`In(stream.Signature(ArrayLayout(stage.errors, Pm)))`
        Errors of the outputs of samples that are trained with, in raster order, or in squares if the
        stage pools (see :class:`~streamtrain.stream.WindowShape`). Only in stages that are trainable
        or have ``back``.
    dx : :py:`Out(stream.Signature(ArrayLayout(errors of the stage before, Pn)))`
        Errors of the inputs, in raster order. Only in stages with ``back``.
    scan_i, scan_o : :py:`In(...)`, :py:`Out(stream.Signature(stage.stored))`
        Weights, word by word: Pm x Pn x Pk weights, then Pm biases, which count with the first word
        of their output channels. With momentum, in the wider one of their format and the velocities'.
    updated : :py:`Out(1)`
        Weights have just been updated.
    idle : :py:`Out(1)`
        No token is inside.
    saturated_output, saturated_errors, saturated_weights : :py:`Out(32)`
        Numbers saturated since reset: outputs, errors of the inputs, weights and biases. With momentum
        there is ``saturated_velocity``, too.
    random : :py:`In(Chain())`
        States of the random bits, in the order of the plan's ``random_sites``; only if it has any here.

    Timing
    ------
    One operation per cycle. FP takes ``pixels * words`` of them, BP ``rows * cols * words``, WU
    ``pixels * words``. BP goes before FP before WU, but a word of WU that has begun is not
    interrupted, and FP or BP lose one cycle for each word that WU updates; no other word begins in
    it. Without BP, the first word follows the errors as they arrive if no FP may come meanwhile:
    the sample updates the weights, or all that there is room for are past FP. With
    an update, a step takes 9 cycles more than its operations, another one if its errors are there when FP
    ends, and in a design for mini-batches or with clipping another one. A stage that is not trainable has no WU, nor has a
    ``frozen`` sample: an input map is free again two cycles after FP's last operation in the former, and
    after BP's in the latter, or when all errors are there.

    With an optimiser that adds ``terms`` to gradients, a sample that updates the weights takes as many
    operations more for each word, after its pixels, and for each group of biases, before the pixels of
    its first word. With weight decay, FP and BP lose no cycles.
    """

    def __init__(self, plan, stage):
        self.plan = plan
        self.stage = stage
        position = plan.stages.index(stage)
        self.before = plan.stages[position - 1] if stage.back else None
        self.terms = update_terms(plan, stage)
        pm, pn, _ = stage.folding
        scanned = stage.stored
        if self.terms.velocity is not None:
            scanned = signed(scan_width(plan, stage))
        members = {
            "token": In(stream.Signature(token_layout(plan, stage))),
            "i": In(stream.Signature(data.ArrayLayout(stage.input, pn))),
            "o": Out(stream.Signature(forward_layout(stage.output, pm))),
            "scan_i": In(stream.Signature(scanned)),
            "scan_o": Out(stream.Signature(scanned)),
            "updated": Out(1),
            "idle": Out(1),
            "saturated_output": Out(32),
            "saturated_errors": Out(32),
            "saturated_weights": Out(32),
        }
        if stage.takes_errors:
            members["dz"] = In(stream.Signature(data.ArrayLayout(stage.errors, pm)))
        if self.terms.velocity is not None:
            members["saturated_velocity"] = Out(32)
        if stage.back:
            members["dx"] = Out(stream.Signature(data.ArrayLayout(self.before.errors, pn)))
        self.random_sites = [site for owner, _, site in plan.random_sites if owner == position]
        if self.random_sites:
            members["random"] = In(Chain())
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        stage, plan = self.stage, self.plan
        learns, takes_errors = stage.trainable, stage.takes_errors
        pm, pn, _ = stage.folding
        m_blocks, n_blocks, tap_groups = stage.blocks
        in_flight = plan.in_flight

        x_windows, dz_windows = input_windows(plan, stage), error_windows(plan, stage)
        m.submodules.inputs = x = WindowStore(stage.input, x_windows)
        if takes_errors:
            m.submodules.errors = dz = WindowStore(stage.errors, dz_windows)
        terms, clips = self.terms, plan.network.optimizer.clip is not None
        m.submodules.array = array = MultiplierArray(
            stage, shifts=plan.rate_shifts, terms=terms, operand_bits=plan.operand_bits
        )
        if learns:
            bias_gradient_width = stage.errors.width + plan.rate_shifts + ceil_log2(stage.pixels)
            if terms.count and not clips:
                bias_gradient_width = terms.sum_bits(bias_gradient_width + stage.input.frac)
            weights = WeightStore(
                plan,
                stage,
                gradient_width=array.gradient_width,
                bias_gradient_width=bias_gradient_width,
            )
        else:
            weights = FrozenWeights(plan, stage)
        m.submodules.weights = weights
        connect(m, wiring.flipped(self.i), x.i)
        if takes_errors:
            connect(m, wiring.flipped(self.dz), dz.i)

        # Tokens go from sequencer to sequencer. A queue holds all that can be on their way. Its first
        # one decides on what is issued, and is in registers.
        queues = []
        if stage.back:
            m.submodules.bp_tokens = bp_tokens = Queue(
                token_layout(plan, stage), in_flight, head=True
            )
            queues.append(bp_tokens)
        if learns:
            m.submodules.wu_tokens = wu_tokens = Queue(
                token_layout(plan, stage), in_flight, head=True
            )
            queues.append(wu_tokens)

        issue_fp, issue_bp, issue_wu = Signal(), Signal(), Signal()
        fp_done, bp_done, wu_done = Signal(), Signal(), Signal()  # a token passes on
        token = Signal(token_layout(plan, stage))  # FP's
        update_pending = Signal()
        just_updated = Signal()  # the last word is on its way to memory
        scanning = Signal()

        def arrived(store, cursor, ahead, name):
            """Whether the cursor's window is complete; ``ahead`` counts whole maps before it.

            This decides on what is issued, so it is known a cycle before: for this window and for the
            next one, whether a square arrives or not.
            """
            here = Signal(name=f"{name}_here")
            position = Cat(store.col, store.row)

            def reached(*need):
                passes = (position >= Cat(need)) & ~store.final
                return Mux(store.forward, passes, position > Cat(need))

            m.d.sync += here.eq(
                Mux(
                    cursor.step,
                    reached(cursor.next_col, cursor.next_row),
                    reached(cursor.need_col, cursor.need_row),
                )
            )
            if ahead.shape().signed:
                return (ahead > 0) | ((ahead == 0) & here)
            return (ahead != 0) | here

        def count(name, up, down, top, least=0):
            """Count what came and has not gone."""
            level = Signal(range(least, top + 1), name=name)
            with m.If(up & ~down):
                m.d.sync += level.eq(level + 1)
            with m.If(down & ~up):
                m.d.sync += level.eq(level - 1)
            return level

        # FP: for each output pixel, for each group of its channels, all input channels and taps.
        m.submodules.fp_x = fp_x = Cursor(x_windows)
        fp_busy, fp_over = Signal(), Signal()
        (fp_tap, fp_n, fp_m), fp_pixel_done, fp_sample_done = _nest(
            m, issue_fp, (tap_groups, n_blocks, m_blocks), "fp", outer=fp_x.last
        )
        fp_first = (fp_tap.value == 0) & (fp_n.value == 0)
        fp_last = fp_tap.last & fp_n.last
        fp_word = Signal(range(stage.words))
        with m.If(issue_fp):
            m.d.sync += fp_word.eq(Mux(fp_pixel_done, 0, fp_word + 1))
        # -1 while pixels that no window needs are still to come: a pool may drop the last ones.
        least = 0 if x_windows.reaches_end else -1
        x_ahead = count("x_ahead", x.complete, fp_x.slot_step, in_flight, least)
        m.d.comb += [
            fp_x.step.eq(issue_fp & fp_pixel_done),
            fp_x.slot_step.eq(issue_fp & fp_sample_done),
        ]
        with m.If(~fp_busy):
            is_sample = self.token.valid & ~self.token.payload.read & ~self.token.payload.write
            # Without WU, memory for the next input is no sign that there is a place for its token.
            free = ~update_pending
            if not learns:
                free = queues[0].level < in_flight - fp_over if queues else 1
            with m.If(is_sample & free):
                m.d.comb += self.token.ready.eq(1)
                m.d.sync += [fp_busy.eq(1), token.eq(self.token.payload)]
        with m.If(fp_x.slot_step):
            m.d.comb += fp_done.eq(1)
            m.d.sync += fp_busy.eq(0)
            if learns:
                with m.If(token.train & token.update & ~token.frozen):
                    m.d.sync += update_pending.eq(1)
        # What is issued is known late in a cycle: the token goes in the next one.
        m.d.sync += fp_over.eq(fp_done)
        if queues:
            m.d.comb += [queues[0].i.valid.eq(fp_over), queues[0].i.payload.eq(token)]

        read_after = 2  # FP and BP read their word, from issue

        # BP: for each input pixel, for each group of its channels, all output channels and taps.
        bp_want = Const(0)
        if stage.back:
            m.submodules.bp_dz = bp_dz = Cursor(dz_windows)
            (bp_tap, bp_m, bp_n), bp_pixel_done, bp_sample_done = _nest(
                m, issue_bp, (tap_groups, m_blocks, n_blocks), "bp", outer=bp_dz.last
            )
            bp_first = (bp_tap.value == 0) & (bp_m.value == 0)
            bp_last = bp_tap.last & bp_m.last
            bp_row, bp_col = Signal(range(stage.words)), Signal(range(stage.words))
            with m.If(issue_bp & bp_tap.last):
                m.d.sync += bp_row.eq(bp_row + n_blocks * tap_groups)
                with m.If(bp_m.last):
                    m.d.sync += [bp_row.eq(0), bp_col.eq(bp_col + tap_groups)]
                    with m.If(bp_n.last):
                        m.d.sync += bp_col.eq(0)
            bp_word = Signal(range(stage.words))
            m.d.comb += bp_word.eq(bp_row + bp_col + bp_tap.value)
            dz_ahead = count("dz_ahead", dz.complete, bp_dz.slot_step, in_flight)
            # As after FP, but WU has it at once.
            bp_over, idler = Signal(), Signal()
            m.d.sync += bp_over.eq(bp_dz.slot_step)
            bp_train = bp_tokens.o.valid & bp_tokens.o.payload.train & ~bp_over
            m.d.comb += [
                idler.eq(bp_tokens.o.valid & ~bp_tokens.o.payload.train),
                bp_dz.step.eq(issue_bp & bp_pixel_done),
                bp_dz.slot_step.eq(issue_bp & bp_sample_done),
                bp_done.eq(bp_dz.slot_step | idler),
                bp_tokens.o.ready.eq(bp_over | idler),
            ]
            if learns:
                m.d.comb += [
                    wu_tokens.i.valid.eq(bp_done),
                    wu_tokens.i.payload.eq(bp_tokens.o.payload),
                ]
            bp_want = bp_train & arrived(dz, bp_dz, dz_ahead, "bp")

        wu_inside = Signal()  # some of a word's operations are issued
        taken = Signal()  # WU reads the word that it updates, so nobody else can
        if learns:
            # WU: for each word, all output pixels. Without BP before it, it follows the errors as they
            # arrive, unless FP may yet come: a word that has begun would keep it out for long.
            m.submodules.wu_x = wu_x = Cursor(x_windows)
            m.submodules.wu_dz = wu_dz = Cursor(
                replace(dz_windows, places=(stage.out_rows, stage.out_cols))
            )
            wu_active = Signal()  # a token is being worked on, and its operations are not all issued
            wu_fresh = Signal(init=1)  # a mini-batch begins
            wu_drain = Signal(range(16))
            wu_token = wu_tokens.o.payload
            skip = 1  # nothing more is to come for a sample without WU
            if not stage.back:
                wu_ahead = count("wu_ahead", dz.complete, wu_done & wu_token.train, in_flight)
                skip = ~wu_token.train | (wu_ahead != 0)
            wu_last = wu_x.last  # operation of a word
            if terms.count:
                m.submodules.part = part = WordOperations(terms, bias=stage.bias, apart=clips)
                wu_last = part.last
            (wu_tap, wu_n, wu_m), wu_all, _ = _nest(
                m, issue_wu & wu_last, (tap_groups, n_blocks, m_blocks), "wu"
            )
            wu_word = Signal(range(stage.words))
            wu_first_pixel, wu_pixel = ~wu_inside, issue_wu
            wu_block_done = Signal()
            wu_issued = Signal()
            if terms.count:
                m.d.comb += [
                    part.step.eq(issue_wu),
                    part.last_pixel.eq(wu_x.last),
                    part.update.eq(wu_token.update),
                    part.biased.eq((wu_n.value == 0) & (wu_tap.value == 0)),
                ]
                wu_first_pixel, wu_pixel = part.first, issue_wu & part.pixel
            m.d.comb += [
                wu_block_done.eq(issue_wu & wu_last),
                wu_issued.eq(issue_wu & (wu_last & wu_all)),
                wu_x.step.eq(wu_pixel),
                wu_dz.step.eq(wu_pixel),
            ]
            with m.If(issue_wu):
                m.d.sync += wu_inside.eq(~wu_last)
            with m.If(wu_block_done):
                m.d.sync += wu_word.eq(Mux(wu_all, 0, wu_word + 1))
            wu_over = Signal()  # they have all been issued, with the one of the cycle before
            m.d.sync += wu_over.eq(wu_issued)
            with m.If(wu_tokens.o.valid & ~wu_active & (wu_drain == 0)):
                with m.If(wu_token.train & ~wu_token.frozen):
                    m.d.sync += wu_active.eq(1)
                with m.Else():
                    m.d.comb += wu_done.eq(skip)
            finish_after = x.LATENCY + array.PRODUCT_LATENCY - 1  # from issue; see `finish` below
            with m.If(wu_over):
                m.d.sync += [
                    wu_active.eq(0),
                    # The first FP read of a word (two cycles after its issue) must find it stored.
                    wu_drain.eq(finish_after + weights.finish_latency - 3),
                ]
            with m.If(wu_drain != 0):
                m.d.sync += wu_drain.eq(wu_drain - 1)
                with m.If(wu_drain == 1):
                    m.d.comb += wu_done.eq(1)
                    m.d.sync += wu_fresh.eq(wu_token.update)
                    with m.If(wu_token.update):
                        m.d.sync += update_pending.eq(0)
            m.d.sync += [
                just_updated.eq((wu_drain == 1) & wu_token.update),
                self.updated.eq(just_updated),
            ]
            m.d.comb += [
                wu_tokens.o.ready.eq(wu_done),
                x.release.eq(wu_done),
                wu_x.slot_step.eq(wu_done),
                dz.release.eq(wu_done & wu_token.train),
                wu_dz.slot_step.eq(wu_done & wu_token.train),
            ]
            wu_want = wu_active & ~wu_over
            if not stage.back:
                no_more = wu_token.update | (wu_tokens.level == in_flight)
                can = (wu_ahead != 0) | (no_more & arrived(dz, wu_dz, wu_ahead, "wu"))
                wu_want &= can | ~part.pixel if terms.count else can
            finish = delayed(m, wu_block_done, finish_after, "finish")
            if not terms.decay:  # which has read the word itself
                m.d.comb += taken.eq(finish[finish_after + weights.finish_read - read_after])
        else:  # maps are free when the last of their windows has been read
            m.d.sync += x.release.eq(fp_x.slot_step)
            if stage.back:
                m.d.sync += dz.release.eq(bp_dz.slot_step)

        # Who goes first. BP: the stage before waits for it. A word of WU is not interrupted: its
        # sums are in the multipliers.
        # A pool compares what it takes, in the same cycle.
        m.submodules.outputs = outputs = Queue(
            forward_layout(stage.output, pm), _RESULTS, head=stage.pool > 1
        )
        room, bp_room = self._room(m, outputs, issue_fp & fp_last, "fp"), Const(1)
        if stage.back:
            m.submodules.input_errors = input_errors = Queue(
                data.ArrayLayout(self.before.errors, pn), _RESULTS
            )
            bp_room = self._room(m, input_errors, issue_bp & bp_last, "bp")
        ready_bp, ready_fp = Signal(), Signal()
        m.d.comb += [
            ready_bp.eq(bp_want & bp_room & ~wu_inside),
            ready_fp.eq(fp_busy & arrived(x, fp_x, x_ahead, "fp") & room & ~wu_inside),
            issue_bp.eq(ready_bp & ~taken),
            issue_fp.eq(ready_fp & ~ready_bp & ~taken),
        ]
        if learns:
            # A new word would keep the others out for long: it does not slip into the cycle that
            # they lose.
            m.d.comb += issue_wu.eq(wu_want & ~ready_bp & ~ready_fp)

        # The operation, one register per cycle from here on.
        op = data.StructLayout({
            "fp": 1,
            "bp": 1,
            "wu": 1,
            "first": 1,
            "last": 1,
            "train": 1,
            "word": range(stage.words),
            "m": range(m_blocks),
            "bias": 1,
            **({"part": WordOperations.LAYOUT} if terms.count else {}),
        })
        sums_after = x.LATENCY + 1 + max(array.forward_latency, array.backward_latency)
        ops = delayed(m, Signal(op, name="op0"), sums_after + 1, "op")
        m.d.comb += [
            ops[0].fp.eq(issue_fp),
            ops[0].bp.eq(issue_bp),
            ops[0].wu.eq(issue_wu),
            ops[0].train.eq(token.train),
        ]
        read_x = Signal(fp_x.shape.at, reset_less=True)
        x_block, x_tap = Signal.like(x.block), Signal.like(x.tap)
        if takes_errors:
            read_dz = Signal(dz.shape.at, reset_less=True)
            dz_block, dz_tap = Signal.like(dz.block), Signal.like(dz.tap)
        centre = (stage.kernel - 1 - stage.pad) * (stage.kernel + 1) if stage.back else 0
        with m.If(issue_fp):
            m.d.comb += [
                ops[0].first.eq(fp_first),
                ops[0].last.eq(fp_last),
                ops[0].word.eq(fp_word),
                ops[0].m.eq(fp_m.value),
            ]
            m.d.sync += [read_x.eq(fp_x.at), x_block.eq(fp_n.value), x_tap.eq(fp_tap.value)]
        if stage.back:
            with m.If(issue_bp):
                m.d.comb += [
                    ops[0].first.eq(bp_first),
                    ops[0].last.eq(bp_last),
                    ops[0].word.eq(bp_word),
                ]
                m.d.sync += [
                    read_dz.eq(bp_dz.at),
                    dz_block.eq(bp_m.value),
                    dz_tap.eq(tap_groups - 1 - bp_tap.value),
                ]
        if learns:
            with m.If(issue_wu):
                m.d.comb += [
                    ops[0].first.eq(wu_first_pixel),
                    ops[0].word.eq(wu_word),
                    ops[0].m.eq(wu_m.value),
                    ops[0].bias.eq((wu_n.value == 0) & (wu_tap.value == 0)),
                ]
                if terms.count:
                    m.d.comb += ops[0].part.eq(part.now)
                m.d.sync += [
                    read_x.eq(wu_x.at),
                    x_block.eq(wu_n.value),
                    x_tap.eq(wu_tap.value),
                    read_dz.eq(wu_dz.at),
                    dz_block.eq(wu_m.value),
                    dz_tap.eq(centre // dz_windows.taps),
                ]
        if takes_errors:
            m.d.comb += [
                dz.en.eq(ops[1].bp | ops[1].wu),
                dz.at.eq(read_dz),
                dz.block.eq(dz_block),
                dz.tap.eq(dz_tap),
            ]
        m.d.comb += [
            x.en.eq(ops[1].fp | ops[1].wu),
            x.at.eq(read_x),
            x.block.eq(x_block),
            x.tap.eq(x_tap),
            weights.read.eq(ops[read_after].fp | ops[read_after].bp),
            weights.word.eq(ops[read_after].word),
        ]

        # At the multipliers.
        operands = ops[x.LATENCY + 1]
        m.d.comb += [
            array.valid.eq(operands.fp | operands.bp | operands.wu),
            array.bp.eq(operands.bp),
            array.w.eq(weights.w),
            array.x.eq(x.taps),
        ]
        if stage.back:
            m.d.comb += array.dz_window.eq(dz.taps)
        if learns:
            shift = Signal.like(array.shift)  # everybody's operand waits for it
            m.d.sync += shift.eq(Mux(ops[x.LATENCY].wu, wu_token.shift, 0))
            dz_pixel = [dz.taps[lane][centre % dz_windows.taps] for lane in range(pm)]
            m.d.comb += [
                array.wu.eq(operands.wu),
                array.load.eq(~operands.wu | operands.first),
                array.shift.eq(shift),
                weights.gradient.eq(array.gradient),
                *(array.dz[lane].eq(pixel) for lane, pixel in enumerate(dz_pixel)),
            ]
            based = None
            if terms.count:
                self._terms(m, array, weights, wu_token, ops[read_after], ops[x.LATENCY], operands)
                based = ops[x.LATENCY + 3].part.based
            self._bias_gradient(m, array, weights, dz_pixel, wu_token.shift, based)

            # At the weights.
            finishing = ops[finish_after]
            m.d.comb += [
                weights.finish.eq(finish[finish_after]),
                weights.finish_word.eq(finishing.word),
                weights.finish_block.eq(finishing.m),
                weights.finish_bias.eq(finishing.bias),
                weights.apply.eq(wu_token.update),
                weights.fresh.eq(wu_fresh),
                self.saturated_weights.eq(weights.saturated),
            ]
            if clips:
                summed = ops[finish_after].part.sum if terms.count else finish[finish_after]
                m.d.comb += [weights.sum.eq(summed), weights.limit.eq(wu_token.clip)]
            if terms.velocity is not None:
                m.d.comb += self.saturated_velocity.eq(weights.saturated_velocity)

        # At the sums.
        after = x.LATENCY + 1 + array.forward_latency
        chains = {"weights": getattr(weights, "random", None)}
        chains["output"] = self._results(
            m,
            name="output",
            ops=(ops[after], ops[after + 1]),
            wanted="fp",
            sums=[array.forward[lane] for lane in range(pm)],
            bias=[weights.bias[lane] << stage.input.frac for lane in range(pm)]
            if stage.bias
            else [Const(0)] * pm,
            shift=stage.input.frac + stage.weights.frac - stage.output.frac,
            fmt=stage.output,
            mode=stage.round_output,
            seed=plan.random_seed(stage, "output"),
            queue=outputs.i,
            data=outputs.i.payload.data,
            saturated=self.saturated_output,
        )
        m.d.comb += [
            weights.bias_block.eq(ops[after - 1].m),
            # Without errors nobody need remember anything.
            outputs.i.payload.train.eq(ops[after + 1].train if takes_errors else 0),
        ]
        connect(m, outputs.o, wiring.flipped(self.o))
        if stage.back:
            after = x.LATENCY + 1 + array.backward_latency
            chains["errors"] = self._results(
                m,
                name="errors",
                ops=(ops[after], ops[after + 1]),
                wanted="bp",
                sums=[array.backward[lane] for lane in range(pn)],
                bias=[Const(0)] * pn,
                shift=stage.errors.frac + stage.weights.frac - self.before.errors.frac,
                fmt=self.before.errors,
                mode=self.before.round_errors,
                seed=plan.random_seed(self.before, "errors"),
                queue=input_errors.i,
                data=input_errors.i.payload,
                saturated=self.saturated_errors,
            )
            connect(m, input_errors.o, wiring.flipped(self.dx))
        chains = {site: chain for site, chain in chains.items() if chain is not None}
        assert list(chains) == self.random_sites
        if chains:
            link(m, self.random, chains.values())

        quiet = ~fp_busy & ~fp_over & ~Cat(queue.level != 0 for queue in queues).any()
        m.d.comb += self.idle.eq(
            quiet & ~self.token.valid & ~scanning & ~just_updated & ~self.updated
        )
        self._scan(m, weights, quiet & ~scanning, scanning)
        return m

    def _room(self, m, queue, issued, name):
        """Whether a result that is issued now finds a place in the queue."""
        taken = queue.o.valid & queue.o.ready
        promised = Signal(range(queue.depth + 1), name=f"{name}_promised")
        room = Signal(init=1, name=f"{name}_room")
        # Both come late in a cycle.
        with m.If(taken & ~issued):
            m.d.sync += [promised.eq(promised - 1), room.eq(1)]
        with m.If(issued & ~taken):
            m.d.sync += [promised.eq(promised + 1), room.eq(promised != queue.depth - 1)]
        return room

    def _terms(self, m, array, weights, token, reading, reading_bias, operands):
        """Bring the array the operands of what the optimiser adds: of weights, or of biases.

        The operations are those that read weights, read biases, and are at the array.
        """
        stage, terms = self.stage, self.terms
        pm, pn, pk = stage.folding
        of_weights = reading.part.term & ~reading.part.bias
        at = operands.part
        m.d.comb += [array.term.eq(at.term), weights.term_block.eq(reading_bias.m)]
        coefficients = []
        if terms.velocity is not None:
            coefficients.append(token.momentum << terms.momentum_shift)
            m.d.comb += [
                weights.read_v.eq(of_weights & reading.part.velocity),
                array.of_velocity.eq(at.velocity),
                array.v.eq(weights.v),
            ]
        if terms.decay:
            coefficients.append(token.decay << terms.decay_shift)
            of_weights = of_weights & ~reading.part.velocity
            m.d.comb += [
                weights.read.eq(reading.fp | reading.bp | of_weights),
                weights.hold.eq(at.term & at.end & ~at.bias),
            ]
        m.d.comb += array.coefficient.eq(
            Mux(at.velocity, *coefficients) if terms.count == 2 else coefficients[0]
        )
        if stage.bias:
            with m.If(at.bias):
                for lane in range(pm):
                    first = lane * pn * pk
                    if terms.velocity is not None:
                        m.d.comb += array.v[first].eq(weights.bias_v[lane])
                    if terms.decay:
                        m.d.comb += array.w[first].eq(weights.bias_w[lane])

    def _bias_gradient(self, m, array, weights, pixel, shift, based):
        """Sum errors over pixels, in step with the products.

        If the optimiser adds something, its sum is in the array as the first pixel comes, ``based``.
        """
        if not self.stage.bias:
            return
        valid = array.valid & array.wu
        if self.terms.count:
            valid = valid & ~array.term
        valid = delayed(m, valid, 2, "bias_valid")
        load = delayed(m, array.load, 2, "bias_load", reset_less=True)
        _, pn, pk = self.stage.folding
        for lane, error in enumerate(pixel):
            width = self.stage.errors.width + array.shifts
            terms = [Signal(signed(width), name=f"db{lane}_{n}", reset_less=True) for n in range(2)]
            total = Signal(signed(weights.bias_gradient_width), name=f"db{lane}", reset_less=True)
            with m.If(valid[0]):
                m.d.sync += terms[0].eq(error << shift)
            with m.If(valid[1]):
                m.d.sync += terms[1].eq(terms[0])
            begin, term = 0, terms[1]
            if self.terms.count:
                added = array.gradient[lane * pn * pk]
                if weights.clips:
                    product = Signal.like(
                        weights.bias_product[lane], name=f"bias_product{lane}", reset_less=True
                    )
                    with m.If(based):
                        m.d.sync += product.eq(added)
                    m.d.comb += weights.bias_product[lane].eq(product)
                else:
                    begin, term = Mux(based, added, 0), term << self.stage.input.frac
            with m.If(valid[2]):
                m.d.sync += total.eq(Mux(load[2], begin, total) + term)
            m.d.comb += weights.bias_gradient[lane].eq(total)

    def _results(
        self, m, *, name, ops, wanted, sums, bias, shift, fmt, mode, seed, queue, data, saturated
    ):
        """Accumulate sums, round them, and put them into their queue.

        Returns the chain of the random bits that they are rounded with, or None.
        """
        summing, rounding = ops
        half = 1 << shift - 1 if mode is Round.NEAREST and shift > 0 else 0
        width = max(self.stage.sum_width, shift + 1)  # the half may be larger than any sum
        random = None
        if mode is Round.STOCHASTIC and shift > 0:
            m.submodules[f"{name}_lfsr"] = lfsr = Lfsr(seed)
            m.d.comb += lfsr.advance.eq(queue.valid)
            random = lfsr.state
        flags = []
        for lane, (part, first) in enumerate(zip(sums, bias, strict=True)):
            total = Signal(signed(width), name=f"{name}_sum{lane}", reset_less=True)
            with m.If(summing[wanted]):
                m.d.sync += total.eq(Mux(summing.first, first + half, total) + part)
            code, clipped = requantize(
                m,
                total,
                shift,
                fmt,
                Round.TRUNCATE if mode is Round.NEAREST else mode,
                random if random is None else lane_bits(random, lane, shift),
            )
            m.d.comb += data[lane].eq(code)
            flags.append(clipped)
        m.d.comb += queue.valid.eq(rounding[wanted] & rounding.last)
        count = Signal(range(len(flags) + 1), name=f"{name}_clipped")
        m.d.sync += [
            count.eq(Mux(queue.valid, balanced_sum(flags), 0)),
            saturated.eq(saturated + count),
        ]
        return None if random is None else lfsr.chain

    def _scan(self, m, weights, quiet, scanning):
        """Move weights between memory and host when a token says so and no sample is inside."""
        stage = self.stage
        m_blocks, n_blocks, tap_groups = stage.blocks
        lanes = stage.multipliers + (stage.folding[0] if stage.bias else 0)
        lane = Signal(range(lanes))
        number = Signal.like(self.scan_i.payload)
        word_step = Signal()
        (inner, block), words_done, _ = _nest(
            m, word_step, (n_blocks * tap_groups, m_blocks), "scan"
        )
        word = weights.scan_word
        with m.If(word_step):
            m.d.sync += word.eq(Mux(words_done, 0, word + 1))
        m.d.comb += [
            weights.scan_block.eq(block.value),
            weights.scan_bias.eq(inner.value == 0),
            weights.scan_i.eq(number),
            self.scan_o.payload.eq(weights.scan_o),
        ]
        if self.terms.velocity is not None:
            m.d.comb += weights.scan_velocity.eq(self.token.payload.velocity)
        wait = Signal(range(8))
        m.d.sync += weights.scan_fetch.eq(0)  # but in "fetch"; a word's address waits for it
        with m.FSM():
            with m.State("idle"), m.If(self.token.valid & quiet):
                with m.If(self.token.payload.read):
                    m.d.sync += weights.scan_fetch.eq(1)
                    m.next = "fetch"
                with m.Elif(self.token.payload.write):
                    m.next = "in"
            with m.State("fetch"):
                m.d.comb += scanning.eq(1)
                m.d.sync += wait.eq(weights.fetch_latency + 1)
                m.next = "wait"
            with m.State("wait"):
                m.d.comb += scanning.eq(1)
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.next = "out"
            with m.State("out"):
                m.d.comb += [scanning.eq(1), self.scan_o.valid.eq(1)]
                with m.If(self.scan_o.ready):
                    m.next = "move on"
            # Many registers move: the state alone says so.
            with m.State("move on"):
                m.d.comb += [scanning.eq(1), weights.scan_shift.eq(1)]
                m.d.sync += lane.eq(Mux(lane == lanes - 1, 0, lane + 1))
                m.next = "out"
                with m.If(lane == lanes - 1):
                    m.d.comb += word_step.eq(1)
                    with m.If(words_done):
                        m.next = "done"
                    with m.Else():
                        m.d.sync += weights.scan_fetch.eq(1)
                        m.next = "fetch"
            with m.State("in"):
                m.d.comb += [scanning.eq(1), self.scan_i.ready.eq(1)]
                with m.If(self.scan_i.valid):
                    m.d.sync += number.eq(self.scan_i.payload)
                    m.next = "move in"
            with m.State("move in"):
                m.d.comb += [scanning.eq(1), weights.scan_shift.eq(1)]
                m.d.sync += lane.eq(Mux(lane == lanes - 1, 0, lane + 1))
                m.next = "in"
                with m.If(lane == lanes - 1):
                    m.next = "store"
            with m.State("store"):
                m.d.comb += [scanning.eq(1), weights.scan_store.eq(1), word_step.eq(1)]
                m.next = "in"
                with m.If(words_done):
                    m.next = "done"
            with m.State("done"):
                m.d.comb += [scanning.eq(1), self.token.ready.eq(1)]
                m.next = "idle"
