"""The search before a build: which limits it has, and which design of the front is built."""

from dataclasses import dataclass, field

from streamtrain.explore.command import DEFAULT_OBJECTIVES
from streamtrain.explore.front import limits_by_name, limits_text, objectives_by_name
from streamtrain.explore.search import explore
from streamtrain.network import Network

__all__ = ["Search"]

_BEST = {
    "samples_per_s": "most samples/s",
    "latency_us": "least latency",
    "dsp": "fewest DSP slices",
    "bram36": "fewest block RAMs",
    "lut": "fewest LUTs",
}
_SPEEDS = ("samples_per_s", "latency_us")


@dataclass(frozen=True)
class Search:
    """A front to search, and the design of it that is best in one figure within limits.

    Parameters
    ----------
    network : :class:`~streamtrain.network.Network`
    board : :class:`str`
    limits : dict of numbers by name
        As :meth:`~streamtrain.explore.front.Front.within` takes them.
    objective : :class:`str`, optional
        What the design is to be best in. Without it ``dsp`` (the fewest) if the limits ask for a
        speed, else ``samples_per_s``.

    Raises
    ------
    TypeError, ValueError
        If a limit or the objective is unknown or of the wrong kind.
    """

    network: Network
    board: str
    limits: dict = field(default_factory=dict)
    objective: str | None = None

    def __post_init__(self):
        limits = limits_by_name(self.limits)
        objective = self.objective
        if objective is None:
            objective = "dsp" if any(name in limits for name in _SPEEDS) else "samples_per_s"
        (objective,) = objectives_by_name([objective])
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "objective", objective)

    @property
    def asked(self):
        """What the design is chosen by, in words."""
        limits = f", with {limits_text(self.limits)}" if self.limits else ""
        return f"the {_BEST[self.objective]}{limits}"

    def front(self, *, progress=True):
        """Search. Limits on objectives leave the front whole, so that it shows what they cost."""
        objectives = tuple(dict.fromkeys((*DEFAULT_OBJECTIVES, self.objective)))
        constraints = {name: v for name, v in self.limits.items() if name not in objectives}
        return explore(
            self.network,
            self.board,
            objectives=objectives,
            constraints=constraints,
            progress=progress,
        )

    def choose(self, front):
        """The design to build. Raises :exc:`ValueError` that says what comes nearest if none fits."""
        if self.objective == "samples_per_s":
            return front.fastest(**self.limits)
        return front.smallest(self.objective, **self.limits)
