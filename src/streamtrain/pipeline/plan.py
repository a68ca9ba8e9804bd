"""The plan: a network with a folding, formats and a schedule for each layer.

Planning *lowers* the network. Layers with weights become stages, and what follows a weighted layer
becomes part of its stage: a stage multiplies, then pools, then rectifies. ``ReLU`` before
``MaxPool2d`` is swapped behind it, which changes neither values nor gradients (the larger of two
rectified numbers is the rectified larger number) and leaves a quarter of the mask bits. Outputs that
a pool would drop (the last row and column of an odd map) are never computed.
"""

from dataclasses import dataclass
from math import ceil, log2, prod
from operator import index
from typing import ClassVar

from streamtrain.checks import checked_integer
from streamtrain.network import CrossEntropy, MSELoss, Network, SquaredHinge
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.numbers import DSP_WIDTHS, Numbers
from streamtrain.pipeline.optimizer import check_update, update_codes, velocity
from streamtrain.records import Record
from streamtrain.stream import DISTRIBUTED_DEPTH

__all__ = [
    "ACCUMULATOR_WIDTH",
    "GUARD_BITS",
    "MAX_LUTRAM_DEPTH",
    "MEAN_BITS",
    "PROBABILITY_FRAC",
    "RATE_UNIT",
    "Plan",
    "Stage",
    "ceil_log2",
    "lower",
]

ACCUMULATOR_WIDTH = 48
"""Bits of a weight gradient's accumulator: the P register of a DSP48E1."""

GUARD_BITS = 8
"""Bits below a stored weight's last one that a mini-batch's gradient is accumulated with."""

MAX_LUTRAM_DEPTH = 1024
"""Most words that a memory in LUT RAM may have: of 18 bits, they fill half a block RAM."""

MEAN_BITS = 16
"""Bits of ``2 / classes``, a factor of the errors of a mean of squares."""

PROBABILITY_FRAC = 38
"""Fractional bits of the softmax times the learning rate's mantissa."""

RATE_UNIT = 128
"""Learning rates are ``mantissa / RATE_UNIT * 2**-exponent``."""

_LOSSES = (CrossEntropy, MSELoss, SquaredHinge)

_KERNELS = (1, 3, 5)  # rows and columns of a kernel

_LOGIT_INTEGER_BITS = 19  # what a loss of 32 bits, 12 of them fractional, leaves to differences of logits

_RATE_OCTAVES_UP = 2  # how far above the network's own learning rate the run-time range reaches


def ceil_log2(n):
    """Bits that count to ``n``: the least b with ``2**b >= n``."""
    return (n - 1).bit_length()


