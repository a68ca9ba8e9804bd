"""A trainer on a board with a serial line and nothing else: top module and constraints."""

from importlib import import_module
from operator import index

from amaranth import ClockDomain, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from streamtrain.build.errors import BuildError
from streamtrain.bus.uart_trainer import UartTrainer

__all__ = ["BAUD", "SerialBoard", "SerialClocks", "board_pins", "constraints", "pll_dividers"]

BAUD = 1_000_000
"""Bits per second of the line."""

_VCO_MHZ = (400.0, 800.0)  # of an ECP5's PLL, as its data sheet says (FPGA-DS-02012)
_PHASE_MHZ = (3.125, 400.0)  # of its phase detector
_DIVIDERS = range(1, 129)
_RESET_CYCLES = 16  # after the PLL has locked


def pll_dividers(input_mhz, output_mhz):
    """Dividers of an ECP5's PLL: ``(input, feedback, output)``, with feedback from the output.

    ``output_mhz = input_mhz * feedback / input``, as nearly as they can say it and never faster; the
    oscillator runs at ``output`` times that.

    Raises :exc:`ValueError` if it cannot be had.
    """
    best = None
    for divide in _DIVIDERS:
        if not _PHASE_MHZ[0] <= input_mhz / divide <= _PHASE_MHZ[1]:
            continue
        for feedback in _DIVIDERS:
            made = input_mhz * feedback / divide
            if made > output_mhz * (1 + 1e-9) or (best and made <= best[0]):
                continue
            fits = [n for n in _DIVIDERS if _VCO_MHZ[0] <= made * n <= _VCO_MHZ[1]]
            if fits:
                best = made, (divide, feedback, fits[len(fits) // 2])
    if best is None or best[0] < 0.9 * output_mhz:
        raise ValueError(f"The PLL cannot make {output_mhz:g} MHz from {input_mhz:g} MHz")
    return best[1]


def board_pins(platform):
    """Where clock and serial line are on a board of amaranth-boards.

    Parameters
    ----------
    platform : :class:`str`
        Module and class, ``"ulx3s:ULX3S_85F_Platform"``.

    Returns ``(MHz, {"clk" | "rx" | "tx" | "led": (pin, attributes)})``.

    Raises
    ------
    BuildError
        If amaranth-boards is not installed.
    """
    module, _, name = platform.partition(":")
    try:
        found = getattr(import_module(f"amaranth_boards.{module}"), name)
    except ImportError:
        raise BuildError(
            f"{name} is described in amaranth-boards, which is not installed; "
            f'pip install "streamtrain[build]"'
        ) from None
    resources = {(resource.name, resource.number): resource for resource in found.resources}

    def pin(resource, part=None):
        ios = {io.name: io.ios[0] for io in resource.ios if hasattr(io, "ios")}
        pins = ios[part] if part else resource.ios[0]
        return pins.names[0], dict(resource.attrs)

    clock, line = resources[found.default_clk, 0], resources["uart", 0]
    pins = {
        "clk": pin(clock),
        "rx": pin(line, "rx"),
        "tx": pin(line, "tx"),
        "led": pin(resources["led", 0]),
    }
    return clock.clock.frequency / 1e6, pins


class SerialClocks:
    """What a board's oscillator is made into.

    Parameters
    ----------
    input_mhz : :class:`float`
        Of the oscillator.
    clock_mhz : :class:`float`
        Of the trainer; it gets no more than that.
    baud : :class:`int`
        Bits per second of the line.

    Attributes
    ----------
    dividers : tuple of :class:`int`
        As :func:`pll_dividers` has them.
    clock_mhz : :class:`float`
        What they make.
    divisor : :class:`int`
        Clock cycles in a bit.

    Raises
    ------
    ValueError
        If there is no such clock, or no such baud rate at that clock.
    """

    def __init__(self, input_mhz, clock_mhz, baud=BAUD):
        self.input_mhz, self.baud = input_mhz, index(baud)
        self.dividers = pll_dividers(input_mhz, clock_mhz)
        self.clock_mhz = input_mhz * self.dividers[1] / self.dividers[0]
        self.divisor = round(self.clock_mhz * 1e6 / self.baud)
        actual = self.clock_mhz * 1e6 / self.divisor if self.divisor else 0
        if abs(actual / self.baud - 1) > 0.02:  # a byte's last bit is 9.5 bits after its beginning
            raise ValueError(
                f"{self.clock_mhz:g} MHz makes {actual:,.0f} baud, which is not near enough to {baud:,}"
            )


class SerialBoard(wiring.Component):
    """A :class:`~streamtrain.bus.uart_trainer.UartTrainer` with the clock of an ECP5's PLL.

    Parameters
    ----------
    fmt : :class:`~streamtrain.bus.packets.PacketFormat`
    input_mhz, clock_mhz, baud
        As :class:`SerialClocks` has them.

    Members
    -------
    clk, rx : :py:`In(1)`
    tx : :py:`Out(1)`
    led : :py:`Out(1)`
        The interrupt.

    Timing
    ------
    That of the line.

    Raises
    ------
    ValueError
        If there is no such clock, or no such baud rate at that clock.
    """

    def __init__(self, fmt, input_mhz, clock_mhz, baud=BAUD):
        self.fmt, self.clocks = fmt, SerialClocks(input_mhz, clock_mhz, baud)
        super().__init__({"clk": In(1), "rx": In(1), "tx": Out(1), "led": Out(1)})

    def elaborate(self, platform):
        m = Module()
        locked, clock = Signal(), Signal()
        divide, feedback, output = self.clocks.dividers
        m.submodules.pll = Instance(
            "EHXPLLL",
            p_CLKI_DIV=divide,
            p_CLKFB_DIV=feedback,
            p_CLKOP_DIV=output,
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_CPHASE=output // 2,
            p_CLKOP_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            p_OUTDIVIDER_MUXA="DIVA",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            i_CLKI=self.clk,
            i_CLKFB=clock,
            i_RST=0,
            i_STDBY=0,
            i_PHASESEL0=0,
            i_PHASESEL1=0,
            i_PHASEDIR=0,
            i_PHASESTEP=0,
            i_PHASELOADREG=0,
            i_PLLWAKESYNC=0,
            i_ENCLKOP=0,
            o_CLKOP=clock,
            o_LOCK=locked,
        )
        m.domains.sync = ClockDomain("sync", local=True)
        starting = Signal(_RESET_CYCLES, init=-1)
        m.domains.start = ClockDomain("start", local=True)  # until the PLL has been locked for a while
        m.d.start += starting.eq(starting << 1)
        m.d.comb += [
            ClockSignal("start").eq(clock),
            ResetSignal("start").eq(~locked),
            ClockSignal().eq(clock),
            ResetSignal().eq(starting[-1]),
        ]
        m.submodules.trainer = trainer = UartTrainer(self.fmt, self.clocks.divisor)
        m.d.comb += [
            trainer.rx.eq(self.rx),
            self.tx.eq(trainer.tx),
            self.led.eq(trainer.irq),
        ]
        return m


def constraints(pins, input_mhz):
    """Constraints (LPF) of a :class:`SerialBoard` with these pins; the PLL's clock follows from its input."""
    lines = ["BLOCK RESETPATHS;", "BLOCK ASYNCPATHS;"]
    for port, (pin, attributes) in pins.items():
        values = " ".join(f"{name}={value}" for name, value in attributes.items())
        lines += [f'LOCATE COMP "{port}" SITE "{pin}";', f'IOBUF PORT "{port}" {values};']
    lines.append(f'FREQUENCY PORT "clk" {input_mhz:g} MHZ;')
    return "\n".join(lines) + "\n"
