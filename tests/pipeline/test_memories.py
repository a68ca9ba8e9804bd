"""What memories become, against Yosys itself."""

import random
from collections import Counter

import pytest
from amaranth import Module, Signal, unsigned
from amaranth.hdl import Fragment
from amaranth.lib.memory import Memory

from streamtrain.build.synth import synthesise
from streamtrain.pipeline.generate import verilog_of
from streamtrain.pipeline.memories import map_memory

SHAPES = [  # bits of a lane, words, other arguments
    (5, 1, {"block": False}),
    (1, 2, {"block": False}),
    (17, 32, {"block": False}),
    (17, 33, {"block": False}),
    (6, 64, {"block": False, "lanes": 3}),
    (24, 20, {"block": False, "lanes": 3, "ports": ((8, 24), (0, 16))}),
    (18, 9, {"block": False, "lanes": 2, "single_port": True}),
    (18, 40, {"block": False, "single_port": True}),
    (3, 100, {"block": False, "single_port": True}),
    (5, 130, {"block": False, "single_port": True}),
    (2, 250, {"block": False, "single_port": True}),
    # Deeper than what one of them holds.
    (1, 66, {"block": False}),
    (16, 65, {"block": False}),
    (16, 129, {"block": False}),
    (20, 128, {"block": False, "lanes": 2}),
    (3, 1024, {"block": False}),
    (38, 257, {"block": False, "ports": ((5, 38), (0, 28))}),
    (1, 1, {"block": True}),
    (18, 2, {"block": True}),
    (20, 5, {"block": True, "lanes": 3, "ports": ((4, 20), (0, 16))}),
    (1, 65, {"block": True}),
    (9, 600, {"block": True}),
    (18, 1025, {"block": True}),
    (36, 512, {"block": True}),
    (37, 512, {"block": True}),
    (100, 300, {"block": True}),
    (36, 700, {"block": True, "lanes": 2}),
    (40, 70, {"block": True, "lanes": 4, "ports": ((24, 40), (0, 24))}),
    # Whatever is cheaper.
    (64, 4, {"block": None}),
    (96, 24, {"block": None}),
    (64, 64, {"block": None}),
    (96, 72, {"block": None}),
    (64, 130, {"block": None}),
    (16, 600, {"block": None}),
    (128, 300, {"block": None}),
]
_STYLES = {"distributed": False, "block": True, "auto": None}


def memories(shapes):
    """A design of nothing but these memories, all of whose ports are its own."""
    m, ports = Module(), []

    def outside(name, value):
        signal = Signal(len(value), name=name)
        ports.append(signal)
        return signal

    for number, (width, depth, options) in enumerate(shapes):
        lanes = options.get("lanes", 1)
        style = {True: "block", False: "distributed"}.get(options["block"])
        attrs = {"ram_style": style} if style else {}
        memory = Memory(shape=unsigned(lanes * width), depth=depth, init=[], attrs=attrs)
        m.submodules[f"memory{number}"] = memory
        write = memory.write_port()
        for part in ("en", "addr", "data"):
            signal = getattr(write, part)
            m.d.comb += signal.eq(outside(f"write{number}_{part}", signal))
        for place, (low, high) in enumerate(options.get("ports", ((0, width),))):
            if options.get("single_port"):
                read = memory.read_port(domain="comb")
                m.d.comb += read.addr.eq(write.addr)
            else:
                read = memory.read_port()
                for part in ("en", "addr"):
                    signal = getattr(read, part)
                    m.d.comb += signal.eq(outside(f"read{number}_{place}_{part}", signal))
            for lane in range(lanes):
                used = read.data[lane * width + low : lane * width + high]
                m.d.comb += outside(f"data{number}_{place}_{lane}", used).eq(used)
    return verilog_of(Fragment.get(m, None), "memories", ports=ports)


def cells(shapes):
    """Cells that they should become, by name, and flip-flops."""
    found, ff = Counter(), 0
    for width, depth, options in shapes:
        mapping = map_memory(width, depth, **options)
        found[mapping.primitive] += mapping.count
        ff += mapping.ff
    del found["FF"]
    found["RAMB36E1"] += 2 * found.pop("RAMB36E1 pair", 0)
    return +found, ff


def assert_as_yosys(shapes):
    used, _ = synthesise(memories(shapes), "memories")
    rams = {name: count for name, count in used.cells.items() if name.startswith("RAM")}
    expected, ff = cells(shapes)
    assert rams == expected
    assert used.ff == ff
    mappings = [map_memory(width, depth, **options) for width, depth, options in shapes]
    assert used.bram36 == sum(mapping.bram18 for mapping in mappings) / 2


@pytest.mark.parametrize("style", _STYLES)
def test_memories_are_what_yosys_makes_of_them(style):
    assert_as_yosys([shape for shape in SHAPES if shape[2]["block"] is _STYLES[style]])


def test_any_memory_is_what_yosys_makes_of_it():
    numbers = random.Random(3)
    shapes = []
    for _ in range(10):
        depth = numbers.choice([2, 31, 64, 65, 400, 513])
        shapes.append((
            numbers.randint(1, 90),
            depth,
            {"block": depth > numbers.choice([0, 64, 400])},
        ))
    assert_as_yosys(shapes)


def test_deep_memories_are_cascades():
    """65,536 bits are cheapest in two block RAMs that pass addresses on to one another."""
    mapping = map_memory(1, 65536, block=True)
    assert (mapping.primitive, mapping.count, mapping.bram18) == ("RAMB36E1 pair", 1, 4)


def test_nothing_is_smaller_than_its_bits():
    for width in (1, 7, 36, 300):
        for depth in (1, 2, 64, 65, 1000, 70_000):
            mapping = map_memory(width, depth, block=depth > 64)
            bits = 18 * 1024 * mapping.bram18 + 64 * mapping.lut + mapping.ff
            assert bits >= width * depth


def test_wider_and_deeper_take_no_less():
    def kbits(width, depth):
        return map_memory(width, depth, block=True).bram18

    sizes = [kbits(width, 600) for width in range(1, 200)]
    assert sizes == sorted(sizes)
    sizes = [kbits(72, depth) for depth in (65, 500, 512, 1024, 2048, 2049, 5000)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 8), {}, r"^A memory's width must be at least 1, not 0$"),
        ((8, 0), {}, r"^A memory's depth must be at least 1, not 0$"),
        ((8, 8), {"lanes": 0}, r"^A memory's lanes must be at least 1, not 0$"),
        ((8, 8), {"ports": ()}, r"^Read ports must use some of a lane's 8 bits, not \(\)$"),
        ((8, 8), {"ports": ((4, 9),)}, r"^Read ports must use some of a lane's 8 bits, not "),
        (
            (8, 8),
            {"block": True, "single_port": True},
            r"^What is read where it is written must be",
        ),
    ],
)
def test_refuses_what_is_no_memory(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        map_memory(*arguments, **{"block": False, **options})
