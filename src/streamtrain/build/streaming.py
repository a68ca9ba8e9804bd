"""How the streaming core is built."""

from contextlib import closing
from importlib.metadata import version
from typing import ClassVar

import numpy as np

from streamtrain.build.core import CoreBuild, ip_version
from streamtrain.build.errors import BuildError
from streamtrain.build.handover import hand_over
from streamtrain.bus import PacketFormat, register_map
from streamtrain.bus.generate import generate_ip
from streamtrain.host.c_driver import write_c_driver, write_c_guide, write_c_weights
from streamtrain.host.connect import ConnectedTrainer
from streamtrain.host.trainer import encode_samples
from streamtrain.host.uio import BUFFER_BYTES
from streamtrain.simulate import SimulatedBus
from streamtrain.vivado import Ip

__all__ = ["StreamingBuild"]

_STREAM_BYTES = 4


class StreamingBuild(CoreBuild):
    """See :class:`~streamtrain.build.core.CoreBuild`."""

    top = "streamtrain"
    batch = 1
    buffer_bytes = BUFFER_BYTES
    basis: ClassVar[dict] = {
        "layers": "calculated: cycles in which a layer's multipliers work",
        "accuracy.test_float": "float twin of the golden model: same images, order and first weights",
    }

    def __init__(self, design, settings):
        self.design = design
        self.format = PacketFormat(design.plan, settings["stream_bytes"])

    @staticmethod
    def settings(stream_bytes):
        return {"stream_bytes": _STREAM_BYTES if stream_bytes is None else stream_bytes}

    @staticmethod
    def amounts(design):
        return 4096, 200

    def summary(self):
        bound = self.design.bound_cycles
        return {
            "layers": [
                {
                    "name": stage.name,
                    "folding": list(stage.folding),
                    "multipliers": stage.multipliers,
                    "cycles": stage.phase_cycles(),
                    "share_of_bound": {
                        phase: cycles / bound for phase, cycles in stage.phase_cycles().items()
                    },
                }
                for stage in self.design.plan.stages
            ],
        }

    def verilog(self):
        return generate_ip(self.format, self.top)

    def verify(self, steps, x, y, console):
        show = not console.quiet
        device = self.design.simulate(progress=show).device
        report = self.design.verify(steps, x=x, y=y, device=device, progress=show)
        if report.bit_exact:
            self._verify_buses(x[:steps], y[:steps], console)
        return report

    def _verify_buses(self, x, y, console):
        """The same steps over packets and registers: every loss, and the weights at the end."""
        golden = self.design.golden()
        with console.status("verify: the IP") as status:
            bus = SimulatedBus(
                self.design.plan,
                self.format.size,
                report=lambda text: status.update(f"verify: the IP: {text}"),
            )
            with closing(bus):
                trainer = ConnectedTrainer(self.design.plan, bus)
                losses = trainer.fit(x, y, progress=False).losses
                weights = trainer.state_dict()
        expected = golden.fit(x, y, progress=False).losses
        wrong = np.flatnonzero(losses != expected)
        if len(wrong):
            raise BuildError(
                f"The IP's loss of sample {wrong[0]} is {losses[wrong[0]]:g}, not "
                f"{expected[wrong[0]]:g}",
                step="verify",
            )
        for name, codes in golden.state_dict().items():
            if not np.array_equal(weights[name], codes):
                raise BuildError(f"The IP's {name} differ after {len(x)} samples", step="verify")

    def float_twin(self):
        return self.design.golden(exact=False)

    def registers(self):
        return register_map(self.format)

    def hand_over(self, folder, x, y, cycles):
        plan, driver = self.design.plan, folder / "driver"
        hand_over(self.format, folder / "ip", encode_samples(plan, x), y, cycles)
        driver.mkdir(exist_ok=True)
        write_c_driver(driver)
        write_c_guide(driver, self.format)
        write_c_weights(driver, plan)

    def ip(self):
        made = ip_version(version("streamtrain"))
        return Ip(self.top, made, self.format.size, self.design.clock_mhz)

    def planned_resources(self):
        return {"announced_dsp": self.design.dsp}