@dataclass(frozen=True)
class Stage(Record):
    """One weighted layer with what follows it, folded onto its multipliers.

    Shapes are for one sample. ``rows, cols`` are the input map's; ``out_rows, out_cols`` are those of the
    outputs that are used (a pool may drop the last ones). A linear layer is a 1x1 convolution on a 1x1 map.

    Parameters
    ----------
    name : :class:`str`
        The weighted layer's name.
    linear : :class:`bool`
        Whether it is fully connected.
    channels : (in, out)
        N and M. A linear layer's inputs are counted pixel by pixel, channels innermost: the order
        in which they arrive.
    flattened : (channels, rows, columns)
        What a linear layer's input vector was before Flatten; (N, 1, 1) if it was a vector.
    rows, cols, kernel, pad, out_rows, out_cols : :class:`int`
    folding : (Pm, Pn, Pk)
        Output channels, input channels and kernel taps that are multiplied in parallel.
    pool : :class:`int`
        Rows and columns of the pooling window; 1 for none.
    relu, bias : :class:`bool`
    back : :class:`bool`
        Whether the error is propagated to the stage before: if that one, or one in front of it, is
        trained.
    input, weights, stored, output, errors : :class:`Fixed`
        Formats of x, of w as multiplied and as stored, of z, and of dL/dz.
    round_output, round_errors, round_weights : :class:`Round`
        ``round_errors`` rounds this stage's own dL/dz, wherever it is computed.
    trainable : :class:`bool`
        Whether its weights are updated. A frozen stage stores them as they are multiplied.
    terms : :class:`int`
        What an update adds to a gradient: one operation of the array for each word.
    """

    name: str
    linear: bool
    channels: tuple
    flattened: tuple
    rows: int
    cols: int
    kernel: int
    pad: int
    out_rows: int
    out_cols: int
    folding: tuple
    pool: int
    relu: bool
    bias: bool
    back: bool
    input: Fixed
    weights: Fixed
    stored: Fixed
    output: Fixed
    errors: Fixed
    round_output: Round
    round_errors: Round
    round_weights: Round
    trainable: bool = True
    terms: int = 0

    def __post_init__(self):
        for field in ("round_output", "round_errors", "round_weights"):
            object.__setattr__(self, field, Round(getattr(self, field)))
        object.__setattr__(self, "folding", tuple(index(p) for p in self.folding))
        pm, pn, pk = self.folding
        (n, m), taps = self.channels, self.kernel**2
        for what, size, part in (("Pm", m, pm), ("Pn", n, pn)):
            if part < 1 or size % part:
                fits = [d for d in range(1, size + 1) if size % d == 0]
                raise ValueError(
                    f"{self.name}: {what} = {part} does not divide its "
                    f"{size} {'output' if what == 'Pm' else 'input'} channels; "
                    f"what divides them is {', '.join(map(str, fits))}"
                )
        if pk not in {1, self.kernel, taps}:
            raise ValueError(
                f"{self.name}: Pk = {pk} must be 1, {self.kernel} (a kernel row) or {taps} (all taps)"
            )

    @property
    def blocks(self):
        """Blocks of output channels, input channels and kernel taps: words of weight memory."""
        (n, m), (pm, pn, pk) = self.channels, self.folding
        return (m // pm, n // pn, self.kernel**2 // pk)

    @property
    def words(self):
        """Words of weight memory."""
        return prod(self.blocks)

    @property
    def multipliers(self):
        return prod(self.folding)

    @property
    def pixels(self):
        """Outputs computed in each channel."""
        return self.out_rows * self.out_cols

    @property
    def pooled(self):
        """(rows, cols) of the map that leaves the stage."""
        return (self.out_rows // self.pool, self.out_cols // self.pool)

    @property
    def takes_errors(self):
        """Whether errors of its outputs come: for its own weights, or for the stage before."""
        return self.trainable or self.back

    @property
    def weight_shape(self):
        """Weight tensor: (M, N, K, K)."""
        n, m = self.channels
        return (m, n, self.kernel, self.kernel)

    @property
    def sum_width(self):
        """Bits of an exact output or input-error sum, with room for the bias and half an LSB."""
        n, m = self.channels
        operand = max(self.input.width, self.errors.width)
        products = operand + self.weights.width - 1 + ceil_log2(max(m, n) * self.kernel**2)
        return max(products, self.weights.width + self.input.frac) + 1

    def phase_cycles(self):
        """Cycles in which the array multiplies, for one sample: FP, BP (0 without) and WU.

        WU is that of a sample that updates the weights.
        """
        updated = self.words + (self.blocks[0] if self.bias else 0)
        return {
            "FP": self.pixels * self.words,
            "BP": self.rows * self.cols * self.words if self.back else 0,
            "WU": self.pixels * self.words + self.terms * updated if self.trainable else 0,
        }


def _gradient_bits(stage):
    """Bits of any sum of a stage's products of input and error, with what the optimiser adds."""
    return stage.input.width + stage.errors.width + ceil_log2(stage.pixels) + stage.terms


@dataclass(frozen=True)
class Plan(Record):
    """All that the gateware and its golden model are generated from.

    Parameters
    ----------
    network : :class:`Network`
    stages : tuple of :class:`Stage`
    in_flight : :class:`int`
        Samples that a stage stores: one is multiplied while others arrive. The schedule is exact
        whatever the number: no sample passes a weight that an earlier one has yet to update.
    max_batch : :class:`int`
        Largest mini-batch; 1 leaves out the memories in which gradients accumulate.
    seed : :class:`int`
        Of the random bits for stochastic rounding.
    lutram_depth : :class:`int`
        Memories of weights, gradients, maps and records up to this many words live in LUT RAM, deeper
        ones in block RAM; 0 to :data:`MAX_LUTRAM_DEPTH`. Results and cycles do not depend on it. A
        single word is a register in any case, the squares of a pool are in LUT RAM (they are read in
        the cycle in which they are written), and so are short queues.
    operand_bits : :class:`int`
        Bits of a multiplier's wide operand on the device; at least 2. Where inputs do not fit it with the
        learning rate's shift, products are shifted. Neither results nor cycles depend on it.

    Raises
    ------
    TypeError
        If a number is no integer.
    ValueError
        If a number is out of its range, or formats cannot be trained with.
    """

    network: Network
    stages: tuple
    in_flight: int = 1
    max_batch: int = 1
    seed: int = 1
    lutram_depth: int = DISTRIBUTED_DEPTH
    operand_bits: int = DSP_WIDTHS[0]

    def __post_init__(self):
        for field in ("lutram_depth", "operand_bits"):
            object.__setattr__(self, field, checked_integer(field, getattr(self, field)))
        if not 0 <= self.lutram_depth <= MAX_LUTRAM_DEPTH:
            raise ValueError(
                f"lutram_depth must be from 0 to {MAX_LUTRAM_DEPTH}, not {self.lutram_depth!r}"
            )
        if self.operand_bits < 2:
            raise ValueError(f"operand_bits must be at least 2, not {self.operand_bits!r}")
        for field in ("in_flight", "max_batch", "seed"):
            object.__setattr__(self, field, index(getattr(self, field)))
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)!r}")
        for stage in self.stages:
            if stage.input.frac < 0:
                raise ValueError(
                    f"{stage.name}: inputs are {stage.input}, but need at least 0 fractional bits"
                )
            if not stage.trainable:
                continue
            if _gradient_bits(stage) > ACCUMULATOR_WIDTH:
                added = f" and {stage.terms} more for the optimiser" if stage.terms else ""
                raise ValueError(
                    f"{stage.name}: weight gradients of inputs {stage.input} and errors {stage.errors} "
                    f"over {stage.pixels:,} outputs need {_gradient_bits(stage)} bits{added}, but the "
                    f"accumulator has {ACCUMULATOR_WIDTH}"
                )
            for what, shift in (("weight", self.weight_shift(stage)), ("bias", self.bias_shift(stage))):
                if shift < 1:
                    raise ValueError(
                        f"{stage.name}: stored weights {stage.stored} are finer than the {what} gradients "
                        f"of inputs {stage.input} and errors {stage.errors} at a learning rate of "
                        f"{self.network.optimizer.lr:g}, by {1 - shift} bits"
                    )
                if shift > 32 and stage.round_weights is Round.STOCHASTIC:
                    raise ValueError(f"{stage.name}: stochastic rounding drops at most 32 bits, not {shift}")
        if self.network.weights is not None:
            self._check_weights()
        self._check_loss()

    def _check_loss(self):
        loss, last = self.network.loss, self.stages[-1]
        if type(loss) not in _LOSSES:
            raise ValueError(
                f"The loss is {loss!r}, which the pipeline cannot compute; it computes "
                f"{', '.join(known.__name__ for known in _LOSSES)}"
            )
        logits = last.output
        if isinstance(loss, CrossEntropy):
            if logits.width - logits.frac > _LOGIT_INTEGER_BITS:
                raise ValueError(
                    f"{last.name}: logits are {logits}, but a loss has room for at most "
                    f"{_LOGIT_INTEGER_BITS} integer bits"
                )
        elif logits.frac < 0 or logits.width - logits.frac < 2:
            raise ValueError(
                f"{last.name}: logits are {logits}, but {type(loss).__name__} drives scores to 1, "
                f"which must be a code of theirs: 2 integer bits or more, and no fewer than 0 others"
            )
        check_update(self)

    def _check_weights(self):
        """Refuse formats that would clip the weights that training starts with."""
        stages = {stage.name: stage for stage in self.stages}
        for name, (low, high) in self.network.weights.ranges.items():
            fmt = stages[name.partition(".")[0]].weights
            half = 2.0 ** -(fmt.frac + 1)
            if fmt.lowest - half <= low and high <= fmt.highest + half:
                continue
            integer = fmt.width - fmt.frac
            while not (-(2.0 ** (integer - 1)) <= low and high < 2.0 ** (integer - 1) - half):
                integer += 1
            instead = "scale the model's weights down"
            if integer < fmt.width:
                instead = f"plan with numbers=Numbers(weights='fixed<{fmt.width},{integer}>')"
            raise ValueError(
                f"{name} reaches from {low:.4g} to {high:.4g}, but {fmt} ends at {fmt.lowest:g} and "
                f"{fmt.highest:.4g}; {instead}"
            )

    @property
    def multipliers(self):
        return sum(stage.multipliers for stage in self.stages)

    @property
    def bound_cycles(self):
        """Cycles of one training step if every multiplier worked in every cycle."""
        return self.network.training_macs / self.multipliers

    # What a trainer asks of a plan.

    core: ClassVar[str] = "streaming"

    @property
    def sample_format(self):
        return self.stages[0].input

    @property
    def weight_formats(self):
        return {stage.name: stage.stored for stage in self.stages}

    @property
    def velocity_formats(self):
        kept = {stage.name: velocity(self, stage) for stage in self.stages}
        return {name: fmt for name, fmt in kept.items() if fmt}

    def command_codes(self, lr, batch, **others):
        mantissa, shift = self.rate_code(lr, batch)
        return {"mantissa": mantissa, "shift": shift, **update_codes(self, lr, **others)}

    def frozen_code(self, names):
        return sum(1 << number for number, stage in enumerate(self.stages) if stage.name in names)

    def layer_facts(self):
        formats = ("input", "weights", "stored", "output", "errors")
        roundings = ("round_output", "round_errors", "round_weights")
        facts = {
            stage.name: {
                **{f"format of {name}": str(getattr(stage, name)) for name in formats},
                **{name: getattr(stage, name).value for name in roundings},
            }
            for stage in self.stages
        }
        if self.random_sites:
            for stage in self.stages:
                facts[stage.name]["folding"] = list(stage.folding)
        return facts

    def encode_weights(self, weights):
        """Real weights, by the names of :meth:`Network.initial_weights`, as stored codes.

        Values are rounded and saturated. Raises :exc:`ValueError` for NaN.
        """
        stored = {stage.name: stage.stored for stage in self.stages}
        return {name: stored[name.partition(".")[0]].encode(w) for name, w in weights.items()}

    def decode_weights(self, codes):
        """Undo :meth:`encode_weights`, for example on a trainer's ``state_dict()``."""
        stored = {stage.name: stage.stored for stage in self.stages}
        return {name: stored[name.partition(".")[0]].decode(w) for name, w in codes.items()}

    # Learning rate: mantissa in the loss (it scales all errors), exponent as a shift of x in WU.

    @property
    def rate_shifts(self):
        """Largest left shift of x, or of its products, in WU: what the multiplier's operand and accumulator leave."""
        trained = [stage for stage in self.stages if stage.trainable]
        room = [DSP_WIDTHS[0] - stage.input.width for stage in trained]
        room += [ACCUMULATOR_WIDTH - _gradient_bits(stage) for stage in trained]
        return max(0, min(7, *room))

    @property
    def rate_exponent(self):
        """Learning rates below ``2**-rate_exponent`` lose bits of the mantissa."""
        own = ceil(-log2(self.network.optimizer.lr))
        return own + max(0, self.rate_shifts - _RATE_OCTAVES_UP)

    @property
    def rate_range(self):
        """Smallest and largest learning rate (for a whole mini-batch's sum) at run time."""
        low = 2.0**-self.rate_exponent / RATE_UNIT
        return (low, 2.0 ** (self.rate_shifts - self.rate_exponent))

    def rate_code(self, lr, batch=1):
        """Learning rate of a mini-batch's mean as ``(mantissa, shift)``.

        ``lr / batch = mantissa / 128 * 2**(shift - rate_exponent)`` as nearly as 7 bits can say it.

        Raises :exc:`ValueError` outside :attr:`rate_range`.
        """
        rate = lr / batch
        low, high = self.rate_range
        if not low <= rate <= high:
            raise ValueError(
                f"Learning rate {lr:g} over a batch of {batch} is {rate:g} a sample; "
                f"this design takes {low:g} to {high:g} (plan the network with another SGD(lr))"
            )
        for shift in range(self.rate_shifts + 1):
            mantissa = round(rate * 2.0 ** (self.rate_exponent - shift) * RATE_UNIT)
            if mantissa <= RATE_UNIT:
                return mantissa, shift
        raise AssertionError("rate_range and rate_code disagree")

    @property
    def mean_factor(self):
        """``2 / classes`` as ``(code, frac)``: ``code / 2**frac``, a code of :data:`MEAN_BITS` bits.

        The gradient of a mean of squares over the classes has this factor.
        """
        frac = MEAN_BITS - 2 + ceil_log2(self.network.classes)
        return round(2 ** (frac + 1) / self.network.classes), frac

    def weight_shift(self, stage):
        """Bits between a weight gradient's accumulator and a stored weight."""
        return stage.input.frac + self.bias_shift(stage)

    def bias_shift(self, stage):
        """Bits between a bias gradient's accumulator and a stored bias."""
        return stage.errors.frac + self.rate_exponent - stage.stored.frac

    @property
    def late(self):
        """Whether an update takes a cycle more: gradients are accumulated, or clipped."""
        return self.max_batch > 1 or self.network.optimizer.clip is not None

    def batch_shift(self, shift):
        """Bits that an accumulator drops on its way to the mini-batch's gradient memory."""
        return max(0, shift - GUARD_BITS)

    def output_shift(self, stage):
        """Bits between a stage's sums of products and its outputs."""
        return stage.input.frac + stage.weights.frac - stage.output.frac

    def errors_shift(self, stage):
        """Bits between the exact errors of a stage's outputs, wherever they are computed, and these."""
        following = self.stages[self.stages.index(stage) + 1 :]
        if following:
            after = following[0]
            frac = after.weights.frac + after.errors.frac
        elif isinstance(self.network.loss, CrossEntropy):
            frac = PROBABILITY_FRAC
        else:
            frac = 7 + self.mean_factor[1] + stage.output.frac
        return frac - stage.errors.frac

    @property
    def random_sites(self):
        """Where numbers are rounded stochastically, in the order in which the hardware links them.

        A tuple of ``(owner, stage, site)``: the number of the stage whose hardware it is (that of
        stages for the loss), the stage whose numbers they are, and ``"output"``, ``"errors"`` or
        ``"weights"``.
        """
        found = []
        for owner, stage in enumerate(self.stages):
            before = self.stages[owner - 1] if stage.back else None
            if stage.trainable and stage.round_weights is Round.STOCHASTIC:
                found.append((owner, stage, "weights"))
            if stage.round_output is Round.STOCHASTIC and self.output_shift(stage) > 0:
                found.append((owner, stage, "output"))
            if before and before.round_errors is Round.STOCHASTIC and self.errors_shift(before) > 0:
                found.append((owner, before, "errors"))
        last = self.stages[-1]
        if last.round_errors is Round.STOCHASTIC and self.errors_shift(last) > 0:
            found.append((len(self.stages), last, "errors"))
        return tuple(found)

    def random_seed(self, stage, site):
        """Seed of the random bits for ``site`` ("output", "errors" or "weights") of a stage."""
        number = 3 * self.stages.index(stage) + ("output", "errors", "weights").index(site) + 1
        return (self.seed * 0x9E3779B1 + number * 0x85EBCA6B) % (2**32 - 1) + 1


