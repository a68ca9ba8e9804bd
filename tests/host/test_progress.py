from functools import partial

import pytest
from rich.console import Console

from streamtrain.host.progress import ProgressBar


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("streamtrain.host.progress._PATIENCE_SECONDS", 0)


def test_a_terminal_of_80_columns_shows_it_all(capsys):
    with ProgressBar("evaluating", 60_000) as bar:
        bar.update(10_000, "")
        bar.update(60_000, "21,849 samples/s  loss 0.091  acc. 100.0%")
    out, err = capsys.readouterr()
    assert out == ""
    assert "60000/60000" in err
    assert "21,849 samples/s  loss 0.091  acc. 100.0%" in err
    assert max(map(len, err.splitlines())) <= 80


def test_what_is_done_at_once_shows_nothing(capsys):
    with ProgressBar("training", 5) as bar:
        bar.update(5, "")
    assert capsys.readouterr() == ("", "")


def test_a_notebook_gets_html(monkeypatch):
    shown = []

    class Handle:
        def update(self, content):
            shown.append(content.data)

    def display(content, display_id):
        shown.append(content.data)
        return Handle()

    notebook = partial(Console, force_jupyter=True)
    monkeypatch.setattr("streamtrain.host.progress.Console", notebook)
    monkeypatch.setattr("IPython.display.display", display)
    with ProgressBar("training", 2000) as bar:
        bar.update(1000, "5 < 6")
        bar.update(2000, "done")
    assert shown == [
        'training <progress value="0" max="2000"></progress> 0/2,000 ',
        'training <progress value="1000" max="2000"></progress> 1,000/2,000 5 &lt; 6',
        'training <progress value="2000" max="2000"></progress> 2,000/2,000 done',
    ]
