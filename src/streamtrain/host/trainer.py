"""The front door's verbs, wherever the training runs."""

from dataclasses import fields
from numbers import Real
from time import perf_counter

import numpy as np

from streamtrain.checks import checked_integer, not_finite
from streamtrain.host.checkpoint import (
    Checkpoint,
    check_same,
    described,
    digest,
    load_checkpoint,
    write_checkpoint,
)
from streamtrain.host.device import LOSS_FRAC, Commands, Op, check_random
from streamtrain.host.keeper import Keeper
from streamtrain.host.live import LiveView
from streamtrain.host.progress import HeldInterrupt, ProgressBar
from streamtrain.host.replay import Rehearsal, Replay
from streamtrain.host.results import Done, Evaluation, History, Step
from streamtrain.network import check_layer_names
from streamtrain.numeric import Fixed

__all__ = ["Trainer", "encode_samples", "training_commands"]

_CHUNK_SECONDS = 0.2  # of work between two updates of the progress bar, and looks at Ctrl-C
_RECENT = 1000  # samples that the bar's loss and accuracy are averaged over


class Trainer:
    """Train a network on a device: the golden model, a simulation, or a board.

    Samples are arrays (samples, channels, rows, columns). Floats are encoded in the format of the
    first layer's input and saturate there; uint8 is divided by 255 first. Labels are class indices.

    Parameters
    ----------
    plan : :class:`~streamtrain.host.device.TrainablePlan`
        What the device was generated from.
    device : :class:`~streamtrain.host.device.Device`
        Where it has a clock, ``device.cycle`` is the number of cycles since the start.

    Attributes
    ----------
    samples_seen, updates_seen : :class:`int`
        Samples trained with, and updates of the weights, those before a checkpoint included.
    """

    samples_seen = 0
    updates_seen = 0

    def __init__(self, plan, device):
        self.plan = plan
        self.device = device
        self._saturated_before = {}  # what a checkpoint counted besides the device
        self._whole = True  # no mini-batch was interrupted

    # -- Training -----------------------------------------------------------------------------------

    def fit(
        self,
        x,
        y,
        epochs=1,
        batch_size=1,
        lr=None,
        shuffle=False,
        seed=0,
        progress=True,
        callback=None,
        replay=None,
        checkpoint=None,
        every=None,
        frozen=(),
        momentum=None,
        weight_decay=None,
        clip=None,
    ):
        """Train on all samples, in order or shuffled.

        Work is given to the device in chunks of whole mini-batches, about 0.2 s each. Ctrl-C waits
        for the end of a chunk, so the weights are those after a whole number of steps; a second
        Ctrl-C does not wait.

        Parameters
        ----------
        x : array (samples, channels, rows, columns)
        y : integer array (samples,)
        epochs : :class:`int`
            Passes over the samples.
        batch_size : :class:`int`
            Samples between updates, which use their mean gradient. The last mini-batch of an epoch
            may be smaller.
        lr : :class:`float` or callable, optional
            Learning rate, or a schedule: it is given the number of the update, 0 for the first one, and
            returns its learning rate. :class:`~streamtrain.StepLR` and :class:`~streamtrain.CosineLR`
            are two. The network's own without.
        shuffle : :class:`bool`
            Whether each epoch has an order of its own.
        seed : :class:`int`
            Of those orders.
        progress : :class:`bool`
            Whether to show a progress bar.
        callback : callable, optional
            Is given the :class:`~streamtrain.host.results.History` so far after each chunk. What it
            raises ends the training. A :class:`~streamtrain.LiveView` takes the place of the progress bar.
        replay : :class:`~streamtrain.host.replay.Replay`, optional
            Past samples, which are trained with between the new ones. The new ones are put into it.
        checkpoint : path, optional
            Where to keep a checkpoint of this training: at its end, on Ctrl-C, and as it goes. If there is
            one of the same training already, it goes on from there, and gives the bits that it would have
            given without the interruption; ``epochs`` may have become more.
        every : :class:`int`, optional
            Samples between two checkpoints, rounded up to whole mini-batches; an epoch without.
        frozen : sequence of :class:`str`
            Layers that keep their weights this time, besides those that are frozen in the network.
        momentum, weight_decay, clip : :class:`float`, optional
            As in :class:`~streamtrain.SGD`, if the network was described with them; its own without.

        Returns a :class:`~streamtrain.host.results.History` of the samples in ``x``; replayed ones
        only take time there.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind, shape or value; nothing is trained then.
        CheckpointError
            If the checkpoint that is there is damaged, or not of this training; nothing is trained then.
        OSError
            If a checkpoint cannot be read or written.
        KeyboardInterrupt
            On Ctrl-C.
        """
        x = self._samples(x)
        y = self._labels(y, len(x))
        if every is not None and checkpoint is None:
            raise ValueError("every says when checkpoints are written, but checkpoint says nowhere")
        epochs, batch = checked_integer("epochs", epochs, 1), checked_integer("batch_size", batch_size, 1)
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(len(x)) if shuffle else np.arange(len(x)) for _ in range(epochs)]
        order = np.concatenate(orders)
        updates = -(-len(x) // batch)
        others = {"momentum": momentum, "weight_decay": weight_decay, "clip": clip}
        parts = [
            training_commands(
                self.plan, y[order], batch, lr, frozen, first=number * updates, **others
            )
            for number, order in enumerate(orders)
        ]
        commands = _joined(parts)
        rehearsal = keeper = None
        if replay is not None and not isinstance(replay, Replay):
            raise TypeError(f"replay must be a Replay, not {replay!r}")
        if checkpoint is not None:
            settings = {
                "samples": len(x),
                "batch_size": batch,
                "shuffle": bool(shuffle),
                "seed": repr(seed) if shuffle else None,
                "data": digest(x, y),
                "replay": None if replay is None else digest(replay.x, replay.y),
            }
        if replay is not None:
            rehearsal = Rehearsal(replay, x, y, order, commands)
            x, order, commands = rehearsal, rehearsal.order, rehearsal.commands
        if checkpoint is not None:
            between = len(y) if every is None else checked_integer("every", every, 1)
            keeper = Keeper(self, checkpoint, between, settings, order, commands)

        progress = progress and not isinstance(callback, LiveView)
        began = perf_counter()
        reached = 0

        def history(done):
            new = slice(None) if rehearsal is None else rehearsal.new[: len(done)]
            before = 0 if keeper is None else keeper.restored
            return History(
                losses=done.losses[new],
                correct=(done.predicted == commands.label[: len(done)])[new],
                seconds=perf_counter() - began,
                cycles=None if done.cycles is None else done.cycles[new],
                epochs=epochs,
                restored=len(done.losses[:before][new[:before]]) if rehearsal else before,
                paused=done.paused_before(new),
            )

        def report(done):
            nonlocal reached
            reached = len(done)
            if callback is not None:
                callback(history(done))

        try:
            return history(self._run("training", x, order, commands, progress, report, keeper))
        finally:
            if rehearsal is not None:
                rehearsal.finish(reached)

    def step(self, x, y, lr=None, frozen=(), *, momentum=None, weight_decay=None, clip=None):
        """Train on one mini-batch of all the samples given: one update of the weights.

        Parameters
        ----------
        x : array (samples, channels, rows, columns)
        y : integer array (samples,)
        lr : :class:`float`, optional
            Learning rate; that of the network's optimiser without.
        frozen : sequence of :class:`str`
            Layers that keep their weights this time, besides those that are frozen in the network.
        momentum, weight_decay, clip : :class:`float`, optional
            As in :meth:`fit`.

        Returns a :class:`~streamtrain.host.results.Step`.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind, shape or value; nothing is trained then.
        """
        x = self._samples(x)
        y = self._labels(y, len(x))
        others = {"momentum": momentum, "weight_decay": weight_decay, "clip": clip}
        commands = training_commands(self.plan, y, len(x), lr, frozen, **others)
        began = getattr(self.device, "cycle", None)
        with HeldInterrupt():
            done = self._give(x, commands)
        return Step(
            loss=float(done.losses.mean()),
            predicted=done.predicted,
            cycles=None if began is None else int(done.cycles[-1]) - began,
        )

    # -- Looking ------------------------------------------------------------------------------------

    def evaluate(self, x, y, progress=True):
        """Loss and accuracy on labelled samples; the weights stay as they are.

        Parameters
        ----------
        x : array (samples, channels, rows, columns)
        y : integer array (samples,)
        progress : :class:`bool`
            Whether to show a progress bar.

        Returns an :class:`~streamtrain.host.results.Evaluation`.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind, shape or value.
        KeyboardInterrupt
            On Ctrl-C.
        """
        x = self._samples(x)
        y = self._labels(y, len(x))
        done = self._run("evaluating", x, np.arange(len(x)), _look(Op.EVALUATE, y), progress)
        return Evaluation(
            loss=float(done.losses.mean()),
            accuracy=float((done.predicted == y).mean()),
            count=len(x),
        )

    def predict(self, x, progress=True):
        """Class indices of samples.

        Parameters
        ----------
        x : array (samples, channels, rows, columns)
        progress : :class:`bool`
            Whether to show a progress bar.

        Returns an int64 array (samples,).

        Raises
        ------
        TypeError, ValueError
            If ``x`` is of the wrong kind, shape or value.
        KeyboardInterrupt
            On Ctrl-C.
        """
        x = self._samples(x)
        commands = _look(Op.INFER, np.zeros(len(x), np.int64))
        return self._run("predicting", x, np.arange(len(x)), commands, progress).predicted

    # -- State --------------------------------------------------------------------------------------

    def state_dict(self):
        """Weights as they are stored: integer codes of their formats, or floating-point numbers.

        Returns a dictionary of arrays, ``"conv1.weight"`` shaped (out, in, rows, columns) or
        (out, in), and ``"conv1.bias"`` shaped (out,): PyTorch's names and shapes. They are copies.
        Codes of fixed-point formats are int64; ``plan.decode_weights`` makes real weights of them. Weights
        that are stored in floating point are float32. A float twin's are float64, in units of a code.
        """
        return {name: np.array(codes) for name, codes in self.device.read_weights().items()}

    def load_state_dict(self, weights):
        """Replace all weights by those of another :meth:`state_dict`.

        Real weights, such as a PyTorch model's, go through ``plan.encode_weights`` first.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unknown, or an array has another shape, another kind of numbers, or a
            code outside its format. Nothing is changed then.
        """
        self.device.write_weights(self._checked(weights, self._weight_formats()))

    def _checked(self, weights, expected):
        """Tensors of a state, checked; ``expected`` has the shape and format of each."""
        unknown = sorted(weights.keys() - expected.keys())
        if unknown:
            has = ", ".join(expected) or "none"
            raise ValueError(f"State has {unknown[0]}, but the network has {has}")
        checked, reals = {}, self._holds_reals()
        for name, (shape, fmt) in expected.items():
            if name not in weights:
                raise ValueError(f"State lacks {name} {shape}")
            codes = np.asarray(weights[name])
            if codes.shape != shape:
                raise ValueError(f"State has {name} of {codes.shape}, but the network's is {shape}")
            floats = np.issubdtype(codes.dtype, np.floating)
            if floats and (at := not_finite(codes)) is not None:
                raise ValueError(f"State has {name} with {codes[at]} at {at}: training diverged, or a file is damaged")
            if floats and reals:
                checked[name] = codes
                continue
            if not isinstance(fmt, Fixed):
                if codes.dtype != np.float32:
                    raise TypeError(
                        f"State must be float32, as weights are stored in {fmt.name}, but {name} is "
                        f"{codes.dtype}; plan.encode_weights rounds real numbers"
                    )
                checked[name] = codes
                continue
            if not np.issubdtype(codes.dtype, np.integer):
                raise TypeError(
                    f"State must be integer codes, but {name} is {codes.dtype}; "
                    f"plan.encode_weights makes codes of real numbers"
                )
            wrong = np.argwhere((codes < fmt.codes[0]) | (codes > fmt.codes[-1]))
            if len(wrong):
                where = tuple(wrong[0].tolist())
                raise ValueError(
                    f"State has code {codes[where]} in {name} at {where}, "
                    f"but {fmt} has {fmt.codes[0]} to {fmt.codes[-1]}"
                )
            checked[name] = codes.astype(np.int64)
        return checked

    def optimizer_state(self):
        """What the optimiser remembers between updates, as integer codes.

        Returns a dictionary. With momentum it holds the velocities, int64 arrays
        ``"conv1.weight.velocity"`` and ``"conv1.bias.velocity"``, shaped as the weights; without, nothing.
        They are copies. A float twin's are float64, in units of a code.
        """
        return {name: np.array(codes) for name, codes in self.device.read_optimizer().items()}

    def load_optimizer_state(self, state):
        """Replace all that the optimiser remembers by another :meth:`optimizer_state`.

        Raises
        ------
        TypeError, ValueError
            As :meth:`load_state_dict` does. Nothing is changed then.
        """
        self.device.write_optimizer(self._checked(state, self._velocity_formats()))

    def saturations(self):
        """Numbers that were saturated since the start, by stage and site.

        Returns a dictionary ``["conv1"]["output" | "errors" | "weights"]`` of counts; with momentum there is
        ``"velocity"``, too.
        """
        return self._saturations(self.device.saturations())

    def _saturations(self, counts):
        """With those of before a checkpoint."""
        for name, sites in self._saturated_before.items():
            for site, count in sites.items():
                counts[name][site] += count
        return counts

    def save(self, path):
        """Write a checkpoint: all that training goes on from, to go on here or on another device.

        If it cannot be written, what was at ``path`` before stays.

        Parameters
        ----------
        path : path

        Raises
        ------
        OSError
            If it cannot be written.
        RuntimeError
            If training was interrupted within a mini-batch, by a second Ctrl-C.
        """
        write_checkpoint(path, self._checkpoint())

    def load(self, path):
        """Go on from a checkpoint.

        It may be of another design for the same network, with the same formats: simulated, on a board, or
        the golden model. Where numbers are rounded stochastically the foldings must be the same, too.

        Parameters
        ----------
        path : path

        Raises
        ------
        OSError
            If it cannot be read.
        CheckpointError
            If it is no whole checkpoint, or one of another network or other formats; the message has the
            differences. Nothing is changed then.
        RuntimeError
            If training was interrupted within a mini-batch, by a second Ctrl-C.
        """
        self._restore(path, load_checkpoint(path))

    def _checkpoint(self, fit=None):
        self._check_whole()
        return Checkpoint(
            design=described(self.plan, reals=self._holds_reals()),
            weights=self.device.read_weights(),
            optimizer=self.device.read_optimizer(),
            random=self.device.read_random(),
            saturations=self.saturations(),
            samples=self.samples_seen,
            updates=self.updates_seen,
            fit=fit,
        )

    def _restore(self, path, found):
        self._check_whole()
        check_same(path, described(self.plan, reals=self._holds_reals()), found.design)
        check_random(self.plan, found.random)
        self._checked(found.optimizer, self._velocity_formats())
        self.load_state_dict(found.weights)
        self.load_optimizer_state(found.optimizer)
        self.device.write_random(found.random)
        self.samples_seen, self.updates_seen = found.samples, found.updates
        now = self.device.saturations()
        self._saturated_before = {
            name: {site: count - now[name][site] for site, count in sites.items()}
            for name, sites in found.saturations.items()
        }

    def _check_whole(self):
        if not self._whole:
            raise RuntimeError(
                "Training was interrupted within a mini-batch, which cannot go on; make a new trainer "
                "and load the last checkpoint"
            )

    def _holds_reals(self):
        """Whether the device is a float twin: real numbers in units of a code, without limits."""
        return not getattr(self.device, "exact", True)

    def _weight_formats(self):
        """Shape and format of each array of the state, by name."""
        stored = self.plan.weight_formats
        return {
            name: (tensor.shape, stored[name.partition(".")[0]])
            for name, tensor in self.plan.network.initial_weights().items()
        }

    def _velocity_formats(self):
        """The same of each array of the optimiser's state."""
        kept = self.plan.velocity_formats
        return {
            f"{name}.velocity": (shape, kept[layer])
            for name, (shape, _) in self._weight_formats().items()
            if (layer := name.partition(".")[0]) in kept
        }

    # -- Arguments ----------------------------------------------------------------------------------

    def _samples(self, x):
        x = np.asarray(x)
        shape = self.plan.network.input_shape
        if x.shape[1:] != shape:
            expected = ", ".join(map(str, shape))
            raise ValueError(f"Samples must be (samples, {expected}), not {x.shape}")
        if not len(x):
            raise ValueError("There are no samples")
        if x.dtype == np.uint8:
            return x
        if not np.issubdtype(x.dtype, np.floating):
            raise TypeError(f"Samples must be floats, or uint8 (divided by 255), not {x.dtype}")
        if (where := not_finite(x)) is not None:
            raise ValueError(
                f"Sample {where[0]} has {x[where]} at {where[1:]}, but samples must be finite"
            )
        return x

    def _labels(self, y, count):
        y = np.asarray(y)
        if y.shape != (count,):
            raise ValueError(
                f"Labels must be one class index for each of {count} samples, ({count},), not {y.shape}"
            )
        if not np.issubdtype(y.dtype, np.integer):
            raise TypeError(f"Labels must be integers, not {y.dtype}")
        classes = self.plan.network.classes
        wrong = np.flatnonzero((y < 0) | (y >= classes))
        if len(wrong):
            raise ValueError(
                f"Label of sample {wrong[0]} is {y[wrong[0]]}, "
                f"but the network's classes are 0 to {classes - 1}"
            )
        return y.astype(np.int64)

    # -- The device's work --------------------------------------------------------------------------

    def _give(self, x, commands):
        """Run samples now. Returns what came of them."""
        codes, whole = encode_samples(self.plan, x), self._whole
        keeps = getattr(self.device, "keeps_steps", False)
        self._whole = whole and (keeps or not (commands.op == Op.TRAIN).any())
        results = self.device.run(codes, commands)
        self._whole = whole
        self.samples_seen += int(np.count_nonzero(commands.op == Op.TRAIN))
        self.updates_seen += int(np.count_nonzero(commands.update))
        return Done(
            np.ldexp(np.asarray(results.loss, np.float64), -LOSS_FRAC),
            np.asarray(results.predicted, np.int64),
            results.cycles,
        )

    def _run(self, what, x, order, commands, progress, report=None, keeper=None):
        """Run samples chunk by chunk. Returns what came of them; ``report`` is given it so far.

        A ``keeper`` says where to begin, and keeps checkpoints.
        """
        least = getattr(self.device, "images", 1)
        count, size, end = len(order), least, 0
        ends = np.flatnonzero((commands.op != Op.TRAIN) | (commands.update == 1)) + 1
        done = Done(np.empty(count), np.empty(count, np.int64), np.empty(count, np.int64))
        if keeper is not None:
            end = keeper.begin(done)
            if end and report is not None:
                report(done.until(end))
        begin, began = end, perf_counter()
        with HeldInterrupt() as interrupt, ProgressBar(what, count, enabled=progress) as bar:
            while end < count:
                first, started = end, perf_counter()
                fit, any_ = np.searchsorted(ends, (first + size, first), side="right") - (1, 0)
                end = int(ends[max(fit, any_)])
                if keeper is not None:
                    end = min(end, keeper.next(ends, first))
                part = slice(first, end)
                chunk = self._give(x[order[part]], commands[part])
                if keeper is not None:
                    chunk = keeper.shifted(chunk)
                done.put(part, chunk)
                done.paused[first : ends[any_]] = True
                if keeper is not None and (keeper.due(end) or end == count or interrupt.pending):
                    keeper.keep(done.until(end))
                if report is not None:
                    report(done.until(end))
                now = perf_counter()
                bar.update(end, _figures(commands, done, end, (end - begin) / (now - began)))
                interrupt.check()
                # Grow slowly: the first chunk may wait for a compiler, and the next ones do not.
                pace = (now - started) / (end - first)
                size = min(4 * (end - first), int(_CHUNK_SECONDS / pace))
                size = max(least, size // least * least)
        return done


def training_commands(
    plan, labels, batch, lr=None, frozen=(), *, first=0, momentum=None, weight_decay=None, clip=None
):
    """Commands that train with samples in order, in mini-batches; the last one may be smaller.

    Parameters
    ----------
    plan : :class:`~streamtrain.host.device.TrainablePlan`
    labels : integer array, (samples,)
    batch : :class:`int`
        Samples in a mini-batch.
    lr : :class:`float` or callable, optional
        Learning rate of a mini-batch's mean gradient, or what gives it for the number of an update; the
        network's own by default.
    frozen : sequence of :class:`str`
        Layers that keep their weights, besides those that are frozen in the network.
    first : :class:`int`
        Number of the first update.
    momentum, weight_decay, clip : :class:`float`, optional
        As in :class:`~streamtrain.SGD`; the network's own by default.

    Raises
    ------
    TypeError
        If a value is no number, or ``frozen`` is a single name.
    ValueError
        If the design takes no such batch, or not a value, a name is not that of a layer with weights, or
        no layer is left to train.
    """
    count = len(labels)
    if batch > plan.max_batch:
        raise ValueError(
            f"Mini-batch has {batch} samples, but the design takes {plan.max_batch}; "
            f"plan it with max_batch={batch}"
        )
    position = np.arange(count)
    update = ((position % batch == batch - 1) | (position == count - 1)).astype(np.int64)
    sizes = [min(batch, count - start) for start in range(0, count, batch)]
    known, rows = {}, []  # a schedule may have as many rates as there are updates, or few
    for step, size in enumerate(sizes, first):
        rate = _rate(plan, lr, step)
        if (rate, size) not in known:
            known[rate, size] = plan.command_codes(
                rate, size, momentum=momentum, weight_decay=weight_decay, clip=clip
            )
        rows.append(tuple(known[rate, size].values()))
    codes = np.repeat(np.array(rows, np.int64), sizes, axis=0).T
    return Commands(
        op=np.full(count, Op.TRAIN),
        label=np.asarray(labels),
        update=update,
        frozen=np.full(count, _frozen_code(plan, frozen)),
        **dict(zip(known[rate, size], codes, strict=True)),
    )


def _rate(plan, lr, step):
    """Learning rate of an update."""
    if lr is None:
        return plan.network.optimizer.lr
    where, rate = "", lr
    if callable(lr):
        where, rate = f" for update {step}", lr(step)
    if not isinstance(rate, Real):
        raise TypeError(f"lr must be a number{where}, not {rate!r}")
    return rate


def _frozen_code(plan, names):
    """Layers by their names, as the plan codes them."""
    if isinstance(names, str):
        raise TypeError(
            f"frozen must be a sequence of layer names, such as [{names!r}], not {names!r}"
        )
    names = set(names)
    known = list(plan.weight_formats)
    check_layer_names(sorted(names, key=str), known)
    if names.issuperset(set(known).difference(plan.network.frozen)):
        raise ValueError(
            f"With {', '.join(sorted(names))} frozen, no layer is left to train; "
            f"evaluate() changes no weights"
        )
    return plan.frozen_code(names)


def encode_samples(plan, x):
    """Codes of samples in the format of the first layer's input.

    Parameters
    ----------
    plan : :class:`~streamtrain.host.device.TrainablePlan`
    x : float array, or uint8 array, which is divided by 255
    """
    fmt = plan.sample_format
    return fmt.encode(np.arange(256) / 255)[x] if x.dtype == np.uint8 else fmt.encode(x)


def _figures(commands, done, end, pace):
    """What a progress bar says of the work so far; ``pace`` in samples per second."""
    text = f"{pace:,.0f} samples/s" if pace >= 100 else f"{pace:.1f} samples/s"
    if commands.op[0] == Op.INFER:
        return text
    part = slice(max(0, end - _RECENT), end)
    accuracy = (done.predicted[part] == commands.label[part]).mean()
    return f"{text}  loss {done.losses[part].mean():.3f}  acc. {accuracy:.1%}"


def _joined(parts):
    return Commands(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Commands))
    )


def _look(op, labels):
    """Commands that change no weights."""
    none = np.zeros_like(labels)
    return Commands(np.full(len(labels), op), labels, none, none, none)
