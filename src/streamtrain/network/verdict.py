"""What a model has that cannot be trained: all of it at once."""

import json
from dataclasses import asdict, dataclass

from streamtrain.records import Record
from streamtrain.tables import text_table

__all__ = ["ModelError", "Problem"]


@dataclass(frozen=True)
class Problem(Record):
    """One thing in a model that is not supported.

    Parameters
    ----------
    node : :class:`str`
        Name of the node, tensor or layer; empty for the model as a whole.
    operator : :class:`str`
        Its operator, by ONNX's name, such as ``Conv``.
    attribute : :class:`str`
        Attribute, input or resource at fault.
    found : :class:`str`
        What it is.
    instead : :class:`str`
        The nearest form that is supported.
    """

    node: str
    operator: str
    attribute: str
    found: str
    instead: str


class ModelError(ValueError):
    """A model cannot be trained. Says everything that is in the way.

    Parameters
    ----------
    source : :class:`str`
        The model: a file's name, or a class.
    problems : sequence of :class:`Problem`
    """

    def __init__(self, source, problems):
        self.source = source
        self.problems = tuple(problems)
        super().__init__(source, self.problems)

    def __str__(self):
        count = len(self.problems)
        header = ("node", "operator", "attribute", "found", "instead")
        rows = [tuple(asdict(problem).values()) for problem in self.problems]
        noun = "problem" if count == 1 else "problems"
        return f"{self.source} cannot be trained: {count} {noun}\n{text_table(header, rows)}"

    def to_json(self, *, indent=2):
        """The verdict as JSON text: ``source``, ``supported`` (false) and ``problems``."""
        problems = [asdict(problem) for problem in self.problems]
        verdict = {"source": self.source, "supported": False, "problems": problems}
        return json.dumps(verdict, indent=indent)
