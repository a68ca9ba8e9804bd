"""Each export of a table, read back by a tool that knows nothing of the table."""

import re
import subprocess
from ctypes import c_long
from dataclasses import replace
from pathlib import Path
from random import Random

import cmsis_svd
import pytest
from amaranth.sim import Simulator
from axi_lite import ODD, TABLES, Master, digits_table
from cmsis_svd.parser import SVDParser
from lxml import etree
from systemrdl import RDLCompiler
from systemrdl.node import FieldNode
from systemrdl.rdltypes import AccessType, OnWriteType

from streamtrain.bus import Field, Register, RegisterMap, Value
from streamtrain.bus.axi import OKAY, SLVERR
from streamtrain.bus.exports import c_header, markdown, write_registers
from streamtrain.bus.register_file import RegisterFile
from streamtrain.unified.ip import unified_registers

PAGE = Path(__file__).parents[2] / "docs" / "registers.md"


def plain(table, lacks=()):
    """A table as dictionaries, without members that a format has no place for."""
    constants = {v.name: (v.value, "" if "doc" in lacks else v.doc) for v in table.constants}
    return ({} if "constants" in lacks else {"constants": constants}) | {
        register.name: {
            name: value
            for name, value in (
                ("address", register.address),
                ("reset", register.reset),
                ("doc", register.doc),
                ("external", register.external),
                ("captured_by", register.captured_by),
                ("consumes", register.consumes),
            )
            if name not in lacks
        }
        | {"fields": {field.name: plain_field(field, lacks) for field in register.fields}}
        for register in table
    }


def plain_field(field, lacks):
    values = {value.name: (value.value, value.doc) for value in field.values}
    members = {
        "low": field.low,
        "bits": field.bits,
        "doc": field.doc,
        "access": field.access,
        "reset": field.reset,
        "limits": (field.minimum, field.maximum) if field.access != "ro" else None,
        "values": {name: number for name, (number, _) in values.items()},
        "value docs": {name: doc for name, (_, doc) in values.items()},
        "constant": field.constant,
        "signed": field.signed,
    }
    return {name: value for name, value in members.items() if name not in lacks}


# -- Readers --------------------------------------------------------------------------------------


def read_markdown(table, folder):
    """By the rows of its tables."""
    path = write_registers(folder, table) / "registers.md"
    sections = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    *constants, (_, *overview) = cells(sections[0])
    own = [row for rows in constants for row in rows[1:]]
    held_by_none = {name.strip("`"): (int(value), doc) for name, value, doc in own}
    found = {}
    for section in sections[1:]:
        name, facts, *_ = (line for line in section.splitlines() if line)
        address, reset, notes = re.fullmatch(r"Address (\w+), reset (\w+)\. (.*)", facts).groups()
        notes, consumes = re.subn(r" A read takes what it gives\.$", "", notes)
        captured = re.search(r" Captured by (\w+)\.$", notes)
        notes = notes[: captured.start()] if captured else notes
        notes, external = re.subn(r" External: hardware answers .*$", "", notes)
        (_, *fields), *values = cells(section)
        found[name] = {
            "address": int(address, 0),
            "reset": int(reset, 0),
            "doc": notes,
            "external": bool(external),
            "captured_by": captured[1] if captured else "",
            "consumes": bool(consumes),
            "fields": {},
        }
        for place, field, access, at_reset, takes, doc in fields:
            high, low = (int(bit) for bit in place.split(":"))
            kind, *marks = access.split(", ")
            limits = tuple(int(limit) for limit in takes.split(" to ")) if takes else None
            own = [row[1:] for rows in values for row in rows[1:] if row[0] == field]
            found[name]["fields"][field.strip("`")] = {
                "low": low,
                "bits": high - low + 1,
                "doc": doc,
                "access": kind,
                "reset": int(at_reset, 0),
                "limits": limits_of(kind, limits, high - low + 1),
                "values": {value.strip("`"): int(number) for value, number, _ in own},
                "value docs": {value.strip("`"): meaning for value, _, meaning in own},
                "constant": "constant" in marks,
                "signed": "signed" in marks,
            }
    assert [(int(row[0], 0), row[1]) for row in overview] == [
        (register["address"], f"[{name}](#{name.lower()})") for name, register in found.items()
    ]
    return {"constants": held_by_none, **found}


