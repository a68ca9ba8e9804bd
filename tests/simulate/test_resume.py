"""Training that goes on in hardware, or in software, or now here and now there: the same bits."""

import json
import subprocess
import sys
from pathlib import Path

import killed
import numpy as np
import pytest

import streamtrain as st
from streamtrain.golden import Golden
from streamtrain.host.trainer import Trainer
from streamtrain.simulate import SimulatedTrainer

pytestmark = pytest.mark.xdist_group("resumed simulations")


@pytest.fixture(scope="module")
def plan():
    return killed.design().plan


def simulated(plan):
    return SimulatedTrainer(plan, stall=0.2, progress=False)


def samples(count):
    rng = np.random.default_rng(7)
    return rng.random((count, 1, 6, 6)), rng.integers(0, 3, count)


def test_training_may_move_between_software_and_hardware(plan, tmp_path):
    path, whole = tmp_path / "moving.ckpt", Trainer(plan, Golden(plan))
    x, y = samples(60)
    for position, make in enumerate((simulated, lambda plan: Trainer(plan, Golden(plan)), simulated)):
        part = slice(20 * position, 20 * position + 20)
        trainer = make(plan)
        if position:
            trainer.load(path)
        trainer.fit(x[part], y[part], batch_size=1 + position, progress=False)
        trainer.evaluate(x[part], y[part], progress=False)
        trainer.save(path)
        whole.fit(x[part], y[part], batch_size=1 + position)
        whole.evaluate(x[part], y[part])
    whole.save(tmp_path / "whole.ckpt")
    assert path.read_bytes() == (tmp_path / "whole.ckpt").read_bytes()


def test_extreme_states_are_written_and_read(plan):
    device = simulated(plan).device
    states = device.read_random()
    assert states == Golden(plan).read_random()
    values = [1, 2**32 - 1, 2**31, 0x12345678, 0xFFFF, 0xFFFF0000]
    new = dict(zip(states, values, strict=True))
    device.write_random(new)
    assert device.read_random() == device.read_random() == new
    with pytest.raises(ValueError, match=r"^Random state of conv1.weights must be 1 to 2\*\*32 - 1, not 0$"):
        device.write_random({**new, "conv1.weights": 0})
    assert device.read_random() == new


def test_hardware_without_random_bits_has_no_states(plan):
    network = plan.network
    exact = st.plan(network, foldings={stage.name: stage.folding for stage in plan.stages}).plan
    assert exact.random_sites == ()
    assert Golden(exact).read_random() == {}


def test_hardware_that_is_killed_gives_the_same_bits(plan, tmp_path):
    simulated(plan)  # so that it is compiled
    done = subprocess.run(
        [sys.executable, Path(killed.__file__), "rtl", tmp_path, "4"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"] and len(found["begins"]) == 4
