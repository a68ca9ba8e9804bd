"""Typed streams: joining them, queues, packets, width changes, sliding windows."""

from streamtrain.stream.connect import connect
from streamtrain.stream.fork import fork
from streamtrain.stream.gearbox import Gearbox
from streamtrain.stream.join import join
from streamtrain.stream.packets import PacketQueue
from streamtrain.stream.queue import DISTRIBUTED_DEPTH, Queue, memory_style
from streamtrain.stream.resize import Resize
from streamtrain.stream.window import Cursor, WindowShape, WindowStore

__all__ = [
    "DISTRIBUTED_DEPTH",
    "Cursor",
    "Gearbox",
    "PacketQueue",
    "Queue",
    "Resize",
    "WindowShape",
    "WindowStore",
    "connect",
    "fork",
    "join",
    "memory_style",
]
