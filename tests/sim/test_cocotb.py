"""The generated Verilog in the hands of a stranger: the benches in ``sim/``, run by cocotb."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from follow import follow

import streamtrain as st
from streamtrain.build.handover import hand_over
from streamtrain.bus import PacketFormat, TrainerIP
from streamtrain.host.trainer import encode_samples
from streamtrain.numeric import Fixed, Round
from streamtrain.pipeline.generate import verilog_of
from streamtrain.simulate import count_cycles

sys.path.append(str(Path(__file__).parents[2] / "sim"))
import run as bench

pytestmark = [pytest.mark.xdist_group("cocotb")]

_DIGITS = st.Network(
    (1, 8, 8),
    [st.Conv2d(8, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(10)],
    loss=st.CrossEntropy(),
    optimizer=st.SGD(lr=2**-5),
)
# Samples that end within a word of a wide stream, and all that an optimiser can remember.
_SMALL = st.Network(
    (1, 5, 5),
    [st.Conv2d(2, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(3)],
    loss=st.CrossEntropy(),
    optimizer=st.SGD(lr=2**-3, momentum=0.5, weight_decay=2**-6),
)
_SMALL_NUMBERS = st.Numbers(
    activations=Fixed(8, 4), weights=Fixed(12, 9), round_weights=Round.STOCHASTIC
)


def _built(folder, plan, size, x, y, simulator="verilator", **options):
    codes = encode_samples(plan, x)
    fmt = PacketFormat(plan, size)
    folder.mkdir(exist_ok=True)
    (folder / "streamtrain.v").write_text(verilog_of(TrainerIP(fmt), "streamtrain"))
    hand_over(fmt, folder, codes, y, **options)
    return SimpleNamespace(folder=folder, plan=plan, x=codes, runner=bench.build(folder, simulator))


def _small_samples(count=18):
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (count, 1, 5, 5)), rng.integers(0, 3, count)


def _small_plan():
    return st.plan(_SMALL, multipliers=8, max_batch=4, numbers=_SMALL_NUMBERS).plan


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    plan = _small_plan()
    cycles = count_cycles(plan).cycles
    return _built(tmp_path_factory.mktemp("small"), plan, 8, *_small_samples(), cycles=cycles)


@pytest.fixture(scope="session")
def digits(tmp_path_factory, pytestconfig):
    data = st.data.load_digits()
    plan = st.plan(_DIGITS, multipliers=80, max_batch=8).plan
    cycles = count_cycles(plan).cycles
    folder = tmp_path_factory.mktemp("digits")
    return _built(folder, plan, 4, data.train_x[:18], data.train_y[:18], cycles=cycles)


def _play(built, count, seed=1):
    """Play random sequences, and let the golden model follow. Returns what was compared."""
    bench.run(built.runner, built.folder, ["test_sequences"], seed, SEQUENCES=str(count))
    return follow(built.plan, built.x, built.folder / "journal.jsonl")


@pytest.mark.parametrize("module", bench.BENCHES)
def test_small_net(small, module):
    assert bench.run(small.runner, small.folder, [module])


def test_random_sequences_of_the_small_net(small):
    seen = _play(small, 40)
    assert seen.sequence == 39
    assert min(seen.results, seen.reads) > 60
    assert seen.writes
    assert seen.resets > 3


def test_digits(digits):
    assert bench.run(digits.runner, digits.folder, ["test_train"])


def test_random_sequences_of_the_digits_design(digits, pytestconfig):
    """500 of them with ``make sim``."""
    count = pytestconfig.getoption("--sequences")
    seen = _play(digits, count)
    assert seen.sequence == count - 1
    assert seen.results >= 3 * count
    print(
        f"{count} sequences: {seen.results} results, {seen.reads} layers read, {seen.writes} written, "
        f"{seen.resets} resets, all as the golden model has them"
    )


@pytest.mark.parametrize("what", ["results", "read"])
def test_followers_notice_a_wrong_number(small, tmp_path, what):
    """A journal with one number changed is refused: the comparison is none of nothing with nothing."""
    _play(small, 2)
    lines = (small.folder / "journal.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    if what == "results":
        end = next(entry for entry in entries if entry[0] == "end" and entry[1])
        end[1][-1][3][0] ^= 1  # a score
    else:
        [entry for entry in entries if entry[0] == "read"][-1][-1][0] ^= 1
    changed = tmp_path / "journal.jsonl"
    changed.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(AssertionError, match=r"Sequence [01]"):
        follow(small.plan, small.x, changed)


def test_icarus_agrees(tmp_path):
    """A second simulator, where it is installed (Debian package: iverilog), knows X as well."""
    if not bench.has("icarus"):
        pytest.skip("Icarus Verilog is not installed (Debian package: iverilog)")
    built = _built(tmp_path, _small_plan(), 8, *_small_samples(6), simulator="icarus", cycles=1e9)
    for module in ("test_train", "test_faults"):
        assert bench.run(built.runner, built.folder, [module])
    assert _play(built, 3).results
