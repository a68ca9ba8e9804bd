"""Say whether a model can be trained on a board, before anything is planned or built."""

import json
import sys
import warnings
from contextlib import redirect_stdout

from streamtrain.description import load_description
from streamtrain.design import Design, UnifiedDesign, plan
from streamtrain.explore import load_board
from streamtrain.explore.search import shortfall
from streamtrain.network import ModelError, Problem
from streamtrain.tables import text_table

__all__ = ["check"]


def check(description, board, *, as_json=False, planned=None):
    """Check a model, and print the verdict.

    Parameters
    ----------
    description : path
        As :func:`~streamtrain.description.load_description` takes it.
    board : :class:`str`
    as_json : :class:`bool`
        Print JSON: ``source``, ``supported``, ``problems``, ``notes``.
    planned : dict, optional
        What :func:`~streamtrain.plan` is asked for, if it is one design and not any.

    Returns whether the model can be trained there.

    Raises
    ------
    ValueError, OSError, ImportError
        If there is no verdict: no such board, or a file that cannot be read.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            with redirect_stdout(sys.stderr):  # whatever a description prints
                network = load_description(description)
            network = network.network if isinstance(network, (Design, UnifiedDesign)) else network
            found, instead = _obstacle(network, board, planned)
            if found:
                problem = Problem("", "", f"board {board}", found, instead)
                raise ModelError(str(description), [problem])
        except ModelError as error:
            print(error.to_json() if as_json else error)
            return False
    notes = [str(warning.message) for warning in caught]
    if as_json:
        verdict = {"source": str(description), "supported": True, "problems": [], "notes": notes}
        print(json.dumps(verdict, indent=2))
    else:
        header, rows = network.table()
        print(
            f"{description} can be trained on {board}", *notes, text_table(header, rows), sep="\n"
        )
    return True


def _obstacle(network, board, planned):
    """What is in the way of every plan, or of one, and what would help; empty if nothing."""
    load_board(board)  # an unknown board is no verdict on the model
    if planned:
        try:
            plan(network, board, **planned)
        except ValueError as error:
            return str(error), "see docs/unified.md"
        return "", ""
    try:
        return shortfall(network, board), "a larger board, or a smaller network"
    except ValueError as error:  # an order of layers, or formats
        return str(error), "see docs/models.md"
