"""The compiled model as a :class:`~streamtrain.host.device.Device`."""

import ctypes
from ctypes import POINTER, Structure, c_int32, c_uint32, c_uint64

import numpy as np
from amaranth import Shape
from amaranth.lib import data

from streamtrain.host.device import Commands, Op, Results, check_random
from streamtrain.host.packing import (
    STATE_BITS,
    pack_lanes,
    pack_samples,
    pack_states,
    stage_weights,
    stage_words,
    unpack_lanes,
    unpack_states,
    words32,
)
from streamtrain.pipeline.layouts import (
    command_layout,
    result_layout,
    saturation_sites,
    stored_width,
)
from streamtrain.pipeline.optimizer import velocity
from streamtrain.simulate.compiled import (
    compile_design,
    memories,
    patience_cycles,
    snapshot_words,
)
from streamtrain.simulate.model import RunningModel, pointer

__all__ = ["HangError", "SimulatedDevice"]


class HangError(RuntimeError):
    """The hardware stopped making progress."""


class _Job(Structure):
    _fields_ = [
        ("commands", c_uint64),
        ("command", POINTER(c_uint32)),
        ("beats", c_uint64),
        ("beat", POINTER(c_uint32)),
        ("weights_in", c_uint64),
        ("weight_in", POINTER(c_uint32)),
        ("weights_out", c_uint64),
        ("weight_out", POINTER(c_uint32)),
        ("results", c_uint64),
        ("result", POINTER(c_uint32)),
        ("result_cycle", POINTER(c_uint64)),
        ("updates", c_uint64),
        ("update_cycle", POINTER(c_uint64)),
        ("snapshot", POINTER(c_uint32)),
        ("updates_seen", POINTER(c_uint64)),
        ("stall", c_uint32),
        ("seed", c_uint64),
        ("patience", c_uint64),
        ("watch_memory", c_int32),
        ("watch_address", c_uint32),
        ("watch_word", c_uint32),
        ("watch_cycle", c_uint64),
    ]


class _Updates:
    """Room for what is recorded of the updates that ``commands`` ask for."""

    def __init__(self, device, commands, *, weights=False):
        self.count = int(np.count_nonzero(commands.update))
        stages = len(device.plan.stages)
        trained = ~commands.frozen[commands.update != 0, None] >> np.arange(stages) & 1
        trained *= [stage.trainable for stage in device.plan.stages]
        self.expected = trained.sum(axis=0)
        self.cycles = np.zeros((self.count, stages), np.uint64)
        self.seen = np.zeros(stages, np.uint64)
        self.snapshots = None
        if weights:
            self.snapshots = np.zeros((self.count, snapshot_words(device.memories)), np.uint32)

    def fields(self):
        """Members of a :class:`_Job`."""
        return {
            "updates": self.count,
            "update_cycle": pointer(self.cycles),
            "updates_seen": pointer(self.seen),
            **({} if self.snapshots is None else {"snapshot": pointer(self.snapshots)}),
        }

    def checked(self):
        """Itself. Raises :exc:`HangError` if there were more updates or fewer."""
        if (self.seen != self.expected).any():
            raise HangError(
                f"Stages updated their weights {self.seen.tolist()} times, not "
                f"{self.expected.tolist()}"
            )
        return self


