"""How many cycles a program takes: what each record costs in closed form, and who waits for whom.

Program fetch, loader, engine and storer each work off their own records in order. So the time at which a
record is done with is the largest of a few other times, plus what it costs: a recurrence over the records,
without a simulation.

====================  ======================================  ===========================================
record                costs                                   begins when
====================  ======================================  ===========================================
load                  its beats, or its words if those are    what it reads has been written; the beats
                      more                                    before it are in; a half of the buffer is free
compute, FP and BP    passes * max(pixels, spacing,           inputs and weights are there; a half of the
                      lanes + 6)                              sums is free
compute, WU           pixels * max(passes, spacing)           inputs and errors are there; a half of the
                                                              gradients is free
store                 its beats, or the sums that it reads    sums, or gradients, are complete
                      if those are more
store of channels     a cycle for each word in and out, and   registers and sums are there, and the store
                      ``max(lanes, 9) + 1`` for each          before it is through
                      operation
====================  ======================================  ===========================================
"""

from dataclasses import dataclass
from math import ceil

from streamtrain.golden.channels import PROGRAMS
from streamtrain.golden.passes import PARTIALS
from streamtrain.records import Record
from streamtrain.simulate.memory import MemoryTiming
from streamtrain.unified.array import MultiplyAccumulateArray
from streamtrain.unified.buffers import PLACES, READ_LATENCY
from streamtrain.unified.channels import program_cycles
from streamtrain.unified.loader import Target
from streamtrain.unified.outputs import ROOM
from streamtrain.unified.program import RECORD_BITS, Kind
from streamtrain.unified.softmax import softmax_cycles

__all__ = ["KernelTiming", "ProgramCycles"]

# Cycles from one part to the next, as their registers have it.
_READ = 8  # from a load's record to the address of its first burst, and from a beat to its buffer
_WRITE = 8  # from the last beat of a store to the address of its burst, and from its answer to `done`
_REQUESTED = 4  # loads whose requests may be out
_COMMANDS = 8  # records that wait for a part of the core
_BLOCK = 8  # records that are fetched at once
_READ_AHEAD = 256  # beats that the reader has room for
_BURST = 64  # beats of a burst


@dataclass(frozen=True)
class ProgramCycles(Record):
    """How long a program takes, and how busy each part is.

    Parameters
    ----------
    total : :class:`int`
        Cycles.
    compute, read, write : :class:`int`
        Cycles in which the array computes, and in which beats are read and written.
    """

    total: int
    compute: int
    read: int
    write: int

    @property
    def binds(self):
        """The part that is the busiest: ``"array"``, ``"reads"`` or ``"writes"``."""
        busy = {"array": self.compute, "reads": self.read, "writes": self.write}
        return max(busy, key=busy.get)


class _Halves:
    """A double buffer: when its halves were filled and emptied, one after the other."""

    def __init__(self):
        self.filled, self.emptied = [], []

    def free(self):
        """When the next half may be filled."""
        return self.emptied[len(self.filled) - 2] if len(self.filled) > 1 else 0

    def full(self):
        """When the next half is there to be used."""
        return self.filled[len(self.emptied)]


