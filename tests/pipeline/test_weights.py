# amaranth: UnusedElaboratable=no
"""The weight store: reading, updating in all ways, scanning."""

import numpy as np
import pytest

from streamtrain.network import SGD, Conv2d, Flatten, Network
from streamtrain.numeric import (
    Fixed,
    Round,
    lane_bits,
    lfsr_states,
    requantize_codes,
    round_codes,
)
from streamtrain.pipeline.array import MultiplierArray
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import ceil_log2, lower
from streamtrain.pipeline.weights import WeightStore
from streamtrain.simulate.bench import run_streams

NARROW = Fixed(8, 5)
MASTER = Fixed(13, 9)


def make(
    *,
    channels=(4, 2),
    folding=(2, 2, 3),
    kernel=3,
    master=None,
    weights=NARROW,
    errors=Fixed(8, 6),
    mode=Round.NEAREST,
    max_batch=1,
    bias=True,
):
    """A plan of one stage that takes gradients with a few more bits than its weights."""
    n, m = channels
    net = Network(
        (n, kernel, kernel),
        (Conv2d(m, kernel, padding="valid", bias=bias), Flatten()),
        optimizer=SGD(2**-3),
    )
    numbers = Numbers(
        weights=weights,
        master=master,
        activations=Fixed(8, 2),
        errors=errors,
        round_weights=mode,
    )
    return lower(net, {"conv1": folding}, numbers, max_batch=max_batch)


