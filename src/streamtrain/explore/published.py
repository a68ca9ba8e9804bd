"""Training accelerators of the literature, to compare a front with where that is fair.

Two designs compare directly if they train the same network. Others only compare by the arithmetic
that they get done: operations per second, and those of each DSP slice. Number formats and batch
sizes differ all the same, so they are part of each label.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from streamtrain.network import network_text
from streamtrain.records import Record

__all__ = ["Published", "published_designs", "training_gops"]


@dataclass(frozen=True)
class Published(Record):
    """A published accelerator. What its authors do not state is None, or empty.

    Parameters
    ----------
    name : :class:`str`
    year : :class:`int`
    device, format, batch : :class:`str`
        FPGA or board, format of numbers, samples between two updates.
    source : :class:`str`
        Where the figures come from.
    gops : :class:`float`
        Training operations in 1e9 per second, as :func:`training_gops` counts them.
    network : :class:`str`
        As :func:`~streamtrain.network.network_text` writes it.
    samples_per_s : :class:`float`, optional
    dsp, bram36, lut : :class:`float`, optional
    """

    name: str
    year: int
    device: str
    format: str
    batch: str
    source: str
    gops: float
    network: str = ""
    samples_per_s: float | None = None
    dsp: float | None = None
    bram36: float | None = None
    lut: float | None = None

    @property
    def label(self):
        """Name, number format and batch: what must be known to compare."""
        return f"{self.name} ({self.format}, batch {self.batch})"

    def speed(self, network):
        """Samples per second on a network; None for another than it was published for.

        Where only operations are stated, it is those divided by the operations of a step.
        """
        if self.network != network_text(network):
            return None
        return self.samples_per_s or self.gops / training_gops(network, 1)


@cache
def published_designs():
    """All that are known: a tuple of :class:`Published`."""
    path = Path(__file__).with_name("published.toml")
    designs = tomllib.loads(path.read_text(encoding="utf-8"))["design"]
    return tuple(Published(**design) for design in designs)


def training_gops(network, samples_per_s):
    """Operations in 1e9 per second while a network trains.

    Two for each multiply-accumulate of the three passes; the first layer's errors are not computed
    by anybody, and not counted.
    """
    return 2 * network.training_macs * samples_per_s / 1e9
