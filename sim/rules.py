"""The rules of AXI, watched in every cycle: a broken one ends the test."""

import cocotb
from cocotb.triggers import RisingEdge

__all__ = ["LiteRules", "MemoryRules", "RuleBroken", "StreamRules"]

_CHANNELS = {  # of AXI4-Lite, and what each carries
    "aw": ("awaddr", "awprot"),
    "w": ("wdata", "wstrb"),
    "b": ("bresp",),
    "ar": ("araddr", "arprot"),
    "r": ("rdata", "rresp"),
}


class RuleBroken(AssertionError):
    """A signal did what AXI forbids."""


class _Channel:
    """VALID, READY, and what goes with them."""

    def __init__(self, dut, name, valid, ready, payload):
        self.name = name
        self.valid, self.ready = getattr(dut, valid), getattr(dut, ready)
        self.payload = [getattr(dut, signal) for signal in payload]
        self.waiting = None  # what has been offered, and has to stay

    def forget(self):
        self.waiting = None

    def step(self):
        """Look at one cycle. Returns what was passed on in it, or None."""
        if not self._is_high(self.valid):
            if self.waiting is not None:
                raise RuleBroken(f"{self.name}: VALID went away before READY came")
            self._is_high(self.ready)
            return None
        now = [signal.value for signal in self.payload]
        for signal, value in zip(self.payload, now, strict=True):
            if not value.is_resolvable:
                raise RuleBroken(f"{signal._name} is {value} while VALID is high")
        if self.waiting is not None and now != self.waiting:
            raise RuleBroken(f"{self.name} changed from {self.waiting} to {now} before READY came")
        if self._is_high(self.ready):
            self.waiting = None
            return [int(value) for value in now]
        self.waiting = now
        return None

    @staticmethod
    def _is_high(signal):
        value = signal.value
        if not value.is_resolvable:
            raise RuleBroken(f"{signal._name} is {value}")
        return bool(value)


class _Watcher:
    """Looks at every cycle from :meth:`start` on."""

    def __init__(self, dut, outputs):
        self.cycle = 0
        self._dut = dut
        self._outputs = [getattr(dut, name) for name in outputs]  # low during reset

    def start(self):
        cocotb.start_soon(self._watch())

    async def _watch(self):
        edge, reset = RisingEdge(self._dut.aclk), self._dut.aresetn
        resets = 0
        while True:
            await edge
            self.cycle += 1
            if reset.value:
                resets = 0
                self.step()
                continue
            self.forget()
            resets += 1
            for signal in self._outputs:
                if resets > 1 and signal.value != 0:
                    raise RuleBroken(f"{signal._name} is {signal.value} during reset")


class StreamRules(_Watcher):
    """AXI4-Stream: what is offered stays; the trainer's packets are made of whole results.

    Parameters
    ----------
    dut : handle
    prefix : :class:`str`
        Of the stream's signals, such as ``"m_axis"``.
    seen : callable
        Gets ``(cycle, data, keep, last)`` of each word that is passed on.
    valid_is_output : :class:`bool`
        Whether the trainer is the one who sends.
    """

    def __init__(self, dut, prefix, seen, *, valid_is_output):
        names = [f"{prefix}_{signal}" for signal in ("tdata", "tkeep", "tlast")]
        self._channel = _Channel(dut, prefix, f"{prefix}_tvalid", f"{prefix}_tready", names)
        self._seen = seen
        super().__init__(dut, [f"{prefix}_tvalid"] if valid_is_output else [])

    def forget(self):
        self._channel.forget()

    def step(self):
        word = self._channel.step()
        if word is not None:
            self._seen(self.cycle, *word)


class LiteRules(_Watcher):
    """AXI4-Lite: what is offered stays, and each request gets one response, after it.

    Parameters
    ----------
    dut : handle
    prefix : :class:`str`
    """

    def __init__(self, dut, prefix):
        self._channels = {
            name: _Channel(
                dut,
                f"{prefix} {name.upper()}",
                f"{prefix}_{name}valid",
                f"{prefix}_{name}ready",
                [f"{prefix}_{signal}" for signal in payload],
            )
            for name, payload in _CHANNELS.items()
        }
        self.forget()
        super().__init__(dut, [f"{prefix}_{name}valid" for name in ("b", "r")])

    def forget(self):
        for channel in self._channels.values():
            channel.forget()
        self._asked = dict.fromkeys(self._channels, 0)

    def step(self):
        asked = self._asked
        offered = {name: bool(self._channels[name].valid.value) for name in ("b", "r")}
        if offered["b"] and not min(asked["aw"], asked["w"]) > asked["b"]:
            raise RuleBroken("A write response came before its address and data were taken")
        if offered["r"] and not asked["ar"] > asked["r"]:
            raise RuleBroken("Read data came before their address was taken")
        for name, channel in self._channels.items():
            word = channel.step()
            if word is None:
                continue
            asked[name] += 1
            if name in {"b", "r"} and word[-1] not in {0, 2}:
                raise RuleBroken(
                    f"{channel.name}: the response is {word[-1]}, neither OKAY nor SLVERR"
                )


class MemoryRules(_Watcher):
    """AXI4, of a master that reads and writes memory in whole beats.

    What is offered stays; no burst crosses a page of 4 KB; WLAST is on the last beat and nowhere else; data
    that come are taken.

    Parameters
    ----------
    dut : handle
    prefix : :class:`str`
    data_bytes : :class:`int`
    """

    def __init__(self, dut, prefix, data_bytes):
        address = ("id", "addr", "len", "size", "burst", "cache", "prot")
        payloads = {
            "aw": [f"aw{name}" for name in address],
            "ar": [f"ar{name}" for name in address],
            "w": ["wdata", "wstrb", "wlast"],
        }
        self._channels = {
            name: _Channel(
                dut,
                f"{prefix} {name.upper()}",
                f"{prefix}_{name}valid",
                f"{prefix}_{name}ready",
                [f"{prefix}_{signal}" for signal in payload],
            )
            for name, payload in payloads.items()
        }
        self._bytes = data_bytes
        self._taking = [getattr(dut, f"{prefix}_{name}ready") for name in ("r", "b")]
        self.beats = 0  # written
        self.forget()
        super().__init__(dut, [f"{prefix}_{name}valid" for name in payloads])

    def forget(self):
        for channel in self._channels.values():
            channel.forget()
        self._lengths, self._written = [], []  # of bursts: as asked, as their data say
        self._place = 0  # in the burst whose data come

    def step(self):
        for signal in self._taking:
            if signal.value != 1:
                raise RuleBroken(f"{signal._name} is {signal.value}: somebody else has to wait")
        for name in ("aw", "ar"):
            word = self._channels[name].step()
            if word is None:
                continue
            _, address, length, size, burst, *_ = word
            end = address + (length + 1) * self._bytes - 1
            if burst != 1 or 1 << size != self._bytes or address % self._bytes:
                raise RuleBroken(f"{self._channels[name].name}: no burst of whole beats: {word}")
            if address >> 12 != end >> 12:
                raise RuleBroken(
                    f"{self._channels[name].name}: {address:#x} to {end:#x} is two pages"
                )
            if name == "aw":
                self._lengths.append(length)
        word = self._channels["w"].step()
        if word is not None:
            self.beats += 1
            self._place += 1
            if word[-1]:
                self._written.append(self._place)
                self._place = 0
        while self._lengths and self._written:  # data may come before their address
            length, written = self._lengths.pop(0) + 1, self._written.pop(0)
            if length != written:
                raise RuleBroken(
                    f"{self._channels['w'].name}: WLAST is on beat {written} of the {length}"
                )