class SimulatedDevice(RunningModel):
    """A design's RTL, compiled and running.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    stall : :class:`float`
        Probability that a stream pauses in a cycle, at each port of the design.
    seed : :class:`int`
        Of the stalls.
    trace : path, optional
        Write waveforms (VCD) there.
    jobs : :class:`int`, optional
        Processes that compile at once; as many as there are cores without.
    report : callable
        Gets a line of text as each step of compiling begins.

    Raises
    ------
    CompileError
        If a tool is missing or fails.
    """

    def __init__(self, plan, *, stall=0.0, seed=1, trace=None, jobs=None, report=lambda text: None):
        if not 0 <= stall < 1:
            raise ValueError(f"Stall must be a probability below 1, not {stall!r}")
        self.plan = plan
        self.stall = stall
        self._seed = seed
        library = compile_design(plan, trace=trace is not None, jobs=jobs, report=report)
        words = POINTER(c_uint32)
        functions = {
            "st_memory": (ctypes.c_int, words),
            "st_saturations": (words,),
            "st_run": (POINTER(_Job),),
        }
        self.memories = memories(plan)
        self._command = command_layout(plan)
        self._result = result_layout(plan)
        super().__init__(library, functions, trace)
        self.write_weights(plan.encode_weights(plan.network.initial_weights()))

    def run(self, x, commands):
        """Process samples; see :class:`~streamtrain.host.device.Device`."""
        return self._samples(x, commands)[0]

    def run_timed(self, x, commands):
        """Process samples that are trained with, and record when weights are updated.

        Returns the results, and the cycle of each update: an integer array (updates, stages). It is
        the cycle in which the stage's bit of the design's port ``updated`` is 1, counted as
        :attr:`~streamtrain.host.device.Results.cycles` are. A stage's updates come first in its
        column; zeros stand for those that it did not make because it was frozen.

        Raises :exc:`HangError` if a stage's updates are not as many as the commands'.
        """
        updates = _Updates(self, commands)
        results = self._samples(x, commands, updates)[0]
        return results, updates.checked().cycles.astype(np.int64)

    def run_watched(self, x, commands):
        """Process samples that are trained with, and record the weights after each update.

        Returns the results, and ``(stage number, kind of memory, codes)`` for each memory that holds
        weights or velocities; the codes are shaped (updates, words of the memory, lanes). A stage's own
        updates come first, and what follows them is of no meaning.

        Raises :exc:`HangError` if a stage's updates are not as many as the commands'.
        """
        updates = _Updates(self, commands, weights=True)
        results = self._samples(x, commands, updates)[0]
        snapshots = updates.checked().snapshots
        recorded, offset = [], 0
        for memory in self.memories:
            if not memory.holds_weights:
                continue
            size = memory.words * memory.depth
            part = snapshots[:, offset : offset + size].reshape(-1, memory.words)
            offset += size
            recorded.append((memory.stage, memory.what, self._lanes(memory, part, len(snapshots))))
        return results, recorded

    def _lanes(self, memory, words, count):
        """Stored codes of a memory's words: (count, depth, lanes)."""
        stage = self.plan.stages[memory.stage]
        if memory.what == "inputs":
            width, step, lanes = stage.input.width, stage.input.width, stage.folding[1]
        elif memory.what == "errors":
            width, step, lanes = stage.errors.width, stage.errors.width, stage.folding[0]
        elif memory.what in {"velocities", "bias_velocities"}:
            width = step = velocity(self.plan, stage).width
            lanes = memory.width // step
        else:
            width = stage.stored.width
            step = width + (stage.weights.width if stage.stored != stage.weights else 0)
            lanes = memory.width // step
        return unpack_lanes(words, width, lanes, step=step).reshape(count, memory.depth, lanes)

    def memory(self, number):
        """Codes in the memory ``number`` of :func:`~streamtrain.simulate.compiled.memories`."""
        memory = self.memories[number]
        words = np.zeros((memory.depth, memory.words), dtype=np.uint32)
        self._library.st_memory(self._model, number, pointer(words))
        return self._lanes(memory, words, 1)[0]

    def last_change(self, x, commands, *, memory, address, lane):
        """Process samples, and return the cycle in which an element of a memory changed last.

        Counted from the first of these samples; None if it did not change.
        """
        found = self.memories[memory]
        lanes = self._lanes(found, np.zeros((found.depth, found.words), np.uint32), 1).shape[-1]
        begin = self.cycle
        watch = (memory, address, found.width // lanes * lane // 32)
        changed = self._samples(x, commands, watch=watch)[1]
        return changed - begin if changed else None

    def saturations(self):
        """Numbers saturated since reset; see :class:`~streamtrain.host.device.Device`."""
        kinds = saturation_sites(self.plan)
        counts = np.zeros((len(self.plan.stages), len(kinds)), dtype=np.uint32)
        self._library.st_saturations(self._model, pointer(counts))
        return {
            stage.name: {kind: int(count) for kind, count in zip(kinds, row, strict=True)}
            for stage, row in zip(self.plan.stages, counts, strict=True)
        }

    def read_weights(self):
        """Stored weights, through the hardware's own read commands."""
        return self._read({stage.name: stage.stored for stage in self.plan.stages})

    def write_weights(self, weights):
        """Replace all stored weights, through the hardware's own write commands."""
        self._write(weights)

    def read_optimizer(self):
        """Velocities, through the hardware's own read commands; see the golden model's."""
        formats = {stage.name: velocity(self.plan, stage) for stage in self.plan.stages}
        return self._read({name: fmt for name, fmt in formats.items() if fmt}, ".velocity")

    def write_optimizer(self, state):
        """Replace all velocities, through the hardware's own write commands."""
        self._write(state, ".velocity")

    def _read(self, formats, what=""):
        """Weights, or what is stored beside them, in the stages' ``formats``."""
        found = {}
        for number, stage in enumerate(self.plan.stages):
            if stage.name not in formats:
                continue
            lanes = stage.multipliers + (stage.folding[0] if stage.bias else 0)
            out = np.zeros((stage.words * lanes, words32(stored_width(self.plan))), np.uint32)
            self._run(self._scan(Op.READ, number, what), weight_out=out)
            codes = unpack_lanes(out, formats[stage.name].width, 1).reshape(stage.words, lanes)
            weight, bias = stage_weights(stage, codes)
            found[f"{stage.name}.weight{what}"] = weight
            if bias is not None:
                found[f"{stage.name}.bias{what}"] = bias
        return found

    def _write(self, tensors, what=""):
        """Replace weights, or what is stored beside them."""
        for number, stage in enumerate(self.plan.stages):
            weight = tensors.get(f"{stage.name}.weight{what}")
            if weight is None:  # a frozen stage has no velocities
                continue
            codes = stage_words(stage, weight, tensors.get(f"{stage.name}.bias{what}"))
            words = pack_lanes(codes.reshape(-1, 1), stored_width(self.plan))
            self._run(self._scan(Op.WRITE, number, what), weight_in=words)

    def _scan(self, op, stage, what):
        return self._pack_commands(op=[op], stage=[stage], velocity=[int(bool(what))])

    def read_random(self):
        """States of the random bits, through the hardware's own read commands."""
        sites = self.plan.random_sites
        if not sites:
            return {}
        out = np.zeros((STATE_BITS * len(sites), words32(stored_width(self.plan))), np.uint32)
        self._run(self._scan_random(Op.READ), weight_out=out)
        return unpack_states(self.plan, out[:, 0] & 1)

    def write_random(self, states):
        """Replace the states of the random bits, through the hardware's own write commands."""
        check_random(self.plan, states)
        if states:
            words = np.zeros(
                (STATE_BITS * len(states), words32(stored_width(self.plan))), np.uint32
            )
            words[:, 0] = pack_states(self.plan, states)
            self._run(self._scan_random(Op.WRITE), weight_in=words)

    def _scan_random(self, op):
        return self._pack_commands(op=[op], stage=[len(self.plan.stages)])

    def _pack_commands(self, **fields):
        """Commands as the bits of their stream; what it has no room for is left out."""
        parts = [
            (np.asarray(fields[name], np.int64)[:, None] >> np.arange(field.width)) & 1
            if name in fields
            else np.zeros((len(fields["op"]), field.width), np.int64)
            for name, field in self._command
        ]
        bits = np.concatenate(parts, axis=1)
        return pack_lanes(bits, 1)

    def _samples(self, x, commands: Commands, updates=None, watch=None):
        result = np.zeros((len(commands), words32(Shape.cast(self._result).width)), np.uint32)
        cycles = np.zeros(len(commands), dtype=np.uint64)
        changed = self._run(
            self._pack_commands(
                op=commands.op,
                label=commands.label,
                update=commands.update,
                mantissa=commands.mantissa,
                shift=commands.shift,
                frozen=commands.frozen,
                momentum=commands.momentum,
                decay=commands.decay,
                clip=commands.clip,
            ),
            beats=pack_samples(self.plan.stages[0], x),
            result=result,
            cycles=cycles,
            updates=updates,
            watch=watch,
        )
        fields = dict(self._result)
        scores: data.Field = fields["scores"]
        fmt = self.plan.stages[-1].output
        classes = self.plan.network.classes

        def field(name, **layout):
            at = fields[name].offset
            return unpack_lanes(result, start=at, **layout)

        results = Results(
            scores=unpack_lanes(result, fmt.width, classes, start=scores.offset),
            loss=field("loss", width=32, lanes=1, is_signed=False)[:, 0],
            predicted=field(
                "predicted", width=(classes - 1).bit_length(), lanes=1, is_signed=False
            )[:, 0],
            cycles=cycles.astype(np.int64),
        )
        return results, changed

    def _run(
        self,
        command,
        *,
        beats=None,
        weight_in=None,
        weight_out=None,
        result=None,
        cycles=None,
        updates=None,
        watch=None,
    ):
        nothing = np.zeros((0, 1), dtype=np.uint32)
        no_cycles = np.zeros(0, dtype=np.uint64)
        arrays = [nothing if a is None else a for a in (beats, weight_in, weight_out, result)]
        beats, weight_in, weight_out, result = arrays
        self._seed += 1
        patience = patience_cycles(self.plan, self.stall)
        memory, address, word = (-1, 0, 0) if watch is None else watch
        job = _Job(
            commands=len(command),
            command=pointer(command),
            beats=len(beats),
            beat=pointer(beats),
            weights_in=len(weight_in),
            weight_in=pointer(weight_in),
            weights_out=len(weight_out),
            weight_out=pointer(weight_out),
            results=len(result),
            result=pointer(result),
            result_cycle=pointer(no_cycles if cycles is None else cycles),
            stall=int(self.stall * 65536),
            seed=self._seed * 0x9E3779B97F4A7C15 % 2**64,
            patience=patience,
            watch_memory=memory,
            watch_address=address,
            watch_word=word,
            **({} if updates is None else updates.fields()),
        )
        if self._library.st_run(self._model, ctypes.byref(job)):
            raise HangError(
                f"The hardware made no progress for {patience} cycles, in cycle {self.cycle}"
            )
        return job.watch_cycle
