"""Where the weights of a frozen stage live, and what is the same for all stages' weights."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from streamtrain.pipeline.gates import word_memory

__all__ = ["FrozenWeights", "weight_members"]


def weight_members(stage, scanned):
    """Members that all stores of a stage's weights have.

    Parameters
    ----------
    stage : :class:`~streamtrain.pipeline.plan.Stage`
    scanned : shape
        Of what the host scans: the stored format, or wider.

    Members
    -------
    read : :py:`In(1)`
    word : :py:`In(range(words))`
    w : :py:`Out(ArrayLayout(stage.weights, Pm * Pn * Pk))`
        Operands, until the next ``read``.
    bias_block : :py:`In(range(M / Pm))`
    bias : :py:`Out(ArrayLayout(stage.weights, Pm))`
    scan_word, scan_block, scan_bias : :py:`In(...)`
        Word that is scanned, its group of output channels, and whether biases are stored with it.
    scan_fetch, scan_store, scan_shift : :py:`In(1)`
        Load the shift register from memory, store it, move it by one lane. A word's lanes are
        followed by Pm biases.
    scan_i, scan_o : :py:`In(scanned)`, :py:`Out(scanned)`
        The last lane's next value; the first lane's value.
    """
    pm, _, _ = stage.folding
    return {
        "read": In(1),
        "word": In(range(stage.words)),
        "w": Out(data.ArrayLayout(stage.weights, stage.multipliers)),
        "bias_block": In(range(stage.blocks[0])),
        "bias": Out(data.ArrayLayout(stage.weights, pm)),
        "scan_word": In(range(stage.words)),
        "scan_block": In(range(stage.blocks[0])),
        "scan_bias": In(1),
        "scan_fetch": In(1),
        "scan_store": In(1),
        "scan_shift": In(1),
        "scan_i": In(scanned),
        "scan_o": Out(scanned),
    }


class FrozenWeights(wiring.Component):
    """Weights and biases that no gradient changes: read as operands, scanned by the host.

    A word holds the weights of one block, as in :class:`~streamtrain.pipeline.weights.WeightStore`. The
    registers of the operands are also the shift register that is the host's way to every weight.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    stage : :class:`~streamtrain.pipeline.plan.Stage`
        One of the plan's, not trainable.

    Members
    -------
    Those of :func:`weight_members`.

    Timing
    ------
    ``w`` follows ``read`` after two cycles, ``bias`` its block after one. :attr:`fetch_latency` cycles
    after ``scan_fetch``, the shift register is loaded. No ``read`` may come while the host scans.
    """

    fetch_latency = 2

    def __init__(self, plan, stage):
        self.plan = plan
        self.stage = stage
        super().__init__(weight_members(stage, stage.stored))

    def elaborate(self, platform):
        m = Module()
        stage = self.stage
        width, lanes = stage.stored.width, stage.multipliers

        def memory(name, width, depth):
            memory = word_memory(m, name, width, depth, self.plan.lutram_depth)
            return memory.write_port(), memory.read_port()

        def loaded(name, count, read, en):
            """Registers that take a word in the cycle after ``en``."""
            taken = Signal(name=f"{name}_taken")
            m.d.sync += taken.eq(en)
            registers = []
            for number in range(count):
                register = Signal(signed(width), name=f"{name}{number}", reset_less=True)
                with m.If(taken):
                    m.d.sync += register.eq(read.data[number * width : (number + 1) * width])
                registers.append(register)
            return registers

        write, read = memory("words", lanes * width, stage.words)
        m.d.comb += [
            read.en.eq(self.read | self.scan_fetch),
            read.addr.eq(Mux(self.scan_fetch, self.scan_word, self.word)),
            write.en.eq(self.scan_store),
            write.addr.eq(self.scan_word),
        ]
        held = loaded("w", lanes, read, read.en)
        m.d.comb += [
            write.data.eq(Cat(held)),
            *(self.w[number].eq(weight) for number, weight in enumerate(held)),
        ]
        if stage.bias:
            pm = stage.folding[0]
            write, read = memory("biases", pm * width, stage.blocks[0])
            biases = loaded("bias", pm, read, self.scan_fetch)
            m.d.comb += [
                read.addr.eq(Mux(self.scan_fetch, self.scan_block, self.bias_block)),
                write.en.eq(self.scan_store & self.scan_bias),
                write.addr.eq(self.scan_block),
                write.data.eq(Cat(biases)),
            ]
            for number in range(pm):
                code = read.data[number * width : (number + 1) * width]
                m.d.comb += self.bias[number].eq(code.as_signed())
            held = [*held, *biases]
        with m.If(self.scan_shift):
            for register, following in zip(held, [*held[1:], self.scan_i], strict=True):
                m.d.sync += register.eq(following)
        m.d.comb += self.scan_o.eq(held[0])
        return m
