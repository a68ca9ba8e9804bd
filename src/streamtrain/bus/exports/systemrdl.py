"""A table of registers for register tools: SystemRDL 2.0."""

import re

__all__ = ["systemrdl"]

_PROPERTIES = """\
property minimum { type = longint unsigned; component = field; };
property maximum { type = longint unsigned; component = field; };
property is_signed { type = boolean; component = field; };
property consumes { type = boolean; component = reg; };
property captured_by { type = string; component = reg; };
"""

_ACCESS = {
    "ro": ("sw = r;", "hw = w;"),
    "rw": ("sw = rw;", "hw = r;"),
    "w1c": ("sw = rw;", "hw = rw;", "stickybit;", "woclr;", "precedence = hw;"),
    "pulse": ("sw = w;", "hw = r;"),
}

_WORD = re.compile(
    r"abstract|accesstype|addressingtype|addrmap|alias|all|alternate|bit|boolean|bothedge|"
    r"byte|compact|component|componentwidth|constraint|default|encode|enum|external|false|"
    r"field|fullalign|hw|inside|int|internal|level|longint|mem|na|negedge|nonsticky|"
    r"number|onreadtype|onwritetype|posedge|precedencetype|property|r|rclr|real|ref|reg|"
    r"regalign|regfile|rset|ruser|rw|rw1|shortint|shortreal|signal|signed|string|struct|"
    r"sw|this|true|type|unsigned|w|w1|wclr|with|within|woclr|woset|wot|wr|wset|wuser|wzc|"
    r"wzs|wzt"
)


def systemrdl(table):
    """A table of registers as SystemRDL 2.0.

    What the language has no word for are properties of our own: limits of what a field takes
    (``minimum``, ``maximum``), ``is_signed``, ``consumes`` and ``captured_by``.

    Source: Accellera, SystemRDL 2.0 register description language.

    Parameters
    ----------
    table : :class:`~streamtrain.bus.registers.RegisterMap`
    """
    lines = [
        _PROPERTIES,
        f"addrmap {_name(table.name)} {{",
        f"    desc = {_text(table.doc)};",
        "    default regwidth = 32;",
        "    default accesswidth = 32;",
    ]
    for register in table:
        lines += ["", *_register(register)]
    return "\n".join([*lines, "};", ""])


def _register(register):
    for field in register.fields:
        if field.values:
            yield f"    enum {_enum(register, field)} {{"
            for value in field.values:
                desc = f" {{ desc = {_text(value.doc)}; }}" if value.doc else ""
                yield f"        {_name(value.name)} = {field.bits}'d{value.value}{desc};"
            yield "    };"
    yield "    reg {"
    yield f"        desc = {_text(register.doc)};"
    if register.captured_by:
        yield f"        captured_by = {_text(register.captured_by)};"
    if register.consumes:
        yield "        consumes = true;"
    for field in register.fields:
        yield from _field(register, field)
    kind = "external " if register.external else ""
    yield f"    }} {kind}{_name(register.name)} @ {register.address:#05x};"


def _field(register, field):
    access = ("sw = r;", "hw = na;") if field.constant else _ACCESS[field.access]
    if field.access == "pulse" and field.bits == 1:
        access += ("singlepulse;",)
    yield "        field {"
    yield f"            desc = {_text(field.doc)};"
    yield f"            {' '.join(access)}"
    if field.limited:
        yield f"            minimum = {field.minimum}; maximum = {field.maximum};"
    if field.signed:
        yield "            is_signed = true;"
    if field.values:
        yield f"            encode = {_enum(register, field)};"
    driven = field.access == "ro" and not field.constant
    reset = "" if driven else f" = {field.bits}'h{field.reset:x}"
    yield f"        }} {_name(field.name)}[{field.low + field.bits - 1}:{field.low}]{reset};"


def _enum(register, field):
    return f"{register.name}_{field.name}"


def _name(name):
    """A name, marked where the language has it as a word."""
    return f"\\{name}" if _WORD.fullmatch(name) else name


def _text(text):
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
