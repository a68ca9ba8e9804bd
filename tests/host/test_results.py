import sys

import numpy as np
import pytest

from streamtrain.host.results import Evaluation, History


def history(count, **changes):
    losses = np.arange(count, dtype=np.float64)
    return History(losses, losses % 2 == 0, 2.0, **changes)


def test_history_sums_up():
    eight = history(8, cycles=np.arange(8) * 50 + 1000)
    assert len(eight) == 8
    assert (eight.loss, eight.accuracy) == (3.5, 0.5)
    assert eight.samples_per_second == 4
    assert eight.cycles_per_sample == 50
    assert "8 samples in 2.0 s (4 samples/s, 50 cycles each): online loss 3.5000" in str(eight)


def test_history_has_a_row_for_each_epoch():
    header, rows = history(2000, epochs=2).table()
    assert header == ("samples", "online loss", "online accuracy")
    assert rows == [("1 to 1,000", 499.5, "50.00%"), ("1,001 to 2,000", 1499.5, "50.00%")]


@pytest.mark.parametrize("count, rows", [(1, 1), (3, 3), (4, 4), (1000, 4)])
def test_history_of_one_epoch_has_quarters(count, rows):
    assert len(history(count).table()[1]) == rows


def test_history_that_was_stopped_early_shows_what_there_is():
    assert [row[0] for row in history(2, epochs=5).table()[1]] == ["1 to 1", "2 to 2"]


def test_one_sample_has_no_cycles_per_sample():
    assert history(1, cycles=np.array([7])).cycles_per_sample is None


def test_mini_batches_after_a_pause_of_the_host_do_not_count():
    """They find an empty pipeline, and how many there are depends on how busy the host is."""
    cycles = np.array([100, 150, 201, 300, 350, 401])
    paused = np.array([True, False, False, True, False, False])
    assert history(6, cycles=cycles, paused=paused).cycles_per_sample == pytest.approx(50.5)
    always = np.ones(6, bool)
    assert history(6, cycles=cycles, paused=always).cycles_per_sample == pytest.approx(60.2)


def test_results_show_themselves_in_a_notebook():
    assert "<td" in history(8)._repr_html_()
    assert "97.00%" in Evaluation(loss=0.1, accuracy=0.97, count=100)._repr_html_()


def test_evaluation_prints_as_a_sentence():
    text = str(Evaluation(loss=0.1, accuracy=0.97, count=1000))
    assert text == "1,000 samples: loss 0.1000, accuracy 97.00%"


@pytest.mark.parametrize("count", [1, 49, 1000])
def test_plot_averages_over_windows(count):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    loss, accuracy = history(count).plot()
    window = max(1, count // 50)
    position, mean = loss.lines[0].get_data()
    np.testing.assert_array_equal(position, np.arange(window, count + 1))
    assert mean[0] == np.arange(window).mean()
    assert accuracy.get_ylabel() == "online accuracy"
    pyplot.close("all")


def test_plot_names_the_extra_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install streamtrain\[notebook\]"):
        history(8).plot()
