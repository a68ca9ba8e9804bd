"""The golden model: the definition of what training computes, bit for bit."""

from math import inf, prod

import numpy as np

from streamtrain.golden import kernels
from streamtrain.host.device import LOSS_FRAC, Commands, Op, Results, check_random
from streamtrain.network import CrossEntropy, MSELoss, SquaredHinge
from streamtrain.numeric import Round
from streamtrain.pipeline.layouts import saturation_sites
from streamtrain.pipeline.numbers import DSP_WIDTHS
from streamtrain.pipeline.optimizer import (
    CLIP_BITS,
    MOMENTUM_BITS,
    clip_frac,
    decay_limit,
    gradient_frac,
    update_terms,
    velocity,
)
from streamtrain.pipeline.plan import PROBABILITY_FRAC, RATE_UNIT

__all__ = ["Golden"]

_EXACT_BITS = 53  # of an integer in float64
_INTEGER_BITS = 63
_RANDOM_BITS = 32  # of a random state
_CHUNK = 64  # samples between two chances to interrupt

_ROUND = {
    Round.TRUNCATE: kernels.TRUNCATE,
    Round.NEAREST: kernels.NEAREST,
    Round.NEAREST_EVEN: kernels.NEAREST_EVEN,
    Round.STOCHASTIC: kernels.STOCHASTIC,
}

_LOSSES = {
    CrossEntropy: kernels.CROSS_ENTROPY,
    MSELoss: kernels.SQUARED_ERROR,
    SquaredHinge: kernels.SQUARED_HINGE,
}