class KernelTiming:
    """The time that programs take on a core.

    Parameters
    ----------
    arithmetic : :class:`~streamtrain.numeric.Arithmetic`
    lanes, classes : :class:`int`
    data_bits : :class:`int`
        Of the memory.
    memory : :class:`~streamtrain.simulate.memory.MemoryTiming`
        How fast it is; random stalls are left out.
    """

    def __init__(self, arithmetic, lanes, classes, *, data_bits, memory=MemoryTiming()):
        self.lanes, self.data_bits, self.memory = lanes, data_bits, memory
        array = MultiplyAccumulateArray(arithmetic, 2)
        levels = (lanes - 1).bit_length()
        self.spacing = READ_LATENCY + array.add_latency + 1
        self.weights_time = lanes + READ_LATENCY + 4
        self.product = array.product_latency
        self.sum = array.product_latency + levels * array.add_latency
        self.narrow = arithmetic.narrow().latency
        largest = 2 * arithmetic.maximum().latency
        scaler, adder = arithmetic.scaler().latency, arithmetic.adder().latency
        self.add = adder
        self.updated = scaler + adder
        self.outputs = READ_LATENCY + self.narrow + largest + 4
        self.scored = softmax_cycles(arithmetic, classes)
        stored = {"train": 2 * PARTIALS * lanes}  # sums that are read then
        self.channels = [
            stored.get(name, 0) + program_cycles(program, lanes)
            for name, program in PROGRAMS.items()
        ]
        operands, accumulators = (
            lanes * fmt.width for fmt in (arithmetic.operand, arithmetic.accumulator)
        )
        self.vector = max(1, operands // data_bits)  # cycles that a vector takes to memory
        self.routes = max(1, PLACES * lanes // data_bits)
        self.block = lanes * accumulators // data_bits
        self.row = accumulators // data_bits

    def cycles(self, program):
        """The :class:`ProgramCycles` of a :class:`~streamtrain.unified.compiler.Program`."""
        return _Run(self, program).result


class _Run:
    """The recurrence over the records of one program."""

    def __init__(self, timing, program):
        self.timing, self.memory, self.records = timing, timing.memory, program.records
        names = ("x", "e", "weights", "sums", "gradients", "routes")
        self.halves = {name: _Halves() for name in names}
        self.issued = {kind: [] for kind in Kind}  # when each record was taken
        self.dispatched = []
        self.fetch_beats = RECORD_BITS // timing.data_bits
        self.unread = 0  # beats of records since the last load
        self.read_until, self.compute_until, self.write_until = 0, 0, 0
        self.updating = self.since_sum = 0
        self.loads = []  # (request, begin, end, beats of a chunk)
        self.writes = [(0, 0)]  # (requests, when they are done)
        self.store_ends = []
        self.busy = dict.fromkeys(("compute", "read", "write"), 0)
        self.weights_from = 0  # the array has room for the next pass's weights
        parts = {Kind.LOAD: self._load, Kind.COMPUTE: self._compute, Kind.STORE: self._store}
        for number, (kind, fields) in enumerate(program.records):
            at = self._dispatch(number, kind)
            self.unread += self.fetch_beats
            if kind is Kind.END:
                total = max(at, self._done(fields["writes"])) + 3
            else:
                self.issued[kind].append(parts[kind](number, at, fields))
        self.result = ProgramCycles(ceil(total), **{k: ceil(v) for k, v in self.busy.items()})

    def _dispatch(self, number, kind):
        """When a record leaves the fetch."""
        block, within = divmod(number, _BLOCK)
        request = self.dispatched[_BLOCK * (block - 1) - 1] if block > 1 else block
        comes = request + self.memory.read_latency + _READ
        if block > 1 and self.loads:  # behind what has been asked for
            asked, begin, end, chunk = self.loads[-1]
            if asked <= request:
                comes = max(comes, min(end, max(begin, request) + 2 * chunk))
        at = comes + (within + 1) * self.fetch_beats
        if number:
            at = max(at, self.dispatched[-1] + 1)
        mine = self.issued[kind]
        if len(mine) >= _COMMANDS:
            at = max(at, mine[-_COMMANDS])
        self.dispatched.append(at)
        return at

    def _done(self, writes):
        """When so many requests to write are done."""
        return next(when for count, when in self.writes if count >= writes)

    def _next_store(self, number):
        """Fields of the store that what is loaded is for."""
        return next(f for kind, f in self.records[number:] if kind is Kind.STORE)

    def _load(self, number, at, fields):
        timing, memory, halves = self.timing, self.memory, self.halves
        target, beats, chunks = fields["target"], fields["beats"], fields["chunks"]
        request = max(at + 1, self._done(fields["after"]))
        if self.issued[Kind.LOAD]:
            request = max(request, self.issued[Kind.LOAD][-1] + 1)
        if len(self.loads) >= _REQUESTED:
            request = max(request, self.loads[-_REQUESTED][2])
        cost = chunks * max(beats / memory.read_rate, fields["words"])
        begin = max(request + memory.read_latency + _READ, self.read_until + self.unread)
        self.unread = 0
        store = self._next_store(number) if target is Target.MASTERS else {}
        if store.get("normalize", 0):
            begin = max(begin, self.write_until)
            cost = max(cost, chunks * beats * timing.data_bits // 32)
        elif target is Target.MASTERS:
            blocks = chunks * beats // timing.block
            begin = max(begin, halves["gradients"].full() + READ_LATENCY + 1)
            cost = max(cost, chunks * beats / memory.write_rate) + 3 * max(1, blocks)
        else:
            name = _BUFFER[target]
            begin = max(begin, halves[name].free() + 1)
        end = self.read_until = begin + cost
        if fields["last"]:
            late = timing.narrow if name == "weights" else 0
            halves[name].filled.append(end + late + 1)
        self.busy["read"] += chunks * beats / memory.read_rate
        self.loads.append((request, begin, end, beats))
        return max(request + chunks, end - 2 * beats - _READ_AHEAD)

    def _compute(self, number, at, fields):
        timing, halves = self.timing, self.halves
        passes = fields["tiles"] * fields["taps_row"] * fields["taps_col"]
        pixels = fields["images"] * fields["rows"] * fields["cols"]
        update = fields.get("update", 0)
        begin = max(at + 3, self.compute_until, halves["x"].full() + 1)
        if update:
            begin = max(
                begin, halves["e"].full() + 1, halves["gradients"].free() + 1,
                self.since_sum + timing.sum - timing.product,
            )  # fmt: skip
            cost = pixels * max(passes, timing.spacing)
            last = 0
        else:
            comes = max(self.weights_from, halves["weights"].full(), at + 2) + timing.weights_time
            begin = max(begin, comes, halves["sums"].free() + 1)
            each = max(pixels, timing.spacing, timing.weights_time)
            cost, last = passes * each, each - pixels
            self.weights_from = begin + cost - each
        taken = max(at, self.compute_until if update else self.weights_from)
        end = self.compute_until = begin + cost - last
        if not update:
            self.since_sum = end
        for flag, name, when in (
            ("done_x", "x", 2), ("done_e", "e", 2), ("done_weights", "weights", 2 + timing.sum),
        ):  # fmt: skip
            if fields.get(flag, 0):
                halves[name].emptied.append(end + when)
        if fields.get("done", 0):
            latency = timing.product if update else timing.sum
            name = "gradients" if update else "sums"
            halves[name].filled.append(end + latency + timing.add + READ_LATENCY + 3)
        self.busy["compute"] += pixels * passes
        return taken

    def _store(self, number, at, fields):
        timing, halves = self.timing, self.halves
        rate = self.memory.write_rate
        taken = max(at, *self.store_ends[-2:-1]) if len(self.store_ends) > 1 else at
        if fields.get("normalize", 0):
            begin, beats = self.loads[-1][2], fields["beats"]
            end = begin + timing.channels[fields["channels"]["program"]]
            end += max(beats / rate, beats * timing.data_bits // 32)
        elif fields.get("update", 0) and fields["weights"].get("plain", 0):
            begin, beats = max(taken, halves["gradients"].full()), fields["chunks"] * fields["beats"]
            each = max(fields["weights"]["count"] * (READ_LATENCY + 1) + beats, beats / rate)
            end = max(self.write_until, begin) + timing.updated + each
            if fields["weights"]["done"]:
                halves["gradients"].emptied.append(end - timing.updated)
        elif fields.get("update", 0):
            # Old weights go through the update; they were the last that was loaded.
            begin, beats = self.loads[-1][1] + timing.updated + 2, fields["chunks"] * fields["beats"]
            end = max(self.write_until + beats / rate, self.loads[-1][2] + timing.updated + 2)
            if fields["weights"]["done"]:
                halves["gradients"].emptied.append(end - timing.updated)
        else:
            begin, end, beats = self._store_map(taken, fields)
        self.busy["write"] += beats / rate
        self.write_until = end
        self.store_ends.append(end)
        writes = self.writes[-1][0] + fields["chunks"] * (1 + ("routes_address" in fields))
        self.writes.append((writes, end + self.memory.write_latency + _WRITE))
        return taken

    def _store_map(self, at, fields):
        """When it begins and ends, and how many beats it writes."""
        timing, halves, rate = self.timing, self.halves, self.memory.write_rate
        outputs = fields["map"]
        vectors = outputs["images"] * outputs["rows"] * outputs["cols"]
        follows = (outputs.get("backward", 0) and outputs["routed"]) or outputs.get("scored", 0)
        merges = outputs["pool"] and not outputs.get("backward", 0)
        reads = vectors * (PLACES if merges else 1)
        begin = max(at + 3, self.read_sums, halves["sums"].full() + 1)
        if follows:
            begin = max(begin, halves["routes"].full() + 1)
        each = max(timing.vector / rate, timing.scored if outputs.get("scored", 0) else 0)
        out = max(self.write_until, begin + timing.outputs + (PLACES if merges else 0))
        values = max(out + vectors * each, begin + reads + timing.outputs)
        through = max(begin + reads, values - ROOM * each)
        self.read_sums = through
        if outputs.get("done", 0):
            halves["sums"].emptied.append(through + 1)
            if follows:
                halves["routes"].emptied.append(through + 1)
        beats = fields["chunks"] * fields["beats"]
        if "routes_address" in fields:
            routes = fields["chunks"] * fields["routes_beats"]
            beats += routes
            values += max(routes / rate, vectors)
        return begin, values, beats

    read_sums = 0


_BUFFER = {
    Target.X: "x", Target.GROUPS: "x", Target.E: "e", Target.WEIGHTS: "weights",
    Target.BIASES: "weights", Target.ROUTES: "routes",
}  # fmt: skip
