"""Each sample with the settings that it came under."""

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.send import labelled_result
from streamtrain.host.device import Op
from streamtrain.pipeline.layouts import command_layout, result_layout
from streamtrain.stream import Queue, connect

__all__ = ["Dispatch", "settings_layout"]

_WAITING = 2  # samples that count, but whose commands the pipeline has not taken


def settings_layout(plan):
    """What the registers say of a sample: a command, but for what a sample itself brings."""
    command = command_layout(plan)
    own = {"label", "update", "stage", "velocity"}
    members = {name: field.shape for name, field in command if name not in own}
    return data.StructLayout({**members, "batch": range(plan.max_batch + 1)})


class Dispatch(wiring.Component):
    """Make commands of samples and settings, and put labels to results.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`

    Members
    -------
    settings : :py:`In(settings_layout(plan))`
        They hold for the samples that are committed while they are there.
    commit, label, last : :py:`In(1)`, :py:`In(range(classes))`, :py:`In(1)`
        A sample counts; as :class:`~streamtrain.bus.receive.SampleReceiver` says so.
    more, cut : :py:`In(1)`
        What became of the packet behind a sample that counted.
    room : :py:`Out(1)`
        One may.
    window : :py:`In(stream.Signature(command_layout(plan)))`
        Commands that go between two samples.
    command : :py:`Out(stream.Signature(command_layout(plan)))`
    result : :py:`In(stream.Signature(result_layout(plan)))`
        As :class:`~streamtrain.pipeline.core.TrainingPipeline` has them.
    o : :py:`Out(stream.Signature(labelled_result(plan)))`
    fate : :py:`Out(stream.Signature(1))`
        Of each sample that was not the last one of its packet when it came, in order: whether it was that
        after all.
    done : :py:`Out(1)`
        A result goes out.
    scored, correct : :py:`Out(1)`
        Its sample had a label; it was predicted.
    waiting : :py:`Out(1)`
        There are samples whose results have not gone out.

    Timing
    ------
    A command is offered on the cycle after its sample was committed. Results pass in the same cycle.
    """

    def __init__(self, plan):
        self.plan = plan
        command = stream.Signature(command_layout(plan))
        super().__init__({
            "settings": In(settings_layout(plan)),
            "commit": In(1),
            "label": In(range(plan.network.classes)),
            "last": In(1),
            "more": In(1),
            "cut": In(1),
            "room": Out(1),
            "window": In(command),
            "command": Out(command),
            "result": In(stream.Signature(result_layout(plan))),
            "o": Out(stream.Signature(labelled_result(plan))),
            "fate": Out(stream.Signature(unsigned(1))),
            "done": Out(1),
            "scored": Out(1),
            "correct": Out(1),
            "waiting": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        plan, settings = self.plan, self.settings
        noted = data.StructLayout({"command": command_layout(plan), "last": 1})
        sample = data.StructLayout({
            "op": command_layout(plan)["op"].shape,
            "label": range(plan.network.classes),
            "last": 1,
        })
        m.submodules.notes = notes = Queue(noted, _WAITING)
        # Those in work, and those whose commands wait in front of the stages.
        inside = 2 * (plan.in_flight + len(plan.stages)) + 4
        m.submodules.samples = samples = Queue(sample, inside)
        # As many as there are samples, with the one whose result is on its way out: it never overflows.
        m.submodules.fates = fates = Queue(unsigned(1), _WAITING + inside + 1)
        m.d.comb += [fates.i.valid.eq(self.more | self.cut), fates.i.payload.eq(self.cut)]
        connect(m, fates.o, wiring.flipped(self.fate))

        seen = Signal(range(plan.max_batch + 1))  # of the mini-batch
        training, update = Signal(), Signal()
        command = notes.i.payload.command
        m.d.comb += [
            training.eq(settings.op == Op.TRAIN),
            update.eq(training & (seen + 1 >= settings.batch)),
            self.room.eq(notes.i.ready),
            notes.i.valid.eq(self.commit),
            notes.i.payload.last.eq(self.last),
            command.label.eq(self.label),
            command.update.eq(update),
        ]
        m.d.comb += [
            command[name].eq(settings[name]) for name, _ in settings_layout(plan) if name != "batch"
        ]
        with m.If(self.commit & training):
            m.d.sync += seen.eq(Mux(update, 0, seen + 1))

        note = notes.o.payload
        offered = Signal()  # a sample's command, which has to stay
        from_window = self.window.valid & ~offered
        m.d.sync += offered.eq(self.command.valid & ~from_window & ~self.command.ready)
        m.d.comb += [
            self.command.valid.eq(from_window | notes.o.valid & samples.i.ready),
            self.command.payload.eq(Mux(from_window, self.window.payload, note.command)),
            self.window.ready.eq(from_window & self.command.ready),
            notes.o.ready.eq(~from_window & self.command.ready & samples.i.ready),
            samples.i.valid.eq(notes.o.valid & notes.o.ready),
            samples.i.payload.op.eq(note.command.op),
            samples.i.payload.label.eq(note.command.label),
            samples.i.payload.last.eq(note.last),
        ]

        own = samples.o.payload
        m.d.comb += [
            self.o.valid.eq(self.result.valid & samples.o.valid),
            self.o.payload.result.eq(self.result.payload),
            self.o.payload.label.eq(own.label),
            self.o.payload.last.eq(own.last),
            self.done.eq(self.o.valid & self.o.ready),
            self.result.ready.eq(self.done),
            samples.o.ready.eq(self.done),
            self.scored.eq(own.op != Op.INFER),
            self.correct.eq(self.scored & (self.result.payload.predicted == own.label)),
            self.waiting.eq((notes.level != 0) | (samples.level != 0)),
        ]
        return m
