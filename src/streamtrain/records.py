"""Frozen descriptions that travel as JSON: layers, networks, formats, plans."""

import json
from dataclasses import dataclass, fields
from enum import Enum
from typing import ClassVar

__all__ = ["Record"]


@dataclass(frozen=True)
class Record:
    """Base of the frozen dataclasses that describe something: comparable, and JSON both ways.

    A record becomes an object whose ``"kind"`` is the class name; fields keep their names.
    """

    _kinds: ClassVar[dict] = {}

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        Record._kinds[cls.__name__] = cls

    def to_json(self, *, indent=2):
        """This record as JSON text."""
        return json.dumps(_encode(self), indent=indent)

    @classmethod
    def from_json(cls, text):
        """Read a record back.

        Raises :exc:`ValueError` if ``text`` is not JSON, names an unknown kind or field, or
        describes something other than ``cls``.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"Not a JSON description of a {cls.__name__}: {error}") from None
        record = _decode(data)
        if not isinstance(record, cls):
            raise ValueError(f"Expected a {cls.__name__}, not a {type(record).__name__}")
        return record


def _encode(value):
    if isinstance(value, Record):
        members = {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
        return {"kind": type(value).__name__, **members}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _encode(member) for key, member in value.items()}
    if isinstance(value, (tuple, list)):
        return [_encode(member) for member in value]
    return value


def _decode(data):
    if isinstance(data, list):
        return tuple(_decode(member) for member in data)
    if not isinstance(data, dict):
        return data
    if "kind" not in data:
        return {key: _decode(member) for key, member in data.items()}
    kind = data["kind"]
    if not isinstance(kind, str) or kind not in Record._kinds:
        known = ", ".join(sorted(Record._kinds))
        raise ValueError(f"Unknown kind {kind!r}; known are {known}")
    cls = Record._kinds[kind]
    members = {key: _decode(member) for key, member in data.items() if key != "kind"}
    unknown = sorted(members.keys() - {f.name for f in fields(cls)})
    if unknown:
        raise ValueError(f"{kind} has no field {unknown[0]!r}")
    try:
        return cls(**members)
    except TypeError as error:
        raise ValueError(f"Cannot read a {kind}: {error}") from None
