"""A table of registers for Python on the board."""

__all__ = ["python_module"]

_HEAD = '''\
"""{doc}: registers. Made by streamtrain; changes belong into its table.

Needs nothing but Python, and something that reads and writes 32-bit words at byte offsets, such as
``pynq.MMIO(base, {size:#x})``::

    registers = Registers(mmio)
    registers.CONTROL(run=1, mode=2)  # fields to write; others keep their values
    registers.BATCH.samples = 4        # one field
    registers.STATUS.busy              # a field, read now
    int(registers.STATUS)              # the word
"""

from enum import IntEnum


class Field:
    """Some bits of a register: an attribute that reads and writes them.

    ``access`` is "ro" (read), "rw" (read and write), "w1c" (writing 1 clears) or "pulse" (reads as 0).
    """

    def __init__(
        self,
        low,
        bits,
        access,
        *,
        reset=0,
        minimum=0,
        maximum=None,
        values=None,
        constant=False,
        signed=False,
        doc="",
    ):
        self.low, self.bits, self.access, self.reset = low, bits, access, reset
        self.mask = ((1 << bits) - 1) << low
        self.minimum = minimum
        self.maximum = (1 << bits) - 1 if maximum is None else maximum
        self.values, self.constant, self.signed, self.__doc__ = values, constant, signed, doc

    def __set_name__(self, owner, name):
        self.name = name
        owner.FIELDS = {{**owner.__dict__.get("FIELDS", {{}}), name: self}}

    def __get__(self, register, owner=None):
        return self if register is None else self.value(int(register))

    def __set__(self, register, value):
        register(**{{self.name: value}})

    def value(self, word):
        """The field of a word."""
        value = (word & self.mask) >> self.low
        if self.signed and value >> self.bits - 1:
            value -= 1 << self.bits
        if self.values and value in self.values._value2member_map_:
            return self.values(value)
        return value

    def place(self, value):
        """A value at the place of the field."""
        code = int(value)
        if self.signed and -1 << self.bits - 1 <= code < 0:
            code += 1 << self.bits
        if not self.minimum <= code <= self.maximum:
            raise ValueError(
                f"{{self.name}} takes {{self.minimum}} to {{self.maximum}}, not {{value}}"
            )
        return code << self.low


class Register:
    """A word of fields."""

    ADDRESS = None
    RESET = 0
    EXTERNAL = False
    CAPTURED_BY = ""
    CONSUMES = False
    FIELDS = {{}}

    def __init__(self, mmio):
        self.__dict__["_mmio"] = mmio

    def __setattr__(self, name, value):
        if name not in self.FIELDS:
            raise AttributeError(
                f"{{type(self).__name__}} has no field {{name!r}}; it has {{', '.join(self.FIELDS)}}"
            )
        super().__setattr__(name, value)

    def __int__(self):
        return self._mmio.read(self.ADDRESS)

    def __call__(self, **fields):
        """Write fields. Of those not named, "rw" ones keep their values, save in external registers."""
        writable = [name for name, field in self.FIELDS.items() if field.access != "ro"]
        for name in fields:
            if name not in writable:
                raise AttributeError(
                    f"{{type(self).__name__}} has no field {{name!r}} to write; "
                    f"it has {{', '.join(writable) or 'none'}}"
                )
        kept = sum(
            field.mask
            for name, field in self.FIELDS.items()
            if field.access == "rw" and name not in fields
        )
        word = int(self) & kept if kept and not self.EXTERNAL else 0
        for name, value in fields.items():
            word |= self.FIELDS[name].place(value)
        self._mmio.write(self.ADDRESS, word)

    def __repr__(self):
        return f"{{type(self).__name__}} at {{self.ADDRESS:#05x}}"
'''

_FOOT = '''\


class Registers:
    """All registers, each an attribute."""

    ALL = ({names})

    def __init__(self, mmio):
        for register in Registers.ALL:
            self.__dict__[register.__name__] = register(mmio)

    def __setattr__(self, name, value):
        register = self.__dict__.get(name)
        if register is None:
            raise AttributeError(f"There is no register {{name!r}}; they are {{', '.join(self.__dict__)}}")
        raise AttributeError(
            f"{{name}} is a register: write a field of it, such as "
            f"{{name}}.{{next(iter(register.FIELDS))}} = ..., or several: {{name}}(...)"
        )
'''


def python_module(table):
    """A table of registers as a Python module that depends on nothing.

    It has a class for each register, whose attributes are its fields, and ``Registers``, which puts them
    on something that reads and writes words.

    Parameters
    ----------
    table : :class:`~streamtrain.bus.registers.RegisterMap`
    """
    parts = [_HEAD.format(doc=_text(table.doc), size=1 << table.address_bits)]
    parts += [_register(register) for register in table]
    names = "".join(f"\n        {register.name}," for register in table)
    parts.append(_FOOT.format(names=f"{names}\n    "))
    return "".join(parts)


def _register(register):
    lines = [
        "",
        "",
        f"class {register.name}(Register):",
        f'    """{_text(register.doc)}"""',
        "",
        f"    ADDRESS = {register.address:#05x}",
        f"    RESET = {register.reset:#010x}",
    ]
    if register.external:
        lines.append("    EXTERNAL = True")
    if register.captured_by:
        lines.append(f"    CAPTURED_BY = {register.captured_by!r}")
    if register.consumes:
        lines.append("    CONSUMES = True")
    for field in register.fields:
        lines += ["", *_field(field)]
    return "\n".join(lines) + "\n"


def _field(field):
    values = field.name.title().replace("_", "")
    if field.values:
        yield f"    class {values}(IntEnum):"
        for value in field.values:
            yield f"        {value.name} = {value.value}"
            if value.doc:
                yield f'        """{_text(value.doc)}"""'
        yield ""
    given = [f"{field.low}", f"{field.bits}", f'"{field.access}"']
    if field.reset:
        given.append(f"reset={field.reset:#x}")
    if field.limited:
        given.append(f"minimum={field.minimum}, maximum={field.maximum}")
    if field.values:
        given.append(f"values={values}")
    given += ["constant=True"] * field.constant + ["signed=True"] * field.signed
    given.append(f"doc={field.doc!r}")
    yield f"    {field.name} = Field({', '.join(given)})"


def _text(text):
    """Text between three quotation marks."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
