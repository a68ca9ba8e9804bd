"""Checkpoints: what they hold, what is refused, and training that goes on from one."""

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import killed
import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden import Golden
from streamtrain.host import checkpoint as checkpoints
from streamtrain.host.trainer import Trainer
from streamtrain.pipeline.numbers import Numbers
from streamtrain.pipeline.plan import lower

NETWORK = st.Network(
    (2, 4, 6),
    [st.Conv2d(4, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(5, bias=False)],
    optimizer=st.SGD(lr=2**-4),
)
RANDOM = Numbers(**killed.ROUND)


def planned(network=NETWORK, numbers=RANDOM, folding=(1, 1, 1), **options):
    return lower(network, lambda *layer: folding, numbers, max_batch=8, **options)


def golden(plan=None, **options):
    plan = planned() if plan is None else plan
    return Trainer(plan, Golden(plan, **options))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.ckpt"


def same(one, other):
    """Whether two checkpoints hold the same, but for the settings of a fit."""
    for kind in ("weights", "optimizer"):
        a, b = getattr(one, kind), getattr(other, kind)
        assert a.keys() == b.keys()
        assert all((a[name] == b[name]).all() for name in a)
    assert one.random == other.random
    assert (one.samples, one.updates) == (other.samples, other.updates)
    assert one.saturations == other.saturations
    return True


# -- What a checkpoint holds -------------------------------------------------------------------------


def test_training_goes_on_as_if_nothing_had_been(path, samples):
    x, y = samples
    one, other = golden(), golden()
    one.fit(x, y, batch_size=4)
    one.save(path)
    other.load(path)
    assert other.samples_seen == one.samples_seen == 21
    assert other.updates_seen == one.updates_seen == 6
    assert one.fit(x, y, batch_size=3).loss == other.fit(x, y, batch_size=3).loss
    one.save(path)
    other.save(path.with_name("other"))
    assert path.read_bytes() == path.with_name("other").read_bytes()


def test_a_checkpoint_can_be_looked_into(path, samples):
    trainer = golden()
    trainer.fit(*samples, batch_size=8)
    trainer.save(path)
    found = st.load_checkpoint(path)
    for name, codes in trainer.state_dict().items():
        np.testing.assert_array_equal(found.weights[name], codes)
    assert found.random == trainer.device.read_random()
    assert set(found.random) == {
        "conv1.weights", "conv1.output", "conv1.errors",
        "linear1.weights", "linear1.output", "linear1.errors",
    }  # fmt: skip
    assert (found.samples, found.updates, found.fit) == (21, 3, None)
    with np.load(path) as archive:  # by anybody
        assert "weights/conv1.weight" in archive
    with zipfile.ZipFile(path) as archive:
        assert len(json.loads(archive.read("header.json"))["design_hash"]) == 64


def test_saturations_are_counted_on(path, samples):
    narrow = planned(numbers=Numbers(errors="fixed<6,-2>", logits="fixed<4,1>"))
    one, other = golden(narrow), golden(narrow)
    one.fit(*samples)
    first = one.saturations()
    assert first["linear1"]["output"] > 0
    one.save(path)
    other.fit(*samples)
    other.load(path)
    assert other.saturations() == first
    one.fit(*samples)
    other.fit(*samples)
    assert other.saturations() == one.saturations()


def test_a_float_twin_has_checkpoints_of_its_own(path, samples):
    twin, other = golden(exact=False), golden(exact=False)
    twin.fit(*samples)
    twin.save(path)
    other.load(path)
    assert other.evaluate(*samples) == twin.evaluate(*samples)
    message = r"the network: numbers integer codes, checkpoint has real$"
    with pytest.raises(st.CheckpointError, match=message):
        golden().load(path)


def test_foldings_matter_only_to_random_bits(path, samples):
    exact, other = golden(planned(numbers=None)), golden(planned(numbers=None, folding=(1, 2, 1)))
    exact.fit(*samples)
    exact.save(path)
    other.load(path)
    few = [part[:4] for part in samples]
    assert exact.step(*few).loss == other.step(*few).loss
    golden().save(path)
    message = r"conv1: folding 1x2x1, checkpoint has 1x1x1; linear1: folding 1x2x1, "
    with pytest.raises(st.CheckpointError, match=message):
        golden(planned(folding=(1, 2, 1))).load(path)


def test_seeds_do_not_matter_once_training_has_begun(path, samples):
    one = golden()
    one.fit(*samples)
    one.save(path)
    other = golden(planned(replace(NETWORK, seed=7), seed=7))
    other.load(path)
    small = [part[:4] for part in samples]
    assert one.step(*small).loss == other.step(*small).loss


# -- What is refused ---------------------------------------------------------------------------------


def altered(**layer):
    first, *others = NETWORK.layers
    return replace(NETWORK, layers=(replace(first, **layer), *others))


@pytest.mark.parametrize(
    "network, numbers, message",
    [
        (altered(channels=8), RANDOM, r"conv1: channels 8, checkpoint has 4$"),
        (altered(bias=False), RANDOM, r"conv1: bias False, checkpoint has True$"),
        (replace(NETWORK, loss=st.MSELoss()), RANDOM, r"the network: loss MSELoss, checkpoint has CrossEntropy$"),
        (replace(NETWORK, optimizer=st.SGD(2**-3)), RANDOM, r"the network: lr 0.125, checkpoint has 0.0625$"),
        (replace(NETWORK, input_shape=(2, 4, 7)), RANDOM, r"the network: input shape 2x4x7, checkpoint has 2x4x6$"),
        (NETWORK, replace(RANDOM, errors="fixed<16,4>"), r"conv1: format of errors fixed<16,4>, checkpoint has fixed<16,3>; linear1: f"),
        (NETWORK, replace(RANDOM, round_errors="nearest"), r"conv1: round_errors nearest, checkpoint has stochastic"),
        (
            replace(NETWORK, layers=(*NETWORK.layers[:-1], replace(NETWORK.layers[-1], name="top"))),
            RANDOM,
            r"layers conv1, relu1, pool1, flatten1, top, checkpoint has .*, linear1; "
            r"top: only in this design; linear1: only in the checkpoint$",
        ),
    ],
)  # fmt: skip
def test_another_network_is_refused_with_the_difference(path, samples, network, numbers, message):
    trainer = golden()
    trainer.fit(*samples)
    trainer.save(path)
    other = golden(planned(network, numbers))
    before = other.state_dict()
    with pytest.raises(
        st.CheckpointError, match=r"net.ckpt is a checkpoint of something else\. .*" + message
    ):
        other.load(path)
    for name, codes in other.state_dict().items():
        np.testing.assert_array_equal(codes, before[name])
    assert other.samples_seen == 0


def test_a_long_difference_is_cut(path):
    golden().save(path)
    numbers = Numbers(weights="fixed<12,3>", activations="fixed<12,5>", errors="fixed<12,3>")
    with pytest.raises(st.CheckpointError, match=r"; and \d+ more$"):
        golden(planned(numbers=numbers)).load(path)


def test_a_part_of_a_checkpoint_is_recognised(path):
    golden().save(path)
    whole = path.read_bytes()
    for length in [1, 2, 63, 64, 65, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(st.CheckpointError, match="is no "):
            st.load_checkpoint(path)


def test_a_changed_bit_is_recognised(path):
    golden().save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [0, 1, len(whole) - 64, len(whole) - 1, *rng.integers(0, len(whole), 40)]:
        broken = bytearray(whole)
        broken[at] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        with pytest.raises(st.CheckpointError, match="is no "):
            st.load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK", bytes(1000)])
def test_other_files_are_no_checkpoints(path, content):
    path.write_bytes(content)
    with pytest.raises(st.CheckpointError, match=r"net.ckpt is no "):
        st.load_checkpoint(path)


def test_archives_of_others_are_no_checkpoints(path):
    np.savez(path.with_suffix(".npz"), a=np.arange(3))
    with pytest.raises(st.CheckpointError, match=r"net.npz is no whole checkpoint"):
        st.load_checkpoint(path.with_suffix(".npz"))


def test_another_version_is_refused_by_its_number(path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 2)
    golden().save(path)
    monkeypatch.undo()
    message = r"net.ckpt is a checkpoint of version 2; this release of streamtrain reads version 1$"
    with pytest.raises(st.CheckpointError, match=message):
        golden().load(path)


def test_nothing_to_load():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        golden().load("nowhere.ckpt")


def test_a_folder_is_no_place_for_a_checkpoint(tmp_path, device, plan, samples):
    with pytest.raises(IsADirectoryError):
        golden().load(tmp_path)
    trainer = Trainer(plan, device)
    for path, message in (
        (tmp_path, r"^Cannot write checkpoint .*: it is a folder$"),
        (
            tmp_path / "none" / "net.ckpt",
            r"^Cannot write checkpoint .*net.ckpt: there is no folder .*none$",
        ),
    ):
        with pytest.raises(OSError, match=message):
            trainer.save(path)
        with pytest.raises(OSError, match=message):
            trainer.fit(*samples, checkpoint=path)
    assert not device.runs


def test_a_trainer_that_was_torn_is_refused(path, plan, samples, device):
    def interrupt():
        raise KeyboardInterrupt

    device = type(device)(plan)
    trainer = Trainer(plan, device)
    trainer.save(path)
    device.during = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.evaluate(*samples)
    trainer.save(path)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*samples)
    for verb in (trainer.save, trainer.load):
        with pytest.raises(
            RuntimeError, match=r"^Training was interrupted within a mini-batch, which"
        ):
            verb(path)


# -- The old one stays -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, error",
    [
        ("fsync", OSError(errno.ENOSPC, "No space left on device")),
        ("replace", PermissionError(errno.EACCES, "Permission denied")),
        ("replace", KeyboardInterrupt()),
        ("fsync", KeyboardInterrupt()),
    ],
)
def test_what_cannot_be_written_leaves_the_old_checkpoint(
    path, samples, monkeypatch, function, error
):
    trainer = golden()
    trainer.save(path)
    before = path.read_bytes()
    trainer.fit(*samples)

    def fails(*arguments):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, function, fails)
        expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError
        with pytest.raises(expected) as raised:
            trainer.save(path)
    if expected is OSError:
        assert str(raised.value) == f"Cannot write checkpoint {path}: {error.strerror}"
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    trainer.save(path)
    assert path.read_bytes() != before


