"""What a build asks of a core."""

from typing import ClassVar

from streamtrain.bus.table import release

__all__ = ["CoreBuild", "ip_version"]


def ip_version(version):
    """``MAJOR.MINOR`` of a version of streamtrain, which is that of its IPs."""
    major, minor, _ = release(version)
    return f"{major}.{minor}"


class CoreBuild:
    """What the steps of a build do differently for a core; there is a class for each.

    Parameters
    ----------
    design : :class:`~streamtrain.Design` or :class:`~streamtrain.UnifiedDesign`
    settings : dict
        What :meth:`settings` gave.

    Attributes
    ----------
    top : :class:`str`
        Name of the IP's module.
    batch : :class:`int`
        Samples of a mini-batch in which it trains.
    buffer_bytes : :class:`int`
        Of the memory that it shares with its host.
    basis : dict
        Where figures of the summary come from.
    """

    top: str
    batch: int
    buffer_bytes: int
    basis: ClassVar[dict]

    def __init__(self, design, settings):
        raise NotImplementedError

    @staticmethod
    def settings(stream_bytes):
        """Options of a build that only this core has, by name; refuses those that it has not."""
        raise NotImplementedError

    @staticmethod
    def amounts(design):
        """How many samples are trained in simulation, and steps compared, if nobody says."""
        raise NotImplementedError

    def summary(self):
        """What the plan says: for ``summary.json``."""
        raise NotImplementedError

    def verilog(self):
        """Text of the IP."""
        raise NotImplementedError

    def verify(self, steps, x, y, console):
        """Train golden model and RTL side by side: a :class:`~streamtrain.simulate.Verification`."""
        raise NotImplementedError

    def float_twin(self):
        """A :class:`~streamtrain.Trainer` for the same training in floating point."""
        raise NotImplementedError

    def registers(self):
        """The IP's :class:`~streamtrain.bus.registers.RegisterMap`."""
        raise NotImplementedError

    def hand_over(self, folder, x, y, cycles):
        """Write what a project of one's own needs besides the IP: benches' data, a driver in C."""

    def ip(self):
        """The IP as Vivado's scripts see it."""
        raise NotImplementedError

    def planned_resources(self):
        """What the plan says of the part's resources: for the summary."""
        return {}
