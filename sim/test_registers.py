"""Registers over AXI4-Lite: every field, its limits, and all that is refused."""

import random

import cocotb
from trainer import Refused, Trainer

_IDENTITY = int.from_bytes(b"STRM")


def _mask(field):
    return (1 << field["bits"]) - 1


def _plain(trainer):
    """Registers without side effects elsewhere, which read as what was written."""
    return [
        register
        for register in trainer.table.values()
        if not register["external"]
        and all(field["access"] in {"rw", "ro"} for field in register["fields"])
        and any(field["access"] == "rw" for field in register["fields"])
    ]


async def _begin(dut):
    trainer = Trainer(dut)
    await trainer.reset()
    return trainer


async def _refused(access):
    try:
        await access
    except Refused:
        return True
    return False


async def _held(trainer):
    """What all registers hold that only software changes."""
    return [await trainer.read_at(register["address"]) for register in _plain(trainer)]


def _drawn(rng, register):
    """A word whose fields are within their limits."""
    return sum(
        rng.choice([
            field["minimum"],
            field["maximum"],
            rng.randint(field["minimum"], field["maximum"]),
        ])
        << field["low"]
        for field in register["fields"]
    )


@cocotb.test()
async def reset_values(dut):
    trainer = await _begin(dut)
    assert await trainer.read("ID") == _IDENTITY
    for register in trainer.table.values():
        if register["external"]:
            continue
        expected = sum(
            field["reset"] << field["low"]
            for field in register["fields"]
            if field["access"] != "pulse"
        )
        assert await trainer.read_at(register["address"]) == expected, register["name"]
    assert not dut.irq.value


@cocotb.test()
async def keep_what_is_written(dut):
    """Each field takes each value within its limits, whatever its neighbours hold."""
    trainer = await _begin(dut)
    rng = random.Random(cocotb.RANDOM_SEED)
    held = {}
    for _ in range(20):
        for register in _plain(trainer):
            word = _drawn(rng, register)
            await trainer.write_at(register["address"], word)
            held[register["address"]] = word
        for address, word in held.items():
            assert await trainer.read_at(address) == word, f"0x{address:03x}"


@cocotb.test()
async def limits_refuse_all_of_a_word(dut):
    trainer = await _begin(dut)
    rng = random.Random(cocotb.RANDOM_SEED)
    tried = 0
    for register in _plain(trainer):
        for field in register["fields"]:
            beyond = [value for value in (field["minimum"] - 1, field["maximum"] + 1)]
            for value in beyond:
                if not 0 <= value <= _mask(field):
                    continue
                before = await _held(trainer)
                word = (
                    _drawn(rng, register) & ~(_mask(field) << field["low"]) | value << field["low"]
                )
                assert await _refused(trainer.write_at(register["address"], word)), field["name"]
                assert await _held(trainer) == before, field["name"]
                tried += 1
    assert tried
    assert await trainer.get("EVENTS", "refused")


@cocotb.test()
async def strobes_choose_bytes(dut):
    """Bytes that a write leaves out keep their value."""
    trainer = await _begin(dut)
    address = trainer.table["PACKET"]["address"]
    await trainer.write("PACKET", samples=0x1234)
    await trainer.write_at(address + 1, 0x56, size=1)
    assert await trainer.get("PACKET", "samples") == 0x5634
    await trainer.write_at(address, 0x78, size=1)
    assert await trainer.get("PACKET", "samples") == 0x5678
    await trainer.write_at(address + 2, 0xFFFF, size=2)  # no field there
    assert await trainer.get("PACKET", "samples") == 0x5678
    assert await _refused(trainer.write_at(trainer.table["WINDOW"]["address"], 0, size=2))


@cocotb.test()
async def illegal_accesses_change_nothing(dut):
    """Where no register is, in registers that only tell, and in the window while it is shut."""
    trainer = await _begin(dut)
    rng = random.Random(cocotb.RANDOM_SEED)
    known = {register["address"] for register in trainer.table.values()}
    told = [
        register["address"]
        for register in trainer.table.values()
        if all(field["access"] == "ro" for field in register["fields"])
    ]
    holes = [address for address in range(0, 0x1000, 4) if address not in known]
    window = trainer.table["WINDOW_DATA"]["address"]
    for register in _plain(trainer):
        await trainer.write_at(register["address"], _drawn(rng, register))
    before = await _held(trainer)
    for address in [*rng.sample(holes, 40), holes[0], holes[-1]]:
        assert await _refused(trainer.read_at(address)), f"0x{address:03x}"
        assert await _refused(trainer.write_at(address, rng.getrandbits(32))), f"0x{address:03x}"
    for address in told:
        assert await _refused(trainer.write_at(address, rng.getrandbits(32))), f"0x{address:03x}"
    assert await _refused(trainer.read_at(window))
    assert await _refused(trainer.write_at(window, 1))
    assert await _refused(trainer.write("WINDOW", layer=trainer.layers))
    assert await _refused(trainer.write("WINDOW", target=3))
    assert await _held(trainer) == before
    assert not await trainer.get("STATUS", "window_busy")
    for name in ("SAMPLES", "DROPPED"):
        assert await trainer.read(name) == 0


@cocotb.test()
async def many_at_once(dut):
    """Reads and writes that wait together are all answered, writes in their order."""
    trainer = await _begin(dut)
    address = trainer.table["PACKET"]["address"]
    tasks = []
    for value in range(1, 41):
        tasks.append(cocotb.start_soon(trainer.write_at(address, value)))
        tasks.append(cocotb.start_soon(trainer.read_at(address)))
    seen = [await task for task in tasks][1::2]
    assert seen == sorted(seen)
    assert await trainer.read_at(address) == 40


@cocotb.test()
async def interrupts_stay_until_cleared(dut):
    """irq is high while an event is set whose interrupt is enabled."""
    trainer = await _begin(dut)
    refused = {field["name"]: 1 << field["low"] for field in trainer.table["EVENTS"]["fields"]}[
        "refused"
    ]
    hole = max(register["address"] for register in trainer.table.values()) + 4
    assert await _refused(trainer.read_at(hole))
    assert await trainer.read("EVENTS") == refused
    assert not dut.irq.value
    await trainer.write("INTERRUPTS", refused=1)
    await trainer.cycles(2)
    assert dut.irq.value
    await trainer.write_at(trainer.table["EVENTS"]["address"], ~refused & 0xFFFFFFFF)
    assert dut.irq.value
    await trainer.write("EVENTS", refused=1)
    await trainer.cycles(2)
    assert not dut.irq.value
    assert await trainer.read("EVENTS") == 0
