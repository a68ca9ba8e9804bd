"""The streaming training pipeline, whole."""

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.host.device import Op
from streamtrain.numeric import link
from streamtrain.pipeline.backprop import backpropagate, forward_links
from streamtrain.pipeline.layouts import (
    command_layout,
    loss_token_layout,
    result_layout,
    saturation_sites,
    stored_width,
    token_layout,
    update_fields,
)
from streamtrain.pipeline.loss import ScoreLoss
from streamtrain.pipeline.randomness import RandomScan
from streamtrain.pipeline.stage import TrainingStage
from streamtrain.stream import Queue, connect

__all__ = ["TrainingPipeline"]

_COMMANDS = 2  # commands that wait, whole, in front of the stages


class TrainingPipeline(wiring.Component):
    """A network in hardware that trains: samples and commands in, results out.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`

    Members
    -------
    i : :py:`In(stream.Signature(ArrayLayout(input format, Pn of the first stage)))`
        Samples: channels innermost, then columns, then rows.
    command : :py:`In(stream.Signature(command_layout(plan)))`
        One for each sample, in order; those that read or write weights go between samples.
    o : :py:`Out(stream.Signature(result_layout(plan)))`
        One result for each sample.
    weights_i, weights_o : :py:`In(...)`, :py:`Out(stream.Signature(signed(stored_width(plan))))`
        Weights, or velocities, of the stage that a command writes or reads, in the order that
        :class:`~streamtrain.pipeline.stage.TrainingStage` gives; or of the random bits, as
        :class:`~streamtrain.pipeline.randomness.RandomScan` does.
    idle : :py:`Out(1)`
        All commands are worked off.
    updated : :py:`Out(len(plan.stages))`
        The stage's weights have just been updated. Frozen stages never say so.
    saturated_NAME_output, saturated_NAME_errors, saturated_NAME_weights : :py:`Out(32)`
        For each stage: outputs, errors of its outputs, and weights that saturated since reset. With
        momentum also saturated_NAME_velocity.

    Timing
    ------
    See :mod:`streamtrain.pipeline.schedule` for the cycles of a step. Any stream may stall at any time.
    """

    def __init__(self, plan):
        self.plan = plan
        first = plan.stages[0]
        width = stored_width(plan)
        members = {
            "i": In(stream.Signature(data.ArrayLayout(first.input, first.folding[1]))),
            "command": In(stream.Signature(command_layout(plan))),
            "o": Out(stream.Signature(result_layout(plan))),
            "weights_i": In(stream.Signature(signed(width))),
            "weights_o": Out(stream.Signature(signed(width))),
            "idle": Out(1),
            "updated": Out(len(plan.stages)),
        }
        for stage in plan.stages:
            for what in saturation_sites(plan):
                members[f"saturated_{stage.name}_{what}"] = Out(32)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        links, scores = forward_links(m, self.plan)
        m.submodules.loss = loss = ScoreLoss(self.plan)
        connect(m, scores, loss.i)
        connect(m, loss.result, wiring.flipped(self.o))
        backpropagate(m, links, loss.o)

        stages = [link.component for link in links if isinstance(link.component, TrainingStage)]
        connect(m, wiring.flipped(self.i), stages[0].i)
        self._dispatch(m, stages, loss)
        for stage, after in zip(stages, [*stages[1:], None], strict=True):
            errors = loss.saturated if after is None else after.saturated_errors
            for what in saturation_sites(self.plan):
                # A frozen stage has no velocities.
                count = errors if what == "errors" else getattr(stage, f"saturated_{what}", 0)
                m.d.comb += getattr(self, f"saturated_{stage.stage.name}_{what}").eq(count)
        return m

    def _dispatch(self, m, stages, loss):
        """Tell stages and loss about each sample; let weights through when no sample is inside."""
        plan = self.plan
        m.submodules.commands = commands = Queue(command_layout(plan), _COMMANDS, head=True)
        connect(m, wiring.flipped(self.command), commands.i)
        command = commands.o.payload
        reads, writes = command.op == Op.READ, command.op == Op.WRITE

        # A token waits in front of each stage while the sample before it is in work there.
        queues = []
        for stage in stages:
            queue = Queue(token_layout(plan, stage.stage), plan.in_flight + 2)
            m.submodules[f"{stage.stage.name}_tokens"] = queue
            connect(m, queue.o, stage.token)
            queues.append(queue)
        m.submodules.loss_tokens = loss_queue = Queue(
            loss_token_layout(plan), plan.in_flight + len(stages) + 1, head=True
        )
        connect(m, loss_queue.o, loss.token)

        empty = Signal()
        m.d.comb += empty.eq(loss.idle & (loss_queue.level == 0))
        for stage, queue in zip(stages, queues, strict=True):
            with m.If(~stage.idle | (queue.level != 0)):
                m.d.comb += empty.eq(0)
        scans = [(stage.scan_i, stage.scan_o) for stage in stages]
        if plan.random_sites:
            m.submodules.random = random = RandomScan(plan)
            link(m, random.chain, [part.random for part in [*stages, loss] if hasattr(part, "random")])
            scans.append((random.i, random.o))
            with m.If(~random.idle):
                m.d.comb += empty.eq(0)
        scanning, scanned = Signal(), Signal(range(len(scans)))
        go = Signal()
        sample = ~(reads | writes)
        calm = Signal()  # it was empty, and no sample has come since
        m.d.sync += calm.eq(empty & ~(commands.o.valid & sample))
        # All have room for a token. Only commands take it, so it is known before one is looked at.
        room = Signal()
        takers = [
            (queue.i, sample | (command.stage == number)) for number, queue in enumerate(queues)
        ]
        takers.append((loss_queue.i, sample))
        if plan.random_sites:
            takers.append((random.token, ~sample & (command.stage == len(stages))))
            m.d.comb += random.token.payload.write.eq(writes)
        # A command waits for a cycle more: what it does is wanted in many places.
        m.d.sync += [
            room.eq(Cat(port.ready for port, _ in takers).all() & ~go),
            go.eq(commands.o.valid & room & ~go & ~scanning & (calm | sample)),
        ]
        m.d.comb += [
            commands.o.ready.eq(go),
            *(port.valid.eq(go & wanted) for port, wanted in takers),
        ]
        for number, (stage, queue) in enumerate(zip(stages, queues, strict=True)):
            token = queue.i.payload
            m.d.comb += [
                token.train.eq(command.op == Op.TRAIN),
                token.read.eq(reads),
                token.write.eq(writes),
            ]
            if stage.stage.trainable:
                m.d.comb += [
                    token.update.eq(command.update),
                    token.shift.eq(command.shift),
                    token.frozen.eq(command.frozen[number]),
                ]
                m.d.comb += [token[field].eq(command[field]) for field in update_fields(plan)]
        m.d.comb += [
            loss_queue.i.payload.op.eq(command.op),
            loss_queue.i.payload.label.eq(command.label),
            loss_queue.i.payload.mantissa.eq(command.mantissa),
            self.idle.eq(empty & (commands.level == 0)),
        ]
        with m.If(go & (reads | writes)):
            m.d.sync += [scanning.eq(1), scanned.eq(command.stage)]
        with m.Elif(scanning & empty):
            m.d.sync += scanning.eq(0)

        ready, valid, payload = [], [], []
        for number, (scan_i, scan_o) in enumerate(scans):
            chosen = Signal(name=f"scans{number}")  # in time: a stage takes a while to begin
            m.d.sync += chosen.eq(scanning & (scanned == number))
            ready.append(chosen & scan_i.ready)
            valid.append(chosen & scan_o.valid)
            payload.append(Mux(chosen, scan_o.payload, 0))
            m.d.comb += [
                scan_i.payload.eq(self.weights_i.payload),
                scan_i.valid.eq(self.weights_i.valid & chosen),
                scan_o.ready.eq(self.weights_o.ready & chosen),
            ]
            if number < len(stages):
                m.d.comb += self.updated[number].eq(stages[number].updated)
        m.d.comb += [
            self.weights_i.ready.eq(Cat(ready).any()),
            self.weights_o.valid.eq(Cat(valid).any()),
            self.weights_o.payload.eq(reduce(or_, payload)),
        ]
