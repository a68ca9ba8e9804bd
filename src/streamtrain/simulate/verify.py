"""Run golden model and RTL side by side, and say where they first differ."""

from dataclasses import dataclass

import numpy as np

from streamtrain.golden import Golden
from streamtrain.host.device import Op
from streamtrain.host.packing import stage_words
from streamtrain.host.progress import ProgressBar
from streamtrain.host.trainer import encode_samples, training_commands
from streamtrain.pipeline.stage import error_windows, input_windows
from streamtrain.simulate.device import SimulatedDevice

__all__ = ["Difference", "Verification", "compare", "verify"]


@dataclass(frozen=True)
class Difference:
    """Where RTL first departs from the golden model.

    Parameters
    ----------
    step : :class:`int`
        Sample, counted from 0; of the unified core, a mini-batch.
    layer, phase, tensor : :class:`str`
        What computes the tensor: the layer's name, and "FP", "BP", "WU" or "loss"; "overlap" if the step is
        right when it runs alone.
    element : tuple
        Index in the tensor.
    expected, found : :class:`int` or :class:`float`
        Codes; of the unified core, weights that are stored in floating point are numbers.
    cycle : :class:`int` or None
        Clock cycles from the step's start to the wrong value, when the step runs alone; None where
        there is no such moment.
    """

    step: int
    layer: str
    phase: str
    tensor: str
    element: tuple
    expected: int
    found: int
    cycle: int | None

    def __str__(self):
        if self.phase == "overlap":
            return (
                f"step {self.step}: the step is right when it runs alone from the golden model's weights, so "
                f"something before it, or beside it, left the wrong state"
            )
        when = "" if self.cycle is None else f", in cycle {self.cycle}"
        return (
            f"step {self.step}: {self.layer} {self.phase}, {self.tensor}{list(self.element)} is "
            f"{self.found}, not {self.expected}{when}"
        )


@dataclass(frozen=True)
class Verification:
    """Result of :func:`verify`.

    Parameters
    ----------
    steps : :class:`int`
        Steps that were compared.
    difference : :class:`Difference` or None
    cycles_per_step : :class:`float`
        Clock cycles between results, over the steps that were compared.
    """

    steps: int
    difference: Difference | None
    cycles_per_step: float

    @property
    def bit_exact(self):
        return self.difference is None

    def __str__(self):
        if self.bit_exact:
            return (
                f"{self.steps} steps bit-exact: all weights, losses, scores and predictions "
                f"({self.cycles_per_step:,.0f} cycles per step)"
            )
        return f"RTL differs from the golden model at {self.difference}"


def verify(
    plan,
    steps=100,
    *,
    x=None,
    y=None,
    batch_size=1,
    lr=None,
    frozen=(),
    momentum=None,
    weight_decay=None,
    clip=None,
    stall=0.0,
    seed=0,
    device=None,
    progress=True,
):
    """Train golden model and RTL side by side, from the same weights on the same samples.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    steps : :class:`int`
        Mini-batches.
    x, y : arrays, optional
        Samples and labels as :meth:`~streamtrain.host.trainer.Trainer.fit` takes them, used again from the
        start when there are too few. By default random pixels and labels.
    batch_size : :class:`int`
    lr : :class:`float` or callable, optional
    frozen : sequence of :class:`str`
    momentum, weight_decay, clip : :class:`float`, optional
        As :meth:`~streamtrain.host.trainer.Trainer.fit` takes them.
    stall : :class:`float`
        Probability that a stream pauses in a cycle, at each port of the design.
    seed : :class:`int`
        Of samples and stalls.
    device : :class:`~streamtrain.simulate.SimulatedDevice`, optional
        A running one, whose weights are the start.
    progress : :class:`bool`

    Returns a :class:`Verification`.
    """
    rng = np.random.default_rng(seed)
    count = steps * batch_size
    if x is None:
        x = rng.random((min(count, 1000), *plan.network.input_shape))
        y = rng.integers(0, plan.network.classes, len(x))
    which = np.arange(count) % len(x)
    codes, labels = encode_samples(plan, np.asarray(x))[which], np.asarray(y)[which]
    device = device or SimulatedDevice(plan, stall=stall, seed=seed + 1)
    others = {"momentum": momentum, "weight_decay": weight_decay, "clip": clip}
    commands = training_commands(plan, labels, batch_size, lr, frozen, **others)
    with ProgressBar("verifying", count, enabled=progress) as bar:
        return compare(device, codes, commands, report=lambda done: bar.update(done, ""))