class Golden:
    """Train a plan's network in software: a :class:`~streamtrain.host.device.Device`.

    The gateware is right if and only if it gives the same integers. Weights start as the network's
    own initial weights, encoded in the formats in which the stages store them.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.Plan`
    exact : :class:`bool`
        If false, this is the *float twin*: the same computation on the same scale, with nothing
        rounded and nothing saturated, and with an exact loss. What are integer codes elsewhere
        are then float64 numbers in the same units: ``fmt.decode`` gives the values of weights and
        scores, and losses count ``2**-12``. Samples are codes as ever.

    Raises
    ------
    ValueError
        If the plan needs sums of more bits than float64 holds exactly (53), or more random bits
        than there are (32).
    """

    def __init__(self, plan, *, exact=True):
        self.plan = plan
        self.exact = bool(exact)
        self._dtype = np.int64 if self.exact else np.float64
        if self.exact:
            _check_widths(plan)
        self._loss = _loss_rule(plan, self.exact)
        self._stages, size = _layout(plan, self.exact)
        self._arena = np.zeros(size)
        sites = ("output", "errors", "weights")
        self._random = np.array(
            [[plan.random_seed(stage, site) for site in sites] for stage in plan.stages], np.int64
        )
        self._saturated = np.zeros((len(plan.stages), len(kernels.SITES)), np.int64)
        self._in_batch = 0  # samples since the last update
        self._frozen = 0  # stages that keep their weights in this mini-batch, as bits

        initial = plan.network.initial_weights()
        self._shapes = {name: value.shape for name, value in initial.items()}
        for name, value in initial.items():
            stored = self._stage(name).stored
            value = stored.encode(value) if self.exact else value * 2.0**stored.frac
            view = self._view(name)
            view[...] = value.reshape(view.shape)
        kernels.refresh_operands(self._stages, self._arena)

    def run(self, x, commands):
        """Process samples in order.

        Parameters
        ----------
        x : integer array, (samples, channels, rows, columns)
            Codes of the first stage's input format.
        commands : :class:`~streamtrain.host.device.Commands`

        Returns :class:`~streamtrain.host.device.Results`; ``cycles`` is None.

        Raises
        ------
        TypeError
            If ``x`` or a command holds anything but integers.
        ValueError
            If ``x`` or a command has the wrong shape or is out of range, or a mini-batch is longer
            than planned; nothing was processed then.
        OverflowError
            If the gradients of a mini-batch add up to more than is carried exactly here, 53 bits.
            The hardware has room for them; this model is undefined from there on.
        """
        x = self._samples(x)
        table = self._command_table(commands, len(x))
        scores = np.zeros((len(x), self.plan.network.classes))
        loss = np.zeros(len(x))
        predicted = np.zeros(len(x), np.int64)
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._run(x[part], table[part], scores[part], loss[part], predicted[part], start)
        return Results(scores.astype(self._dtype), loss.astype(self._dtype), predicted)

    def trace(self, x, command):
        """Process one sample, and tell what happened in each stage.

        Parameters
        ----------
        x : integer array, (channels, rows, columns)
        command : :class:`~streamtrain.host.device.Commands`
            One command.

        Returns a dictionary for each stage's name:

        ``"x"``
            Its input, (N, rows, columns), or (N,) in stream order for a linear layer.
        ``"dz"``
            If the sample trains and the stage takes errors: the error of its outputs
            (M, out_rows, out_cols), after unpooling and mask.
        ``"weights"``, ``"biases"``
            Its stored weights (M, N, K, K) and biases (M,), if any, afterwards; N in stream order.

        Raises the errors of :meth:`run`.
        """
        self.run(np.asarray(x)[np.newaxis], command)
        trace = {}
        for stage, s in zip(self.plan.stages, self._stages, strict=True):
            (n, m), k = stage.channels, stage.kernel
            grown = (stage.rows + 2 * stage.pad, stage.cols + 2 * stage.pad, n)
            inside = slice(stage.pad, -stage.pad or None)
            x = self._at(s["x"], grown)[inside, inside].transpose(2, 0, 1)
            seen = {"x": x.ravel() if stage.linear else x}
            if command.op[0] == Op.TRAIN and stage.takes_errors:
                dz = self._at(s["dz"], (stage.out_rows, stage.out_cols, m))
                seen["dz"] = dz.transpose(2, 0, 1)
            seen["weights"] = self._at(s["w_stored"], (k, k, n, m)).transpose(3, 2, 0, 1)
            if stage.bias:
                seen["biases"] = self._at(s["b_stored"], (m,))
            trace[stage.name] = {what: part.astype(self._dtype) for what, part in seen.items()}
        return trace

    def read_weights(self):
        """Stored weights by PyTorch's names, in its shapes and order, as codes of ``stored``."""
        return {
            name: self._view(name).reshape(shape).astype(self._dtype)
            for name, shape in self._shapes.items()
        }

    def write_weights(self, weights):
        """Replace all stored weights.

        Gradients that a mini-batch has accumulated so far remain.

        Parameters
        ----------
        weights : dict of integer arrays
            As :meth:`read_weights` gives them.

        Raises
        ------
        TypeError
            If codes are not integers (the float twin takes any real numbers).
        ValueError
            If a tensor is missing, unknown, of the wrong shape, or not within its format. No weight
            has been changed then.
        """
        formats = {name: self._stage(name).stored for name in self._shapes}
        self._write("Weights", weights, self._shapes, formats)
        kernels.refresh_operands(self._stages, self._arena)

    def read_optimizer(self):
        """Velocities, ``"conv1.weight.velocity"``, shaped as the weights; empty without momentum."""
        return {
            name: self._view(name).reshape(shape).astype(self._dtype)
            for name, (shape, _) in self._velocities().items()
        }

    def _velocities(self):
        """Shape and format of velocities, by name."""
        found = {}
        for name, shape in self._shapes.items():
            fmt = velocity(self.plan, self._stage(name))
            if fmt is not None:
                found[f"{name}.velocity"] = (shape, fmt)
        return found

    def write_optimizer(self, state):
        """Replace all velocities.

        Parameters
        ----------
        state : dict of integer arrays
            As :meth:`read_optimizer` gives them.

        Raises the errors of :meth:`write_weights`.
        """
        held = self._velocities()
        shapes = {name: shape for name, (shape, _) in held.items()}
        formats = {name: fmt for name, (_, fmt) in held.items()}
        self._write("Velocities", state, shapes, formats)

    def _write(self, what, tensors, shapes, formats):
        """Replace tensors, all or none."""
        _check_names(what, tensors, shapes)
        checked = {}
        for name, shape in shapes.items():
            codes = np.asarray(tensors[name])
            if codes.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, not {codes.shape}")
            if self.exact:
                _check_codes(name, codes, formats[name])
            elif not np.isfinite(codes).all():
                raise ValueError(f"{name} must be finite")
            checked[name] = codes
        for name, codes in checked.items():
            view = self._view(name)
            view[...] = codes.reshape(view.shape)

    def read_random(self):
        """States of the random bits of stochastic rounding, by the plan's ``random_sites``."""
        return {
            f"{stage.name}.{site}": int(self._random[self._site(stage, site)])
            for _, stage, site in self.plan.random_sites
        }

    def write_random(self, states):
        """Replace all states that :meth:`read_random` gives.

        Raises :exc:`ValueError` if one is missing or unknown, or not 1 to ``2**32 - 1``. Nothing has
        been changed then.
        """
        check_random(self.plan, states)
        for _, stage, site in self.plan.random_sites:
            self._random[self._site(stage, site)] = states[f"{stage.name}.{site}"]

    def _site(self, stage, site):
        return self.plan.stages.index(stage), kernels.SITES.index(site)

    def saturations(self):
        """Numbers saturated since the start: ``["conv1"]["output" | "errors" | "weights"]``.

        Errors are counted by the stage whose output they belong to.
        """
        sites = saturation_sites(self.plan)
        return {
            stage.name: dict(zip(sites, map(int, counts), strict=False))
            for stage, counts in zip(self.plan.stages, self._saturated, strict=True)
        }

    def _run(self, x, table, scores, loss, predicted, start):
        limit = 2.0**_EXACT_BITS if self.exact else inf
        if self.plan.max_batch == 1:
            limit = 0.0  # nothing is accumulated
        sample, stage = kernels.run_samples(
            self._stages,
            self._arena,
            self._random,
            self._saturated,
            self._loss,
            np.ascontiguousarray(x, np.int64),
            table,
            limit,
            scores,
            loss,
            predicted,
        )
        if sample >= 0:
            raise OverflowError(
                f"{self.plan.stages[stage].name}: with sample {start + sample}, the gradients of a "
                f"mini-batch add up to more than the {_EXACT_BITS} bits that the golden model carries; "
                f"use smaller mini-batches or a lower learning rate"
            )

    def _samples(self, x):
        x = np.asarray(x)
        shape = self.plan.network.input_shape
        if x.shape[1:] != shape or x.ndim != 4:
            raise ValueError(f"Samples must have shape (samples, {_sizes(shape)}), not {x.shape}")
        first = self.plan.stages[0]
        _check_codes("Sample", x, first.input)
        if first.linear:  # its inputs are counted in the order of their arrival
            x = x.transpose(0, 2, 3, 1).reshape(len(x), first.channels[0], 1, 1)
        return x

    def _command_table(self, commands, samples):
        if not isinstance(commands, Commands):
            raise TypeError(f"Commands must be Commands, not {commands!r}")
        table = np.zeros(samples, kernels.COMMAND)
        for field in kernels.COMMAND.names:
            values = np.asarray(getattr(commands, field))
            if not np.issubdtype(values.dtype, np.integer):
                raise TypeError(f"Commands' {field} must be integers, not {values.dtype}")
            if values.shape != (samples,):
                raise ValueError(
                    f"Commands' {field} must have one value for each of {samples} samples, "
                    f"but its shape is {values.shape}"
                )
            table[field] = values
        train = table["op"] == Op.TRAIN
        anything = np.ones(samples, bool)
        for field, limit, matters in (
            ("op", Op.TRAIN, anything),
            ("label", self.plan.network.classes - 1, table["op"] != Op.INFER),
            ("update", 1, train),
            ("mantissa", RATE_UNIT, train),
            ("shift", self.plan.rate_shifts, train),
            ("frozen", 2 ** len(self.plan.stages) - 1, train),
            *((field, most, train) for field, most in self._update_limits().items()),
        ):
            wrong = matters & ((table[field] < 0) | (table[field] > limit))
            if wrong.any():
                at = int(wrong.argmax())
                raise ValueError(
                    f"Command {at} has {field} {table[field][at]}; it must be 0 to {int(limit)}"
                )
        in_batch = self._check_batches(table["update"][train])
        self._check_frozen(table[train])
        self._in_batch = in_batch
        return table

    def _check_frozen(self, table):
        """Remember what is frozen in the last, unfinished mini-batch."""
        if not len(table):
            return
        given = table["frozen"]
        goes_on = np.append(self._in_batch > 0, table["update"][:-1] == 0)
        wrong = goes_on & (given != np.append(self._frozen, given[:-1]))
        if wrong.any():
            raise ValueError(
                f"Commands have frozen {given[wrong][0]:#b} in a mini-batch that began otherwise; all "
                f"samples of a mini-batch must have the same"
            )
        self._frozen = given[-1]

    def _update_limits(self):
        """Largest codes of what commands tell the optimiser."""
        own = self.plan.network.optimizer
        return {
            "momentum": 2**MOMENTUM_BITS - 1 if own.momentum else 0,
            "decay": decay_limit(self.plan) - 1 if own.weight_decay else 0,
            "clip": 2**CLIP_BITS - 1 if own.clip is not None else 0,
        }

    def _check_batches(self, update):
        """Returns how many samples the last, unfinished mini-batch has had."""
        most = self.plan.max_batch
        ends = np.flatnonzero(update)
        lengths = np.diff(ends, prepend=-1 - self._in_batch, append=len(update) - 1)
        if most == 1 and not update.all():
            raise ValueError(
                "A command trains without an update, but this plan has max_batch=1: "
                "every sample updates the weights"
            )
        if lengths.max() > most:
            raise ValueError(
                f"A mini-batch has {lengths.max()} samples; this plan has max_batch={most}"
            )
        return int(lengths[-1])

    def _stage(self, name):
        """The stage of a tensor's name, such as ``"conv1.weight"``."""
        layer = name.partition(".")[0]
        return next(stage for stage in self.plan.stages if stage.name == layer)

    def _at(self, start, shape):
        return self._arena[start : start + prod(shape)].reshape(shape)

    def _view(self, name):
        """Stored weights (M, N, K, K) or biases (M,), or their velocities, in PyTorch's order.

        A linear layer's inputs lie in the order of their arrival, channels innermost, as a
        kernel's taps do: it is (M, channels, rows, columns), a kernel as large as its input map.
        """
        stage = self._stage(name)
        s = self._stages[self.plan.stages.index(stage)]
        (n, m), k = stage.channels, stage.kernel
        _, kind, *rest = name.split(".")
        what = rest[0] if rest else "stored"
        if kind == "bias":
            return self._at(s[f"b_{what}"], (m,))
        n, rows, cols = stage.flattened if stage.linear else (n, k, k)
        return self._at(s[f"w_{what}"], (rows, cols, n, m)).transpose(3, 2, 0, 1)


