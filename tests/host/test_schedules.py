"""Learning rates that change while a network is trained."""

import numpy as np
import pytest
import torch

from streamtrain.host.schedules import CosineLR, StepLR


def rates(schedule, steps):
    return [schedule(step) for step in range(steps)]


def torch_rates(scheduler, steps, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = scheduler(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_steps_are_pytorch_s():
    expected = torch_rates(torch.optim.lr_scheduler.StepLR, 20, step_size=6, gamma=0.5)
    np.testing.assert_allclose(rates(StepLR(0.1, 6, 0.5), 20), expected)


def test_cosine_is_pytorch_s():
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR
    expected = torch_rates(scheduler, 11, T_max=10, eta_min=0.01)
    schedule = CosineLR(0.1, 10, 0.01)
    np.testing.assert_allclose(rates(schedule, 11), expected)
    assert schedule(100) == pytest.approx(0.01)  # and stays there


@pytest.mark.parametrize("schedule", [StepLR(0.1, 3), CosineLR(0.1, 3, 0.001)])
def test_travels_as_json(schedule):
    assert type(schedule).from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StepLR("0.1", 3), TypeError, r"^StepLR lr must be a number, not '0\.1'$"),
        (lambda: StepLR(0.1, 3, 0), ValueError, r"^StepLR gamma must be more than 0, not 0$"),
        (lambda: StepLR(0.1, 0), ValueError, r"^StepLR step_size must be at least 1, not 0$"),
        (lambda: CosineLR(0.1, 2.5, 0.1), TypeError, r"^CosineLR steps must be an integer, not 2"),
        (lambda: CosineLR(0.1, 2, 0.2), ValueError, r"^CosineLR lowest must be at most lr, 0\.1, "),
    ],
)
def test_refuses_other_values(make, error, message):
    with pytest.raises(error, match=message):
        make()
