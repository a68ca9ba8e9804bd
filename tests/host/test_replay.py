"""The replay buffer, and what fit makes of it."""

from collections import Counter

import numpy as np
import pytest

import streamtrain as st
from streamtrain.host.device import Op
from streamtrain.host.replay import Replay
from streamtrain.host.trainer import Trainer, encode_samples


def stream(labels):
    """Samples that can be told apart, of these classes."""
    return np.arange(len(labels), dtype=np.float64)[:, None, None, None], np.array(labels)


def numbers(replay):
    return replay.x.ravel().astype(int).tolist()


def same(one, other):
    return numbers(one) == numbers(other) and one.y.tolist() == other.y.tolist()


# -- What is kept -----------------------------------------------------------------------------------------


def test_keeps_all_while_there_is_room():
    replay = Replay(10)
    replay.add(*stream([3, 1, 3]))
    assert len(replay) == 3
    assert numbers(replay) == [0, 1, 2]
    assert replay.y.tolist() == [3, 1, 3]
    assert replay.seen == {1: 1, 3: 2}


@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_classes_are_balanced_and_rare_ones_kept_whole(order):
    labels = np.repeat([0, 1, 2, 3], [900, 300, 100, 4])
    if order == "mixed":
        labels = np.random.default_rng(0).permutation(labels)
    replay = Replay(31)
    replay.add(*stream(labels))
    assert Counter(replay.y.tolist()) == {0: 9, 1: 9, 2: 9, 3: 4}
    assert all(
        labels[number] == label for number, label in zip(numbers(replay), replay.y, strict=True)
    )
    assert len(set(numbers(replay))) == 31


def test_every_sample_of_a_class_is_as_likely_to_be_kept():
    labels = np.tile([0, 1, 1], 15)  # 15 of class 0, of which 4 are kept
    kept = Counter()
    for seed in range(400):
        replay = Replay(8, seed=seed)
        replay.add(*stream(labels))
        kept.update(number for number in numbers(replay) if labels[number] == 0)
    likely = 400 * 4 / 15
    counts = [kept[3 * i] for i in range(15)]
    assert sum(counts) == 1600
    assert max(abs(count - likely) for count in counts) < 4 * np.sqrt(likely * 11 / 15)


def test_samples_one_by_one_or_together():
    x, y = stream(np.random.default_rng(1).integers(0, 4, 60))
    together, single = Replay(9, seed=5), Replay(9, seed=5)
    together.add(x, y)
    for i in range(60):
        single.add(x[i : i + 1], y[i : i + 1])
    assert same(together, single)
    other = Replay(9, seed=6)
    other.add(x, y)
    assert not same(together, other)


def test_draws_without_repetition():
    replay = Replay(10)
    replay.add(*stream([0, 1, 2, 3]))
    x, y = replay.sample(4)
    assert sorted(y.tolist()) == [0, 1, 2, 3]
    assert x.ravel().tolist() == y.tolist()
    with pytest.raises(ValueError, match=r"^5 samples cannot be drawn from a buffer of 4$"):
        replay.sample(5)


def test_shows_itself():
    replay = Replay(3)
    replay.add(*stream([4] * 5 + [1]))
    assert replay.table() == (("class", "kept", "seen"), [("1", 1, 1), ("4", 2, 5)])
    assert str(replay).endswith("3 of 3 samples")
    assert "<td" in replay._repr_html_()


# -- Training with it -------------------------------------------------------------------------------------


def codes(plan, x):
    return [sample.tobytes() for sample in encode_samples(plan, x)]


def test_each_new_sample_is_followed_by_replayed_ones(plan, device, samples):
    x, y = samples
    replay = Replay(4, per_step=2)
    history = Trainer(plan, device).fit(x, y, replay=replay)
    assert len(device.x) == 1 + 20 * 3  # before the first there is none
    given, labels = [sample.tobytes() for sample in device.x], device.commands("label")
    position, known = 0, {}
    for number, code in enumerate(codes(plan, x)):
        assert (given[position], labels[position]) == (code, y[number])
        drawn = 2 if number else 0
        for i in range(position + 1, position + 1 + drawn):
            assert known[given[i]] == labels[i]  # one that came before
        known[code] = y[number]
        position += 1 + drawn
    assert len(history) == 21
    assert set(device.commands("op")) == {Op.TRAIN}
    assert set(device.commands("update")) == {1}


