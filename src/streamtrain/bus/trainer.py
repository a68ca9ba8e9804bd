"""A training pipeline with its buses."""

from amaranth import Cat, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.axi import AxiLite, AxiStream
from streamtrain.bus.dispatch import Dispatch, settings_layout
from streamtrain.bus.receive import SampleReceiver
from streamtrain.bus.register_file import RegisterFile
from streamtrain.bus.send import ResultSender
from streamtrain.bus.supply import SampleSupply
from streamtrain.bus.table import EVENTS, WIDE, register_map
from streamtrain.bus.window import WeightWindow
from streamtrain.pipeline.core import TrainingPipeline
from streamtrain.pipeline.layouts import saturation_sites
from streamtrain.stream import Queue, connect

__all__ = ["BusTrainer"]


class BusTrainer(wiring.Component):
    """A training pipeline between packets of samples and packets of results, set by registers.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`

    Members
    -------
    samples : :py:`In(AxiStream(fmt.size))`
    results : :py:`Out(AxiStream(fmt.size))`
    bus : :py:`In(AxiLite(...))`
        The registers of :func:`~streamtrain.bus.table.register_map`.
    irq : :py:`Out(1)`
        An event is set whose interrupt is enabled.

    Timing
    ------
    Samples are used once they are whole, and while one is, the next one arrives: a stream that keeps up
    costs no cycle of a step.
    """

    def __init__(self, fmt):
        self.fmt = fmt
        self.table = register_map(fmt)
        super().__init__({
            "samples": In(AxiStream(fmt.size)),
            "results": Out(AxiStream(fmt.size)),
            "bus": In(AxiLite(self.table.address_bits)),
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        plan = self.fmt.plan
        m.submodules.registers = registers = RegisterFile(self.table)
        m.submodules.receiver = receiver = SampleReceiver(self.fmt)
        m.submodules.sender = sender = ResultSender(self.fmt)
        # What CONTROL.reset resets, too.
        core, dispatch, window = TrainingPipeline(plan), Dispatch(plan), WeightWindow(plan)
        supply = SampleSupply(self.fmt)
        reset = Signal()
        m.d.sync += reset.eq(registers.control_reset)
        inner = ResetInserter(reset)
        m.submodules.core = inner(core)
        m.submodules.dispatch = inner(dispatch)
        m.submodules.window = inner(window)
        m.submodules.supply = inner(supply)

        wiring.connect(m, wiring.flipped(self.samples), receiver.axis)
        wiring.connect(m, sender.axis, wiring.flipped(self.results))
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        connect(m, receiver.words, supply.words)
        connect(m, supply.o, core.i)
        connect(m, dispatch.command, core.command)
        connect(m, core.o, dispatch.result)
        connect(m, dispatch.o, sender.i)
        connect(m, dispatch.fate, sender.fate)
        connect(m, window.command, dispatch.window)
        # Whether a number is given or taken depends on what the host asks for: it waits a cycle.
        number = core.weights_o.payload.shape()
        given, found = Queue(number, 1, head=True), Queue(number, 1, head=True)
        m.submodules.given, m.submodules.found = inner(given), inner(found)
        takes = Signal()
        m.d.sync += takes.eq(core.weights_i.ready)
        m.d.comb += [
            given.i.valid.eq(window.weights_i.valid & takes),
            given.i.payload.eq(window.weights_i.payload),
            window.weights_i.ready.eq(given.i.ready & takes),
        ]
        connect(m, given.o, core.weights_i)
        connect(m, core.weights_o, found.i)
        connect(m, found.o, window.weights_o)
        self._control(m, registers, reset, receiver, dispatch, supply, sender, core, window)
        self._settings(m, registers, dispatch)
        self._window(m, registers, window)
        self._counters(m, registers, receiver, dispatch, sender, core)
        return m

    def _control(self, m, registers, reset, receiver, dispatch, supply, sender, core, window):
        training, worked_off = Signal(), Signal()
        # The window opens once no sample is inside, and then it is what the core is at.
        m.d.comb += worked_off.eq(training & ~dispatch.waiting & (core.idle | window.opened))
        with m.If(dispatch.waiting):
            m.d.sync += training.eq(1)
        with m.If(worked_off | reset):
            m.d.sync += training.eq(0)
        # What the receiver says of a sample, it says late in a cycle. In the next one comes no pixel: a
        # sample begins with its label.
        discard = Signal()
        m.d.sync += [
            dispatch.commit.eq(receiver.commit),
            dispatch.label.eq(receiver.label),
            dispatch.last.eq(receiver.last),
            dispatch.more.eq(receiver.more),
            dispatch.cut.eq(receiver.cut),
            discard.eq(receiver.discard),
            registers.set_events_short.eq(receiver.short),
            registers.set_events_long.eq(receiver.long),
            registers.set_events_keep.eq(receiver.keep),
            registers.set_events_label.eq(receiver.class_unknown),
        ]
        m.d.comb += [
            receiver.open.eq(registers.control_run),
            receiver.room.eq(dispatch.room & ~dispatch.commit),
            receiver.count.eq(registers.packet_samples),
            receiver.labelled.eq(registers.control_mode != 0),
            receiver.abort.eq(reset),
            sender.abort.eq(reset),
            supply.commit.eq(dispatch.commit),
            supply.discard.eq(discard),
            registers.status_busy.eq(dispatch.waiting | dispatch.commit | training),
            registers.status_receiving.eq(receiver.receiving),
            registers.set_events_refused.eq(registers.refused),
            registers.set_events_done.eq(worked_off & ~reset),
            self.irq.eq(
                Cat(
                    getattr(registers, f"events_{name}") & getattr(registers, f"interrupts_{name}")
                    for name in EVENTS
                ).any()
            ),
        ]

    def _settings(self, m, registers, dispatch):
        sources = {
            "op": "control_mode",
            "batch": "batch_samples",
            "mantissa": "rate_mantissa",
            "shift": "rate_shift",
            "frozen": "frozen_layers",
            "momentum": "momentum_value",
            "decay": "decay_value",
            "clip": "clip_value",
        }
        for name, _ in settings_layout(self.fmt.plan):
            m.d.comb += dispatch.settings[name].eq(getattr(registers, sources[name]))

    def _window(self, m, registers, window):
        wanted = registers.window_wdata
        kept = Signal(32)
        layer, target, write = (self.table["WINDOW"][name] for name in ("layer", "target", "write"))
        m.d.comb += [
            window.stage.eq(wanted[layer.low : layer.low + layer.bits]),
            window.target.eq(wanted[target.low : target.low + target.bits]),
            window.write.eq(wanted[write.low]),
            window.start.eq(registers.window_write),
            registers.window_done.eq(1),
            registers.window_refused.eq(registers.window_write & window.refused),
            registers.window_rdata.eq(kept),
            window.read.eq(registers.window_data_read),
            window.written.eq(registers.window_data_write),
            window.number.eq(registers.window_data_wdata),
            registers.window_data_rdata.eq(window.found),
            registers.window_data_done.eq(window.done),
            registers.window_data_refused.eq(window.wrong),
            registers.window_left_count.eq(window.left),
            registers.status_window_busy.eq(window.busy),
            registers.status_window_open.eq(window.opened),
        ]
        with m.If(registers.window_write & ~window.refused):
            m.d.sync += kept.eq(wanted)
        if "SEED" in self.table:
            seed = Signal(32)
            m.d.comb += [
                window.seed.eq(registers.seed_wdata),
                window.seeding.eq(registers.seed_write),
                registers.seed_done.eq(1),
                registers.seed_refused.eq(registers.seed_write & window.seed_refused),
                registers.seed_rdata.eq(seed),
            ]
            with m.If(registers.seed_write & ~window.seed_refused):
                m.d.sync += seed.eq(registers.seed_wdata)

    def _counters(self, m, registers, receiver, dispatch, sender, core):
        done, dropped = dispatch.done, Signal()
        m.d.sync += dropped.eq(receiver.dropped)
        # What is dropped by a reset that comes with it is counted two cycles later, and cleared, too.
        asked, clear = Signal(), Signal()
        m.d.sync += [asked.eq(registers.control_clear), clear.eq(asked)]
        steps = {
            "SAMPLES": done,
            "CORRECT": done & dispatch.correct,
            "DROPPED": dropped,
            "LOSS": done.replicate(32) & dispatch.o.payload.result.loss,
            "CYCLES": registers.control_run | registers.status_busy,
            "STARVED": registers.control_run & ~registers.status_busy,
            "BLOCKED": sender.axis.tvalid & ~sender.axis.tready,
        }
        for name, step in steps.items():
            wide = name in WIDE
            count = Signal(64 if wide else 32, name=name.lower())
            m.d.sync += count.eq(count + step)
            with m.If(clear):
                m.d.sync += count.eq(0)
            m.d.comb += getattr(registers, f"{name.lower()}_count").eq(count)
            if wide:
                m.d.comb += getattr(registers, f"{name.lower()}_high_count").eq(count >> 32)
        for stage in self.fmt.plan.stages:
            for site in saturation_sites(self.fmt.plan):
                name = f"saturated_{stage.name}_{site}"
                m.d.comb += getattr(registers, f"{name.lower()}_count").eq(getattr(core, name))
