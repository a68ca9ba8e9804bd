"""A small design, and what it trains with, for tests of the ways to hardware."""

import numpy as np

import streamtrain as st

NET = st.Network(
    (1, 4, 4),
    [st.Conv2d(2, 3), st.ReLU(), st.MaxPool2d(), st.Flatten(), st.Linear(3)],
    optimizer=st.SGD(lr=2**-4),
)
DESIGN = st.plan(NET, foldings={"conv1": (1, 1, 3), "linear1": (1, 2, 1)}, max_batch=4)


def samples(count, seed=1):
    rng = np.random.default_rng(seed)
    return rng.random((count, 1, 4, 4)), rng.integers(0, 3, count)


def assert_same_state(one, other):
    """Two trainers hold the same weights, and all else that training goes on from."""
    for what in ("state_dict", "optimizer_state"):
        ours, theirs = getattr(one, what)(), getattr(other, what)()
        assert ours.keys() == theirs.keys()
        for name, codes in ours.items():
            np.testing.assert_array_equal(codes, theirs[name], err_msg=name)
    assert one.device.read_random() == other.device.read_random()


def assert_trains_alike(trainer, golden, x=None, y=None):
    """Train and evaluate on both, and compare all that comes of it."""
    if x is None:
        x, y = samples(13)
    for batch in (1, 4):
        found = trainer.fit(x, y, batch_size=batch, progress=False)
        expected = golden.fit(x, y, batch_size=batch, progress=False)
        np.testing.assert_array_equal(found.losses, expected.losses)
        np.testing.assert_array_equal(found.correct, expected.correct)
    assert trainer.evaluate(x, y, progress=False) == golden.evaluate(x, y, progress=False)
    np.testing.assert_array_equal(
        trainer.predict(x, progress=False), golden.predict(x, progress=False)
    )
    assert trainer.saturations() == golden.saturations()
    assert_same_state(trainer, golden)