def test_history_is_of_new_samples(plan, device, samples):
    x, y = samples
    history = Trainer(plan, device).fit(x, y, replay=Replay(4))
    positions = [0, *range(1, 41, 2)]  # a sample's loss is its position
    assert history.losses.tolist() == positions
    assert history.cycles.tolist() == [107 + 100 * position for position in positions]
    # The second one, behind which nothing is drawn yet, came after a pause of the host.
    assert history.cycles_per_sample == pytest.approx(200)
    assert history.correct.tolist() == (y == 1).tolist()


def test_mini_batches_are_followed_by_mini_batches(plan, device, samples):
    x, y = samples
    Trainer(plan, device).fit(x, y, batch_size=8, replay=Replay(16, per_step=2))
    # 8 new ones, 8 new and twice 8 drawn, then 5 new and twice 5 drawn.
    sizes = np.diff(np.flatnonzero(device.commands("update")), prepend=-1).tolist()
    assert sizes == [8, 8, 8, 8, 5, 5, 5]
    mantissa, shift = device.commands("mantissa"), device.commands("shift")
    assert [*zip(mantissa, shift, strict=True)] == [plan.rate_code(2**-4, 8)] * 32 + [
        plan.rate_code(2**-4, 5)
    ] * 15
    drawn = [sample.tobytes() for sample in device.x[16:24]]
    assert len(set(drawn)) == 8


def test_nothing_is_drawn_until_there_is_a_mini_batch(plan, device, samples):
    x, y = samples
    replay = Replay(8)
    replay.add(x[:3], y[:3])
    Trainer(plan, device).fit(x[3:], y[3:], batch_size=5, replay=replay)
    assert len(device.x) == 5 + 5 + 5 + 5 + 5 + 3 + 3


def test_the_seed_decides(plan, samples, device):
    def given(seed):
        chosen = type(device)(plan)
        Trainer(plan, chosen).fit(*samples, replay=Replay(5, seed=seed))
        return [sample.tobytes() for sample in chosen.x]

    assert given(1) == given(1)
    assert given(1) != given(2)


def test_two_calls_are_one(plan, device, samples):
    x, y = samples
    once, twice = device, type(device)(plan)
    one, two = Replay(5, seed=3), Replay(5, seed=3)
    Trainer(plan, once).fit(x, y, replay=one)
    for part in (slice(0, 8), slice(8, None)):
        Trainer(plan, twice).fit(x[part], y[part], replay=two)
    np.testing.assert_array_equal(once.x, twice.x)
    np.testing.assert_array_equal(one.x, two.x)


class Stop(Exception):
    pass


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_interrupted_fit_leaves_the_buffer_of_what_was_trained(
    plan, samples, device, batch_size
):
    x, y = samples
    replay = Replay(5, seed=3)

    def stop(history):
        if len(history) >= 9:
            raise Stop(len(history))

    with pytest.raises(Stop) as stopped:
        Trainer(plan, device).fit(x, y, batch_size=batch_size, replay=replay, callback=stop)
    (count,) = stopped.value.args
    assert sum(replay.seen.values()) == count < 21
    whole = Replay(5, seed=3)
    Trainer(plan, type(device)(plan)).fit(x[:count], y[:count], batch_size=batch_size, replay=whole)
    np.testing.assert_array_equal(replay.x, whole.x)
    np.testing.assert_array_equal(replay.y, whole.y)
    np.testing.assert_array_equal(replay.sample(4)[0], whole.sample(4)[0])


