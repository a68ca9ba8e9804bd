"""A small driver for the trainer: registers by name, packets of samples, results."""

import json
import logging
import os
from pathlib import Path

import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)
from rules import LiteRules, StreamRules

__all__ = ["INFER", "RANDOM", "TRAIN", "VELOCITIES", "WEIGHTS", "Refused", "Trainer", "handed_over"]

INFER, EVALUATE, TRAIN = 0, 1, 2  # modes
WEIGHTS, VELOCITIES, RANDOM = 0, 1, 2  # what the window shows

_PERIOD_NS = 10
_PATIENCE = 200_000  # cycles that anything may take


def handed_over():
    """The folder with the Verilog, its registers, and what the golden model says."""
    return Path(os.environ["HANDED_OVER"])


class Refused(Exception):
    """A register access was answered by SLVERR."""


class Trainer:
    """The trainer under test, with AXI around it, and its rules watched.

    Parameters
    ----------
    dut : handle
        The top module.
    """

    def __init__(self, dut):
        self.dut = dut
        for logger in ("s_axis", "m_axis", "s_axi_ctrl"):  # one line for each word otherwise
            logging.getLogger(f"cocotb.{dut._name}.{logger}").setLevel(logging.WARNING)
        table = json.loads((handed_over() / "registers.json").read_text())
        self.table = {register["name"]: register for register in table["registers"]}
        self.golden = np.load(handed_over() / "golden.npz")
        self.pixel_bytes = self.golden["x"].dtype.itemsize
        self.score_bytes = self.golden["scores"].dtype.itemsize
        self.places = sorted(  # (layer, target) of all that the window shows
            tuple(map(int, name.split("_")[1:]))
            for name in self.golden.files
            if name.startswith("held_")
        )
        self.words_taken = 0  # of the input stream, since the start
        self.stop_after = None  # so many of them, if not None
        self.output = []  # (cycle, data, keep, last) of each word
        Clock(dut.aclk, _PERIOD_NS, "ns").start()
        dut.aresetn.value = 0
        port = (dut.aclk, dut.aresetn)
        stream = {"reset_active_level": False}
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), *port, **stream)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), *port, **stream)
        self.bus = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_ctrl"), *port, **stream)
        self.input_rules = StreamRules(dut, "s_axis", self._took, valid_is_output=False)
        self.input_rules.start()
        StreamRules(dut, "m_axis", self._gave, valid_is_output=True).start()
        LiteRules(dut, "s_axi_ctrl").start()

    def _took(self, cycle, data, keep, last):
        self.words_taken += 1
        if self.stop_after is not None and self.words_taken >= self.stop_after:
            self.source.pause = True

    def _gave(self, cycle, data, keep, last):
        assert keep == (1 << self.size) - 1, "A word of a result has bytes that do not count"
        self.output.append((cycle, data, last))
        assert not last or len(self.output) % self.result_words == 0, "TLAST inside a result"

    @property
    def cycle(self):
        return self.input_rules.cycle

    async def cycles(self, count):
        for _ in range(count):
            await RisingEdge(self.dut.aclk)

    async def until(self, reached, what):
        """Wait for ``reached()``; a trainer that hangs ends the test."""
        for _ in range(_PATIENCE):
            if reached():
                return
            await RisingEdge(self.dut.aclk)
        raise AssertionError(f"No {what} after {_PATIENCE} cycles")

    async def reset(self):
        """Reset all but memories, and learn what the trainer says of itself."""
        self.dut.aresetn.value = 0
        await self.cycles(5)
        self.dut.aresetn.value = 1
        await self.cycles(2)
        self.output.clear()
        self.size = await self.get("FEATURES", "bytes")
        self.sample_words = await self.get("SAMPLE_BYTES", "bytes") // self.size
        self.result_words = await self.get("RESULT_BYTES", "bytes") // self.size
        self.classes = await self.get("SHAPE", "classes")
        self.layers = await self.get("SHAPE", "layers")
        pixels = self.golden["x"][0].nbytes
        self.spare_bytes = self.size * (self.sample_words - 1) - pixels  # in a sample's last word

    # Registers.

    async def read_at(self, address):
        """The word at an address. Raises :exc:`Refused`."""
        answer = await with_timeout(self.bus.read(address, 4), _PATIENCE * _PERIOD_NS, "ns")
        if answer.resp != AxiResp.OKAY:
            raise Refused(f"Reading 0x{address:03x}")
        return int.from_bytes(answer.data, "little")

    async def write_at(self, address, data, size=4):
        """Write the lowest ``size`` bytes of ``data`` from ``address`` on. Raises :exc:`Refused`."""
        word = (data & (1 << 8 * size) - 1).to_bytes(size, "little")
        answer = await with_timeout(self.bus.write(address, word), _PATIENCE * _PERIOD_NS, "ns")
        if answer.resp != AxiResp.OKAY:
            raise Refused(f"Writing 0x{data:x} to 0x{address:03x}")

    async def read(self, name):
        return await self.read_at(self.table[name]["address"])

    async def write(self, name, **values):
        """Write a register's fields; those that are not given become 0."""
        word = 0
        fields = {field["name"]: field for field in self.table[name]["fields"]}
        for field, value in values.items():
            word |= value << fields[field]["low"]
        await self.write_at(self.table[name]["address"], word)

    async def get(self, name, field):
        """A field of a register."""
        found = next(one for one in self.table[name]["fields"] if one["name"] == field)
        return (await self.read(name)) >> found["low"] & (1 << found["bits"]) - 1

    async def wide(self, name):
        """A counter of 64 bits."""
        low = await self.read(name)
        return low | (await self.read(f"{name}_HIGH")) << 32

    async def rate(self, mantissa, shift):
        await self.write("RATE", mantissa=mantissa, shift=shift)

    # The window.

    async def open_window(self, layer, target=WEIGHTS, *, write=False):
        """Open the window, and wait until the samples before it are worked off."""
        await self.write("WINDOW", layer=layer, target=target, write=int(write))
        for _ in range(_PATIENCE):
            if await self.get("STATUS", "window_open"):
                return
        raise AssertionError(f"The window does not open within {_PATIENCE} reads of STATUS")

    async def read_window(self, layer, target=WEIGHTS):
        """All numbers of a layer."""
        await self.open_window(layer, target)
        left = await self.read("WINDOW_LEFT")
        words = [await self.read("WINDOW_DATA") for _ in range(left)]
        assert not await self.get("STATUS", "window_busy")
        return np.array(words, np.uint32).view(np.int32)

    async def write_window(self, layer, numbers, target=WEIGHTS):
        await self.open_window(layer, target, write=True)
        assert await self.read("WINDOW_LEFT") == len(numbers)
        for number in numbers:
            await self.write("WINDOW_DATA", number=int(number) & 0xFFFFFFFF)
        assert not await self.get("STATUS", "window_busy")

    def held(self, place, samples):
        """What the golden model holds in a place of the window after so many samples."""
        layer, target = place
        return self.golden[f"held_{layer}_{target}"][samples]

    async def load(self, samples):
        """Write all that the golden model holds after so many samples."""
        for place in self.places:
            layer, target = place
            await self.write_window(layer, self.held(place, samples), target)

    # Samples and results.

    def sample(self, pixels, label):
        """The bytes of a sample: its label in the first word, then its pixels, whole words."""
        label = int(label).to_bytes(min(2, self.size), "little")
        body = label.ljust(self.size, b"\0") + pixels.tobytes()
        return body.ljust(self.size * self.sample_words, b"\0")

    def send(self, packet, keep=None):
        """Queue a packet's bytes."""
        self.source.send_nowait(AxiStreamFrame(packet, tkeep=keep))

    async def sent(self):
        """Wait until the last word was taken."""
        await self.until(self.source.idle, "end of the packet")

    @property
    def offers(self):
        """Whether a word waits to be taken."""
        return bool(self.dut.s_axis_tvalid.value)

    async def quiet(self):
        """Wait until results have ended."""
        quiet = 0
        while quiet < 4:
            await self.until(lambda: not self.dut.m_axis_tvalid.value, "end of a result")
            await self.cycles(1)
            quiet = 0 if self.dut.m_axis_tvalid.value else quiet + 1

    async def idle(self):
        """Wait until nothing is inside any more."""
        await self.sent()
        for _ in range(_PATIENCE):
            if not await self.get("STATUS", "busy") and not self.dut.m_axis_tvalid.value:
                return
        raise AssertionError(f"Busy after {_PATIENCE} reads of STATUS")

    @property
    def results(self):
        """Results so far that are whole: a list of (predicted, label, loss, scores, last, cycle)."""
        n = self.result_words
        return [
            self._result(self.output[start : start + n])
            for start in range(0, len(self.output) - n + 1, n)
        ]

    def _result(self, words):
        packed = b"".join(data.to_bytes(self.size, "little") for _, data, _ in words)
        predicted, label = np.frombuffer(packed, "<u2", 2)
        loss = np.frombuffer(packed, "<u4", 1, 4)[0]
        scores = np.frombuffer(packed, f"<i{self.score_bytes}", self.classes, 8)
        cycle, _, last = words[-1]
        return int(predicted), int(label), int(loss), scores.tolist(), bool(last), cycle

    async def have(self, count):
        """Wait for so many results in all, and give them."""
        await self.until(lambda: len(self.output) >= count * self.result_words, f"result {count}")
        return self.results