def compare(device, x, commands, *, golden=None, chunk=48, report=lambda done: None):
    """Compare RTL with the golden model after every sample.

    Samples follow one another without a pause; the weights of each stage are compared after each
    of their updates, and all results. At a difference the sample runs again, alone, and all that is computed
    in it is compared.

    Parameters
    ----------
    device : :class:`~streamtrain.simulate.SimulatedDevice`
    x : integer array, (samples, channels, rows, columns)
        Codes.
    commands : :class:`~streamtrain.host.device.Commands`
    golden : :class:`~streamtrain.golden.Golden`, optional
        With the device's weights, and in the device's state; by default a new one.
    chunk : :class:`int`
        Samples that the device processes without a pause.
    report : callable
        Gets the number of samples compared so far.

    Returns a :class:`Verification`, whose steps are samples.
    """
    plan = device.plan
    if golden is None:
        golden = Golden(plan)
        _write_state(golden, _read_state(device))
        golden.write_random(device.read_random())
    before = after = _read_state(golden)
    cycles, steps = [], len(commands)
    begin = 0
    while begin < steps:
        end = min(steps, begin + chunk)
        results, recorded = device.run_watched(x[begin:end], commands[begin:end])
        cycles.append(results.cycles)
        updates = np.zeros(len(plan.stages), int)
        for sample in range(begin, end):
            one = commands[sample : sample + 1]
            expected = golden.run(x[sample : sample + 1], one)
            at = sample - begin
            wrong = any(
                (getattr(expected, name)[0] != getattr(results, name)[at]).any()
                for name in ("scores", "loss", "predicted")
            )
            if one.op[0] == Op.TRAIN and one.update[0]:
                after = _read_state(golden)
                now = [
                    stage.trainable and not one.frozen[0] >> number & 1
                    for number, stage in enumerate(plan.stages)
                ]
                wrong = wrong or _weights_differ(plan, after, recorded, updates, now)
                updates += now
            if sample == end - 1:  # those of frozen stages, too
                held = [
                    (memory.stage, memory.what, device.memory(number)[None])
                    for number, memory in enumerate(device.memories)
                    if memory.holds_weights
                ]
                first = np.zeros_like(updates)
                wrong = wrong or _weights_differ(plan, after, held, first, first + 1)
            if wrong:
                difference = _locate(device, before, x[sample], one, sample, expected)
                return Verification(sample, difference, _pace(cycles))
            before = after
        report(end)
        begin = end
    return Verification(steps, None, _pace(cycles))


def _pace(cycles):
    gaps = [np.diff(part) for part in cycles]
    total = sum(int(part.sum()) for part in gaps)
    return total / max(1, sum(len(part) for part in gaps))


