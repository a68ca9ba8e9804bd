import numpy as np
import pytest

from streamtrain.host.device import Op, Results
from streamtrain.network import SGD, Conv2d, Flatten, Linear, MaxPool2d, Network, ReLU
from streamtrain.pipeline.plan import lower

NETWORK = Network(
    (2, 4, 6),
    [Conv2d(4, 3), ReLU(), MaxPool2d(), Flatten(), Linear(5, bias=False)],
    optimizer=SGD(lr=2**-4),
)


class FakeDevice:
    """Keeps what it is given. A sample's loss is its number, and its predicted class is 1.

    Results come 100 cycles apart, after a start of 7, if there is a clock. ``during`` is called
    within each run.
    """

    def __init__(self, plan, *, clock=True, during=lambda: None):
        self.clock, self.during = clock, during
        self.x, self.runs = [], []
        self.weights = {
            name: stage.stored.encode(value)
            for name, value in plan.network.initial_weights().items()
            for stage in plan.stages
            if stage.name == name.partition(".")[0]
        }

    def run(self, x, commands):
        number = len(self.x) + np.arange(len(x))
        self.x.extend(x)
        self.runs.append(commands)
        self.during()
        return Results(
            scores=np.zeros((len(x), 5), np.int64),
            loss=number * 4096,
            predicted=np.ones(len(x), np.int64),
            cycles=(number + 1) * 100 + 7 if self.clock else None,
        )

    @property
    def cycle(self):
        return len(self.x) * 100 + 7 if self.clock else None

    def commands(self, field):
        return np.concatenate([getattr(commands, field) for commands in self.runs]).tolist()

    @property
    def trained(self):
        return sum(int((commands.op == Op.TRAIN).sum()) for commands in self.runs)

    def read_weights(self):
        return dict(self.weights)

    def write_weights(self, weights):
        self.weights = weights

    def read_random(self):
        return {}

    def write_random(self, states):
        assert not states

    def read_optimizer(self):
        return {}

    def write_optimizer(self, state):
        assert not state

    def saturations(self):
        return {"conv1": {"output": 3, "errors": 0, "weights": 1}}


@pytest.fixture
def plan():
    return lower(NETWORK, lambda *layer: (1, 1, 1), max_batch=8)


@pytest.fixture
def device(plan):
    return FakeDevice(plan)


@pytest.fixture
def samples():
    """Float images, and labels."""
    rng = np.random.default_rng(1)
    return rng.random((21, 2, 4, 6)), rng.integers(0, 5, 21)
