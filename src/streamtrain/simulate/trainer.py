"""Train in simulated RTL."""

import sys

from rich.console import Console

from streamtrain.host.trainer import Trainer
from streamtrain.simulate.device import SimulatedDevice

__all__ = ["SimulatedTrainer"]


class SimulatedTrainer(Trainer):
    """The front door's verbs over a compiled model of the generated RTL.

    The first simulation of a design compiles it, which takes a minute or two for hundreds of
    multipliers; later ones find it in the cache.

    Parameters
    ----------
    plan : :class:`~streamtrain.pipeline.plan.Plan`
    stall : :class:`float`
        Probability that a stream pauses in a cycle, at each port of the design.
    seed : :class:`int`
        Of the stalls.
    trace : path, optional
        Write waveforms (VCD) there; they are whole after :meth:`close`.
    progress : :class:`bool`
        Say what is being compiled.

    Raises
    ------
    CompileError
        If a tool is missing or fails.
    """

    def __init__(self, plan, *, stall=0.0, seed=1, trace=None, progress=True):
        console = Console(file=sys.stderr, quiet=not progress, force_jupyter=False)
        with console.status("simulation: generating Verilog") as status:
            device = SimulatedDevice(
                plan,
                stall=stall,
                seed=seed,
                trace=trace,
                report=lambda text: status.update(f"simulation: {text}"),
            )
        super().__init__(plan, device)

    def close(self):
        """End the simulation and finish its waveforms."""
        self.device.close()
