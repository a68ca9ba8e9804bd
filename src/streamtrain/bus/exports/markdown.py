"""A table of registers for people."""

__all__ = ["markdown"]

_INTRODUCTION = """\
Registers have 32 bits and are at byte addresses. What software may do with a field:

- `ro`: read. A constant always reads as its reset value.
- `rw`: read and write.
- `w1c`: read; hardware sets bits, and writing 1 clears them.
- `pulse`: write; hardware sees the value for one cycle, and it reads as 0.

A write of anything that a field does not take changes nothing, and is answered by SLVERR."""


_CONSTANTS = "What no register holds; macros of the C header have these names behind the table's."


def markdown(table):
    """A table of registers as Markdown: facts that no register holds, an overview, a section for each register.

    Parameters
    ----------
    table : :class:`~streamtrain.bus.registers.RegisterMap`

    Returns text without a title.
    """
    overview = [
        (f"{register.address:#05x}", f"[{register.name}](#{register.name.lower()})", register.doc)
        for register in table
    ]
    constants = [(f"`{one.name}`", str(one.value), one.doc) for one in table.constants]
    parts = [
        f"{table.doc}.",
        *([_CONSTANTS, _rows(("name", "value", "what it is"), constants)] if constants else ()),
        _INTRODUCTION,
        _rows(("address", "register", "what it is"), overview),
        *(part for register in table for part in _register(register)),
    ]
    return "\n\n".join(parts) + "\n"


def _register(register):
    """A heading, what there is to know, its fields, and values that have names."""
    notes = [register.doc]
    if register.external:
        notes.append("External: hardware answers each access, and may refuse it.")
    if register.captured_by:
        notes.append(f"Captured by {register.captured_by}.")
    if register.consumes:
        notes.append("A read takes what it gives.")
    fields = [
        (
            f"{field.low + field.bits - 1}:{field.low}",
            f"`{field.name}`",
            _access(field),
            f"{field.reset:#x}",
            f"{field.minimum} to {field.maximum}" if field.limited else "",
            field.doc,
        )
        for field in register.fields
    ]
    values = [
        (f"`{field.name}`", f"`{value.name}`", str(value.value), value.doc)
        for field in register.fields
        for value in field.values
    ]
    parts = [
        f"## {register.name}",
        f"Address {register.address:#05x}, reset {register.reset:#010x}. {' '.join(notes)}",
        _rows(("bits", "field", "access", "reset", "takes", "what it is"), fields),
    ]
    if values:
        parts.append(_rows(("field", "value", "number", "what it means"), values))
    return parts


def _access(field):
    marks = [field.access, *["constant"] * field.constant, *["signed"] * field.signed]
    return ", ".join(marks)


def _rows(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
