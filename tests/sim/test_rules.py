"""What the rules of AXI that the benches watch would say of a trainer that breaks them."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cocotb.types import Logic, LogicArray

sys.path.append(str(Path(__file__).parents[2] / "sim"))
from rules import LiteRules, MemoryRules, RuleBroken, StreamRules

_STREAM = {"tvalid": 0, "tready": 0, "tdata": 0, "tkeep": 15, "tlast": 0}
_LITE = {
    **dict.fromkeys(
        [
            f"{channel}{end}"
            for channel in ("aw", "w", "b", "ar", "r")
            for end in ("valid", "ready")
        ],
        0,
    ),
    **dict.fromkeys(
        ["awaddr", "awprot", "wdata", "wstrb", "bresp", "araddr", "arprot", "rdata", "rresp"], 0
    ),
}
_MEMORY = {
    **{f"{name}{end}": 0 for name in ("aw", "w", "ar") for end in ("valid", "ready")},
    **{
        f"{name}{part}": 0
        for name in ("aw", "ar")
        for part in ("id", "addr", "len", "cache", "prot")
    },
    **{f"{name}size": 2 for name in ("aw", "ar")},
    **{f"{name}burst": 1 for name in ("aw", "ar")},
    "wdata": 0, "wstrb": 15, "wlast": 0, "rready": 1, "bready": 1,
}


def _handle(name, value):
    single = name.endswith(("valid", "ready", "last"))
    if isinstance(value, str):
        value = Logic(value) if single else LogicArray(value)
    else:
        value = Logic(value) if single else LogicArray(value, 32)
    return SimpleNamespace(_name=name, value=value)


class _Wires:
    """Signals by name, set for one cycle after the other."""

    def __init__(self, values):
        self._idle = values
        for name, value in values.items():
            setattr(self, f"p_{name}", _handle(name, value))

    def set(self, changes):
        for name, value in {**self._idle, **changes}.items():
            getattr(self, f"p_{name}").value = _handle(name, value).value


def _watch(kind, idle, cycles):
    wires = _Wires(idle)
    seen = []
    if kind is StreamRules:
        rules = StreamRules(wires, "p", lambda *word: seen.append(word[1:]), valid_is_output=True)
    elif kind is MemoryRules:
        rules = MemoryRules(wires, "p", 4)
    else:
        rules = LiteRules(wires, "p")
    for changes in cycles:
        wires.set(changes)
        rules.step()
    return seen


def test_stalls_are_allowed():
    offered = {"tvalid": 1, "tdata": 7, "tlast": 1}
    seen = _watch(
        StreamRules, _STREAM, [{}, offered, offered, {**offered, "tready": 1}, {"tready": 1}]
    )
    assert seen == [(7, 15, 1)]


@pytest.mark.parametrize(
    ("cycles", "message"),
    [
        ([{"tvalid": 1}, {}], "VALID went away before READY came"),
        ([{"tvalid": 1, "tdata": 1}, {"tvalid": 1, "tdata": 2}], "changed from"),
        ([{"tvalid": 1}, {"tvalid": 1, "tlast": 1, "tready": 1}], "changed from"),
        ([{"tvalid": "X"}], "tvalid is X"),
        ([{"tready": "X"}], "tready is X"),
        ([{"tvalid": 1, "tdata": "01X1"}], "tdata is 01X1 while VALID is high"),
    ],
)
def test_broken_rules_of_streams(cycles, message):
    with pytest.raises(RuleBroken, match=message):
        _watch(StreamRules, _STREAM, cycles)


_WRITE = {"awvalid": 1, "awready": 1, "wvalid": 1, "wready": 1}
_READ = {"arvalid": 1, "arready": 1}
_B, _R = {"bvalid": 1, "bready": 1}, {"rvalid": 1, "rready": 1}


def test_each_request_has_its_response():
    _watch(LiteRules, _LITE, [_WRITE, _B, _READ, _R, {**_WRITE, **_READ}, {**_B, **_R}, {}])


@pytest.mark.parametrize(
    ("cycles", "message"),
    [
        ([_B], "A write response came before"),
        ([_WRITE, _B, _B], "A write response came before"),
        ([{**_WRITE, **_B}], "A write response came before"),
        ([{"awvalid": 1, "awready": 1}, _B], "A write response came before"),
        ([_R], "Read data came before"),
        ([_READ, _R, _R], "Read data came before"),
        ([_READ, {"rvalid": 1, "rdata": 1}, {"rvalid": 1, "rdata": 2}], "p R changed from"),
        ([_WRITE, {**_B, "bresp": 1}], "the response is 1, neither OKAY nor SLVERR"),
        ([_WRITE, {"bvalid": 1}, {}], "p B: VALID went away"),
    ],
)
def test_broken_rules_of_registers(cycles, message):
    with pytest.raises(RuleBroken, match=message):
        _watch(LiteRules, _LITE, cycles)


_AW, _AR = {"awvalid": 1, "awready": 1}, {"arvalid": 1, "arready": 1}
_W = {"wvalid": 1, "wready": 1}


def test_data_may_come_before_their_address():
    address, last = {**_AW, "awlen": 1}, {**_W, "wlast": 1}
    page_end = {**_AR, "araddr": 0xFF8, "arlen": 1}
    _watch(MemoryRules, _MEMORY, [_W, last, address, {**address, **_W}, {**page_end, **last}, {}])


@pytest.mark.parametrize(
    ("cycles", "message"),
    [
        ([{"arvalid": 1}, {}], "p AR: VALID went away"),
        ([{"awvalid": 1}, {"awvalid": 1, "awlen": 1}], "p AW changed from"),
        ([{"wvalid": 1}, {"wvalid": 1, "wlast": 1}], "p W changed from"),
        ([{"rready": 0}], "rready is 0: somebody else has to wait"),
        ([{**_AR, "araddr": 0xFF8, "arlen": 2}], "p AR: 0xff8 to 0x1003 is two pages"),
        ([{**_AR, "araddr": 2}], "p AR: no burst of whole beats"),
        ([{**_AW, "awburst": 0}], "p AW: no burst of whole beats"),
        ([{**_AW, "awsize": 1}], "p AW: no burst of whole beats"),
        ([{**_AW, "awlen": 1}, {**_W, "wlast": 1}], "p W: WLAST is on beat 1 of the 2"),
        ([_AW, _W, {**_W, "wlast": 1}], "p W: WLAST is on beat 2 of the 1"),
    ],
)
def test_broken_rules_of_memory(cycles, message):
    with pytest.raises(RuleBroken, match=message):
        _watch(MemoryRules, _MEMORY, cycles)
