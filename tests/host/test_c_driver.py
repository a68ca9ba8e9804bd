"""The C driver, compiled, in front of the compiled hardware."""

import ctypes
import re
import subprocess
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_int,
    c_int32,
    c_size_t,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path

import numpy as np
import pytest
from axi_dma import DmaModel
from hardware import DESIGN, NET, samples

import streamtrain as st
import streamtrain.host
from streamtrain.bus import PacketFormat, register_map
from streamtrain.bus.exports import c_header
from streamtrain.host.c_driver import write_c_driver, write_c_guide, write_c_weights
from streamtrain.host.packing import stage_words
from streamtrain.numeric import Round
from streamtrain.simulate import SimulatedBus

DRIVER = Path(streamtrain.host.__file__).parent / "c"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
FULL = st.plan(
    st.Network(
        NET.input_shape,
        NET.layers,
        optimizer=st.SGD(2**-4, momentum=0.5, weight_decay=2**-6, clip=0.5),
    ),
    foldings=DESIGN.foldings,
    numbers=st.Numbers(round_weights=Round.STOCHASTIC),
)

# Accesses to memory go to these functions.
WATCHED = """
#include <stdint.h>
extern uint32_t (*watched_read)(uintptr_t);
extern void (*watched_write)(uintptr_t, uint32_t);
#define STREAMTRAIN_READ32(address) watched_read(address)
#define STREAMTRAIN_WRITE32(address, value) watched_write(address, value)
"""
WATCH = """
uint32_t (*watched_read)(uintptr_t);
void (*watched_write)(uintptr_t, uint32_t);
void watch(uint32_t (*read)(uintptr_t), void (*write)(uintptr_t, uint32_t));
void watch(uint32_t (*read)(uintptr_t), void (*write)(uintptr_t, uint32_t))
{
    watched_read = read;
    watched_write = write;
}
"""

OK, NO_TRAINER, OTHER_DESIGN, OUT_OF_RANGE, TIMEOUT, DMA_ERROR, DAMAGED, NO_DRAIN = range(8)
CONTROL, DMA = 0x40000000, 0x41E00000

READ = CFUNCTYPE(c_uint32, c_void_p, c_uint32)
WRITE = CFUNCTYPE(None, c_void_p, c_uint32, c_uint32)
EXCHANGE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t)
FLUSH = CFUNCTYPE(c_int, c_void_p)


class Trainer(Structure):
    _fields_ = (
        ("read", READ), ("write", WRITE), ("exchange", EXCHANGE), ("flush", FLUSH),
        ("context", c_void_p), ("patience", c_uint32), ("spare", c_void_p),
    )  # fmt: skip


class Result(Structure):
    _fields_ = (
        ("predicted", c_uint16),
        ("label", c_uint16),
        ("loss", c_uint32),
        ("scores", c_void_p),
    )


class Axi(Structure):
    _fields_ = (
        ("control", c_void_p), ("dma", c_void_p), ("physical", c_void_p),
        ("flush_cache", c_void_p), ("invalidate_cache", c_void_p), ("patience", c_uint32),
        ("drain", c_void_p),
    )  # fmt: skip


