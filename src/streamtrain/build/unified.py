"""How the unified core is built."""

from dataclasses import replace
from importlib.metadata import version
from typing import ClassVar

from streamtrain.build.core import CoreBuild, ip_version
from streamtrain.golden.kernel import GoldenKernel
from streamtrain.host.shared_memory import shared_bytes
from streamtrain.host.trainer import Trainer
from streamtrain.pipeline.generate import verilog_of
from streamtrain.unified.ip import unified_registers
from streamtrain.unified.kernel import kernel_arithmetic
from streamtrain.vivado import MemoryIp

__all__ = ["UnifiedBuild"]

_BATCHES, _STEPS = 8, 3  # mini-batches that train, and that are compared, if nobody says


class UnifiedBuild(CoreBuild):
    """See :class:`~streamtrain.build.core.CoreBuild`.

    There is no driver in C: the host compiles programs, which Python does. What simulates as a whole is the IP, with
    its registers and its memory, so there is nothing else to verify.
    """

    top = "streamtrain_unified"
    basis: ClassVar[dict] = {
        "layers": "by the model of cycles: each phase of a layer alone, on a mini-batch; what a multiplier does "
        "besides the network's multiplications is no part of utilisation",
        "buffers": "calculated: double buffers on the chip, and the block RAM that they take",
        "memory_bytes": "calculated: where the programs' data lie",
        "accuracy.test_float": "golden model in FP32: same images, order and first weights",
    }

    def __init__(self, design, settings):
        self.design, self.plan = design, design.plan
        self.batch = design.plan.max_batch
        self.buffer_bytes = shared_bytes(design.plan)

    @staticmethod
    def settings(stream_bytes):
        if stream_bytes is not None:
            raise ValueError(
                "The unified core has no streams: leave out stream_bytes (--stream-bytes); data_bits of the "
                "plan is the width of its memory"
            )
        return {}

    @staticmethod
    def amounts(design):
        batch = design.plan.max_batch
        return max(2, _BATCHES * batch), _STEPS

    def summary(self):
        plan, estimate = self.plan, self.design.estimate()
        (_, *phases), rows = estimate.table()
        cycles = {name: dict(zip(phases, values, strict=True)) for name, *values in rows}
        least = {
            name: macs * self.batch / self.design.multipliers
            for name, macs in plan.network.macs.items()
        }
        brams = {
            memory.name: memory.bram36
            for memory in self.design.resources().memories
            if memory.layer == "buffers"
        }
        sizes = plan.depths.sizes(plan.arithmetic, self.design.lanes)
        return {
            "numbers": plan.arithmetic.name,
            "lanes": self.design.lanes,
            "data_bits": plan.data_bits,
            "layers": [
                {
                    "name": layer.name,
                    "channels": [layer.n, layer.m],
                    "map": [layer.rows, layer.columns],
                    "kernel": layer.kernel,
                    "cycles": {name: count for name, count in cycles[layer.name].items() if count},
                    "utilisation": {
                        name: least[layer.name] / count
                        for name, count in cycles[layer.name].items()
                        if count and layer.name in least
                    },
                }
                for layer in plan.array.layers
            ],
            "step": {
                "estimated": estimate.step.total,
                "prediction": estimate.prediction.total,
                "busiest": estimate.step.binds,
            },
            "buffers": {
                name: {"bits": bits, "words": words, "bram36": brams[name]}
                for name, (bits, words) in sizes.items()
            },
            "memory_bytes": dict(plan.memory_bytes),
        }

    def planned_resources(self):
        return {"announced_dsp": self.design.resources().total.dsp}

    def verilog(self):
        return verilog_of(self.plan.hardware(), self.top)

    def verify(self, steps, x, y, console):
        return self.design.verify(steps, x=x, y=y, progress=not console.quiet)

    def float_twin(self):
        plan = replace(self.plan, arithmetic=kernel_arithmetic("fp32"))
        return Trainer(plan, GoldenKernel(plan))

    def registers(self):
        return unified_registers(self.plan.configuration)

    def ip(self):
        made = ip_version(version("streamtrain"))
        return MemoryIp(self.top, made, self.plan.data_bits, self.design.clock_mhz)
