"""Which part of a design each primitive of its flattened netlist belongs to.

A part is a submodule of the top module. Most primitives still know where they come from: memories
and multipliers by their names, registers and carry chains by the line of Verilog that they were
written in, and the register behind a memory by that memory. LUTs do not, because ABC makes them anew
from the logic of all parts. Each belongs where most of what it feeds does.
"""

import re
from bisect import bisect
from collections import Counter, defaultdict

__all__ = ["primitives_by_part"]

_MODULE = re.compile(r"^module \\?(\S+)", re.MULTILINE)
_FLATTENED = re.compile(r"\$flatten\\([^.\s]+)\.")
_LINE = re.compile(r"design\.v:(\d+)")
_LOGIC = re.compile(r"LUT\d|INV|MUXF\d|CARRY\d")
_OUTPUT = re.compile(r"(O|CO)(\[\d+\])?")  # of logic
_READ = re.compile(r"(DO[A-H]?|O|DPO|SPO)(\[\d+\])?")  # of LUT RAM


class _Logic:
    """A LUT or the like, whose part is not known yet.

    Parameters
    ----------
    kind : :class:`str`
        Name of the primitive.
    inputs : list of :class:`str`
        Nets.
    """

    __slots__ = ("inputs", "kind", "readers", "votes")  # there are hundreds of thousands

    def __init__(self, kind, inputs):
        self.kind = kind
        self.inputs = inputs
        self.readers = 0  # other logic that reads it and has no part yet
        self.votes = Counter()  # primitives that read it, by part


def primitives_by_part(blif, verilog, top):
    """Count the primitives of each part.

    Parameters
    ----------
    blif : iterable of :class:`str`
        Lines of the netlist, as ``write_blif -cname -attr`` of Yosys gives them.
    verilog : :class:`str`
        What it was made of, ``design.v`` for Yosys. A module that is named TOP.NAME, or
        TOP.NAME.OTHER, belongs to the part NAME.
    top : :class:`str`
        Name of the top module.

    Returns a dict of :class:`collections.Counter` by part; the part ``""`` is the top module's own
    logic, and whatever feeds no part.
    """
    parts, logic, aliases = defaultdict(Counter), {}, {}
    readers, memories, registers = Counter(), {}, []

    def place(kind, nets, part):
        parts[part][kind] += 1
        readers.update((net, part) for port, net in nets.items() if port != "Q")

    source = _Source(verilog, top)
    for kind, nets, name, lines in _primitives(blif, aliases):
        part = source.part(name, lines)
        if part is not None:
            place(kind, nets, part)
            if kind.startswith("RAM"):
                memories.update((net, part) for port, net in nets.items() if _READ.fullmatch(port))
        elif _LOGIC.fullmatch(kind):
            inputs = [net for port, net in nets.items() if not _OUTPUT.fullmatch(port)]
            one = _Logic(kind, inputs)
            logic.update((net, one) for port, net in nets.items() if _OUTPUT.fullmatch(port))
        else:
            registers.append((kind, nets))
    for kind, nets in registers:
        of_net = nets["Q"].partition(".")[0] if "." in nets.get("Q", "") else ""
        place(kind, nets, memories.get(nets.get("D"), of_net))

    def driver(net):
        while net in aliases:
            net = aliases[net]
        return logic.get(net)

    for (net, part), votes in readers.items():
        if found := driver(net):
            found.votes[part] += votes
    # From the outputs to the inputs: logic gets its part when all that it feeds have theirs.
    everything = set(logic.values())
    for one in everything:
        for net in one.inputs:
            if found := driver(net):
                found.readers += 1
    ready = [one for one in everything if not one.readers]
    while ready:
        one = ready.pop()
        part = min(one.votes, key=lambda name: (-one.votes[name], name), default="")
        parts[part][one.kind] += 1
        for net in one.inputs:
            if found := driver(net):
                found.votes[part] += 1
                found.readers -= 1
                if not found.readers:
                    ready.append(found)
    return dict(parts)


class _Source:
    """Where in the Verilog the parts are."""

    def __init__(self, verilog, top):
        self.begins, self.parts = [], []
        at, line = 0, 1
        for module in _MODULE.finditer(verilog):
            line += verilog.count("\n", at, module.start())
            at = module.start()
            path = module[1].split(".")
            self.begins.append(line)
            self.parts.append(path[1] if path[0] == top and len(path) > 1 else "")

    def part(self, name, lines):
        """The part of a primitive that is called so, from these lines; None if they do not tell."""
        if found := _FLATTENED.match(name):
            return found[1]
        if not name.startswith("$"):
            return name.partition(".")[0] if "." in name else ""
        if found := _LINE.search(lines):
            return self.parts[bisect(self.begins, int(found[1])) - 1]
        return None


def _primitives(blif, aliases):
    """(kind, net by port, name, lines) of each primitive; fills ``aliases`` with nets' other names."""
    kind = nets = name = lines = None
    before = ()
    for text in blif:
        word, _, rest = text.rstrip("\n").partition(" ")
        if word in {".subckt", ".names", ".end"} and kind is not None:
            yield kind, nets, name, lines
            kind = None
        if word == ".subckt":
            kind, *pins = rest.split()
            nets = dict(pin.split("=", 1) for pin in pins)
            name = lines = ""
        elif word == ".cname":
            name = rest
        elif word == ".attr" and rest.startswith("src "):
            lines = rest
        elif word == "1" and len(before) == 2:  # a buffer: another name of the same net
            aliases[before[1]] = before[0]
        before = rest.split() if word == ".names" else ()
