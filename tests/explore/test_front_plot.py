import sys
from dataclasses import replace

import numpy as np
import pytest

from streamtrain.explore.pareto import non_dominated


@pytest.fixture(autouse=True)
def pyplot():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    yield pyplot
    pyplot.close("all")


def test_a_drawing_for_each_resource_and_one_for_all_networks(long_front):
    dsp, bram, efficiency = long_front.plot()
    assert (dsp.get_xlabel(), dsp.get_ylabel()) == ("DSP", "samples/s")
    assert (bram.get_xlabel(), bram.get_ylabel()) == ("BRAM36", "samples/s")
    assert efficiency.get_ylabel() == "GOPS per DSP"
    assert efficiency.get_title() == ""
    assert "16P-32P-FC10 on 1x8x8 on pynq_z2" in dsp.figure.get_suptitle()


def test_line_joins_what_nothing_beats(long_front):
    dsp, *_ = long_front.plot()
    pale, line, _, knee = dsp.get_lines()[:4]
    best = non_dominated(long_front.figures("dsp", "samples_per_s"))
    points = np.array([[p.dsp, p.samples_per_s] for p in long_front.points])
    assert len(pale.get_xdata()) == (~best).sum()
    assert {*map(tuple, line.get_xydata())} == {*map(tuple, points[best])}
    at = long_front.point(long_front.knee())
    np.testing.assert_array_equal(knee.get_xydata(), [[at.dsp, at.samples_per_s]])


def test_latency_has_drawings_of_its_own(long_front):
    both = replace(long_front, objectives=("latency_us", "lut", "samples_per_s"))
    labels = [(axis.get_xlabel(), axis.get_ylabel()) for axis in both.plot()]
    assert labels[:2] == [("LUT", "latency, µs"), ("LUT", "samples/s")]


def test_published_designs_are_marked_where_they_compare(front, monkeypatch):
    monkeypatch.syspath_prepend("benchmarks")
    from nets import NETS

    def words(axis):
        return " ".join(text.get_text() for text in axis.texts)

    dsp, _, efficiency = front.plot()
    assert "ES-FL" not in words(dsp)
    assert "ES-FL (FP32, batch 1)" in words(efficiency)
    dsp, bram, _ = replace(front, network=NETS["E"].network()).plot()
    assert "ES-FL (FP32, batch 1)" in words(dsp)
    assert dsp.get_xlim()[1] > 854  # the mark is in the picture
    assert bram.get_xlim()[1] > 573
    dsp, *_ = replace(front, network=NETS["X"].network()).plot()
    assert "EF-Train (FP32, batch 16): DSP not stated" in words(dsp)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_picture_is_written(front, tmp_path, ending):
    front.plot(tmp_path / f"front.{ending}")
    assert (tmp_path / f"front.{ending}").stat().st_size > 10_000


def test_same_front_gives_the_same_picture(front, tmp_path):
    pictures = [tmp_path / f"{name}.svg" for name in "ab"]
    for picture in pictures:
        front.plot(picture)
    first, second = (picture.read_bytes() for picture in pictures)
    assert first == second


def test_one_objective_is_enough(front):
    single = replace(front, objectives=("dsp",), points=front.points[-1:])
    assert len(single.plot()) == 2


def test_an_empty_front_says_why(empty_front):
    with pytest.raises(ValueError, match="take a DSP slice each"):
        empty_front.plot()


def test_plot_names_the_extra_it_needs(front, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install streamtrain\[notebook\]"):
        front.plot()