class Bench:
    """A store, and what it should hold: arrays (words, lanes) and (blocks, Pm)."""

    def __init__(self, plan):
        self.plan, (self.stage,) = plan, plan.stages
        stage = self.stage
        array = MultiplierArray(stage, shifts=plan.rate_shifts)
        self.widths = (
            array.gradient_width,
            stage.errors.width + plan.rate_shifts + ceil_log2(stage.pixels),
        )
        self.store = WeightStore(
            plan, stage, gradient_width=self.widths[0], bias_gradient_width=self.widths[1]
        )
        self.lanes, self.pm = stage.multipliers, stage.folding[0]
        self.per_block = stage.words // stage.blocks[0]
        self.rng = np.random.default_rng(1)
        self.weights = np.zeros((stage.words, self.lanes), np.int64)
        self.biases = np.zeros((stage.blocks[0], self.pm), np.int64)
        self.sums = [np.zeros_like(self.weights), np.zeros_like(self.biases)]
        self.random = plan.random_seed(stage, "weights")
        self.saturated = 0

    def run(self, drive):
        async def whole(ctx):
            self.ctx = ctx
            await drive(self)

        run = run_streams(self.store, {}, {}, drive=whole)
        assert run.final["saturated"] == self.saturated

    # What is done to the store. Inputs that nobody looks at are noise.

    def set(self, **values):
        for name, value in values.items():
            self.ctx.set(getattr(self.store, name), value)

    async def tick(self, cycles=1):
        for _ in range(cycles):
            await self.ctx.tick()

    async def write(self, weights, biases):
        """Scan in."""
        self.weights, self.biases = weights, biases
        for word in range(self.stage.words):
            block, inner = divmod(word, self.per_block)
            codes = weights[word].tolist() + biases[block].tolist() * self.stage.bias
            for code in codes:
                self.set(scan_i=code, scan_shift=1)
                await self.tick()
            self.set(scan_shift=0, scan_store=1)
            self.set(scan_word=word, scan_block=block, scan_bias=inner == 0)
            await self.tick()
            self.set(scan_store=0)

    async def check_scanned(self):
        """Scan out, one word after another, as early as it is there."""
        for word in range(self.stage.words):
            block, inner = divmod(word, self.per_block)
            self.set(scan_fetch=1, scan_word=word, scan_block=block, scan_bias=inner == 0)
            await self.tick()
            self.set(scan_fetch=0, scan_word=0)
            await self.tick(self.store.finish_latency - 2)
            found = []
            for _ in range(self.lanes + self.pm * self.stage.bias):
                found.append(self.ctx.get(self.store.scan_o))
                self.set(scan_shift=1)
                await self.tick()
            self.set(scan_shift=0)
            assert found[: self.lanes] == self.weights[word].tolist()
            if self.stage.bias:
                assert found[self.lanes :] == self.biases[block].tolist()

    def operands(self, stored):
        stage = self.stage
        shift = stage.stored.frac - stage.weights.frac
        return requantize_codes(stored, shift, stage.weights, Round.NEAREST)[0].tolist()

    async def check_operands(self):
        """Read all words, one per cycle."""
        words = [*self.rng.permutation(self.stage.words).tolist(), None, None]
        for cycle, word in enumerate(words):
            if cycle >= 2:
                found = list(self.ctx.get(self.store.w))
                assert found == self.operands(self.weights[words[cycle - 2]])
            self.set(read=word is not None, word=word or 0)
            await self.tick()
        found = list(self.ctx.get(self.store.w))  # it stays
        assert found == self.operands(self.weights[words[-3]])
        for block in range(self.stage.blocks[0]):
            self.set(bias_block=block)
            await self.tick()
            if self.stage.bias:
                assert list(self.ctx.get(self.store.bias)) == self.operands(self.biases[block])

    async def sample(self, gradients, bias_gradients, *, apply=True, fresh=True, pause=0.0):
        """Finish all words, with pauses or one after another."""
        store, arriving = self.store, {}

        async def cycle(finish=0, **others):
            self.set(finish=finish, **others)
            arriving[2] = others.get("finish_word") if finish else None
            word = arriving.get(0)
            noise = self.rng.integers
            lanes = noise(-4, 4, self.lanes) if word is None else gradients[word]
            bias = noise(-4, 4, self.pm) if word is None else bias_gradients[word // self.per_block]
            self.set(gradient=lanes.tolist(), bias_gradient=bias.tolist())
            await self.tick()
            for place in (0, 1):
                arriving[place] = arriving.get(place + 1)

        for word in range(self.stage.words):
            block, inner = divmod(word, self.per_block)
            await cycle(
                1,
                finish_word=word,
                finish_block=block,
                finish_bias=inner == 0,
                apply=apply,
                fresh=fresh,
            )
            while self.rng.random() < pause:
                await cycle()
        for _ in range(store.finish_latency - 1):
            await cycle()
        self._expect(gradients, bias_gradients, apply, fresh)

    def _expect(self, gradients, bias_gradients, apply, fresh):
        """What the specification says that happens."""
        plan, stage = self.plan, self.stage
        words, blocks = range(stage.words), range(0, stage.words, self.per_block)
        random = [None, None]
        if stage.round_weights is Round.STOCHASTIC and apply:
            states, self.random = lfsr_states(self.random, len(words))
            random = [
                np.stack([lane_bits(states[list(which)], lane, shift) for lane in lanes], axis=1)
                for which, lanes, shift in (
                    (words, range(self.lanes), plan.weight_shift(stage)),
                    (blocks, range(self.lanes, self.lanes + self.pm), plan.bias_shift(stage)),
                )
            ]
        stored = [self.weights, self.biases]
        for kind, (gradient, shift) in enumerate((
            (gradients, plan.weight_shift(stage)),
            (bias_gradients, plan.bias_shift(stage)),
        )):
            drop = plan.batch_shift(shift)
            total = gradient + (0 if fresh else self.sums[kind] << drop)
            if not apply:
                self.sums[kind] = total >> drop
                continue
            delta = round_codes(total, shift, stage.round_weights, random[kind])
            new, count = requantize_codes(stored[kind] - delta, 0, stage.stored, Round.TRUNCATE)
            if kind == 0 or stage.bias:
                stored[kind] = new
                self.saturated += count
        self.weights, self.biases = stored

    # Random content.

    def codes(self, shape):
        codes = self.stage.stored.codes
        values = self.rng.integers(codes[0], codes[-1], shape, endpoint=True)
        ends = self.rng.choice([codes[0], codes[-1]], shape)
        return np.where(self.rng.random(shape) < 0.2, ends, values)

    async def write_random(self):
        await self.write(self.codes(self.weights.shape), self.codes(self.biases.shape))

    def gradients(self, *, small=False):
        """Gradients of all sizes, the largest and smallest among them."""

        def draw(shape, width):
            exponent = self.rng.integers(1, width, shape)
            values = self.rng.integers(-(1 << exponent), 1 << exponent)
            ends = self.rng.choice([-(1 << width - 1), (1 << width - 1) - 1], shape)
            return np.where(self.rng.random(shape) < (0 if small else 0.1), ends, values)

        fewer = 6 if small else 0
        return (
            draw(self.weights.shape, self.widths[0] - fewer),
            draw(self.biases.shape, self.widths[1] - fewer),
        )


VARIANTS = {
    "plain": {},
    "master": {"master": MASTER},
    "one lane": {"channels": (2, 3), "folding": (1, 1, 1), "kernel": 3},
    "one word": {"channels": (2, 3), "folding": (3, 2, 1), "kernel": 1},
    "5x5": {"channels": (1, 2), "folding": (1, 1, 5), "kernel": 5},
    "without bias": {"bias": False},
    "without bias, master": {"bias": False, "master": MASTER},
    "widest": {"weights": Fixed(18, 15), "master": Fixed(32, 20), "errors": Fixed(18, 15)},
    "narrowest": {"weights": Fixed(2, 0), "errors": Fixed(2, 1)},
    "coarser than all gradients": {"weights": Fixed(6, -8)},
}
each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))