def test_a_full_disk_during_fit_loses_nothing_before(path, samples, monkeypatch):
    trainer, writes = golden(), []

    def full(descriptor):
        writes.append(descriptor)
        if len(writes) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left"):
        trainer.fit(*samples, checkpoint=path, every=5)
    assert st.load_checkpoint(path).samples == 10
    monkeypatch.undo()
    again = golden()
    again.fit(*samples, checkpoint=path, every=5)
    whole = golden()
    whole.fit(*samples)
    assert (again.state_dict()["conv1.weight"] == whole.state_dict()["conv1.weight"]).all()


# -- fit ---------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stopping(at):
    def callback(history):
        if len(history) >= at:
            raise Stop

    return callback


@pytest.mark.parametrize("batch", [1, 4])
def test_a_stopped_fit_goes_on_where_it_was(path, samples, batch):
    options = {"epochs": 3, "batch_size": batch, "shuffle": True, "seed": 5, "progress": False}
    whole = golden()
    expected = whole.fit(*samples, checkpoint=path.with_name("whole"), **options)
    for at in (1, 17, 21, 30, 62):
        with pytest.raises(Stop):
            golden().fit(*samples, checkpoint=path, every=5, callback=stopping(at), **options)
    trainer = golden()
    history = trainer.fit(*samples, checkpoint=path, every=5, **options)
    np.testing.assert_array_equal(history.losses, expected.losses)
    np.testing.assert_array_equal(history.correct, expected.correct)
    assert history.cycles is None
    found = st.load_checkpoint(path)
    assert same(found, st.load_checkpoint(path.with_name("whole")))
    assert len(found.fit.losses) == found.samples == 63
    # There is nothing left to do, but more epochs may be asked for.
    assert len(golden().fit(*samples, checkpoint=path, **options)) == 63
    more = {**options, "epochs": 4}
    history = golden().fit(*samples, checkpoint=path, **more)
    np.testing.assert_array_equal(history.losses, golden().fit(*samples, **more).losses)