def _in_memory(stage, weights):
    """A stage's weights and velocities as its memories hold them, by the memories' names."""
    held = {}
    for what, of_weights, of_biases in (
        ("", "words", "biases"),
        (".velocity", "velocities", "bias_velocities"),
    ):
        weight = weights.get(f"{stage.name}.weight{what}")
        if weight is None:
            continue
        words = stage_words(stage, weight, weights.get(f"{stage.name}.bias{what}"))
        held[of_weights] = words[:, : stage.multipliers]
        if stage.bias:
            held[of_biases] = words[:: stage.words // stage.blocks[0], stage.multipliers :]
    return held


def _read_state(device):
    """Weights, and what the optimiser remembers, by name."""
    return {**device.read_weights(), **device.read_optimizer()}


def _write_state(device, state):
    remembered = {name: part for name, part in state.items() if name.endswith(".velocity")}
    device.write_weights({name: part for name, part in state.items() if name not in remembered})
    device.write_optimizer(remembered)


def _weights_differ(plan, weights, recorded, updates, stages):
    """Whether recorded weights are not those given: of the ``stages`` that are true, by stage after update
    number ``updates``."""
    held = [_in_memory(stage, weights) for stage in plan.stages]
    return any(
        (codes[updates[owner]] != held[owner][what]).any()
        for owner, what, codes in recorded
        if stages[owner]
    )


class _View:
    """A tensor as the memories of the device hold it."""

    def __init__(self, device, number, stage):
        self.device = device
        self.numbers = {}
        for index, memory in enumerate(device.memories):
            if memory.stage == number:
                self.numbers[memory.what, memory.bank] = index
        self.stage = stage

    def window_place(self, what, channel, row, col, slot):
        """(memory, address, lane) of an element of x or dz."""
        plan, stage = self.device.plan, self.stage
        shape = (input_windows if what == "inputs" else error_windows)(plan, stage)
        row, col = row + shape.pad, col + shape.pad
        bank = (row % shape.bank_rows, col % shape.bank_cols)
        address = slot * shape.slot_stride
        address += row // shape.bank_rows * shape.row_stride
        address += col // shape.bank_cols * shape.col_stride
        return self.numbers[what, bank], address + channel // shape.lanes, channel % shape.lanes


def _locate(device, before, x, command, step, expected):
    """Repeat a step alone from the same weights, and compare everything in it."""
    plan = device.plan
    repeat = Golden(plan)

    def again(function):
        device.reset()
        _write_state(device, before)
        return function(x[None], command)

    _write_state(repeat, before)
    trace = repeat.trace(x, command)
    results = again(device.run)
    contents = [device.memory(number) for number in range(len(device.memories))]
    trains = command.op[0] == Op.TRAIN

    def difference(layer, phase, tensor, element, wanted, found, place=None):
        cycle = None
        if place is not None:
            memory, address, lane = place
            # Another sample first: memories still hold what this one left there.
            again(lambda x, command: device.run(~x, command))
            cycle = again(
                lambda x, command: device.last_change(
                    x, command, memory=memory, address=address, lane=lane
                )
            )
        return Difference(step, layer, phase, tensor, element, int(wanted), int(found), cycle)

    # In the order in which a step computes: forward, loss, backward, update.
    views = [_View(device, number, stage) for number, stage in enumerate(plan.stages)]
    for what, key, order in (
        ("inputs", "x", range(len(plan.stages))),
        ("errors", "dz", range(len(plan.stages) - 1, -1, -1)),
    ):
        if what == "errors":
            for name in ("scores", "predicted", "loss"):
                wanted, found = getattr(expected, name)[0], getattr(results, name)[0]
                if np.any(wanted != found):
                    element = () if np.ndim(wanted) == 0 else tuple(np.argwhere(wanted != found)[0])
                    wanted, found = np.asarray(wanted)[element], np.asarray(found)[element]
                    last = plan.stages[-1].name
                    place = (last, "FP") if name == "scores" else ("loss", "loss")
                    element = tuple(int(i) for i in element)
                    return difference(*place, name, element, wanted, found)
            if not trains:
                break
        for number in order:
            stage = plan.stages[number]
            if what == "errors" and not stage.takes_errors:
                continue
            tensor = trace[stage.name][key]
            tensor = tensor.reshape(len(tensor), *(tensor.shape[1:] or (1, 1)))
            # Pixel by pixel, as they are computed.
            for row in range(tensor.shape[1]):
                for col in range(tensor.shape[2]):
                    for channel in range(len(tensor)):
                        place = views[number].window_place(what, channel, row, col, 0)
                        found = contents[place[0]][place[1], place[2]]
                        wanted = tensor[channel, row, col]
                        if found == wanted:
                            continue
                        if what == "inputs":
                            owner = plan.stages[number - 1].name if number else "input"
                            phase = "FP"
                        else:
                            after = number + 1
                            owner = plan.stages[after].name if after < len(views) else "loss"
                            phase = "BP" if after < len(views) else "loss"
                        return difference(
                            owner, phase, f"{stage.name}.{key}", (channel, row, col), wanted, found, place
                        )
    if trains and command.update[0]:
        after = _read_state(repeat)
        for number, stage in enumerate(plan.stages):
            for what, wanted in _in_memory(stage, after).items():
                memory = views[number].numbers[what, None]
                found = contents[memory]
                if (found != wanted).any():
                    word, lane = (int(i) for i in np.argwhere(found != wanted)[0])
                    return difference(
                        stage.name, "WU", f"{stage.name}.{what}", (word, lane),
                        wanted[word, lane], found[word, lane], (memory, word, lane),
                    )
    return Difference(step, "", "overlap", "", (), 0, 0, None)
