"""From the description of a CNN to FPGA hardware that trains it.

Describe a :class:`Network`, :func:`plan` it for a board, and train it where you like::

    import streamtrain as st

    net = st.Network((1, 8, 8), [st.Conv2d(8, 3), st.ReLU(), st.Flatten(), st.Linear(10)])
    digits = st.data.load_digits()
    trainer = st.plan(net, board="pynq_z2").golden()
    trainer.fit(digits.train_x, digits.train_y)
    trainer.evaluate(digits.test_x, digits.test_y).accuracy
"""

from importlib.metadata import version

from streamtrain import data
from streamtrain.design import Design, UnifiedDesign, plan
from streamtrain.explore import load_board
from streamtrain.explore.formats import study_formats
from streamtrain.explore.search import explore
from streamtrain.host.bus_device import BusError
from streamtrain.host.checkpoint import CheckpointError, load_checkpoint
from streamtrain.host.connect import connect
from streamtrain.host.live import LiveView
from streamtrain.host.replay import Replay
from streamtrain.host.schedules import CosineLR, StepLR
from streamtrain.host.trainer import Trainer
from streamtrain.network import (
    SGD,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    MaxPool2d,
    ModelError,
    MSELoss,
    Network,
    ReLU,
    ShapeError,
    SquaredHinge,
    from_onnx,
    from_torch,
    to_onnx,
    to_torch,
)
from streamtrain.numeric import Fixed, Float, Round
from streamtrain.pipeline.numbers import Numbers

__all__ = [
    "SGD",
    "BatchNorm2d",
    "BusError",
    "CheckpointError",
    "Conv2d",
    "CosineLR",
    "CrossEntropy",
    "Design",
    "Fixed",
    "Flatten",
    "Float",
    "Linear",
    "LiveView",
    "MSELoss",
    "MaxPool2d",
    "ModelError",
    "Network",
    "Numbers",
    "ReLU",
    "Replay",
    "Round",
    "ShapeError",
    "SquaredHinge",
    "StepLR",
    "Trainer",
    "UnifiedDesign",
    "connect",
    "data",
    "explore",
    "from_onnx",
    "from_torch",
    "load_board",
    "load_checkpoint",
    "plan",
    "study_formats",
    "to_onnx",
    "to_torch",
]

__version__ = version("streamtrain")