def test_a_replay_buffer_is_filled_as_if_nothing_had_been(path, samples):
    options = {"batch_size": 2, "progress": False, "epochs": 2}

    def fit(replay, **more):
        return golden().fit(*samples, replay=replay, **options, **more)

    whole, cut, again = (st.Replay(8, seed=3) for _ in range(3))
    expected = fit(whole)
    with pytest.raises(Stop):
        fit(cut, checkpoint=path, every=4, callback=stopping(15))
    np.testing.assert_array_equal(fit(again, checkpoint=path).losses, expected.losses)
    np.testing.assert_array_equal(again.x, whole.x)
    assert again.seen == whole.seen
    message = r"its replay buffer was another one, or not yet as it is now$"
    with pytest.raises(st.CheckpointError, match=message):
        fit(cut, checkpoint=path)
    done = st.Replay(8, seed=3)
    assert len(fit(done, checkpoint=path)) == 42  # nothing is left to do
    np.testing.assert_array_equal(done.x, whole.x)


def test_checkpoints_come_when_they_are_due(path, samples, plan, device, monkeypatch):
    kept = []
    monkeypatch.setattr(
        "streamtrain.host.keeper.write_checkpoint", lambda path, found: kept.append(found.samples)
    )
    Trainer(plan, device).fit(*samples, epochs=2, batch_size=4, checkpoint=path, every=6)
    # At the first end of a mini-batch that is 6 or more samples after the one before.
    ends = sorted({*range(4, 21, 4), 21, *range(25, 42, 4), 42})
    expected, last = [], 0
    for end in ends:
        if end - last >= 6 or end == 42:
            expected.append(end)
            last = end
    assert kept == expected
    kept.clear()
    Trainer(plan, type(device)(plan)).fit(*samples, epochs=2, checkpoint=path)
    assert kept == [21, 42]


