"""On-chip buffers that are filled while they are drained."""

from operator import index
from typing import NamedTuple

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.gates import delayed

__all__ = ["PLACES", "READ_LATENCY", "Depths", "DoubleBuffer", "ReadPort", "WritePort"]

PLACES = 4
"""Places of a pooling square; a route has a bit for each."""

READ_LATENCY = 2
"""Cycles from an address to its word: block RAM with its output register."""


class WritePort(wiring.Signature):
    """Words into one half of a :class:`DoubleBuffer`; from the side that writes."""

    def __init__(self, width, depth):
        super().__init__({
            "half": Out(1),
            "address": Out(range(depth)),
            "data": Out(width),
            "enable": Out(1),
        })


class ReadPort(wiring.Signature):
    """Words of one half of a :class:`DoubleBuffer`, from the side that reads."""

    def __init__(self, width, depth):
        super().__init__({
            "half": Out(1),
            "address": Out(range(depth)),
            "enable": Out(1),
            "data": In(width),
        })


class Depths(NamedTuple):
    """Words in half of each double buffer.

    Parameters
    ----------
    x, e, sums : :class:`int`
        Vectors of inputs, of errors in WU, and of sums and their routes.
    weights : :class:`int`
        Rows of weights: ``lanes`` for each block.
    gradients : :class:`int`
        Blocks of gradients.
    tiles : :class:`int`
        Vectors of biases, and of their gradients.
    """

    x: int
    e: int
    sums: int
    weights: int
    gradients: int
    tiles: int

    def sizes(self, arithmetic, lanes):
        """Bits and number of words of half of each buffer, by name.

        A word is a vector of ``lanes`` operands or accumulators; of gradients, those of a block; of routes, a
        bit for each place of a pooling square.
        """
        operands, accumulators = (
            lanes * arithmetic.operand.width,
            lanes * arithmetic.accumulator.width,
        )
        return {
            "x": (operands, self.x),
            "e": (operands, self.e),
            "weights": (operands, self.weights),
            "biases": (accumulators, self.tiles),
            "sums": (accumulators, self.sums),
            "routes": (PLACES * lanes, self.sums),
            "gradients": (lanes * accumulators, self.gradients),
            "bias_gradients": (accumulators, self.tiles),
        }


class DoubleBuffer(wiring.Component):
    """Two memories: one is filled while the other is drained.

    Both sides go through the halves in turn. Who fills waits until a half is empty, who drains until it
    is full.

    Parameters
    ----------
    width : :class:`int`
        Bits of a word.
    depth : :class:`int`
        Words of a half.

    Members
    -------
    write : :py:`In(WritePort(width, depth))`
    look : :py:`In(ReadPort(width, depth))`
        For the side that fills: what it has written. It goes before ``read`` in its half.
    read : :py:`In(ReadPort(width, depth))`
    filled, emptied : :py:`In(2)`
        Pulses: these halves are full, empty.
    full : :py:`Out(2)`
        Halves that are full.

    Timing
    ------
    Words come :data:`READ_LATENCY` cycles after their address. A word that was written can be read from the next
    cycle on.
    """

    def __init__(self, width, depth):
        self.width = index(width)
        self.depth = index(depth)
        super().__init__({
            "write": In(WritePort(self.width, self.depth)),
            "look": In(ReadPort(self.width, self.depth)),
            "read": In(ReadPort(self.width, self.depth)),
            "filled": In(2),
            "emptied": In(2),
            "full": Out(2),
        })

    def elaborate(self, platform):
        m = Module()
        words = []
        for half in range(2):
            memory = m.submodules[f"half{half}"] = Memory(
                shape=unsigned(self.width), depth=self.depth, init=[]
            )
            write, read = memory.write_port(), memory.read_port()
            looks = self.look.enable & (self.look.half == half)
            word = Signal(self.width, name=f"word{half}")
            m.d.comb += [
                write.addr.eq(self.write.address),
                write.data.eq(self.write.data),
                write.en.eq(self.write.enable & (self.write.half == half)),
                read.addr.eq(Mux(looks, self.look.address, self.read.address)),
                read.en.eq(1),
            ]
            m.d.sync += word.eq(read.data)
            words.append(word)
        for port, name in ((self.look, "look"), (self.read, "read")):
            half = delayed(m, port.half, READ_LATENCY, f"{name}_half")[-1]
            m.d.comb += port.data.eq(Mux(half, words[1], words[0]))
        m.d.sync += self.full.eq((self.full | self.filled) & ~self.emptied)
        return m
