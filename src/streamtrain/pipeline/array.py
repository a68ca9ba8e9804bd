"""The multiplier array that a stage computes all three phases with."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.gates import balanced_sum, delayed
from streamtrain.pipeline.numbers import DSP_WIDTHS
from streamtrain.pipeline.plan import ACCUMULATOR_WIDTH, ceil_log2

__all__ = ["MultiplierArray", "operand_widths", "shifts_products", "tree_latency"]

_LEVELS_PER_REGISTER = 2  # adders in a row between two registers of a tree


def tree_latency(terms):
    return -(-ceil_log2(terms) // _LEVELS_PER_REGISTER)


def _tree(m, terms, valid, name):
    """Sum of signed values, registered after every second adder.

    ``valid[n]`` says that the terms of ``n`` registers ago were valid.
    """
    level = 0
    while len(terms) > 1:
        group = 2**_LEVELS_PER_REGISTER
        sums = []
        for first in range(0, len(terms), group):
            total = balanced_sum(terms[first : first + group])
            register = Signal(
                signed(len(total)), name=f"{name}_{level}_{first // group}", reset_less=True
            )
            with m.If(valid[level]):
                m.d.sync += register.eq(total)
            sums.append(register)
        terms, level = sums, level + 1
    return terms[0]


def shifts_products(stage, shifts, terms=None, operand_bits=DSP_WIDTHS[0]):
    """Whether WU shifts products: shifted inputs are wider than ``operand_bits``.

    With an optimiser's ``terms`` it shifts inputs whatever their width: coefficients are as wide.
    """
    if not (stage.trainable and shifts) or (terms is not None and terms.count):
        return False
    return stage.input.width + shifts > operand_bits


def operand_widths(stage, shifts, terms=None, operand_bits=DSP_WIDTHS[0]):
    """Bits of a multiplier's two operands: x or errors, and weights or errors.

    With an optimiser's ``terms`` also its coefficients, and velocities.
    """
    if stage.trainable:
        shifted = 0 if shifts_products(stage, shifts, terms, operand_bits) else shifts
        wide = max(stage.input.width + shifted, stage.errors.width)
        narrow = max(stage.weights.width, stage.errors.width)
        if terms is not None and terms.count:
            wide = max(wide, terms.coefficient + 1)
            narrow = max(narrow, terms.velocity.width if terms.velocity else 0)
        return wide, narrow
    wide = max(stage.input.width, stage.errors.width) if stage.back else stage.input.width
    return wide, stage.weights.width


class MultiplierArray(wiring.Component):
    """``Pm x Pn x Pk`` multipliers, shared by forward pass, back-propagation and weight update.

    ========  ====================================  =======================
    phase     multiplier (pm, pn, pk) computes      reduction
    ========  ====================================  =======================
    FP        ``w[pm,pn,pk] * x[pn,pk]``            over pn, pk: Pm sums
    BP        ``w[pm,pn,pk] * dz[pm,~pk]``          over pm, pk: Pn sums
    WU        ``dz[pm] * (x[pn,pk] << shift)``      over time, in each multiplier
    ========  ====================================  =======================

    Where ``x << shift`` is wider than a multiplier's operand, it is ``(dz[pm] * x[pn,pk]) << shift``.

    What an optimiser adds to a gradient is a product more in the same sum: ``coefficient * v`` or
    ``coefficient * w``, in WU as well.

    ``~pk`` is the tap turned by 180 degrees. A multiplier is one DSP slice: operand registers, product
    register, and an accumulator that FP and BP load anew each time and WU adds up in.

    In a frozen stage there is no WU, and nothing is added up over time.

    Parameters
    ----------
    stage : :class:`~streamtrain.pipeline.plan.Stage`
    shifts : :class:`int`
        Largest ``shift``.
    terms : :class:`~streamtrain.pipeline.optimizer.UpdateTerms`, optional
        What the optimiser adds to a gradient, if anything.
    operand_bits : :class:`int`
        Of a multiplier's wide operand.

    Members
    -------
    valid, bp, wu, load : :py:`In(1)`
        There are operands; they are for BP or WU (else for FP); the accumulators start anew. The last
        two only in trainable stages.
    shift : :py:`In(range(shifts + 1))`
        In WU; 0 otherwise. Only in trainable stages.
    w : :py:`In(ArrayLayout(stage.weights, Pm * Pn * Pk))`
        In the order pm, pn, pk.
    x : :py:`In(ArrayLayout(ArrayLayout(stage.input, Pk), Pn))`
    dz_window : :py:`In(ArrayLayout(ArrayLayout(stage.errors, Pk), Pm))`
        Taps of an error window, in raster order. Only in stages with ``back``.
    dz : :py:`In(ArrayLayout(stage.errors, Pm))`
        One pixel of the error. Only in trainable stages.
    term : :py:`In(1)`
        In WU: the product is ``coefficient``'s. Only with ``terms``, as are the next three.
    coefficient : :py:`In(terms.coefficient)`
    of_velocity : :py:`In(1)`
        The other factor is ``v``, else ``w``. Only with momentum, as is the next.
    v : :py:`In(ArrayLayout(terms.velocity, Pm * Pn * Pk))`
    forward : :py:`Out(ArrayLayout(signed(...), Pm))`
    backward : :py:`Out(ArrayLayout(signed(...), Pn))`
        Only in stages with ``back``.
    gradient : :py:`Out(ArrayLayout(signed(...), Pm * Pn * Pk))`
        Only in trainable stages.

    Timing
    ------
    Operands every cycle. ``gradient`` includes the operands :attr:`PRODUCT_LATENCY` cycles later,
    ``forward`` and ``backward`` are theirs after :attr:`forward_latency` and :attr:`backward_latency`.
    """

    PRODUCT_LATENCY = 3

    def __init__(self, stage, *, shifts, terms=None, operand_bits=DSP_WIDTHS[0]):
        self.stage = stage
        self.shifts = shifts if stage.trainable else 0
        self.terms = terms if terms is not None and terms.count else None
        self.operand_bits = operand_bits
        pm, pn, pk = stage.folding
        self.product_width = stage.weights.width + (
            max(stage.input.width, stage.errors.width) if stage.back else stage.input.width
        )
        taps, channels = ceil_log2(pk), ceil_log2(pn)
        width = stage.input.width + self.shifts + stage.errors.width + ceil_log2(stage.pixels)
        if self.terms:
            width = self.terms.sum_bits(width)
        self.gradient_width = min(ACCUMULATOR_WIDTH, width)
        self.forward_latency = self.PRODUCT_LATENCY + tree_latency(pk) + tree_latency(pn)
        self.backward_latency = self.PRODUCT_LATENCY + tree_latency(pk) + tree_latency(pm)
        members = {
            "valid": In(1),
            "bp": In(1),
            "w": In(data.ArrayLayout(stage.weights, pm * pn * pk)),
            "x": In(data.ArrayLayout(data.ArrayLayout(stage.input, pk), pn)),
            "forward": Out(data.ArrayLayout(signed(self.product_width + taps + channels), pm)),
        }
        if stage.trainable:
            gradients = data.ArrayLayout(signed(self.gradient_width), pm * pn * pk)
            members |= {
                "wu": In(1),
                "load": In(1),
                "shift": In(range(self.shifts + 1)),
                "dz": In(data.ArrayLayout(stage.errors, pm)),
                "gradient": Out(gradients),
            }
        if self.terms:
            members |= {"term": In(1), "coefficient": In(self.terms.coefficient)}
            if self.terms.velocity is not None:
                members["of_velocity"] = In(1)
                members["v"] = In(data.ArrayLayout(self.terms.velocity, pm * pn * pk))
        if stage.back:
            sums = signed(self.product_width + taps + ceil_log2(pm))
            members["dz_window"] = In(data.ArrayLayout(data.ArrayLayout(stage.errors, pk), pm))
            members["backward"] = Out(data.ArrayLayout(sums, pn))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        stage = self.stage
        pm, pn, pk = stage.folding

        valid = delayed(m, self.valid, 3, "valid")
        learns = stage.trainable
        if learns:
            load = delayed(m, self.load, 2, "load", reset_less=True)
        # Sums are wanted in FP and BP, not in WU: trees stand still there.
        latency = max(self.forward_latency, self.backward_latency)
        summed = delayed(
            m, self.valid & ~self.wu if learns else self.valid, latency, "summed"
        )

        options = self.shifts, self.terms, self.operand_bits
        late = shifts_products(stage, *options)
        if late:
            shift = delayed(m, self.shift, 2, "shift", reset_less=True)[-1]

        shifted = {}
        for n in range(pn):
            for k in range(pk):
                shifted[n, k] = Signal(signed(stage.input.width + self.shifts), name=f"x{n}_{k}")
                x = self.x[n][k]
                m.d.comb += shifted[n, k].eq(x << self.shift if learns and not late else x)

        products = {}
        wide, narrow = operand_widths(stage, *options)
        from_pixel = self.wu if learns else None
        if self.terms:
            from_pixel = self.wu & ~self.term
            for (n, k), moved in shifted.items():
                shifted[n, k] = Signal(signed(wide), name=f"wide{n}_{k}")
                m.d.comb += shifted[n, k].eq(Mux(self.term, self.coefficient, moved))
        total_width = max(self.gradient_width, self.product_width) if learns else wide + narrow
        for i in range(pm):
            for n in range(pn):
                for k in range(pk):
                    lane = (i * pn + n) * pk + k
                    tag = f"{i}_{n}_{k}"
                    a = Signal(signed(wide), name=f"a{tag}", reset_less=True)
                    b = Signal(signed(narrow), name=f"b{tag}", reset_less=True)
                    product = Signal(signed(wide + narrow), name=f"m{tag}", reset_less=True)
                    total = Signal(signed(total_width), name=f"p{tag}", reset_less=True)
                    operand = shifted[n, k]
                    other = self.w[lane]
                    if self.terms and self.terms.velocity is not None:
                        other = Mux(self.of_velocity, self.v[lane], other)
                    if stage.back:
                        operand = Mux(self.bp, self.dz_window[i][pk - 1 - k], operand)
                    with m.If(valid[0]):
                        m.d.sync += [
                            a.eq(operand),
                            b.eq(Mux(from_pixel, self.dz[i], other) if learns else other),
                        ]
                    with m.If(valid[1]):
                        m.d.sync += product.eq(a * b)
                    with m.If(valid[2]):
                        before = Mux(load[2], 0, total) if learns else 0
                        m.d.sync += total.eq(before + (product << shift if late else product))
                    if learns:
                        m.d.comb += self.gradient[lane].eq(total)
                    products[i, n, k] = total[: self.product_width].as_signed()

        summed = summed[self.PRODUCT_LATENCY :]
        taps = {}
        for i in range(pm):
            for n in range(pn):
                taps[i, n] = _tree(m, [products[i, n, k] for k in range(pk)], summed, f"taps{i}_{n}")
        summed = summed[tree_latency(pk) :]
        for i in range(pm):
            m.d.comb += self.forward[i].eq(
                _tree(m, [taps[i, n] for n in range(pn)], summed, f"forward{i}")
            )
        if stage.back:
            for n in range(pn):
                m.d.comb += self.backward[n].eq(
                    _tree(m, [taps[i, n] for i in range(pm)], summed, f"backward{n}")
                )
        return m
