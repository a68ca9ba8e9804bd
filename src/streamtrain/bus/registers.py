"""Tables of registers: the one description that gates, documents and drivers are made from."""

from dataclasses import dataclass
from keyword import iskeyword
from operator import index

from streamtrain.records import Record

__all__ = ["ACCESS", "WORD_BITS", "WORD_BYTES", "Field", "Register", "RegisterMap", "Value"]

WORD_BITS = 32
"""Bits of a register, and of the bus."""

WORD_BYTES = WORD_BITS // 8
"""Between the addresses of two registers."""

ACCESS = ("ro", "rw", "w1c", "pulse")
"""What software may do with a field.

``"ro"``: read. ``"rw"``: read and write. ``"w1c"``: read; hardware sets its bits, and writing 1 clears
them. ``"pulse"``: write; hardware sees the value for one cycle, and it reads as 0.
"""


def _check_name(what, name, case):
    """Names become those of macros, ports and members; they differ by more than their case."""
    if not (name.isascii() and name.isidentifier() and name == case(name)) or iskeyword(name):
        raise ValueError(
            f"{what} {name!r} must be named by {'capitals' if case is str.upper else 'small letters'}, "
            f"digits and _, and be a name in C and Python"
        )


@dataclass(frozen=True)
class Value(Record):
    """A value that has a name: of a field, or a fact that no register holds.

    Parameters
    ----------
    name : :class:`str`
        In capitals.
    value : :class:`int`
    doc : :class:`str`
    """

    name: str
    value: int
    doc: str = ""

    def __post_init__(self):
        _check_name("Value", self.name, str.upper)
        object.__setattr__(self, "value", index(self.value))


@dataclass(frozen=True)
class Field(Record):
    """Some bits of a register.

    Parameters
    ----------
    name : :class:`str`
        In small letters.
    low : :class:`int`
        Its lowest bit.
    bits : :class:`int`
    doc : :class:`str`
    access : :class:`str`
        One of :data:`ACCESS`.
    reset : :class:`int`
        Value after reset.
    minimum, maximum : :class:`int`
        Values that software may write; all that there is room for if ``maximum`` is None.
    values : tuple of :class:`Value`
        Those that have names.
    constant : :class:`bool`
        Whether it always reads as ``reset``: a fact about the design.
    signed : :class:`bool`
        Whether it is a number in two's complement.

    Raises
    ------
    ValueError
        If it does not fit a register, or its values do not fit it.
    """

    name: str
    low: int
    bits: int
    doc: str
    access: str = "rw"
    reset: int = 0
    minimum: int = 0
    maximum: int | None = None
    values: tuple = ()
    constant: bool = False
    signed: bool = False

    def __post_init__(self):
        _check_name("Field", self.name, str.lower)
        for what in ("low", "bits", "reset", "minimum"):
            object.__setattr__(self, what, index(getattr(self, what)))
        if self.maximum is None:
            object.__setattr__(self, "maximum", (1 << self.bits) - 1)
        if not (self.low >= 0 and self.bits >= 1 and self.low + self.bits <= WORD_BITS):
            raise ValueError(
                f"Field {self.name!r} has bits {self.low} to {self.low + self.bits - 1}, but a register "
                f"has 0 to {WORD_BITS - 1}"
            )
        if self.access not in ACCESS:
            raise ValueError(
                f"Access of field {self.name!r} must be one of {', '.join(ACCESS)}, not {self.access!r}"
            )
        for what, value in (("reset", self.reset), *((v.name, v.value) for v in self.values)):
            if not 0 <= value < 1 << self.bits:
                raise ValueError(f"Field {self.name!r} has {self.bits} bits, but {what} is {value}")
        if not 0 <= self.minimum <= self.maximum < 1 << self.bits:
            raise ValueError(
                f"Field {self.name!r} has {self.bits} bits, but takes {self.minimum} to {self.maximum}"
            )
        if self.constant and self.access != "ro":
            raise ValueError(f"Field {self.name!r} is constant, but its access is {self.access!r}")
        if self.reset and (self.access == "pulse" or (self.access == "ro" and not self.constant)):
            raise ValueError(
                f"Field {self.name!r} keeps no value, but is to be {self.reset} after reset"
            )
        if len({value.name for value in self.values}) < len(self.values):
            raise ValueError(f"Two values of field {self.name!r} have the same name")

    @property
    def mask(self):
        """Its bits in the register."""
        return ((1 << self.bits) - 1) << self.low

    @property
    def limited(self):
        """Whether some values that it has room for are refused."""
        return self.minimum > 0 or self.maximum < (1 << self.bits) - 1