def test_a_device_that_fails_at_once_leaves_the_buffer(plan, samples, device):
    x, y = samples
    replay = Replay(5)
    replay.add(x[:7], y[:7])
    before = replay.state_dict()

    def fail():
        raise Stop

    device.during = fail
    with pytest.raises(Stop):
        Trainer(plan, device).fit(x, y, replay=replay)
    np.testing.assert_equal(replay.state_dict(), before)


def test_bytes_stay_bytes(plan, device, samples):
    x, y = (255 * samples[0]).astype(np.uint8), samples[1]
    replay = Replay(5)
    Trainer(plan, device).fit(x, y, replay=replay)
    assert replay.x.dtype == np.uint8
    assert set(codes(plan, replay.x)) <= set(codes(plan, x))


# -- State ------------------------------------------------------------------------------------------------


def test_goes_on_from_its_state(plan, device, samples):
    x, y = samples
    replay = Replay(6, per_step=2, seed=1)
    Trainer(plan, device).fit(x[:13], y[:13], replay=replay)
    restored = Replay(6, per_step=2, seed=9)
    restored.load_state_dict(replay.state_dict())
    runs = []
    for one in (replay, restored):
        on = type(device)(plan)
        Trainer(plan, on).fit(x[13:], y[13:], replay=one)
        runs.append(np.array(on.x))
    np.testing.assert_array_equal(*runs)
    np.testing.assert_equal(restored.state_dict(), replay.state_dict())


def test_state_of_an_empty_buffer():
    state = Replay(3).state_dict()
    replay = Replay(3)
    replay.load_state_dict(state)
    replay.add(*stream([1, 2]))
    assert numbers(replay) == [0, 1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"capacity": 7}, r"^State is of a replay buffer with capacity 7, but this one's is 4$"),
        ({"per_step": 3}, r"^State is of a replay buffer with per_step 3, but this one's is 1$"),
        ({"y": np.zeros(3, int)}, r"^State of a replay buffer of 4 has 4 samples and 3 labels$"),
        ({"seen": None}, r"^State of a replay buffer lacks seen$"),
    ],
)
def test_refuses_the_state_of_another_buffer(change, message):
    replay = Replay(4)
    replay.add(*stream([0, 1, 2, 0, 1]))
    state = {**replay.state_dict(), **change}
    state = {name: value for name, value in state.items() if value is not None}
    before = replay.state_dict()
    with pytest.raises(ValueError, match=message):
        replay.load_state_dict(state)
    np.testing.assert_equal(replay.state_dict(), before)


# -- Misuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"capacity": 0}, ValueError, r"^capacity must be at least 1, not 0$"),
        ({"capacity": 1.5}, TypeError, r"^capacity must be an integer, not 1.5$"),
        ({"capacity": 5, "per_step": -1}, ValueError, r"^per_step must be at least 0, not -1$"),
        ({"capacity": 5, "seed": "a"}, TypeError, r"^seed must be an integer, not 'a'$"),
    ],
)
def test_rejects_impossible_buffers(arguments, error, message):
    with pytest.raises(error, match=message):
        st.Replay(**arguments)


def test_rejects_what_does_not_belong_together(plan, device, samples):
    x, y = samples
    trainer = Trainer(plan, device)
    replay = Replay(5)
    with pytest.raises(
        ValueError, match=r"^Labels must be .* each of 21 samples, not \(20,\) int64$"
    ):
        replay.add(x, y[1:])
    replay.add(*stream([1, 2]))
    with pytest.raises(
        ValueError, match=r"^Samples are \(2, 4, 6\) .* buffer holds \(1, 1, 1\) float64$"
    ):
        trainer.fit(x, y, replay=replay)
    with pytest.raises(ValueError, match=r"^Replay buffer has room for 5 .* mini-batch has 8$"):
        trainer.fit(x, y, batch_size=8, replay=Replay(5))
    with pytest.raises(TypeError, match=r"^replay must be a Replay, not 200$"):
        trainer.fit(x, y, replay=200)
    assert not device.x