def limits_of(access, limits, bits):
    """What a format says of limits; without a word of them, all values are taken."""
    if access == "ro":
        return None
    return limits or (0, (1 << bits) - 1)


def cells(text):
    """The tables of a text, as rows of cells; the first row has the headings."""
    tables = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            row = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            tables[-1].append(row)
        elif tables[-1]:
            tables.append([])
    return [[rows[0], *rows[2:]] for rows in tables if rows]


def read_c(table, folder):
    """By a program that prints all that the preprocessor knows."""
    header = write_registers(folder, table) / f"{table.name}_regs.h"
    defined = run_tool("gcc", "-E", "-dM", "-std=c99", "-x", "c", header)
    prefix = f"{table.name.upper()}_"
    names = re.findall(rf"^#define {prefix}(\w+) .", defined, re.MULTILINE)
    prints = "\n".join(f'printf("{name} %lu\\n", (unsigned long){prefix}{name});' for name in names)
    program = folder / "print.c"
    program.write_text(
        f'#include <stdio.h>\n#include "regs/{header.name}"\nint main(void) {{\n{prints}\nreturn 0; }}\n'
    )
    printed = compile_and_run(program, "gcc", "-std=c99")
    assert printed == compile_and_run(program, "g++", "-std=c++11", "-x", "c++")
    numbers = {
        name: int(number) for name, number in (line.split() for line in printed.splitlines())
    }
    facts = re.findall(rf"^#define {prefix}(\w+) \(-?\d+\)$", defined, re.MULTILINE)
    constants = {name: (c_long(numbers.pop(name)).value, "") for name in facts}
    found = {}
    registers = [name.removesuffix("_OFFSET") for name in numbers if name.endswith("_OFFSET")]
    for name in sorted(registers, key=lambda name: numbers[f"{name}_OFFSET"]):
        found[name] = {
            "address": numbers.pop(f"{name}_OFFSET"),
            "reset": numbers.pop(f"{name}_RESET_VALUE"),
            "fields": {},
        }
    masks = [name.removesuffix("_MASK") for name in numbers if name.endswith("_MASK")]
    for name in masks:
        register = max((name_ for name_ in found if name.startswith(f"{name_}_")), key=len)
        mask, low = numbers.pop(f"{name}_MASK"), numbers.pop(f"{name}_SHIFT")
        bits = (mask >> low).bit_length()
        assert mask == ((1 << bits) - 1) << low
        limits = tuple(numbers.pop(f"{name}_{end}", None) for end in ("MIN", "MAX"))
        field = found[register]["fields"][name.removeprefix(f"{register}_").lower()] = {
            "low": low,
            "bits": bits,
            "reset": numbers.pop(f"{name}_RESET_VALUE"),
            "limits": limits if limits != (None, None) else (0, (1 << bits) - 1),
            "constant": name in numbers,
            "values": {},
        }
        assert numbers.pop(name, field["reset"]) == field["reset"]
    for name in sorted(numbers, key=lambda name: numbers[name]):  # what is left are named values
        mask = max((mask for mask in masks if name.startswith(f"{mask}_")), key=len)
        register = max((name_ for name_ in found if mask.startswith(f"{name_}_")), key=len)
        field = found[register]["fields"][mask.removeprefix(f"{register}_").lower()]
        field["values"][name.removeprefix(f"{mask}_")] = numbers[name]
    return {"constants": constants, **found}


def compile_and_run(program, compiler, *options):
    strict = ("-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror")
    run_tool(compiler, *options, *strict, program, "-o", program.with_suffix(""))
    return run_tool(program.with_suffix(""))