@dataclass(frozen=True)
class Register(Record):
    """A word of fields.

    Parameters
    ----------
    name : :class:`str`
        In capitals.
    address : :class:`int`
        In bytes.
    doc : :class:`str`
    fields : tuple of :class:`Field`
    external : :class:`bool`
        Whether each access goes to hardware that answers when it can, and may refuse: a window onto
        something else.
    captured_by : :class:`str`
        The register whose reading captures this one, for the upper half of a number that moves on;
        empty for most.
    consumes : :class:`bool`
        Whether a read takes what it gives, so that the next read gives something else.

    Raises
    ------
    ValueError
        If the address is no word's, or fields overlap or have the same name.
    """

    name: str
    address: int
    doc: str
    fields: tuple
    external: bool = False
    captured_by: str = ""
    consumes: bool = False

    def __post_init__(self):
        _check_name("Register", self.name, str.upper)
        object.__setattr__(self, "address", index(self.address))
        if self.address < 0 or self.address % WORD_BYTES:
            raise ValueError(
                f"Register {self.name} is at {self.address:#05x}, which is not a word's address"
            )
        used, names = 0, set()
        for field in self.fields:
            if field.name in names:
                raise ValueError(f"Register {self.name} has two fields {field.name!r}")
            names.add(field.name)
            if used & field.mask:
                raise ValueError(
                    f"Field {field.name!r} of register {self.name} overlaps another one"
                )
            used |= field.mask

    def __getitem__(self, name):
        """A field. Raises :exc:`KeyError` if there is none of this name."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(
            f"Register {self.name} has no field {name!r}; it has {', '.join(f.name for f in self.fields)}"
        )

    @property
    def reset(self):
        """The word after reset."""
        return sum(field.reset << field.low for field in self.fields)


@dataclass(frozen=True)
class RegisterMap(Record):
    """All registers of a component, in the order of their addresses.

    Parameters
    ----------
    name : :class:`str`
    doc : :class:`str`
    registers : tuple of :class:`Register`
    constants : tuple of :class:`Value`
        Facts that a driver needs and no register holds.

    Raises
    ------
    ValueError
        If there are no registers, if two have the same name or address, if fields of two become one name, or
        if one is captured by none that is there.
    """

    name: str
    doc: str
    registers: tuple
    constants: tuple = ()

    def __post_init__(self):
        _check_name("Register map", self.name, str.lower)
        if not self.registers:
            raise ValueError(f"Register map {self.name} has no register")
        names, addresses, ports = set(), set(), {}
        for register in self.registers:
            if register.name in names:
                raise ValueError(f"There are two registers {register.name}")
            if register.address in addresses:
                raise ValueError(f"There are two registers at {register.address:#05x}")
            names.add(register.name)
            addresses.add(register.address)
            for field in register.fields:
                other = ports.setdefault(f"{register.name}_{field.name}".upper(), register)
                if other is not register:
                    raise ValueError(
                        f"Field {field.name!r} of register {register.name} has the name of one of "
                        f"{other.name}: {register.name}_{field.name.upper()}"
                    )
        for register in self.registers:
            if register.captured_by and register.captured_by not in names:
                raise ValueError(
                    f"Register {register.name} is captured by {register.captured_by}, which is not there"
                )
        ordered = sorted(self.registers, key=lambda register: register.address)
        object.__setattr__(self, "registers", tuple(ordered))

    def __getitem__(self, name):
        """A register. Raises :exc:`KeyError` if there is none of this name."""
        for register in self.registers:
            if register.name == name:
                return register
        raise KeyError(f"There is no register {name!r}")

    def __contains__(self, name):
        return any(register.name == name for register in self.registers)

    def __iter__(self):
        return iter(self.registers)

    def fields(self):
        """``(register, field)`` of all fields."""
        return ((register, field) for register in self.registers for field in register.fields)

    @property
    def address_bits(self):
        """Bits of an address within the component: at least a page of memory, which drivers can map."""
        return max(12, (self.registers[-1].address + WORD_BYTES - 1).bit_length())