def _loss_rule(plan, exact):
    """What the loss is, and its constants, as :func:`kernels.run_samples` takes them.

    The tables are 2**15 * 2**(-f/1024), and log2 of the middle of each 1024th of an octave, in
    12 bits.
    """
    f = np.arange(1024)
    powers = np.rint(2.0**15 * 2.0 ** (-f / 1024))
    logarithms = np.rint(2.0**12 * np.log2(1 + (f + 0.5) / 1024))
    one, mean_frac = plan.mean_factor
    if isinstance(plan.network.loss, CrossEntropy):
        one = 2.0 ** (PROBABILITY_FRAC - 7)
    elif not exact:
        one = 2.0 ** (mean_frac + 1) / plan.network.classes
    logits = plan.stages[-1].output
    spare = _square_spare(logits)
    return (
        _LOSSES[type(plan.network.loss)],
        powers.astype(np.int64),
        logarithms.astype(np.int64),
        float(one),
        spare,
        mean_frac + 1 + 2 * logits.frac - spare - LOSS_FRAC,
    )


def _square_spare(logits):
    """Bits by which a difference of scores is too wide for the multiplier's 18-bit side."""
    return max(0, logits.width + 1 - DSP_WIDTHS[1])


def _check_widths(plan):
    """Raise :exc:`ValueError` if a sum may not be exact, or a rounding has too few random bits."""
    for position, stage in enumerate(plan.stages):
        (n, m), taps = stage.channels, stage.kernel**2
        x, w, d = (1 << fmt.width - 1 for fmt in (stage.input, stage.weights, stage.errors))
        terms = update_terms(plan, stage)
        added = terms.count << max(0, terms.product - 1)
        sums = [
            ("outputs", n * taps * x * w + (w << stage.input.frac), plan.output_shift(stage)),
        ]
        if stage.trainable:
            largest = (stage.pixels * x * d << plan.rate_shifts) + added
            sums.append(("weight gradients", largest, plan.weight_shift(stage)))
        if stage.back:
            sums.append(("input errors", m * taps * d * w, plan.errors_shift(plan.stages[position - 1])))
        for what, largest, shift in sums:
            bits = (largest + (1 << max(0, shift - 1))).bit_length()
            if bits > _EXACT_BITS:
                raise ValueError(
                    f"{stage.name}: the {what} may need {bits} bits, but the golden model's "
                    f"sums are exact to {_EXACT_BITS}"
                )
        for what, mode, shift in (
            ("outputs", stage.round_output, plan.output_shift(stage)),
            ("errors", stage.round_errors, plan.errors_shift(stage)),
        ):
            if mode is Round.STOCHASTIC and shift > _RANDOM_BITS:
                raise ValueError(
                    f"{stage.name}: stochastic rounding of the {what} drops {shift} bits, "
                    f"but there are {_RANDOM_BITS} random ones"
                )
    if not isinstance(plan.network.loss, CrossEntropy):
        classes, logits = plan.network.classes, plan.stages[-1].output
        bits = ((classes << 2 * logits.width) * plan.mean_factor[0]).bit_length()
        if bits > _INTEGER_BITS:
            raise ValueError(
                f"{plan.stages[-1].name}: the loss of {classes:,} classes may need {bits} bits, "
                f"but the golden model's integers have {_INTEGER_BITS}"
            )


