"""Notebooks run from top to bottom, and lie in the repository without outputs."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

CELL_SECONDS = 300  # the cell that compiles, on a busy machine


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(cell):
    """What a cell shows, by type of content."""
    shown = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            shown.setdefault(output.name, []).append(output.text)
        for kind, content in output.get("data", {}).items():
            shown.setdefault(kind, []).append(content)
    return shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_has_no_outputs(path):
    for cell in read(path).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


def run(name, folder):
    """What each code cell of a notebook shows, by type of content."""
    notebook = read(ROOT / "notebooks" / name)
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    cells = [outputs(cell) for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        assert "Traceback" not in "".join(cell.get("stderr", []))
    return cells


@pytest.mark.xdist_group("hello")  # with the pages that compile the same design
def test_hello_runs_and_shows_tables(tmp_path):
    cells = run("hello.ipynb", tmp_path)
    network, design, history, plot, evaluation, verification = cells
    for cell, word in (
        (network, "Conv2d"),
        (design, "multipliers"),
        (history, "online accuracy"),
        (evaluation, "accuracy"),
    ):
        table = cell["text/html"][-1]  # behind a progress bar
        assert "<table>" in table and word in table
    assert "image/png" in plot
    assert "100 steps bit-exact" in verification["stdout"][0]


@pytest.mark.xdist_group("hello")
def test_continual_runs_in_hardware_as_in_golden(tmp_path):
    design, buffer, plot, history = run("continual.ipynb", tmp_path)
    assert "multipliers" in design["text/html"][-1]
    assert "200 of 200 samples" in buffer["text/html"][-1]
    assert "image/png" in plot
    assert "weights bit-exact: True" in history["stdout"][0]
    assert "online accuracy" in history["text/html"][-1]
