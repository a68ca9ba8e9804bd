# amaranth: UnusedElaboratable=no
"""The whole core in front of a simulated memory: training steps equal the golden model's, bit for bit."""

import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden.channels import ROWS
from streamtrain.golden.unified import UnifiedGolden, tiled
from streamtrain.numeric import Fixed, FixedArithmetic, FloatArithmetic, arithmetic
from streamtrain.pipeline.generate import verilog_of
from streamtrain.simulate.memory import MemoryTiming, SimulatedMemory, compile_memory_design
from streamtrain.unified.buffers import Depths
from streamtrain.unified.compiler import Compiler
from streamtrain.unified.core import UnifiedCore
from streamtrain.unified.ip import UnifiedIP, unified_registers
from streamtrain.unified.plan import lower

pytestmark = pytest.mark.xdist_group("memory simulations")

FIXED = FixedArithmetic(Fixed(16, 10), Fixed(32, 20))
LANES, IMAGES, BEAT = 4, 2, 64
REGISTERS = unified_registers()


def network():
    return st.Network(
        (2, 8, 8),
        [
            st.Conv2d(10, 3), st.ReLU(), st.MaxPool2d(2), st.Conv2d(6, 5), st.ReLU(),
            st.Conv2d(4, 1), st.MaxPool2d(2), st.Flatten(), st.Linear(9), st.ReLU(), st.Linear(4),
        ],
    )  # fmt: skip


def strided(columns, padding):
    """Strides on odd maps. With ``"valid"``, conv2's kernels leave a rest of its inputs' rows and columns."""
    return st.Network(
        (2, 23, columns),
        [
            st.Conv2d(5, 3, stride=2), st.ReLU(), st.Conv2d(6, 5, padding, stride=2), st.ReLU(),
            st.Flatten(), st.Linear(3),
        ],
    )  # fmt: skip


