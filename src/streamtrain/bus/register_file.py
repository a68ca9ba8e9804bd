"""A table of registers in gates, behind AXI4-Lite."""

from functools import reduce
from operator import or_

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.bus.axi import OKAY, SLVERR, AxiLite
from streamtrain.bus.registers import WORD_BITS, WORD_BYTES

__all__ = ["RegisterFile"]


class _Access:
    """The access that is worked on."""

    def __init__(self, address_bits):
        self.word = Signal(address_bits - 2)  # its address, in words
        self.fresh, self.write = Signal(), Signal()  # it has just come; it is a write
        # From the next cycle on, until it is done. All that depends on the address alone is known then.
        self.reading, self.writing = Signal(), Signal()
        self.chosen = {}  # registers by name: whether it is theirs
        self.refused = Signal()  # there is no such register, or it cannot be written so
        self.data, self.mask = Signal(WORD_BITS), Signal(WORD_BITS)  # of a write
        self.partial = Signal()  # a write that leaves out a byte
        self.done, self.found = Signal(), Signal(WORD_BITS)  # its answer, in this cycle


class RegisterFile(wiring.Component):
    """The registers of a :class:`~streamtrain.bus.registers.RegisterMap`.

    A write changes all that it says or, answered by SLVERR, nothing: if there is no register, none of its
    fields can be written, a value is outside its field's limits, or an external register refuses. So is a
    read where there is no register, or an external one refuses. Bytes that a write does not strobe keep
    their value; they count as 0 for pulses and for bits that are cleared by 1; an external register wants
    all four.

    Parameters
    ----------
    table : :class:`~streamtrain.bus.registers.RegisterMap`

    Members
    -------
    bus : :py:`In(AxiLite(table.address_bits))`
    REGISTER_FIELD : of each field, in small letters
        ``"rw"``: :py:`Out(bits)`, its value. ``"ro"``: :py:`In(bits)`, its value, unless it is constant.
        ``"w1c"``: :py:`Out(bits)`, its value. ``"pulse"``: :py:`Out(bits)`, what is written, for a cycle.
    set_REGISTER_FIELD : :py:`In(bits)`
        Of each ``"w1c"`` field: bits to set. A bit that is set and cleared in the same cycle stays set.
    REGISTER_read, REGISTER_write, REGISTER_wdata : :py:`Out(1)`, :py:`Out(1)`, :py:`Out(32)`
        Of each external register: an access that waits, until ``done``.
    REGISTER_done, REGISTER_refused, REGISTER_rdata : :py:`In(1)`, :py:`In(1)`, :py:`In(32)`
        The answer.
    refused : :py:`Out(1)`
        An access was answered by SLVERR in this cycle.

    Timing
    ------
    One access at a time: four cycles from its address (and data) to its response, besides what an
    external register takes. Waiting reads and writes take turns.
    """

    def __init__(self, table):
        self.table = table
        members = {"bus": In(AxiLite(table.address_bits)), "refused": Out(1)}
        for register in table:
            name = register.name.lower()
            if register.external:
                members |= {
                    f"{name}_read": Out(1),
                    f"{name}_write": Out(1),
                    f"{name}_wdata": Out(WORD_BITS),
                    f"{name}_done": In(1),
                    f"{name}_refused": In(1),
                    f"{name}_rdata": In(WORD_BITS),
                }
                continue
            for field in register.fields:
                port = f"{name}_{field.name}"
                if field.access == "w1c":
                    members[f"set_{port}"] = In(field.bits)
                if field.access != "ro":
                    members[port] = Out(
                        field.bits, init=0 if field.access == "pulse" else field.reset
                    )
                elif not field.constant:
                    members[port] = In(field.bits)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        access = _Access(self.table.address_bits)
        self._transfer(m, access)
        known, wrong, found = [], [], []
        for register in self.table:
            name = register.name.lower()
            chosen, its = Signal(name=f"{name}_chosen"), Signal(name=f"{name}_addressed")
            m.d.comb += its.eq(access.word == register.address // WORD_BYTES)
            m.d.sync += chosen.eq(its)
            access.chosen[register.name] = chosen
            known.append(its)
            if not register.external:
                wrong.append(its & self._write(m, register, access))
        for register in self.table:
            value = self._value(m, register, access)
            found.append(Mux(access.chosen[register.name], value, 0))
        m.d.sync += [
            access.refused.eq(~Cat(known).any() | access.write & Cat(wrong).any()),
            access.partial.eq(access.write & ~access.mask.all()),
        ]
        m.d.comb += [
            access.found.eq(reduce(or_, found)),
            access.done.eq(1),
            self.refused.eq((access.reading | access.writing) & access.refused),
        ]
        for register in self.table:
            if register.external:
                self._ask(m, register, access)
        for register, field in self.table.fields():
            if field.access == "w1c":
                self._set_and_clear(m, register, field, access)
        return m

    def _transfer(self, m, access):
        """Take an access from the bus, and give its answer."""
        bus, write_next = self.bus, Signal()  # if both wait
        free = ~(access.fresh | access.reading | access.writing | bus.bvalid | bus.rvalid)
        asks_write = bus.awvalid & bus.wvalid
        take_write = free & asks_write & (write_next | ~bus.arvalid)
        take_read = free & bus.arvalid & ~(asks_write & write_next)
        m.d.comb += [
            bus.awready.eq(take_write),
            bus.wready.eq(take_write),
            bus.arready.eq(take_read),
        ]
        with m.If(take_write):
            m.d.sync += [
                access.word.eq(bus.awaddr[2:]),
                access.data.eq(bus.wdata),
                access.mask.eq(Cat(strobe.replicate(8) for strobe in bus.wstrb)),
                access.write.eq(1),
                write_next.eq(0),
            ]
        with m.If(take_read):
            m.d.sync += [access.word.eq(bus.araddr[2:]), access.write.eq(0), write_next.eq(1)]
        m.d.sync += access.fresh.eq(take_write | take_read)
        with m.If(access.fresh):
            m.d.sync += [access.reading.eq(~access.write), access.writing.eq(access.write)]

        response = Mux(self.refused, SLVERR, OKAY)
        with m.If(access.done & access.writing):
            m.d.sync += [access.writing.eq(0), bus.bvalid.eq(1), bus.bresp.eq(response)]
        with m.If(access.done & access.reading):
            m.d.sync += [access.reading.eq(0), bus.rvalid.eq(1), bus.rresp.eq(response)]
            m.d.sync += bus.rdata.eq(access.found)
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += bus.rvalid.eq(0)

    def _port(self, register, field, prefix=""):
        return getattr(self, f"{prefix}{register.name.lower()}_{field.name}")

    def _ask(self, m, register, access):
        """Let an external register answer."""
        name, chosen = register.name.lower(), access.chosen[register.name]
        done, refused = getattr(self, f"{name}_done"), getattr(self, f"{name}_refused")
        m.d.comb += [
            getattr(self, f"{name}_read").eq(access.reading & chosen),
            getattr(self, f"{name}_write").eq(access.writing & chosen & ~access.partial),
            getattr(self, f"{name}_wdata").eq(access.data),
        ]
        with m.If(chosen):
            m.d.comb += [
                access.done.eq(done | access.partial),
                self.refused.eq(
                    (access.reading | access.writing) & access.done & (refused | access.partial)
                ),
            ]

    def _write(self, m, register, access):
        """Write all fields of a register, or none. Returns whether none can be."""
        wrong, changes = [], []
        for field in register.fields:
            if field.access not in {"rw", "pulse"}:
                continue
            port = self._port(register, field)
            new = Signal(field.bits, name=f"new_{register.name.lower()}_{field.name}")
            bits = slice(field.low, field.low + field.bits)
            kept = port & ~access.mask[bits] if field.access == "rw" else 0
            m.d.comb += new.eq(access.data[bits] & access.mask[bits] | kept)
            if field.limited:
                wrong += [new < field.minimum, new > field.maximum]
            changes.append((m.d.sync if field.access == "rw" else m.d.comb, port.eq(new)))
        if all(field.access == "ro" for field in register.fields):
            wrong = [Const(1)]
        with m.If(access.writing & access.chosen[register.name] & ~access.refused):
            for domain, change in changes:
                domain += change
        return Cat(wrong).any() if wrong else Const(0)

    def _set_and_clear(self, m, register, field, access):
        port, cleared = self._port(register, field), Signal(field.bits)
        bits = slice(field.low, field.low + field.bits)
        with m.If(access.writing & access.chosen[register.name] & ~access.refused):
            m.d.comb += cleared.eq(access.data[bits] & access.mask[bits])
        m.d.sync += port.eq(port & ~cleared | self._port(register, field, "set_"))

    def _value(self, m, register, access):
        """What a register reads as: now, or when the one that captures it was read."""
        name = register.name.lower()
        if register.external:
            return Mux(getattr(self, f"{name}_refused"), 0, getattr(self, f"{name}_rdata"))
        word = Const(0, 0)
        for field in sorted(register.fields, key=lambda field: field.low):
            if field.constant or field.access == "pulse":
                value = Const(field.reset if field.constant else 0, field.bits)
            else:
                value = self._port(register, field)
            word = Cat(word, Const(0, field.low - len(word)), value)
        if not register.captured_by:
            return word
        captured = Signal(WORD_BITS, name=f"{name}_captured")
        with m.If(access.reading & access.chosen[register.captured_by]):
            m.d.sync += captured.eq(word)
        return captured
