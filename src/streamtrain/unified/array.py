"""The array of multiply-accumulators that computes every layer in every phase."""

from operator import index

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.gates import delayed

__all__ = ["MultiplyAccumulateArray"]


class MultiplyAccumulateArray(wiring.Component):
    """``lanes x lanes`` multipliers, and as many adders that are wired in two ways.

    =======  ======================  ====================================================
    phase    multiplier (m, n)       adders of row m
    =======  ======================  ====================================================
    FP, BP   ``w[m, n] * x[n]``      a tree over n, and one that adds its sum to ``partial[m]``
    WU       ``e[m] * x[n]``         one for each n, which adds the product to ``gradient[m, n]``
    =======  ======================  ====================================================

    One more adder in each row adds the error itself to the bias's gradient in WU.

    Weights stay while the array goes over the pixels of a pass. Meanwhile those of the next pass are
    written behind them, a row of the block in a cycle; for BP as a column, which transposes the block. So
    one layout of weights in memory serves all phases.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.FloatArithmetic` or :class:`~streamtrain.numeric.FixedArithmetic`
    lanes : :class:`int`

    Attributes
    ----------
    sum_latency : :class:`int`
        Cycles from ``x`` to the tree's sum, when ``partial`` has to come.
    product_latency : :class:`int`
        Cycles from ``x`` and ``e`` to the products, when ``gradient`` has to come.
    add_latency : :class:`int`
        Cycles from ``partial`` to ``sums``, and from ``gradient`` to ``gradients``.

    Members
    -------
    x, e : :py:`In(data.ArrayLayout(operand, lanes))`
    update : :py:`In(1)`
        WU: ``x`` and ``e`` are multiplied, not weights.
    row : :py:`In(data.ArrayLayout(operand, lanes))`
        Weights of the next pass: row ``number`` of a block, or its column if ``transposed``.
    number, transposed, write : in
    swap : :py:`In(1)`
        From the next cycle on, ``x`` meets the weights that were written.
    partial : :py:`In(data.ArrayLayout(accumulator, lanes))`
    sums : :py:`Out(data.ArrayLayout(accumulator, lanes))`
    gradient, bias_gradient : in
        ``lanes * lanes`` accumulators, row by row, and ``lanes`` of them.
    gradients, bias_gradients : out

    Timing
    ------
    A vector per cycle; nothing stalls. Between the last cycle of FP or BP and the first one of WU there must
    be ``sum_latency - product_latency`` others, as long as the tree still uses the adders.
    """

    def __init__(self, arithmetic, lanes):
        self.arithmetic = arithmetic
        self.lanes = index(lanes)
        if self.lanes < 2:
            raise ValueError(f"An array has at least 2 lanes, not {lanes!r}")
        self._multipliers = [arithmetic.multiplier() for _ in range(self.lanes**2)]
        self._adders = [arithmetic.adder() for _ in range(self.lanes**2)]
        self.product_latency = self._multipliers[0].latency
        self.add_latency = self._adders[0].latency
        levels = (self.lanes - 1).bit_length()
        self.sum_latency = self.product_latency + levels * self.add_latency
        operands = data.ArrayLayout(arithmetic.operand, self.lanes)
        accumulators = data.ArrayLayout(arithmetic.accumulator, self.lanes)
        block = data.ArrayLayout(arithmetic.accumulator, self.lanes**2)
        super().__init__({
            "x": In(operands),
            "e": In(operands),
            "update": In(1),
            "row": In(operands),
            "number": In(range(self.lanes)),
            "transposed": In(1),
            "write": In(1),
            "swap": In(1),
            "partial": In(accumulators),
            "sums": Out(accumulators),
            "gradient": In(block),
            "gradients": Out(block),
            "bias_gradient": In(accumulators),
            "bias_gradients": Out(accumulators),
        })

    def elaborate(self, platform):
        m = Module()
        adds = delayed(m, self.update, self.product_latency, "update")[-1]  # WU's products arrive
        errors = self._as_accumulators(m)
        sums, gradients, bias_gradients = [], [], []
        for row in range(self.lanes):
            products = [self._product(m, row, column) for column in range(self.lanes)]
            results = self._row(m, row, products, adds)
            sums.append(results[-1])
            gradients += results
            bias = m.submodules[f"bias_{row}"] = self.arithmetic.adder()
            m.d.comb += [
                bias.enable.eq(1),
                bias.a.eq(self.bias_gradient[row]),
                bias.b.eq(errors[row]),
            ]
            bias_gradients.append(bias.o)
        m.d.comb += [
            self.sums.as_value().eq(Cat(sums)),
            self.gradients.as_value().eq(Cat(gradients)),
            self.bias_gradients.as_value().eq(Cat(bias_gradients)),
        ]
        return m

    def _as_accumulators(self, m):
        """The errors when their products arrive, as accumulators."""
        wide = []
        for row in range(self.lanes):
            widener = m.submodules[f"widen_{row}"] = self.arithmetic.widen()
            m.d.comb += [widener.enable.eq(1), widener.i.eq(self.e[row])]
            cycles = self.product_latency - widener.latency
            wide.append(delayed(m, widener.o, cycles, f"error_{row}")[-1])
        return wide

    def _product(self, m, row, column):
        weight, following = (
            Signal(self.arithmetic.operand, name=f"{name}_{row}_{column}")
            for name in ("weight", "following")
        )
        at = Mux(self.transposed, column, row)
        with m.If(self.write & (self.number == at)):
            source = Mux(self.transposed, self.row[row], self.row[column])
            m.d.sync += following.eq(source)
        with m.If(self.swap):
            m.d.sync += weight.eq(following)
        multiplier = self._multipliers[row * self.lanes + column]
        m.submodules[f"multiplier_{row}_{column}"] = multiplier
        m.d.comb += [
            multiplier.enable.eq(1),
            multiplier.a.eq(self.x[column]),
            multiplier.b.eq(Mux(self.update, self.e[row], weight)),
        ]
        return multiplier.o

    def _row(self, m, row, products, adds):
        """What the adders of a row give: those of a tree of neighbours, and last its accumulator's.

        In WU, each is the accumulator of one product.
        """
        terms, results = products, []

        def add(a, b):
            number = len(results)
            adder = self._adders[row * self.lanes + number]
            m.submodules[f"adder_{row}_{number}"] = adder
            m.d.comb += [
                adder.enable.eq(1),
                adder.a.eq(Mux(adds, products[number], a)),
                adder.b.eq(Mux(adds, self.gradient[row * self.lanes + number], b)),
            ]
            results.append(adder.o)
            return adder.o

        while len(terms) > 1:
            sums = [add(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
            if len(terms) % 2:
                sums += delayed(m, terms[-1], self.add_latency, f"term_{row}_{len(results)}")[-1:]
            terms = sums
        add(terms[0], self.partial[row])
        return results