@each_variant
@pytest.mark.parametrize("max_batch", [1, 3])
def test_what_is_scanned_in_is_read_and_scanned_out(variant, max_batch):
    async def drive(bench):
        await bench.write_random()
        await bench.check_operands()
        await bench.check_scanned()

    Bench(make(**variant, max_batch=max_batch)).run(drive)


@each_variant
@pytest.mark.parametrize("mode", list(Round))
@pytest.mark.parametrize("max_batch", [1, 3])
def test_gradients_are_subtracted(variant, mode, max_batch):
    async def drive(bench):
        await bench.write_random()
        for pause in (0.0, 0.5):
            await bench.sample(*bench.gradients(), pause=pause)
        await bench.check_operands()
        await bench.check_scanned()
        assert bench.saturated > 0 or variant

    Bench(make(**variant, mode=mode, max_batch=max_batch)).run(drive)


@each_variant
@pytest.mark.parametrize("mode", [Round.NEAREST, Round.STOCHASTIC])
def test_gradients_of_a_mini_batch_add_up(variant, mode):
    async def drive(bench):
        await bench.write_random()
        for length in (3, 1, 2):
            for number in range(length):
                last = number == length - 1
                await bench.sample(*bench.gradients(), apply=last, fresh=number == 0, pause=0.2)
        await bench.check_operands()
        await bench.check_scanned()

    Bench(make(**variant, mode=mode, max_batch=3)).run(drive)


def test_the_largest_gradients_of_a_mini_batch_do_not_wrap():
    async def drive(bench):
        await bench.write_random()
        for sign in (-1, 0):  # all lowest; all highest
            largest = [
                np.full(part.shape, -(1 << width - 1) if sign else (1 << width - 1) - 1)
                for part, width in zip((bench.weights, bench.biases), bench.widths, strict=True)
            ]
            for number in range(4):
                await bench.sample(*largest, apply=number == 3, fresh=number == 0)
            await bench.check_scanned()
            assert (bench.weights == (bench.stage.stored.codes[0 if sign == 0 else -1])).all()

    Bench(make(max_batch=4)).run(drive)


def test_small_gradients_are_rounded_not_saturated():
    async def drive(bench):
        await bench.write(
            bench.codes(bench.weights.shape) // 2, bench.codes(bench.biases.shape) // 2
        )
        for _ in range(4):
            await bench.sample(*bench.gradients(small=True))
        assert bench.saturated == 0
        await bench.check_scanned()

    Bench(make(master=MASTER)).run(drive)


@pytest.mark.parametrize("max_batch", [1, 2])
def test_an_updated_word_can_be_read_at_its_latency(max_batch):
    async def drive(bench):
        await bench.write_random()
        gradients, bias_gradients = bench.gradients()
        await bench.sample(gradients, bias_gradients)
        # `sample` ends in the cycle in which the last word may first be read.
        word = bench.stage.words - 1
        bench.set(read=1, word=word)
        await bench.tick()
        bench.set(read=0)
        await bench.tick()
        assert list(bench.ctx.get(bench.store.w)) == bench.operands(bench.weights[word])

    Bench(make(max_batch=max_batch)).run(drive)


def test_reads_may_come_in_any_other_cycle_than_the_update_s_own():
    # Words are read throughout an update, except in the cycle in which the update reads its own.
    async def drive(bench):
        await bench.write_random()
        before = bench.weights.copy()
        gradients, bias_gradients = bench.gradients()
        bench.set(finish=1, finish_word=0, finish_block=0, finish_bias=1, apply=1, fresh=1)
        bench.set(gradient=gradients[0].tolist(), bias_gradient=bias_gradients[0].tolist())
        for cycle in range(6):
            read = cycle != bench.store.finish_read
            bench.set(read=read, word=1)
            await bench.tick()
            bench.set(finish=0)
            if cycle > bench.store.finish_read + 1:
                assert list(bench.ctx.get(bench.store.w)) == bench.operands(before[1])
        bench.set(read=0)
        only_first = np.zeros_like(gradients)
        only_first[0] = gradients[0]
        bias_gradients[1:] = 0
        bench._expect(only_first, bias_gradients, True, True)
        await bench.check_scanned()

    Bench(make(max_batch=2)).run(drive)