def _layout(plan, exact):
    """Describe the stages to the kernels.

    Returns an array of :data:`kernels.STAGE`, and the size of the arena.
    """
    table = np.zeros(len(plan.stages), kernels.STAGE)
    size = 0
    scratch = {}  # numbers that the largest stage needs; the stages take turns

    def take(numbers):
        nonlocal size
        start = size
        size += numbers + -numbers % 8  # begin on a cache line
        return start

    for position, stage in enumerate(plan.stages):
        s = table[position]
        (n, m), k = stage.channels, stage.kernel
        for field in ("rows", "cols", "kernel", "pad", "out_rows", "out_cols", "pool"):
            s[field] = getattr(stage, field)
        for field in ("relu", "bias", "back", "trainable", "takes_errors"):
            s[field] = getattr(stage, field)
        s["n"], s["m"] = n, m
        s["pm"], s["pn"], s["pk"] = stage.folding

        last = position == len(plan.stages) - 1
        s["output_shift"] = plan.output_shift(stage)
        s["errors_shift"] = plan.errors_shift(stage)
        s["errors_lanes"] = 1 if last else plan.stages[position + 1].folding[1]
        s["operand_shift"] = stage.stored.frac - stage.weights.frac
        s["weight_update_shift"] = plan.weight_shift(stage)
        s["bias_update_shift"] = plan.bias_shift(stage)
        s["weight_batch_shift"] = plan.batch_shift(plan.weight_shift(stage))
        s["bias_batch_shift"] = plan.batch_shift(plan.bias_shift(stage))
        s["output_frac"], s["bias_frac"] = stage.output.frac, stage.input.frac
        terms = update_terms(plan, stage)
        s["terms"] = terms.count
        s["momentum_shift"], s["decay_shift"] = terms.momentum_shift, terms.decay_shift
        s["weight_clip_shift"] = s["bias_clip_shift"] = -1
        if plan.network.optimizer.clip is not None:
            s["weight_clip_shift"] = gradient_frac(plan, stage) - clip_frac(plan)
            s["bias_clip_shift"] = s["weight_clip_shift"] - stage.input.frac
        if terms.count:
            s["bias_update_shift"] = s["weight_update_shift"]
        if terms.velocity is not None:
            s["velocity_shift"] = terms.velocity_shift
            codes = terms.velocity.codes
            s["velocity_low"], s["velocity_high"] = (codes[0], codes[-1]) if exact else (-inf, inf)
        for what, mode in (
            ("output", stage.round_output),
            ("errors", stage.round_errors),
            ("weights", stage.round_weights),
        ):
            s[f"{what}_round"] = _ROUND[mode] if exact else kernels.FLOAT
        for what, fmt in (
            ("output", stage.output),
            ("errors", stage.errors),
            ("stored", stage.stored),
            ("operand", stage.weights),
        ):
            low, high = (fmt.codes[0], fmt.codes[-1]) if exact else (-inf, inf)
            s[f"{what}_low"], s[f"{what}_high"] = low, high

        batched = plan.max_batch > 1 and stage.trainable
        grown = (stage.rows + 2 * stage.pad) * (stage.cols + 2 * stage.pad) * n
        windows, weights, pooled = stage.pixels * k * k * n, k * k * n * m, prod(stage.pooled) * m
        for field, numbers in (
            ("x", grown),
            ("windows", windows),
            ("w_stored", weights),
            ("b_stored", m),
            ("z", stage.pixels * m),
            ("gate", pooled),
            ("dy", pooled),
            ("w_sum", weights if batched else 0),
            ("b_sum", m if batched else 0),
            ("w_velocity", weights if terms.velocity is not None else 0),
            ("b_velocity", m if terms.velocity is not None else 0),
        ):
            s[field] = take(numbers)
        s["dz"] = s["z"]  # which nobody reads any more once it is pooled
        for field, numbers in (
            ("dwindows", windows if stage.back else 0),
            ("dx", grown if stage.back else 0),
            ("dw", weights),
            ("db", m),
            ("w_moved", weights if terms.velocity is not None else 0),
            ("b_moved", m if terms.velocity is not None else 0),
        ):
            scratch[field] = max(scratch.get(field, 0), numbers)
        separate = stage.stored != stage.weights
        s["w"] = take(weights) if separate else s["w_stored"]
        s["b"] = take(m) if separate else s["b_stored"]
    for field, numbers in scratch.items():
        table[field] = take(numbers)
    table["y"] = [*table["x"][1:], take(plan.network.classes)]
    table["y_pad"] = [*table["pad"][1:], 0]
    return table, size


def _sizes(shape):
    return ", ".join(map(str, shape))


def _check_names(what, given, expected):
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    if missing:
        raise ValueError(f"{what} of {missing[0]} are missing")
    if unknown:
        raise ValueError(
            f"{what} are given for {unknown[0]!r}; "
            f"what the network has is {', '.join(expected) or 'none'}"
        )


def _check_codes(name, codes, fmt):
    if not np.issubdtype(codes.dtype, np.integer):
        raise TypeError(f"{name} must hold integer codes, not {codes.dtype}; see Fixed.encode")
    if codes.size and (codes.min() < fmt.codes[0] or codes.max() > fmt.codes[-1]):
        wrong = (codes < fmt.codes[0]) | (codes > fmt.codes[-1])
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name} has code {codes[at]} at {at}, outside {fmt}: {fmt.codes[0]} to {fmt.codes[-1]}"
        )