def test_ctrl_c_keeps_a_checkpoint(path, samples, plan, device):
    def press():
        if len(device.x) > 3:
            signal.raise_signal(signal.SIGINT)
            device.during = lambda: None

    device = type(device)(plan, during=press)
    with pytest.raises(KeyboardInterrupt):
        Trainer(plan, device).fit(*samples, checkpoint=path)
    assert 0 < st.load_checkpoint(path).samples == len(device.x) < 21


def test_cycles_go_on_from_the_checkpoint(path, samples, plan, device):
    with pytest.raises(Stop):
        Trainer(plan, type(device)(plan)).fit(
            *samples, checkpoint=path, every=7, callback=stopping(10), progress=False
        )
    begun = st.load_checkpoint(path).samples
    history = Trainer(plan, type(device)(plan)).fit(*samples, checkpoint=path)
    assert 7 <= begun < 21
    np.testing.assert_array_equal(history.cycles, np.arange(1, 22) * 100 + 7)
    # Without a clock there are none.
    path.unlink()
    with pytest.raises(Stop):
        Trainer(plan, type(device)(plan, clock=False)).fit(
            *samples, checkpoint=path, every=7, callback=stopping(10), progress=False
        )
    assert Trainer(plan, type(device)(plan)).fit(*samples, checkpoint=path).cycles is None


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"batch_size": 2}, r"batch_size is 2, but was 4$"),
        ({"seed": 2}, r"seed is 2, but was 1$"),
        ({"shuffle": False}, r"shuffle is False, but was True$"),
        ({"lr": 2**-6}, r"its learning rates or other settings are others$"),
        ({"epochs": 1}, r"it has come 42 samples far, but here are 21$"),
        ({"x": 0.5}, r"its samples or labels are others$"),
    ],
)
def test_another_training_is_refused(path, samples, device, plan, changed, message):
    x, y = samples
    options = {"epochs": 2, "batch_size": 4, "shuffle": True, "seed": 1}
    Trainer(plan, type(device)(plan)).fit(x, y, checkpoint=path, **options)
    before = path.read_bytes()
    x = x * changed.pop("x", 1)
    with pytest.raises(
        st.CheckpointError, match=r"is a checkpoint of another training: " + message
    ):
        Trainer(plan, device).fit(x, y, checkpoint=path, **{**options, **changed})
    assert not device.runs
    assert path.read_bytes() == before


def test_first_weights_are_part_of_a_training(path, samples, plan):
    """A checkpoint goes on with the weights that it began with or stopped at, and with no others."""
    begun = Trainer(plan, Golden(plan))
    begun.fit(*samples, checkpoint=path)
    begun.fit(*samples, epochs=2, checkpoint=path)  # from where it stopped
    assert begun.samples_seen == 2 * len(samples[0])
    fresh = Trainer(plan, Golden(plan))
    history = fresh.fit(*samples, epochs=3, checkpoint=path)
    assert history.restored == 2 * len(samples[0])
    other = Trainer(plan, Golden(plan))
    other.load_state_dict({name: w + 1 for name, w in other.state_dict().items()})
    before = other.state_dict()
    with pytest.raises(st.CheckpointError, match=r"another training: it began with other weights"):
        other.fit(*samples, epochs=3, checkpoint=path)
    for name, codes in other.state_dict().items():
        np.testing.assert_array_equal(codes, before[name])


def test_what_save_wrote_is_no_training(path, samples, device, plan):
    Trainer(plan, device).save(path)
    message = (
        r"was written by save\(\), not by fit\(\); load\(\) it, and give fit\(\) another path$"
    )
    with pytest.raises(st.CheckpointError, match=message):
        Trainer(plan, device).fit(*samples, checkpoint=path)
    assert not device.runs


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"every": 5}, ValueError, r"^every says when checkpoints are written, but checkpoint says nowhere$"),
        ({"every": 0, "checkpoint": "net"}, ValueError, r"^every must be at least 1, not 0$"),
        ({"every": "5", "checkpoint": "net"}, TypeError, r"^every must be an integer, not '5'$"),
    ],
)  # fmt: skip
def test_rejects_arguments(samples, device, plan, options, error, message):
    with pytest.raises(error, match=message):
        Trainer(plan, device).fit(*samples, **options)
    assert not device.runs


@pytest.mark.parametrize("states", [{}, {"conv1.output": 0}, {"conv9.output": 1}])
def test_wrong_random_states_are_refused(states):
    device = Golden(planned())
    before = device.read_random()
    with pytest.raises(ValueError, match=r"^Random state"):
        device.write_random({**(before if states else {}), **states})
    assert device.read_random() == before


def test_a_training_that_is_killed_at_twenty_points_gives_the_same_bits(tmp_path):
    done = subprocess.run(
        [sys.executable, Path(killed.__file__), "golden", tmp_path, "20"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"]
    assert len(found["begins"]) == 20 and found["begins"] == sorted(found["begins"])
    assert found["begins"][-1] > 100
