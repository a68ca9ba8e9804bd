"""A table of registers for debuggers: CMSIS-SVD."""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from streamtrain.bus.registers import WORD_BITS

__all__ = ["cmsis_svd"]

_ACCESS = {"ro": "read-only", "rw": "read-write", "w1c": "read-write", "pulse": "write-only"}


def cmsis_svd(table):
    """A table of registers as CMSIS-SVD, version 1.3: one peripheral at address 0.

    Source: Arm, CMSIS-SVD schema file 1.3.10. Order of the elements is the schema's.

    Parameters
    ----------
    table : :class:`~streamtrain.bus.registers.RegisterMap`
    """
    device = Element(
        "device",
        {
            "schemaVersion": "1.3",
            "xmlns:xs": "http://www.w3.org/2001/XMLSchema-instance",
            "xs:noNamespaceSchemaLocation": "CMSIS-SVD.xsd",
        },
    )
    _add(device, name=table.name, version="1", description=table.doc, addressUnitBits=8)
    _add(device, width=WORD_BITS, size=WORD_BITS, access="read-write")
    _add(device, resetValue="0x00000000", resetMask="0xffffffff")
    peripheral = SubElement(SubElement(device, "peripherals"), "peripheral")
    _add(peripheral, name=table.name, description=table.doc, baseAddress="0x00000000")
    block = SubElement(peripheral, "addressBlock")
    _add(block, offset="0x000", size=f"{1 << table.address_bits:#x}", usage="registers")
    registers = SubElement(peripheral, "registers")
    capturing = {register.captured_by for register in table}
    for register in table:
        _register(SubElement(registers, "register"), register, register.name in capturing)
    indent(device)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(device, encoding="unicode")}\n'


def _register(element, register, captures):
    read_only = all(field.access == "ro" for field in register.fields)
    _add(
        element,
        name=register.name,
        description=_described(register),
        addressOffset=f"{register.address:#05x}",
        size=WORD_BITS,
        access="read-only" if read_only else "read-write",
        resetValue=f"{register.reset:#010x}",
        resetMask="0x00000000" if register.consumes else "0xffffffff",
    )
    if any(field.signed and field.bits == WORD_BITS for field in register.fields):
        _add(element, dataType="int32_t")
    if register.consumes:
        _add(element, readAction="modify")
    elif captures:
        _add(element, readAction="modifyExternal")
    fields = SubElement(element, "fields")
    for field in register.fields:
        _field(SubElement(fields, "field"), field)


def _field(element, field):
    _add(
        element,
        name=field.name,
        description=field.doc,
        bitOffset=field.low,
        bitWidth=field.bits,
        access=_ACCESS[field.access],
    )
    if field.access == "w1c":
        _add(element, modifiedWriteValues="oneToClear")
    if field.limited:
        limits = SubElement(SubElement(element, "writeConstraint"), "range")
        _add(limits, minimum=field.minimum, maximum=field.maximum)
    if field.values:
        values = SubElement(element, "enumeratedValues")
        for value in field.values:
            named = SubElement(values, "enumeratedValue")
            _add(named, name=value.name, description=value.doc, value=value.value)


def _described(register):
    captured = f" Captured by {register.captured_by}." if register.captured_by else ""
    return f"{register.doc}{' An access may be refused.' if register.external else ''}{captured}"


def _add(element, **texts):
    for name, text in texts.items():
        if text != "":  # the schema wants no empty descriptions
            SubElement(element, name).text = str(text)