def run_tool(*command):
    done = subprocess.run(map(str, command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python_names(table, folder):
    path = write_registers(folder, table) / f"{table.name}_regs.py"
    names = {"__name__": path.stem}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    return names


def read_python(table, folder):
    """By its classes."""
    names = python_names(table, folder)
    return {
        register.__name__: {
            "address": register.ADDRESS,
            "reset": register.RESET,
            "doc": register.__doc__,
            "external": register.EXTERNAL,
            "captured_by": register.CAPTURED_BY,
            "consumes": register.CONSUMES,
            "fields": {
                name: {
                    "low": field.low,
                    "bits": field.bits,
                    "doc": field.__doc__,
                    "access": field.access,
                    "reset": field.reset,
                    "limits": limits_of(field.access, (field.minimum, field.maximum), field.bits),
                    "values": {value.name: value.value for value in field.values or ()},
                    "constant": field.constant,
                    "signed": field.signed,
                }
                for name, field in register.FIELDS.items()
            },
        }
        for register in names["Registers"].ALL
    }


def read_svd(table, folder):
    """By the schema, and by a parser."""
    path = write_registers(folder, table) / f"{table.name}.svd"
    schema = Path(cmsis_svd.__file__).parent / "schemas" / "CMSIS-SVD_1_3_10.xsd"
    document = etree.parse(str(path))
    etree.XMLSchema(etree.parse(str(schema))).assertValid(document)
    # The parser takes them for booleans.
    ranges = {
        tuple(limits.xpath("ancestor::*[name()='register' or name()='field']/name/text()")): tuple(
            int(limits.findtext(end)) for end in ("minimum", "maximum")
        )
        for limits in document.iter("range")
    }
    (peripheral,) = SVDParser.for_xml_file(str(path)).get_device().peripherals
    (block,) = peripheral.address_blocks
    found = {}
    for register in peripheral.registers:
        assert register.address_offset < block.size
        fields = {}
        for field in register.fields:
            access = {"read-only": "ro", "read-write": "rw", "write-only": "pulse"}[
                field.access.value
            ]
            if field.modified_write_values:
                assert field.modified_write_values.value == "oneToClear" and access == "rw"
                access = "w1c"
            limits = ranges.pop((register.name, field.name), None)
            (values,) = field.enumerated_values or [None]
            values = values.enumerated_values if values else []
            fields[field.name] = {
                "low": field.bit_offset,
                "bits": field.bit_width,
                "doc": field.description or "",
                "access": access,
                "reset": register.reset_value >> field.bit_offset & ((1 << field.bit_width) - 1),
                "limits": limits_of(access, limits, field.bit_width),
                "values": {value.name: value.value for value in values},
                "value docs": {value.name: value.description or "" for value in values},
            }
        assert (register.access.value == "read-only") == all(
            field["access"] == "ro" for field in fields.values()
        )
        found[register.name] = {
            "address": register.address_offset,
            "reset": register.reset_value,
            "doc": re.sub(
                r"( An access may be refused\.)?( Captured by \w+\.)?$", "", register.description
            ),
            "consumes": register.read_action is not None and register.read_action.value == "modify",
            "fields": fields,
        }
    assert not ranges
    return found


def read_rdl(table, folder):
    """By the compiler that PeakRDL's tools are built on."""
    path = write_registers(folder, table) / f"{table.name}.rdl"
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    top = compiler.elaborate().top
    assert top.get_property("desc") == table.doc
    found = {}
    for register in top.registers():
        assert register.get_property("regwidth") == 32
        resets = {}
        fields = {}
        for field in register.fields():
            access = rdl_access(field)
            resets[field.low] = field.get_property("reset", default=0)
            encode = field.get_property("encode")
            limits = tuple(field.get_property(f"{end}imum", default=None) for end in ("min", "max"))
            fields[field.inst_name] = {
                "low": field.low,
                "bits": field.width,
                "doc": field.get_property("desc", default=""),
                "access": access,
                "reset": resets[field.low],
                "limits": limits_of(access, limits if None not in limits else None, field.width),
                "values": {value.name: value.value for value in encode or ()},
                "value docs": {value.name: value.rdl_desc or "" for value in encode or ()},
                "constant": field.get_property("hw") == AccessType.na,
                "signed": field.get_property("is_signed", default=False),
            }
        found[register.inst_name] = {
            "address": register.absolute_address,
            "reset": sum(reset << low for low, reset in resets.items()),
            "doc": register.get_property("desc"),
            "external": register.external,
            "captured_by": register.get_property("captured_by", default=""),
            "consumes": register.get_property("consumes", default=False),
            "fields": fields,
        }
    return found


def rdl_access(field):
    assert isinstance(field, FieldNode)
    pulse = field.get_property("singlepulse")
    if field.get_property("onwrite") == OnWriteType.woclr:
        assert field.get_property("stickybit") and field.get_property("precedence").name == "hw"
        return "w1c"
    access = {AccessType.r: "ro", AccessType.rw: "rw", AccessType.w: "pulse"}[
        field.get_property("sw")
    ]
    assert pulse == (access == "pulse" and field.width == 1)
    return access


READERS = {
    "markdown": (read_markdown, ()),
    "C": (
        read_c,
        ("doc", "value docs", "external", "captured_by", "consumes", "access", "signed"),
    ),
    "Python": (read_python, ("value docs", "constants")),
    "SVD": (read_svd, ("constants", "external", "captured_by", "constant", "signed")),
    "RDL": (read_rdl, ("constants",)),
}


def expected(table, reader):
    _, lacks = READERS[reader]
    found = plain(table, lacks)
    if reader == "C":  # a fact has no limits there either, but C does not know what is one
        for register in table:
            for field in register.fields:
                limits = (field.minimum, field.maximum)
                found[register.name]["fields"][field.name]["limits"] = limits
    return found


@pytest.mark.parametrize("reader", READERS)
def test_the_registers_of_the_unified_core_are_read_back(reader, tmp_path):
    (read, _), table = READERS[reader], unified_registers("a core of 4 lanes")
    assert read(table, tmp_path) == expected(table, reader)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", TABLES)
def test_exports_read_back_as_the_table(name, reader, tmp_path):
    read, _ = READERS[reader]
    assert read(TABLES[name], tmp_path) == expected(TABLES[name], reader)


# -- Gates ----------------------------------------------------------------------------------------


FLIP = (None, None)
"""Invert what hardware gives, in place of an access."""


def probes(table):
    """Accesses that tell tables apart: ``(address, word or None)``."""
    addresses = [register.address for register in table]
    holes = [address + 4 for address in addresses if address + 4 not in addresses]
    draw = Random(1)
    for address in reversed(addresses):  # what is captured, before it is
        yield address, None
    for address in [*addresses, *holes]:
        words = [0, 0xFFFFFFFF, *(1 << bit for bit in range(32)), draw.getrandbits(32)]
        for register in table:
            if register.address == address:
                words += limit_words(register)
        for word in words:
            yield address, word
            yield address, None
    yield FLIP
    for address in addresses:
        yield address, None


def limit_words(register):
    """Words at, below and above each field's limits, the other fields at their reset values."""
    for field in register.fields:
        for value in (field.minimum, field.minimum - 1, field.maximum, field.maximum + 1):
            if 0 <= value < 1 << field.bits:
                yield register.reset & ~field.mask | value << field.low


def given(register, field=None, flipped=False):
    """What hardware gives to a field, or of an external register."""
    bits = Random(f"{register.name} {field and field.low}").getrandbits(32)
    bits = bits ^ 0xFFFFFFFF if flipped else bits
    return bits if field is None else bits & (field.mask >> field.low)


def ask_gates(table, accesses):
    """Answers of the gates of a table."""
    dut = RegisterFile(table)
    answers = []

    def give(ctx, flipped):
        for register in table:
            name = register.name.lower()
            if register.external:
                ctx.set(getattr(dut, f"{name}_rdata"), given(register, None, flipped))
                continue
            for field in register.fields:
                if field.access == "ro" and not field.constant:
                    ctx.set(getattr(dut, f"{name}_{field.name}"), given(register, field, flipped))

    async def bench(ctx):
        for register in table:
            if register.external:
                ctx.set(getattr(dut, f"{register.name.lower()}_done"), 1)
        give(ctx, flipped=False)
        master = Master(ctx, dut.bus)
        for address, word in accesses:
            if address is None:
                give(ctx, flipped=True)
                answers.append(None)
            elif word is None:
                answers.append(await master.read(address))
            else:
                answers.append(await master.write(address, word))

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return answers


def ask_model(table, accesses):
    """The same by a table alone."""
    state = {register.name: register.reset for register in table}
    captured, answers, flipped = {}, [], False
    at = {register.address: register for register in table}
    for address, word in accesses:
        register = at.get(address)
        if address is None:
            flipped = True
            answers.append(None)
        elif register is None:
            answers.append((SLVERR, 0) if word is None else SLVERR)
        elif register.external:
            answers.append((OKAY, given(register, None, flipped)) if word is None else OKAY)
        elif word is None:
            for other in table:
                if other.captured_by == register.name:
                    captured[other.name] = reading(other, state, flipped)
            now = reading(register, state, flipped)
            answers.append((OKAY, captured.get(register.name, 0) if register.captured_by else now))
        else:
            answers.append(written(register, state, word))
    return answers


def reading(register, state, flipped):
    word = 0
    for field in register.fields:
        if field.access == "ro" and not field.constant:
            word |= given(register, field, flipped) << field.low
        elif field.access != "pulse":
            word |= state[register.name] & field.mask
    return word


def written(register, state, word):
    writable = [field for field in register.fields if field.access != "ro"]
    for field in writable:
        value = (word & field.mask) >> field.low
        if field.access != "w1c" and not field.minimum <= value <= field.maximum:
            return SLVERR
    if not writable:
        return SLVERR
    for field in writable:
        if field.access == "w1c":
            state[register.name] &= ~(word & field.mask)
        elif field.access == "rw":
            state[register.name] = state[register.name] & ~field.mask | word & field.mask
    return OKAY


@pytest.mark.parametrize("name", TABLES)
def test_gates_answer_as_the_table_says(name):
    accesses = list(probes(TABLES[name]))
    answers = ask_gates(TABLES[name], accesses)
    for access, answer, right in zip(
        accesses, answers, ask_model(TABLES[name], accesses), strict=True
    ):
        assert answer == right, access


# -- Planted errors -------------------------------------------------------------------------------


def change(table, name, /, **members):
    """A table whose register ``name`` is another one."""
    registers = [replace(r, **members) if r.name == name else r for r in table]
    return replace(table, registers=tuple(registers))


def change_field(table, name, field, /, **members):
    fields = [replace(f, **members) if f.name == field else f for f in table[name].fields]
    return change(table, name, fields=tuple(fields))


EXTRA = Register("EXTRA", 0x20, "One more.", (Field("it", 0, 8, "Eight bits."),))

PLANTED = {
    "address": lambda t: change(t, "REG", address=0x1FF8),
    "register's name": lambda t: change(t, "REG", name="REGS"),
    "one register more": lambda t: replace(t, registers=(*t.registers, EXTRA)),
    "one register less": lambda t: replace(t, registers=t.registers[:-1]),
    "external": lambda t: change(t, "PORT", external=False),
    "captured_by": lambda t: change(t, "SAW_HIGH", captured_by=""),
    "consumes": lambda t: change(t, "PORT", consumes=False),
    "doc": lambda t: change(t, "PORT", doc="A gate."),
    "field's name": lambda t: change_field(t, "REG", "signal", name="wire"),
    "low": lambda t: change_field(t, "REG", "signal", low=4),
    "bits": lambda t: change_field(t, "MIXED", "seen", bits=5, maximum=None),
    "access": lambda t: change_field(t, "MIXED", "kept", access="w1c"),
    "pulse": lambda t: change_field(t, "MIXED", "pulses", access="rw"),
    "reset": lambda t: change_field(t, "MIXED", "kept", reset=8),
    "constant's value": lambda t: change_field(t, "MIXED", "fact", reset=4),
    "constant": lambda t: change_field(t, "MIXED", "fact", constant=False, reset=0),
    "minimum": lambda t: change_field(t, "MIXED", "number", minimum=1),
    "maximum": lambda t: change_field(t, "MIXED", "number", maximum=13),
    "signed": lambda t: change_field(t, "PORT", "code", signed=False),
    "value": lambda t: change_field(
        t, "MIXED", "number", values=(Value("FEW", 3, "Not many."), Value("MANY", 12))
    ),
    "value's name": lambda t: change_field(
        t, "MIXED", "number", values=(Value("SOME", 2, "Not many."), Value("MANY", 12))
    ),
    "fact that no register holds": lambda t: replace(t, constants=(Value("BYTES", -2, "Of it."),)),
}

UNSEEN = {
    "Python": {"fact that no register holds"},
    "RDL": {"fact that no register holds"},
    "C": {"external", "captured_by", "consumes", "doc", "access", "pulse", "signed"},
    "SVD": {"external", "captured_by", "signed", "fact that no register holds"},
    "gates": {
        "register's name",
        "consumes",
        "doc",
        "field's name",
        "signed",
        "value",
        "value's name",
        "fact that no register holds",
    },
}
"""Planted errors in what a format has no place for."""


@pytest.fixture(scope="module")
def odd_exports(tmp_path_factory):
    """What the exports of ``ODD`` say, and its gates."""
    found = {
        reader: read(ODD, tmp_path_factory.mktemp("odd")) for reader, (read, _) in READERS.items()
    }
    accesses = list(probes(ODD))
    accesses += [(address, None) for address in (EXTRA.address, 0x1FF8)]
    return found | {"gates": (accesses, ask_gates(ODD, accesses))}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("reader", [*READERS, "gates"])
def test_a_changed_table_is_told_from_what_was_exported(reader, planted, odd_exports):
    changed = PLANTED[planted](ODD)
    if reader == "gates":
        accesses, answers = odd_exports["gates"]
        same = answers == ask_model(changed, accesses)
    else:
        same = odd_exports[reader] == expected(changed, reader)
    assert same == (planted in UNSEEN.get(reader, ()))


# -- What users do with them ----------------------------------------------------------------------


def test_same_table_same_bytes(tmp_path):
    folders = [write_registers(tmp_path / str(n), digits_table()) for n in range(2)]
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]
    assert sorted(files[0]) == [
        "registers.md",
        "streamtrain.rdl",
        "streamtrain.svd",
        "streamtrain_regs.h",
        "streamtrain_regs.py",
    ]


def test_c_accessors_reach_fields(tmp_path):
    write_registers(tmp_path, digits_table())
    program = tmp_path / "use.c"
    program.write_text("""
#include <stdio.h>
#include "regs/streamtrain_regs.h"

int main(void)
{
    static uint32_t words[1024];
    uintptr_t base = (uintptr_t)words;
    words[STREAMTRAIN_LOSS_OFFSET / 4] = 0x89abcdefu;
    words[STREAMTRAIN_LOSS_HIGH_OFFSET / 4] = 0x01234567u;
    streamtrain_write(base, STREAMTRAIN_CONTROL_OFFSET,
        STREAMTRAIN_PUT(1, CONTROL_RUN) | STREAMTRAIN_PUT(STREAMTRAIN_CONTROL_MODE_TRAIN, CONTROL_MODE));
    printf("%lx %lx %llx %lu\\n",
        (unsigned long)words[STREAMTRAIN_CONTROL_OFFSET / 4],
        (unsigned long)STREAMTRAIN_GET(
            streamtrain_read(base, STREAMTRAIN_CONTROL_OFFSET), CONTROL_MODE),
        (unsigned long long)STREAMTRAIN_READ_WIDE(base, LOSS),
        (unsigned long)STREAMTRAIN_SHAPE_CLASSES);
    return 0;
}
""")
    strict = ("gcc", "-std=c99", "-Wno-long-long")
    assert compile_and_run(program, *strict) == "5 2 123456789abcdef 10\n"
    strict = ("g++", "-std=c++11", "-x", "c++")
    assert compile_and_run(program, *strict) == "5 2 123456789abcdef 10\n"


class Words(dict):
    """Memory-mapped words, as pynq.MMIO has them."""

    def read(self, offset):
        return self[offset]

    def write(self, offset, word):
        self[offset] = word


def test_python_attributes_read_and_write(tmp_path):
    names = python_names(digits_table(), tmp_path)
    words = Words({0x020: 0, 0x024: 0b1001, 0x028: 0b11, 0x030: 1, 0x0C4: 0xFFFFFFFE})
    registers = names["Registers"](words)
    assert (registers.STATUS.busy, registers.STATUS.receiving, registers.STATUS.window_open) == (
        1,
        0,
        1,
    )
    assert int(registers.STATUS) == 0b1001
    registers.CONTROL(run=1, mode=names["CONTROL"].Mode.TRAIN)
    assert words[0x020] == 0b101
    assert registers.CONTROL.mode is names["CONTROL"].Mode.TRAIN
    registers.CONTROL.reset = 1  # what is kept stays
    assert words[0x020] == 0x105
    registers.EVENTS.long = 1  # the other events are not cleared
    assert words[0x028] == 0b10
    registers.WINDOW(layer=1, target=0, write=1)
    assert words[0x0C0] == 1 << 16 | 1
    assert registers.WINDOW_DATA.number == -2
    registers.WINDOW_DATA.number = -3
    assert words[0x0C4] == 0xFFFFFFFD
    registers.PACKET.samples = 65535
    with pytest.raises(ValueError, match=r"^samples takes 1 to 65535, not 0$"):
        registers.PACKET.samples = 0
    with pytest.raises(AttributeError, match=r"^STATUS has no field 'busy' to write; it has none$"):
        registers.STATUS.busy = 1
    with pytest.raises(
        AttributeError, match=r"^CONTROL has no field 'go' to write; it has run, mode"
    ):
        registers.CONTROL(go=1)
    assert words[0x030] == 65535
    with pytest.raises(
        AttributeError,
        match=r"^PACKET is a register: write a field of it, such as PACKET.samples = ",
    ):
        registers.PACKET = 4
    with pytest.raises(AttributeError, match=r"^PACKET has no field 'sampels'; it has samples$"):
        registers.PACKET.sampels = 4
    with pytest.raises(AttributeError, match=r"^There is no register 'PACKETS'; they are ID, "):
        registers.PACKETS = 4
    assert words[0x030] == 65535


def test_python_module_needs_nothing(tmp_path):
    path = write_registers(tmp_path, digits_table()) / "streamtrain_regs.py"
    imports = re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
    assert imports == ["enum"]


def test_refuses_macros_of_the_same_name():
    fields = (Field("it", 0, 2, "", values=(Value("MASK", 1),)),)
    table = RegisterMap("bad", "", (Register("REG", 0, "", fields),))
    with pytest.raises(
        ValueError, match=r"^Macro BAD_REG_IT_MASK would be of register REG and of REG$"
    ):
        c_header(table)


def test_the_page_has_the_registers_of_the_digits_design():
    page = PAGE.read_text(encoding="utf-8")
    shown = page.partition("<!-- registers -->\n")[2].partition("<!-- /registers -->")[0]
    text = markdown(digits_table())
    assert shown == text, f"docs/registers.md should have\n{text}"