def lower(
    network,
    foldings,
    numbers=None,
    overrides=None,
    *,
    in_flight=1,
    max_batch=1,
    seed=1,
    lutram_depth=DISTRIBUTED_DEPTH,
    operand_bits=DSP_WIDTHS[0],
):
    """Turn a network into a :class:`Plan`.

    Parameters
    ----------
    network : :class:`Network`
    foldings : dict of (Pm, Pn, Pk) by layer name, or callable
        A callable gets ``(name, (N, M), kernel)`` and returns the folding.
    numbers : :class:`Numbers`, optional
        Formats of all layers.
    overrides : dict of :class:`Numbers` by layer name, optional
        Formats of single layers. A layer's activations or logits are what it puts out.
    in_flight, max_batch, seed, lutram_depth, operand_bits : :class:`int`
        As :class:`Plan` has them.

    Raises
    ------
    TypeError
        If a number is no integer.
    ValueError
        If the network has layers in an order that the pipeline cannot run, a folding is missing or does not
        divide, formats cannot be trained with, or a number is out of its range.
    """
    numbers = numbers or Numbers()
    overrides = dict(overrides or {})
    weighted = [layer.name for layer in network.layers if layer.stem in ("conv", "linear")]
    for kind, given in (("Formats", overrides), ("Foldings", {} if callable(foldings) else foldings)):
        unknown = sorted(set(given) - set(weighted))
        if unknown:
            raise ValueError(
                f"{kind} are given for {unknown[0]!r}; the layers with weights are {', '.join(weighted)}"
            )
    groups = []  # [layer, input shape, what follows it]
    for layer, shape in zip(network.layers, network.shapes, strict=False):
        if layer.stem not in {"conv", "linear", "pool", "relu", "flatten"}:
            raise ValueError(
                f"{layer.name} is a {type(layer).__name__}, which the pipeline cannot run; it runs "
                f"Conv2d, Linear, MaxPool2d, ReLU and Flatten" + _unified(layer.stem == "norm")
            )
        if layer.stem == "conv" and (layer.stride > 1 or layer.kernel not in _KERNELS):
            raise ValueError(
                f"{layer.name} has a kernel of {layer.kernel}x{layer.kernel} and stride {layer.stride}; the "
                f"streaming core takes 1x1, 3x3 and 5x5 with stride 1{_unified(True)}"
            )
        if layer.stem in ("conv", "linear"):
            groups.append([layer, shape, []])
        elif not groups and layer.stem != "flatten":
            raise ValueError(
                f"{layer.name} comes before any Conv2d or Linear; the pipeline begins with one of them"
            )
        elif groups:
            groups[-1][2].append(layer)

    stages = []
    data = numbers.activations
    map_shape = network.input_shape
    for position, (layer, shape, followers) in enumerate(groups):
        last = position == len(groups) - 1
        own = overrides.get(layer.name, numbers)
        pools = [follower for follower in followers if follower.stem == "pool"]
        if len(pools) > 1:
            raise ValueError(
                f"{pools[1].name} pools what {pools[0].name} pooled; put a Conv2d between them"
            )
        pool = pools[0].kernel if pools else 1
        if layer.stem == "conv":
            n, rows, cols = shape
            m, out_rows, out_cols = layer.output_shape(shape)
            kernel, pad, flattened = layer.kernel, layer.pad, (n, 1, 1)
        else:
            (n,), m = shape, layer.features
            rows = cols = out_rows = out_cols = kernel = 1
            pad, flattened = 0, map_shape if prod(map_shape) == n else (n, 1, 1)
        used = (out_rows // pool * pool, out_cols // pool * pool)
        if callable(foldings):
            folding = foldings(layer.name, (n, m), kernel)
        elif layer.name in foldings:
            folding = foldings[layer.name]
        else:
            raise ValueError(f"No folding is given for {layer.name}")
        stages.append(
            Stage(
                name=layer.name,
                linear=layer.stem == "linear",
                channels=(n, m),
                flattened=flattened,
                rows=rows,
                cols=cols,
                kernel=kernel,
                pad=pad,
                out_rows=used[0],
                out_cols=used[1],
                folding=folding,
                pool=pool,
                relu=any(follower.stem == "relu" for follower in followers),
                bias=layer.bias,
                back=any(stage.trainable for stage in stages),
                input=data,
                weights=own.weights,
                stored=own.stored if layer.trainable else own.weights,
                output=own.logits if last else own.activations,
                errors=own.errors,
                round_output=own.round_activations,
                round_errors=own.round_errors,
                round_weights=own.round_weights,
                terms=len(network.optimizer.terms) if layer.trainable else 0,
                trainable=layer.trainable,
            )
        )
        data = stages[-1].output
        map_shape = (m, *stages[-1].pooled)
    if stages[-1].pooled != (1, 1):
        rows, cols = stages[-1].pooled
        raise ValueError(
            f"{stages[-1].name} gives {rows}x{cols} scores for each channel; the class scores must come from "
            f"Linear, or from a 1x1 map"
        )
    return Plan(
        network,
        tuple(stages),
        in_flight=in_flight,
        max_batch=max_batch,
        seed=seed,
        lutram_depth=lutram_depth,
        operand_bits=operand_bits,
    )


def _unified(takes):
    """What to do about a layer that the unified core takes, as an error says it."""
    if not takes:
        return ""
    return '. The unified core takes it: st.plan(..., core="unified"), or --core unified'
