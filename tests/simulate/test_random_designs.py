"""RTL against the golden model, on random networks, formats, foldings and training.

The same designs each time; ``make fuzz`` draws others.
"""

import numpy as np
from drawn import foldings, numbers, trained_networks
from hypothesis import Phase, assume, given, seed, settings
from hypothesis import strategies as st

from streamtrain.host.device import Op
from streamtrain.host.trainer import training_commands
from streamtrain.pipeline.plan import lower
from streamtrain.simulate import SimulatedDevice, compare

SAMPLES = 24
MOST_MULTIPLIERS = 40  # so that a design compiles in seconds


def design(data):
    """A small plan with everything drawn at random."""
    network = data.draw(trained_networks())
    try:
        plan = lower(
            network,
            data.draw(foldings(network)),
            data.draw(numbers()),
            in_flight=data.draw(st.integers(1, 3)),
            max_batch=data.draw(st.sampled_from([1, 4])),
            seed=data.draw(st.integers(1, 99)),
            lutram_depth=data.draw(st.sampled_from([0, 64, 1024])),
            operand_bits=data.draw(st.sampled_from([18, 25])),
        )
    except ValueError:  # formats that do not go together
        assume(False)
    assume(plan.multipliers <= MOST_MULTIPLIERS)
    return plan


def training(plan, rng):
    """Commands of all kinds, in mini-batches of one size, with two learning rates."""
    batch = rng.integers(1, plan.max_batch + 1)
    y = rng.integers(plan.network.classes, size=SAMPLES)
    commands = training_commands(plan, y, batch)
    slower = training_commands(plan, y, batch, lr=plan.network.optimizer.lr / 2)
    half = SAMPLES // 2
    for field in ("mantissa", "shift"):
        getattr(commands, field)[half:] = getattr(slower, field)[half:]
    looks = rng.random(SAMPLES) < 0.2
    looks &= commands.update == 0 if batch > 1 else True
    commands.op[looks] = rng.choice([Op.INFER, Op.EVALUATE], looks.sum())
    commands.update[looks] = 0
    return commands


def test_rtl_equals_golden(draw_seed):
    @seed(draw_seed)
    @settings(max_examples=6, deadline=None, database=None, phases=[Phase.generate])
    @given(st.data())
    def check(data):
        plan = design(data)
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        codes = plan.stages[0].input.codes
        x = rng.integers(codes[0], codes[-1] + 1, (SAMPLES, *plan.network.input_shape))
        device = SimulatedDevice(plan, stall=rng.choice([0.0, 0.3]), seed=int(rng.integers(1, 99)))
        result = compare(device, x, training(plan, rng))
        assert result.bit_exact, f"{result}\n{plan.to_json()}"

    check()