class Training:
    """A core with its memory, and the golden model beside it."""

    def __init__(self, numbers, depths=None, net=None, **options):
        self.numbers, self.plan = numbers, lower(net or network(), LANES)
        self.golden = UnifiedGolden(self.plan, numbers)
        self.compiler = Compiler(self.plan, numbers, IMAGES, depths, data_bits=BEAT)
        classes, depths = self.plan.layers[-1].m, self.compiler.depths
        normalized = self.compiler.normalized
        core = UnifiedCore(
            numbers, LANES, depths, classes, self.compiler.fold, normalized, data_bits=BEAT
        )
        design = UnifiedIP(core)
        library = compile_memory_design(lambda: verilog_of(design, "streamtrain"), BEAT)
        self.programs = {}
        end = self.compiler.programs
        programs = {"evaluate": self.compiler.evaluation(), "step": self.compiler.step()}
        images = {name: program.image() for name, program in programs.items()}
        for name, image in images.items():
            self.programs[name] = end
            end += len(image)
        self.memory = SimulatedMemory(library, -(-end // 4096) * 4096, **options)
        for name, image in images.items():
            self.put(self.programs[name], image)
        for regions, tensors in (
            (self.compiler.weights, self.golden.weights),
            (self.compiler.biases, self.golden.biases),
        ):
            for name, tensor in tensors.items():
                self.put_tiles(regions[name], _tiles(regions[name], tensor), "<u4")
        for name, region in self.compiler.channels.items():
            for number, rows in enumerate(self.channels(name)):
                self.put(region.address + number * region.stride, rows.tobytes())

    def channels(self, name):
        """Registers of a batch norm's channels as they lie in memory, tile after tile."""
        rows = self.golden.registers(name, IMAGES)
        return np.ascontiguousarray(rows.reshape(ROWS, -1, LANES).transpose(1, 0, 2))

    def put(self, address, content):
        self.memory.contents[address : address + len(content)] = np.frombuffer(content, np.uint8)

    def get(self, address, size):
        return self.memory.contents[address : address + size].tobytes()

    def codes(self, numbers, dtype):
        """Bytes of numbers as the golden model has them."""
        fmt = self.numbers.accumulator if dtype == "<u4" else self.numbers.operand
        if isinstance(self.numbers, FloatArithmetic):
            numbers = fmt.from_float32(numbers).astype(np.int64)
        return (numbers & (1 << fmt.width) - 1).astype(dtype).tobytes()

    def put_tiles(self, region, tiles, dtype):
        """Numbers of tiles, each as it lies in memory."""
        for number, tile in enumerate(tiles):
            self.put(region.address + number * region.stride, self.codes(tile, dtype))

    def run(self, program):
        memory = self.memory
        memory.write(REGISTERS["PROGRAM"].address, self.programs[program])
        memory.write(REGISTERS["CONTROL"].address, 1)
        memory.wait_for_irq(400_000)
        return memory.read(REGISTERS["CYCLES"].address)

    def put_samples(self, x, labels):
        first = self.plan.layers[0]
        maps = tiled(self.golden.numbers.operands(x), first.group)
        region = self.compiler.inputs[first.name]
        self.put_tiles(region, maps.reshape(-1, *maps.shape[2:]), self.operand)
        for number, label in enumerate(labels):
            region, word = self.compiler.targets, 1 << 4 * int(label)
            self.put(region.address + number * region.stride, word.to_bytes(LANES // 2, "little"))

    @property
    def operand(self):
        return f"<u{self.numbers.operand.width // 8}"

    def check(self, what, region, tiles, dtype):
        for number, tile in enumerate(tiles):
            want = self.codes(tile, dtype)
            got = self.get(region.address + number * region.stride, len(want))
            assert got == want, f"{what}, tile {number}"

    def check_scores(self, scores):
        padded = np.zeros((len(scores), LANES), scores.dtype)
        padded[:, : scores.shape[1]] = scores
        region = self.compiler.outputs[self.plan.layers[-1].name]
        self.check("scores", region, padded, self.operand)

    def step(self, x, labels, lr):
        """One on both sides; they must agree in scores, errors and weights. Returns its cycles."""
        golden = self.golden
        self.put_samples(x, labels)
        rate = int(golden.numbers.rate(lr / len(x))) & (1 << self.numbers.rate.width) - 1
        self.memory.write(REGISTERS["RATE"].address, rate)
        cycles = self.run("step")
        self.check_scores(golden._forward(x, training=True)[0])
        golden.step(x, labels, lr)
        for layer in self.plan.layers:
            if layer.norm:
                region = self.compiler.channels[layer.name]
                for number, want in enumerate(self.channels(layer.name)):
                    got = self.get(region.address + number * region.stride, want.nbytes)
                    assert got == want.tobytes(), f"channels of {layer.name}, tile {number}"
                continue
            for name, regions, tensors in (
                ("weights", self.compiler.weights, golden.weights),
                ("biases", self.compiler.biases, golden.biases),
            ):
                region = regions[layer.name]
                tiles = _tiles(region, tensors[layer.name])
                self.check(f"{name} of {layer.name}", region, tiles, "<u4")
        return cycles


def _tiles(region, tensor):
    return tensor.reshape(region.tiles, -1)


SMALL = Depths(x=32, e=16, sums=24, weights=300, gradients=25, tiles=2)
"""Buffers that hold some rows of a map, some of its channels, and the weights of a tile of them."""


@pytest.mark.parametrize(
    ("numbers", "depths"),
    [(FIXED, None), (FIXED, SMALL), (arithmetic("bf16"), None), (arithmetic("fp32"), SMALL)],
    ids=["fixed", "fixed, small buffers", "bf16", "fp32, small buffers"],
)
def test_steps_equal_the_golden_models(numbers, depths):
    training = Training(numbers, depths)
    rng = np.random.default_rng(0)
    for step in range(3):
        training.memory.timing = MemoryTiming(
            read_latency=int(rng.integers(1, 60)), stall=float(rng.choice([0.0, 0.3]))
        )
        x = rng.normal(size=(IMAGES, 2, 8, 8))
        training.step(x, rng.integers(0, 4, IMAGES), 0.25 / (1 + step))
    before = training.memory.contents.copy()
    training.put_samples(x, np.zeros(IMAGES, int))
    training.run("evaluate")
    training.check_scores(training.golden._forward(x)[0])
    for regions in (training.compiler.weights, training.compiler.biases):
        for region in regions.values():
            own = slice(region.address, region.address + region.tiles * region.stride)
            np.testing.assert_array_equal(training.memory.contents[own], before[own])
    training.memory.close()


@pytest.mark.parametrize(
    ("numbers", "columns", "padding", "depths"),
    [
        (arithmetic("fp32"), 15, "valid", None),
        (arithmetic("fp32"), 15, "valid", Depths(x=96, e=8, sums=8, weights=200, gradients=25, tiles=2)),
        (FIXED, 1, "same", Depths(x=12, e=4, sums=6, weights=200, gradients=25, tiles=2)),
    ],
    ids=["whole layers", "rows", "a column"],
)  # fmt: skip
def test_steps_with_strides(numbers, columns, padding, depths):
    """BP of tiles of a row or a column, in which some taps reach no pixel, and of rows that no kernel read."""
    training = Training(numbers, depths, strided(columns, padding))
    rng = np.random.default_rng(0)
    for _ in range(2):
        training.memory.timing = MemoryTiming(read_latency=int(rng.integers(1, 60)), stall=0.2)
        x = rng.normal(size=(IMAGES, *training.plan.network.input_shape))
        training.step(x, rng.integers(0, 3, IMAGES), 0.125)
    training.memory.close()


def normalized():
    """Batch norms of several tiles of channels: with pool and ReLU, with a stride and a 5x5 kernel, bare."""
    return st.Network(
        (2, 23, 16),
        [
            st.Conv2d(6, 3, stride=2, bias=False), st.BatchNorm2d(), st.ReLU(), st.MaxPool2d(2),
            st.Conv2d(5, 5, stride=2), st.BatchNorm2d(eps=1e-3, momentum=0.3), st.ReLU(),
            st.Conv2d(3, 1), st.BatchNorm2d(), st.Flatten(), st.Linear(3),
        ],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "depths"),
    [
        (arithmetic("fp32"), None),
        (arithmetic("bf16"), Depths(x=51, e=16, sums=16, weights=200, gradients=25, tiles=8)),
    ],
    ids=["fp32", "bf16, small buffers"],
)
def test_steps_with_batch_norms(numbers, depths):
    training = Training(numbers, depths, normalized())
    rng = np.random.default_rng(0)
    for _ in range(3):
        training.memory.timing = MemoryTiming(
            read_latency=int(rng.integers(1, 60)), stall=float(rng.choice([0.0, 0.3]))
        )
        x = rng.normal(size=(IMAGES, *training.plan.network.input_shape))
        training.step(x, rng.integers(0, 3, IMAGES), 0.125)
    training.put_samples(x, np.zeros(IMAGES, int))
    training.run("evaluate")
    training.check_scores(training.golden._forward(x)[0])
    training.step(x, rng.integers(0, 3, IMAGES), 0.125)
    training.memory.close()


@pytest.mark.parametrize(
    ("small", "culprit"),
    [
        ({"weights": 299}, "FP of conv2 needs 300 rows of weights at once; the buffer has 299"),
        ({"x": 31}, "FP of conv1 needs 32 vectors of inputs"),
        ({"sums": 15}, "and 16 sums at once; the buffers have 32 and 15"),
        ({"gradients": 24}, "WU of conv2 needs 25 blocks of gradients at once"),
        ({"e": 7}, "8 errors at once"),
    ],
)
def test_buffers_that_are_too_small_are_named(small, culprit):
    compiler = Compiler(
        lower(network(), LANES), FIXED, IMAGES, SMALL._replace(**small), data_bits=BEAT
    )
    with pytest.raises(ValueError, match=culprit):
        compiler.step()


@pytest.mark.parametrize(
    ("small", "culprit"),
    [
        (
            {"tiles": 7},
            "WU of norm3 needs 8 vectors of biases' gradients at once; the buffer has 7",
        ),
        ({"gradients": 7}, "WU of norm3 needs 8 blocks of gradients"),
    ],
)
def test_buffers_that_are_too_small_for_batch_norms_are_named(small, culprit):
    depths = Depths(x=400, e=400, sums=400, weights=400, gradients=100, tiles=8)._replace(**small)
    compiler = Compiler(
        lower(normalized(), LANES), arithmetic("fp32"), IMAGES, depths, data_bits=BEAT
    )
    with pytest.raises(ValueError, match=culprit):
        compiler.step()