def put_header(folder, design, size=4):
    (folder / "streamtrain_regs.h").write_text(
        c_header(register_map(PacketFormat(design.plan, size)))
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    put_header(folder, DESIGN)
    (folder / "watched.h").write_text(WATCHED)
    (folder / "watch.c").write_text(f"#include <stdint.h>\n{WATCH}")
    subprocess.run(
        ["gcc", *WARNINGS, "-O2", "-shared", "-fPIC", f"-I{folder}", "-include", folder / "watched.h",
         DRIVER / "streamtrain.c", folder / "watch.c", "-o", folder / "driver.so"],
        check=True,
    )  # fmt: skip
    found = ctypes.CDLL(str(folder / "driver.so"))
    found.streamtrain_over_axi.restype = Trainer
    found.streamtrain_get_result.restype = Result
    found.streamtrain_get_result.argtypes = [c_void_p, c_uint32]
    found.streamtrain_wide.restype = c_uint64
    for name in ("train", "evaluate", "infer"):
        getattr(found, f"streamtrain_{name}").argtypes = [
            POINTER(Trainer),
            c_void_p,
            c_uint32,
            c_void_p,
        ]
    for name in ("read_window", "write_window"):
        getattr(found, f"streamtrain_{name}").argtypes = [
            POINTER(Trainer), c_uint32, c_uint32, POINTER(c_int32), c_uint32,
        ]  # fmt: skip
    return found


class ProcessMemory:
    """All memory of this process, as a DMA sees it."""

    address = 0

    def __len__(self):
        return 1 << 62

    def __getitem__(self, part):
        return np.frombuffer(ctypes.string_at(part.start, part.stop - part.start), np.uint8)

    def __setitem__(self, part, word):
        ctypes.memmove(part.start, word.tobytes(), part.stop - part.start)

    @property
    def behind(self):
        return self


class Host:
    """A C program with one trainer; arrays are its memory."""

    def __init__(self, library, way, patience=2000):
        self.library, self.bus = library, SimulatedBus(DESIGN.plan)
        self.format = self.bus.format
        self.dma = DmaModel(self.bus, ProcessMemory())
        if way == "axi":
            watch_read = CFUNCTYPE(c_uint32, c_void_p)(self._read)
            watch_write = CFUNCTYPE(None, c_void_p, c_uint32)(self._write)
            library.watch(watch_read, watch_write)
            self.drain = np.zeros(4 * self.format.result_bytes + 64, np.uint8)
            self.axi = Axi(CONTROL, DMA, None, None, None, patience, self.drain.ctypes.data)
            self.trainer = library.streamtrain_over_axi(byref(self.axi))
            self.kept = watch_read, watch_write
        else:
            self.trainer = Trainer(
                READ(lambda context, address: self.bus.access(address)[1]),
                WRITE(lambda context, address, value: self.bus.access(address, value) and None),
                EXCHANGE(self._exchange),
                FLUSH(lambda context: self.bus.flush() or OK),
                None,
                patience,
                None,
            )

    def _read(self, address):
        if address >= DMA:
            return int(self.dma[(address - DMA) // 4])
        return self.bus.read(address - CONTROL)  # refusals fail

    def _write(self, address, value):
        if address >= DMA:
            self.dma[(address - DMA) // 4] = value
        else:
            self.bus.write(address - CONTROL, value)

    def _exchange(self, context, packet, size, results, result_size):
        data = np.frombuffer(ctypes.string_at(packet, size), np.uint8)
        ctypes.memmove(results, self.bus.exchange(data, result_size).tobytes(), result_size)
        return OK

    def call(self, name, *arguments):
        return getattr(self.library, f"streamtrain_{name}")(byref(self.trainer), *arguments)

    def run(self, name, x, labels):
        """Results of samples: (predicted, losses)."""
        packed = self.format.pack(DESIGN.plan.stages[0].input.encode(x), np.zeros(len(x), int))
        for sample, label in zip(packed, labels, strict=True):
            self.library.streamtrain_set_label(sample.ctypes.data_as(c_void_p), c_uint16(label))
        results = np.zeros((len(x), self.format.result_bytes), np.uint8)
        status = self.call(name, packed.ctypes.data, len(x), results.ctypes.data)
        if status != OK:
            return status
        found = [self.library.streamtrain_get_result(results.ctypes.data, n) for n in range(len(x))]
        assert [one.label for one in found] == list(labels)
        return [one.predicted for one in found], [one.loss for one in found]

    def window(self, name, layer, numbers):
        array = (c_int32 * len(numbers))(*numbers)
        status = self.call(name, layer, 0, array, len(numbers))
        return status if status != OK else list(array)


@pytest.fixture(params=["functions", "axi"])
def host(library, request):
    return Host(library, request.param)


def words(golden):
    weights = golden.state_dict()
    return [
        stage_words(stage, weights[f"{stage.name}.weight"], weights.get(f"{stage.name}.bias"))
        .ravel()
        .tolist()
        for stage in DESIGN.plan.stages
    ]


def test_trains_as_the_golden_model_does(host):
    golden = DESIGN.golden()
    assert host.call("init") == OK
    for layer, numbers in enumerate(words(golden)):
        assert host.window("write_window", layer, numbers) == numbers
    x, y = samples(12)
    mantissa, shift = DESIGN.plan.rate_code(2**-5, 4)
    assert host.call("set_rate", mantissa, shift) == host.call("set_batch", 4) == OK
    history = golden.fit(x, y, batch_size=4, lr=2**-5, progress=False)
    predicted, losses = host.run("train", x, y)
    assert losses == (history.losses * 4096).tolist()
    assert (np.array(predicted) == y).tolist() == history.correct.tolist()
    for layer, numbers in enumerate(words(golden)):
        assert host.window("read_window", layer, [0] * len(numbers)) == numbers
    predicted, losses = host.run("evaluate", x, y)
    assert np.mean(losses) / 4096 == golden.evaluate(x, y, progress=False).loss
    assert host.run("infer", x, [0] * len(x))[0] == golden.predict(x, progress=False).tolist()
    assert host.call("wide", 0x08C) == sum(losses) + sum((history.losses * 4096).astype(int))


def test_arguments_that_would_be_refused_are_not_written(host):
    assert host.call("init") == OK
    assert host.call("set_batch", 0) == host.call("set_batch", 5) == OUT_OF_RANGE
    assert host.call("set_rate", 129, 0) == host.call("set_rate", 1, 8) == OUT_OF_RANGE
    x, _ = samples(1)
    assert (
        host.call("train", None, 0, None) == host.call("train", None, 65536, None) == OUT_OF_RANGE
    )
    numbers = (c_int32 * 4)()
    for layer, target in ((2, 0), (0, 1), (0, 2), (0, 3)):
        assert host.call("read_window", layer, target, numbers, 4) == OUT_OF_RANGE
    assert host.call("read_window", 0, 0, numbers, 4) == OUT_OF_RANGE  # it has more
    assert host.bus.read(0x024) == 0  # and is closed again
    assert host.bus.read(0x028) == 0  # nothing was refused
    assert host.run("infer", x, [0]) not in range(1, 7)


def test_damage_is_told_and_gone_after_a_reset(host):
    assert host.call("init") == OK
    x, y = samples(3)
    host.trainer.patience = 50
    if hasattr(host, "axi"):
        host.axi.patience = 50
        assert host.run("train", x, [0, 3, 0]) == DAMAGED  # there is no class 3
    else:
        packed = host.format.pack(np.zeros((1, 1, 4, 4), int), np.array([3]))
        host.bus.write(0x020, 0b101)
        host.bus.exchange(packed.ravel(), 0)
        assert host.run("train", x, y) == DAMAGED
    assert host.call("reset") == OK
    assert host.bus.read(0x028) == 0
    expected = DESIGN.golden().predict(x, progress=False).tolist()
    for layer, numbers in enumerate(words(DESIGN.golden())):
        host.window("write_window", layer, numbers)
    assert host.run("infer", x, y)[0] == expected


def test_another_design_is_refused(library):
    host = Host(library, "functions")
    host.trainer.read = READ(lambda context, address: host.bus.read(address) ^ (address == 0x00C))
    assert host.call("init") == OTHER_DESIGN
    host.trainer.read = READ(lambda context, address: 0)
    assert host.call("init") == NO_TRAINER


def test_dma_errors_and_silence_are_told(library):
    host = Host(library, "axi", patience=20)
    assert host.call("init") == OK
    x, y = samples(2)
    host.dma.faults[host.dma.mm2s] = 1 << 5
    assert host.run("infer", x, y) == DMA_ERROR
    assert host.call("reset") == OK
    host.dma.silent = True
    assert host.run("infer", x, y) == TIMEOUT
    host.dma.silent = False
    assert host.call("reset") == OK
    assert len(host.run("infer", x, y)[0]) == 2
    host.dma.stuck = True
    assert host.call("init") == TIMEOUT


def test_results_that_nobody_took_are_dropped(library):
    host = Host(library, "axi")
    assert host.call("init") == OK
    x, y = samples(3)
    host.bus.write(0x030, 3)
    host.bus.write(0x020, 1)
    host.bus.exchange(host.format.pack(np.zeros((3, 1, 4, 4), int), y).ravel(), 0)
    again = Host(library, "axi")
    again.bus = host.bus
    again.dma.bus = host.bus
    assert again.call("init") == OK
    golden = DESIGN.golden()
    for layer, numbers in enumerate(words(golden)):
        again.window("write_window", layer, numbers)
    assert again.run("infer", x, y)[0] == golden.predict(x, progress=False).tolist()


def test_the_dma_gets_no_memory_but_the_callers(library):
    host = Host(library, "axi")
    started = []
    physical = CFUNCTYPE(c_uint64, c_void_p)(lambda address: started.append(address) or address)
    host.axi.physical = ctypes.cast(physical, c_void_p)
    x, y = samples(2)
    host.bus.write(0x030, 2)
    host.bus.write(0x020, 1)
    packet = host.format.pack(np.zeros((2, 1, 4, 4), int), y).reshape(-1, host.format.size)[:-2]
    keep = np.full(len(packet), (1 << host.format.size) - 1)
    host.bus.transfer(packet, keep, np.zeros(len(packet)), 0)  # the rest never comes
    assert host.bus.read(0x024) & 2  # receiving
    assert host.call("init") == OK
    assert not host.bus.read(0x024) & 2
    assert set(started) == {host.drain.ctypes.data}
    assert len(host.run("infer", x, y)[0]) == 2


def test_a_drain_buffer_is_asked_for(library):
    host = Host(library, "axi")
    host.axi.drain = None
    host.trainer = library.streamtrain_over_axi(byref(host.axi))
    host.dma.stuck = True
    assert host.call("init") == host.call("reset") == NO_DRAIN


def test_nothing_is_written_where_no_trainer_is(library):
    host = Host(library, "axi")
    host.bus.read = lambda address: 0xFFFFFFFF
    written = []
    host._write = lambda address, value: written.append(address)
    watch_write = CFUNCTYPE(None, c_void_p, c_uint32)(host._write)
    library.watch(host.kept[0], watch_write)
    assert host.call("init") == host.call("reset") == NO_TRAINER
    assert written == []


@pytest.mark.parametrize("design, size", [(FULL, 4), (FULL, 1), (DESIGN, 64)])
def test_every_kind_of_design_compiles(tmp_path, design, size):
    put_header(tmp_path, design, size)
    for options in ([], ["-O2"]):
        subprocess.run(
            ["gcc", *WARNINGS, *options, f"-I{tmp_path}", "-c", DRIVER / "streamtrain.c", "-o", tmp_path / "driver.o"],
            check=True,
        )  # fmt: skip


def test_first_weights_are_those_of_the_network(tmp_path):
    write_c_weights(tmp_path, DESIGN.plan)
    put_header(tmp_path, DESIGN)
    source = tmp_path / "main.c"
    source.write_text("""
#include <stdio.h>
#include "streamtrain_regs.h"
#include "streamtrain_weights.h"
int main(void)
{
    for (uint32_t layer = 0; layer < STREAMTRAIN_SHAPE_LAYERS; ++layer) {
        for (uint32_t number = 0; number < streamtrain_first_counts[layer]; ++number)
            printf("%d ", (int)streamtrain_first_weights[layer][number]);
        printf("\\n");
    }
    return 0;
}
""")
    program = tmp_path / "main"
    subprocess.run(["gcc", *WARNINGS, source, "-o", program], check=True)
    printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    expected = words(DESIGN.golden())
    assert [list(map(int, line.split())) for line in printed.splitlines()] == expected
    constants = {
        value.name: value.value for value in register_map(PacketFormat(DESIGN.plan)).constants
    }
    for stage, numbers in zip(DESIGN.plan.stages, expected, strict=True):
        assert constants[f"{stage.name.upper()}_WEIGHTS"] == len(numbers)


def test_the_pages_program_compiles(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "host.md"
    (tmp_path / "main.c").write_text(page.read_text().partition("```c\n")[2].partition("```")[0])
    write_c_driver(tmp_path)
    write_c_weights(tmp_path, DESIGN.plan)
    put_header(tmp_path, DESIGN)
    subprocess.run(
        ["gcc", *WARNINGS, f"-I{tmp_path}", tmp_path / "main.c", tmp_path / "streamtrain.c", "-lm", "-o", tmp_path / "main"],
        check=True,
    )  # fmt: skip


@pytest.mark.parametrize("size", [1, 4, 16])
def test_the_guide_lays_out_what_the_trainer_takes(tmp_path, size):
    """Each byte of a packed sample and of a result is where the guide says."""
    fmt = PacketFormat(DESIGN.plan, size)
    write_c_guide(tmp_path, fmt)
    text = (tmp_path / "README.md").read_text()
    parts = [
        {what.split()[0]: slice(int(first), int(end) + 1) for first, end, what in rows}
        for rows in (
            re.findall(r"^\| (\d+) to (\d+) \| ([^|]*) \|$", section, re.MULTILINE)
            for section in text.split("## ")[1:3]
        )
    ]
    sample, result = parts
    x = np.arange(2 * NET.macs["conv1"])[: 2 * np.prod(NET.input_shape)].reshape(2, *NET.input_shape)
    packed = fmt.pack(x, [1, 2])
    assert f"A sample: {packed.shape[1]} bytes" in text
    assert packed[:, sample["label,"]].copy().view(f"<u{fmt.label_bits // 8}").ravel().tolist() == [1, 2]
    (pixels,) = (sample[name] for name in sample if "x" in name)
    codes = packed[:, pixels].copy().view(f"<i{fmt.pixel_bytes}")
    np.testing.assert_array_equal(codes, np.moveaxis(x, 1, -1).reshape(2, -1))
    answer = np.zeros((1, fmt.result_bytes), np.uint8)
    answer[0, result["loss,"].start] = 7
    answer[0, result["predicted"].start] = 2
    answer[0, result[str(NET.classes)].start] = 5
    results, _ = fmt.unpack(answer)
    assert (results.loss[0], results.predicted[0], results.scores[0, 0]) == (7, 2, 5)
    weights = DESIGN.plan.encode_weights(NET.initial_weights())
    for number, stage in enumerate(DESIGN.plan.stages):
        count = stage_words(stage, weights[f"{stage.name}.weight"], weights.get(f"{stage.name}.bias")).size
        assert re.search(rf"^\| {number} \| {stage.name} \| .* \| {count:,} \| ", text, re.MULTILINE)


def test_the_header_is_cpp_too(tmp_path):
    put_header(tmp_path, DESIGN)
    source = tmp_path / "main.cpp"
    source.write_text(
        '#include "streamtrain.h"\nint main() { streamtrain t{}; return streamtrain_init(&t); }\n'
    )
    subprocess.run(
        ["g++", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{DRIVER}", f"-I{tmp_path}", "-c", source, "-o", tmp_path / "main.o"],
        check=True,
    )  # fmt: skip
