# amaranth: UnusedElaboratable=no

import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.numeric import Fixed
from streamtrain.simulate.bench import run_stream
from streamtrain.stream import Queue, connect

Q4_4 = Fixed(8, 4)


class Around(wiring.Component):
    """A queue, whose ports are passed through."""

    i: In(stream.Signature(Q4_4))
    o: Out(stream.Signature(Q4_4))

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(Q4_4, 2)
        connect(m, wiring.flipped(self.i), queue.i)
        connect(m, queue.o, wiring.flipped(self.o))
        return m


def test_same_format_connects():
    connect(Module(), Queue(Q4_4, 1).o, Queue(Fixed(8, 4), 2).i)


def test_ports_are_passed_through():
    assert run_stream(Around(), [1, -2, 3], 3) == [1, -2, 3]


@pytest.mark.parametrize(
    "sent, expected",
    [
        (Fixed(10, 4), Fixed(10, 5)),
        (data.ArrayLayout(Fixed(8, 4), 2), data.ArrayLayout(Fixed(8, 3), 2)),
        (data.ArrayLayout(Fixed(8, 4), 2), data.ArrayLayout(Fixed(4, 4), 4)),
        (data.StructLayout({"x": 8}), Fixed(8, 4)),
    ],
)
def test_same_width_with_another_meaning_is_refused(sent, expected):
    with pytest.raises(wiring.ConnectionError, match=r"^Stream of .* cannot feed a stream of "):
        connect(Module(), Queue(sent, 1).o, Queue(expected, 1).i)


def test_the_message_names_both_formats():
    message = (
        r"^Stream of Fixed\(width=10, frac=4\) cannot feed a stream of Fixed\(width=10, frac=5\)$"
    )
    with pytest.raises(wiring.ConnectionError, match=message):
        connect(Module(), Queue(Fixed(10, 4), 1).o, Queue(Fixed(10, 5), 1).i)
