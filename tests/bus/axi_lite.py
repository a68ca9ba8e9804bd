"""A master of AXI4-Lite, and tables of registers for the tests."""

from packet_plans import everything
from small_plans import mixed_formats, tiny

import streamtrain as st
from streamtrain.bus import Field, PacketFormat, Register, RegisterMap, Value, register_map

__all__ = ["ODD", "TABLES", "Master", "digits_table"]


class Master:
    """Reads and writes of a :class:`~amaranth.sim.Simulator`'s testbench, on one AXI4-Lite."""

    def __init__(self, ctx, bus):
        self.ctx, self.bus = ctx, bus

    async def read(self, address):
        """``(response, word)``."""
        ctx, bus = self.ctx, self.bus
        ctx.set(bus.araddr, address)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        ctx.set(bus.rready, 1)
        word, response = await ctx.tick().sample(bus.rdata, bus.rresp).until(bus.rvalid)
        ctx.set(bus.rready, 0)
        return response, word

    async def write(self, address, word, strobes=0xF):
        """The response."""
        ctx, bus = self.ctx, self.bus
        ctx.set(bus.awaddr, address)
        ctx.set(bus.wdata, word)
        ctx.set(bus.wstrb, strobes)
        ctx.set(bus.awvalid, 1)
        ctx.set(bus.wvalid, 1)
        await ctx.tick().until(bus.awready & bus.wready)
        ctx.set(bus.awvalid, 0)
        ctx.set(bus.wvalid, 0)
        ctx.set(bus.bready, 1)
        (response,) = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        return response


def digits_table():
    """Of the README's design."""
    net = st.Network(
        (1, 8, 8),
        [st.Conv2d(8, 3), st.ReLU(), st.MaxPool2d(2), st.Flatten(), st.Linear(10)],
        loss=st.CrossEntropy(),
        optimizer=st.SGD(lr=2**-5),
    )
    return register_map(PacketFormat(st.plan(net, board="pynq_z2", multipliers=80).plan))


ODD = RegisterMap(
    "odd",
    'Every kind of field | "quoted" \\ and */ commented',
    (
        Register(
            "MIXED",
            0x10,
            "All kinds in one.",
            (
                Field("kept", 28, 4, "At the top | of it.", reset=9),
                Field("fact", 0, 3, 'A "fact".', "ro", reset=5, constant=True),
                Field("seen", 5, 6, "From hardware.", "ro"),
                Field("flags", 12, 4, "Several bits.", "w1c", reset=0b0110),
                Field("pulses", 17, 3, "Several.", "pulse", maximum=5),
                Field(
                    "number",
                    21,
                    4,
                    "Some.",
                    minimum=2,
                    maximum=12,
                    reset=3,
                    values=(Value("FEW", 2, "Not many."), Value("MANY", 12)),
                ),
            ),
        ),
        Register("REG", 0x1FF0, "Far away.", (Field("signal", 3, 1, "A word of RDL."),)),
        Register(
            "SAW_HIGH", 0x4, "Upper half.", (Field("it", 0, 32, "", "ro"),), captured_by="SAW"
        ),
        Register("SAW", 0x0, "Lower half.", (Field("it", 0, 32, "", "ro"),)),
        Register(
            "PORT",
            0x8,
            "A door.",
            (Field("code", 4, 12, "", signed=True), Field("way", 0, 2, "", "ro")),
            external=True,
            consumes=True,
        ),
    ),
)

TABLES = {
    "digits": digits_table(),
    "tiny": register_map(PacketFormat(tiny(in_flight=2), 1)),
    "mixed formats": register_map(PacketFormat(mixed_formats(), 8)),
    "everything": register_map(PacketFormat(everything(), 2)),
    "odd": ODD,
}
