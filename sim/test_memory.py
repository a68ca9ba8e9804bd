"""A design that copies within memory: its AXI4 master against a memory that is not ours."""

import json
import logging
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam
from rules import LiteRules, MemoryRules
from trainer import handed_over

_HALF = 1 << 18


class _Copier:
    def __init__(self, dut):
        self.dut = dut
        for logger in ("m_axi", "s_axi_ctrl"):  # one line for each beat otherwise
            logging.getLogger(f"cocotb.{dut._name}.{logger}").setLevel(logging.WARNING)
        table = json.loads((handed_over() / "registers.json").read_text())
        self.addresses = {register["name"]: register["address"] for register in table["registers"]}
        Clock(dut.aclk, 10, "ns").start()
        port = (dut.aclk, dut.aresetn, False)
        self.ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), *port, size=2 * _HALF)
        self.bus = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_ctrl"), *port)
        self.beat_bytes = len(dut.m_axi_rdata) // 8
        self.rules = MemoryRules(dut, "m_axi", self.beat_bytes)
        self.rules.start()
        LiteRules(dut, "s_axi_ctrl").start()

    async def reset(self):
        self.dut.aresetn.value = 0
        await ClockCycles(self.dut.aclk, 10)
        self.dut.aresetn.value = 1
        await ClockCycles(self.dut.aclk, 2)

    def pause(self, rng, share):
        """Pause each channel in a share of all cycles."""
        reads, writes = self.ram.read_if, self.ram.write_if
        for channel in (
            reads.ar_channel,
            reads.r_channel,
            writes.aw_channel,
            writes.w_channel,
            writes.b_channel,
        ):
            channel.set_pause_generator(iter(lambda: rng.random() < share, None))

    async def read(self, name):
        return await self.bus.read_dword(self.addresses[name])

    async def write(self, name, value):
        await self.bus.write_dword(self.addresses[name], value)

    async def run(self, program):
        """Copy by ``(source, destination, beats)``, all of it between two edges of CONTROL."""
        for source, destination, beats in program:
            await self.write("SOURCE", source)
            await self.write("DESTINATION", destination)
            await self.write("BEATS", beats)
            await self.write("PUSH", 3)
        await self.write("CONTROL", 1)
        if not self.dut.irq.value:
            await with_timeout(RisingEdge(self.dut.irq), 2, "ms")
        await self.write("CONTROL", 0)


@cocotb.test()
async def copies(dut):
    copier = _Copier(dut)
    beat_bytes, total = copier.beat_bytes, 0
    rng = random.Random(cocotb.RANDOM_SEED)
    for share in (0.0, 0.2, 0.6):
        await copier.reset()
        copier.pause(rng, share)
        contents = rng.randbytes(2 * _HALF)
        copier.ram.write(0, contents)
        expected, program, place = bytearray(contents), [], _HALF
        for _ in range(24):
            beats = rng.choice([1, 2, rng.randint(1, 20), rng.randint(1, 200)])
            source = rng.randrange(_HALF // beat_bytes - beats) * beat_bytes
            place += rng.randrange(4) * beat_bytes
            size = beats * beat_bytes
            expected[place : place + size] = contents[source : source + size]
            program.append((source, place, beats))
            place += size
            total += beats
        await copier.run(program)
        assert await copier.read("DONE") == len(program)
        assert await copier.read("ERROR") == 0
        assert copier.ram.read(0, 2 * _HALF) == expected
    assert copier.rules.beats == total
