# amaranth: UnusedElaboratable=no
# The array is made to be asked for its latencies only.

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

from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass
from itertools import islice
from math import ceil

from streamtrain.bus.memory import BURST, OUTSTANDING
from streamtrain.golden.channels import PROGRAMS
from streamtrain.golden.passes import PARTIALS
from streamtrain.records import Record
from streamtrain.simulate.memory import MemoryTiming
from streamtrain.unified.array import MultiplyAccumulateArray
from streamtrain.unified.buffers import PLACES, READ_LATENCY
from streamtrain.unified.channels import program_cycles
from streamtrain.unified.loader import BUFFER, REQUESTED, Target
from streamtrain.unified.outputs import ROOM
from streamtrain.unified.program import BLOCK, COMMANDS, RECORD_BITS, Kind
from streamtrain.unified.softmax import softmax_cycles

__all__ = ["KernelTiming", "ProgramCycles"]

# Cycles from one part to the next, as their registers have it.
_READ = 8  # from a load's record to the address of its first burst, and from a beat to its buffer
_WRITE = 4  # from a burst's last beat to its address, and from its answer to `done`
_BEGIN = 3  # from the start of a program to the address of its first block
_ROOM = OUTSTANDING * BURST  # beats that the reader has room for
_SLOT = 2  # from a burst's end to the address of the one that takes its place


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


