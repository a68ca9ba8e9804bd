"""The order of records: loads a tile ahead, and nothing that would wait for what comes behind it."""

import pytest

import streamtrain as st
from streamtrain.numeric import Fixed, FixedArithmetic, arithmetic
from streamtrain.unified.buffers import Depths
from streamtrain.unified.compiler import Compiler
from streamtrain.unified.loader import Target
from streamtrain.unified.order import loads_ahead
from streamtrain.unified.plan import lower
from streamtrain.unified.program import Kind

NUMBERS = FixedArithmetic(Fixed(16, 10), Fixed(32, 20))
ONE = {"tiles": 1, "taps_row": 1, "taps_col": 1, "images": 1, "rows": 1, "cols": 10}


def load(beats, after=0, target=Target.X):
    return Kind.LOAD, {"target": target, "chunks": 1, "beats": beats, "after": after}


def compute(cols=10):
    return Kind.COMPUTE, ONE | {"cols": cols}


STORE = Kind.STORE, {"chunks": 1}


def test_loads_stand_where_they_may_begin():
    first = [load(5), compute(), compute(), compute(), compute(), compute(), compute(), STORE]
    second = [load(15), load(10), load(90), compute(), STORE]
    # The second tile's loads begin at 0, 15 and 25; computations are sent two ahead of 0, 10, 20 and so on.
    assert loads_ahead(first + second) == [0, 1, 2, 3, 8, 4, 9, 5, 10, 6, 7, 11, 12]


def test_what_waits_for_the_tile_before_stays_behind_its_stores():
    records = [load(5), compute(), STORE, load(5, after=1), load(5), compute(), STORE]
    assert loads_ahead(records) == list(range(7))
    records[3:5] = records[4:2:-1]
    assert loads_ahead(records) == [0, 1, 3, 2, 4, 5, 6]


def test_what_is_loaded_for_a_store_stays_before_it():
    routes = load(5, target=Target.ROUTES)
    records = [load(5), compute(), routes, STORE, load(30), load(5), compute(), STORE]
    assert loads_ahead(records) == [0, 1, 4, 5, 2, 3, 6, 7]


@pytest.mark.parametrize("weights", [64, 200, 1000])
def test_programs_have_all_records_and_can_end(weights):
    """What a record waits for is asked for by records before it."""
    net = st.Network(
        (2, 8, 8),
        [st.Conv2d(7, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(9), st.ReLU(), st.Linear(6)],
    )  # fmt: skip
    depths = Depths(x=70, e=16, sums=40, weights=weights, gradients=16, tiles=4)
    program = Compiler(lower(net, 4), NUMBERS, 3, depths, data_bits=64).step()
    assert program.records[0][0] is Kind.BEGIN
    assert program.records[-1] == (Kind.END, {"writes": program.writes})
    assert len(program.owners) == len(program.records)
    writes, filled, emptied = 0, dict.fromkeys("xew", 0), dict.fromkeys("xew", 0)
    names = {Target.X: "x", Target.GROUPS: "x", Target.E: "e", Target.WEIGHTS: "w"}
    for kind, fields in program.records:
        if kind is Kind.STORE:
            writes += fields["chunks"] * (2 if "routes_address" in fields else 1)
        elif kind is Kind.LOAD:
            assert fields["after"] <= writes
            if fields["last"] and (name := names.get(fields["target"])):
                filled[name] += 1
                assert filled[name] - emptied[name] <= 2, "no half of the buffer gets free"
        elif kind is Kind.COMPUTE:
            for name, done in (("x", "done_x"), ("e", "done_e"), ("w", "done_weights")):
                emptied[name] += bool(fields.get(done, 0))
    assert writes == program.writes
    assert filled == emptied


def test_sums_of_a_batch_norm_begin_with_the_first_image_only():
    """Images whose tiles do not lie side by side are stored one by one."""
    net = st.Network(
        (2, 2, 2), [st.Conv2d(12, 3), st.BatchNorm2d(), st.ReLU(), st.Flatten(), st.Linear(3)]
    )
    depths = Depths(x=64, e=48, sums=64, weights=24, gradients=24, tiles=8)
    numbers = arithmetic("bf16")
    program = Compiler(lower(net, 4), numbers, 2, depths, data_bits=64).single("FP", "conv1")
    stores = [fields for kind, fields in program.records if kind is Kind.STORE]
    fresh = [store["sums"]["fresh"] for store in stores]
    assert len(stores) > 2
    assert len(stores) // 2 == sum(fresh)
