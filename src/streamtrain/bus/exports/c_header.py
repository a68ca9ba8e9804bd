"""A table of registers for C and C++."""

__all__ = ["c_header"]

_ACCESSORS = """\
/* A register, where the component is at `base`. The memory must not be cached. */
static inline uint32_t {name}_read(uintptr_t base, uint32_t offset)
{{
    return *(volatile const uint32_t *)(base + offset);
}}

static inline void {name}_write(uintptr_t base, uint32_t offset, uint32_t word)
{{
    *(volatile uint32_t *)(base + offset) = word;
}}

/* A number of 64 bits, such as {NAME}_READ_WIDE(base, LOSS): the upper half belongs to the lower. */
static inline uint64_t {name}_read_pair(uintptr_t base, uint32_t low, uint32_t high)
{{
    uint32_t lower = {name}_read(base, low);
    return (uint64_t){name}_read(base, high) << 32 | lower;
}}
#define {NAME}_READ_WIDE(base, reg) \\
    {name}_read_pair(base, {NAME}_##reg##_OFFSET, {NAME}_##reg##_HIGH_OFFSET)

/* A field of a word, and a value at a field's place: {NAME}_GET(word, STATUS_BUSY). */
#define {NAME}_GET(word, field) (((word) & {NAME}_##field##_MASK) >> {NAME}_##field##_SHIFT)
#define {NAME}_PUT(value, field) (((uint32_t)(value) << {NAME}_##field##_SHIFT) & {NAME}_##field##_MASK)
"""


def c_header(table):
    """A table of registers as a header for C99 and C++, without an operating system.

    Of each register, ``NAME_OFFSET`` and ``NAME_RESET_VALUE``; of each field, ``NAME_FIELD_SHIFT``,
    ``_MASK``, ``_RESET_VALUE`` and, if it does not take everything, ``_MIN`` and ``_MAX``. A constant is
    also there as ``NAME_FIELD``, and a value that has a name as ``NAME_FIELD_VALUE``; facts that no register
    holds have the names of the table's constants. All begin with the name of the table.

    Parameters
    ----------
    table : :class:`~streamtrain.bus.registers.RegisterMap`

    Raises
    ------
    ValueError
        If two macros would have the same name.
    """
    prefix = table.name.upper()
    guard = f"{prefix}_REGS_H"
    lines = [
        f"/* {_comment(table.doc)}: registers. Made by streamtrain; changes belong into its table. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
    ]
    macros = {value.name: "the table's constants" for value in table.constants}
    for value in table.constants:
        lines += [f"/* {_comment(value.doc)} */", f"#define {prefix}_{value.name} ({value.value})"]
    lines += [""] * bool(table.constants)
    for register in table:
        lines += [f"/* {register.name}: {_comment(register.doc)}{_kind(register)} */"]
        for comment, name, text in _register(register):
            if name in macros:
                raise ValueError(
                    f"Macro {prefix}_{name} would be of {macros[name]} and of {register.name}"
                )
            macros[name] = f"register {register.name}"
            lines += [f"/* {comment} */"] * bool(comment) + [f"#define {prefix}_{name} {text}"]
        lines.append("")
    accessors = _ACCESSORS.format(name=table.name, NAME=prefix)
    lines += [accessors, "#ifdef __cplusplus", "}", "#endif", "", f"#endif /* {guard} */"]
    return "\n".join(lines) + "\n"


def _register(register):
    """``(comment, name, text)`` of each macro."""
    yield "", f"{register.name}_OFFSET", f"{register.address:#05x}u"
    yield "", f"{register.name}_RESET_VALUE", f"{register.reset:#010x}u"
    for field in register.fields:
        name = f"{register.name}_{field.name.upper()}"
        marks = [field.access, *["constant"] * field.constant, *["signed"] * field.signed]
        yield (
            f"{field.name} ({', '.join(marks)}): {_comment(field.doc)}",
            f"{name}_SHIFT",
            f"{field.low}u",
        )
        yield "", f"{name}_MASK", f"{field.mask:#010x}u"
        yield "", f"{name}_RESET_VALUE", f"{field.reset:#x}u"
        if field.constant:
            yield "", name, f"{field.reset:#x}u"
        if field.limited:
            yield "", f"{name}_MIN", f"{field.minimum}u"
            yield "", f"{name}_MAX", f"{field.maximum}u"
        for value in field.values:
            yield _comment(value.doc), f"{name}_{value.name}", f"{value.value}u"


def _kind(register):
    parts = []
    if register.external:
        parts.append("External: an access may be refused.")
    if register.captured_by:
        parts.append(f"Captured by {register.captured_by}.")
    if register.consumes:
        parts.append("A read takes what it gives.")
    return "".join(f" {part}" for part in parts)


def _comment(text):
    """Text that ends no comment."""
    return text.replace("*/", "* /").replace("/*", "/ *")