@dataclass
class _Load:
    """When a load was asked for, and when its beats came."""

    asked: float
    begin: float
    end: float
    chunks: int
    beats: int

    def taken(self):
        """When the reader may take the next request: all but a few bursts of this one are there."""
        bursts = self.chunks * -(-self.beats // BURST)
        return self.end - min(1, (OUTSTANDING + 1) / bursts) * (self.end - self.begin)


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

    def __init__(self, arithmetic, lanes, classes, *, data_bits, memory=None):
        self.lanes, self.data_bits, self.memory = lanes, data_bits, memory or MemoryTiming()
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
        self.scored = softmax_cycles(arithmetic, lanes, classes) / -(-classes // lanes)
        stored = {"train": 2 * PARTIALS * lanes}  # sums that are read then
        self.channels = [
            stored.get(name, 0) + program_cycles(program, lanes)
            for name, program in PROGRAMS.items()
        ]
        operands, accumulators = (
            lanes * fmt.width for fmt in (arithmetic.operand, arithmetic.accumulator)
        )
        self.vector = -(-operands // data_bits)  # cycles that a vector takes to memory
        self.block = lanes * accumulators // data_bits

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
        self.dispatched = 0
        self.fetch_beats = RECORD_BITS // timing.data_bits
        self.read_until, self.compute_until, self.write_until = 0, 0, 0
        self.read_sums = self.since_sum = 0
        self.loads = []
        self.beats_ahead = 0  # beats of the next load that the reader has
        self.bursts = deque([0] * OUTSTANDING, OUTSTANDING)  # when the last ones were there
        self.blocks = []  # when the last beat of each block of records comes
        self.writes, self.written = [0], [0]  # requests, and when they are done
        self.store_ends = []
        self.busy = dict.fromkeys(("compute", "read", "write"), 0)
        self.weights_from = 0  # the array has room for the next pass's weights
        self.waiting = []  # blocks that have been asked for, and since when
        parts = {Kind.LOAD: self._load, Kind.COMPUTE: self._compute, Kind.STORE: self._store}
        for request in (_BEGIN, _BEGIN + 1):
            self._fetch(request)
        blocks = [program.records[n : n + BLOCK] for n in range(0, len(program.records), BLOCK)]
        self.ahead = Counter()  # records of each kind that were dispatched, and are not worked off yet
        times, total = self._dispatch(blocks, 0), 0
        for number, block in enumerate(blocks):
            following = self._dispatch(blocks, number + 1)
            for place, (at, (kind, fields)) in enumerate(zip(times, block, strict=True)):
                if kind is Kind.END:
                    total = max(at, self._done(fields["writes"]))
                elif kind in parts:
                    record = number * BLOCK + place
                    self.issued[kind].append(parts[kind](record, at, fields))
                self.ahead[kind] -= 1
            while self.waiting:
                load, request = self.loads[-1], self.waiting.pop(0)
                # It comes in between the chunks of what is loaded.
                self._fetch(request, min(load.end, max(load.begin, request) + 2 * load.beats))
            times = following
        # What was fetched behind the end is dropped.
        rest = len(program.records) % BLOCK
        total += 1 + BLOCK - rest + (BLOCK if rest else 0)
        self.result = ProgramCycles(ceil(total), **{k: ceil(v) for k, v in self.busy.items()})

    def _dispatch(self, blocks, number):
        """When the records of a block leave the fetch. There is room for another one then."""
        if number == len(blocks):
            return []
        times = []
        there = self.blocks[number] - BLOCK * self.fetch_beats + 2
        for place, (kind, _) in enumerate(blocks[number]):
            before = len(self.issued[kind]) + self.ahead[kind] - COMMANDS
            self.dispatched = max(
                there + (place + 1) * self.fetch_beats, self.dispatched + 1,
                self.issued[kind][before] if before >= 0 else 0,
            )  # fmt: skip
            times.append(self.dispatched)
            self.ahead[kind] += 1
        if number + 1 < len(blocks):
            self.waiting.append(times[-1] + 1)
        return times

    def _fetch(self, request, behind=0):
        """Read the next block of records. Returns how long that takes."""
        cost = BLOCK * self.fetch_beats / self.memory.read_rate
        begin = max(request + self.memory.read_latency, behind, *self.blocks[-1:])
        self.blocks.append(begin + cost)
        self.bursts.append(max(begin + cost, self.bursts[-1]))
        self.read_until = max(begin, self.read_until) + cost
        return cost

    def _done(self, writes):
        """When so many requests to write are done."""
        return self.written[bisect_left(self.writes, writes)]

    def _next_store(self, number):
        """Fields of the store that what is loaded is for."""
        return next(f for kind, f in islice(self.records, number, None) if kind is Kind.STORE)

    def _load(self, number, at, fields):
        timing, memory, halves = self.timing, self.memory, self.halves
        target, beats, chunks = fields["target"], fields["beats"], fields["chunks"]
        request = max(at + 1, self._done(fields["after"]))
        if self.issued[Kind.LOAD]:
            request = max(request, self.issued[Kind.LOAD][-1] + 1)
        if len(self.loads) >= REQUESTED:
            request = max(request, self.loads[-REQUESTED].end)
        comes = self._arrival(request, chunks, beats)
        asks = request + memory.read_latency + _READ
        begin = max(asks, self.read_until)
        cost = max(chunks * beats, fields["rows"] * fields["words"])
        store = self._next_store(number) if target is Target.MASTERS else {}
        if store.get("normalize", 0):
            begin = max(begin, self.write_until)
            cost = max(cost, chunks * beats * timing.data_bits // 32)
        elif target is Target.MASTERS:
            blocks = chunks * beats // timing.block
            begin = max(begin, halves["gradients"].full() + READ_LATENCY + 1)
            ahead = 2 * BURST  # beats that the writer has room for
            slow = (chunks * beats - ahead) / memory.write_rate
            cost = max(cost, chunks * beats + READ_LATENCY * max(1, blocks), slow)
        else:
            name = BUFFER[target]
            begin = max(begin, halves[name].free() + 1)
        cost = self._beats_ahead(cost, chunks * beats, asks <= self.read_until)
        end = self.read_until = max(begin + cost, comes)
        if not comes:
            self.bursts.extend(end - BURST * n for n in reversed(range(OUTSTANDING)))
        asked = max(request, self.loads[-1].taken() if self.loads else 0)
        if self.waiting and self.waiting[0] < asked:
            # Records come first, or behind a chunk of many.
            cost = self._fetch(self.waiting.pop(0), begin + cost / chunks)
            end = self.read_until = end + (cost if chunks > 1 else 0)
        self.loads.append(_Load(asked, begin, end, chunks, beats))
        if fields["last"]:
            late = timing.narrow if name == "weights" else 0
            halves[name].filled.append(end + late + 1)
        self.busy["read"] += chunks * beats / memory.read_rate
        return max(request + chunks, end - 2 * beats - _ROOM)

    def _beats_ahead(self, cost, beats, asked):
        """What a load takes if some of its beats came while words of the one before it were put together."""
        rate, there = self.memory.read_rate, self.beats_ahead * asked
        cost = max(cost, (beats - there) / rate)
        self.beats_ahead = min(_ROOM, there + cost * rate - beats)
        return cost

    def _arrival(self, request, chunks, beats):
        """When the last beat of a load comes, as far as the number of bursts under way has a say in it."""
        latency, rate = self.memory.read_latency, self.memory.read_rate
        if beats * OUTSTANDING >= latency + beats + _SLOT:  # it has none
            return 0
        for _ in range(chunks):
            begin = max(request + _READ, self.bursts[0] + _SLOT) + latency
            self.bursts.append(max(begin, self.bursts[-1]) + beats / rate)
        return self.bursts[-1]

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
        taken = max(at, self.store_ends[-2]) if len(self.store_ends) > 1 else at
        if fields.get("normalize", 0):
            beats = fields["beats"]
            end = self.loads[-1].end + timing.channels[fields["channels"]["program"]]
            end += max(beats / rate, beats * timing.data_bits // 32)
        elif fields.get("update", 0) and fields["weights"].get("plain", 0):
            begin = max(taken, halves["gradients"].full())
            beats = fields["chunks"] * fields["beats"]
            each = max(fields["weights"]["count"] * (READ_LATENCY + 1) + beats, beats / rate)
            end = max(self.write_until, begin) + timing.updated + each
            if fields["weights"]["done"]:
                halves["gradients"].emptied.append(end - timing.updated)
        elif fields.get("update", 0):
            # Old weights go through the update; they were the last that was loaded.
            beats = fields["chunks"] * fields["beats"]
            end = max(self.write_until + beats / rate, self.loads[-1].end + timing.updated + 2)
            if fields["weights"]["done"]:
                halves["gradients"].emptied.append(end - timing.updated)
        else:
            end, beats = self._store_map(taken, fields)
        self.busy["write"] += beats / rate
        self.write_until = end
        self.store_ends.append(end)
        self.writes.append(self.writes[-1] + fields["chunks"] * (1 + ("routes_address" in fields)))
        burst = min(beats // fields["chunks"], BURST)
        done = end + burst + self.memory.write_latency + _WRITE
        self.written.append(max(done, self.written[-1] + 1))
        return taken

    def _store_map(self, at, fields):
        """When it ends, and how many beats it writes."""
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
        beats, chunks = fields["beats"], fields["chunks"]
        written = chunks * max(beats / rate, _bursts(beats, self.memory.write_latency))
        values = max(out + max(vectors * each, written), begin + reads + timing.outputs)
        through = max(begin + reads, values - ROOM * each)
        self.read_sums = through
        if outputs.get("done", 0):
            halves["sums"].emptied.append(through + 1)
            if follows:
                halves["routes"].emptied.append(through + 1)
        beats *= chunks
        if "routes_address" in fields:
            routes = chunks * fields["routes_beats"]
            beats += routes
            each = fields["routes_beats"] / rate
            slow = chunks * max(each, _bursts(fields["routes_beats"], self.memory.write_latency))
            values += max(slow, vectors)
        return values, beats


def _bursts(beats, latency):
    """Cycles for some beats at least, because only so many bursts are under way at once."""
    return -(-beats // BURST) * (min(beats, BURST) + latency + _SLOT) / OUTSTANDING
