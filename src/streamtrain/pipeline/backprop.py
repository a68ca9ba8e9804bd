"""The back-propagation generator: from a forward pipeline to a training pipeline.

The forward pipeline is a list of links, each a component with a way back. The generator walks the
list from its end and wires the error stream through what each link answers: a stage sends it through
its own multiplier array, a pool through its inverse, which takes the recorded choices, a change of
lanes through the opposite change.
"""

from dataclasses import dataclass
from math import prod

from amaranth import Module
from amaranth.lib import wiring

from streamtrain.pipeline.maxpool import MaxPool, MaxUnpool
from streamtrain.pipeline.plan import Plan, Stage
from streamtrain.pipeline.relu import ReLU, ReLUGrad
from streamtrain.pipeline.stage import TrainingStage
from streamtrain.stream import DISTRIBUTED_DEPTH, Queue, Resize, connect

__all__ = ["Link", "backpropagate", "forward_links"]


def _queued(m, name, source, depth, **options):
    """The stream ``source``, with a :class:`Queue` behind it."""
    queue = Queue(source.signature.members["payload"].shape, depth, **options)
    m.submodules[name] = queue
    connect(m, source, queue.i)
    return queue.o


@dataclass(frozen=True)
class Link:
    """One component of the forward pipeline.

    Parameters
    ----------
    name : :class:`str`
        Name of the submodule.
    component : :class:`wiring.Component`
        With ``i`` and ``o``.
    plan : :class:`Plan`
    stage : :class:`Stage`
        The stage that it belongs to; for a change of lanes, the one before it.
    """

    name: str
    component: wiring.Component
    plan: Plan
    stage: Stage

    def _record(self, m, recorded):
        """Keep what the forward pass recorded until errors come back for it."""
        beats = prod(self.stage.pooled) * self.stage.blocks[0] * self.plan.in_flight
        return _queued(
            m,
            f"{self.name}_record",
            recorded,
            beats,
            lutram_depth=self.plan.lutram_depth,
            head=beats > self.plan.lutram_depth,
        )

    def back(self, m, errors):
        """Send errors of this link's output back through it; None if there are none.

        Returns the stream of errors of its input; None where they are not needed.
        """
        component, fmt = self.component, self.stage.errors
        if errors is None:
            return None
        if isinstance(component, TrainingStage):
            connect(m, errors, component.dz)
            return component.dx if self.stage.back else None
        if isinstance(component, ReLU):
            inverse = ReLUGrad(fmt, component.lanes)
            connect(m, self._record(m, component.mask), inverse.mask)
        elif isinstance(component, MaxPool):
            inverse = MaxUnpool(fmt, component.lanes)
            connect(m, self._record(m, component.route), inverse.route)
        else:
            inverse = Resize(fmt, component.lanes_out, component.lanes_in)
        m.submodules[f"{self.name}_grad"] = inverse
        connect(m, errors, inverse.i)
        if isinstance(component, Resize):
            # So that lanes are gathered while a pool still sends the last ones to its four places.
            return _queued(m, f"{self.name}_grad_queue", inverse.o, 2)
        return inverse.o


def forward_links(m: Module, plan):
    """Build the forward pipeline, up to the class scores one by one.

    Returns its links in order; the first is the first stage.
    """
    links, elements = [], None
    for number, stage in enumerate(plan.stages):
        lanes = stage.folding[0]

        def add(name, component, stage=stage):
            m.submodules[name] = component
            links.append(Link(name, component, plan, stage))
            return component

        source = add(stage.name, TrainingStage(plan, stage)).o
        if number > 0:
            connect(m, elements, links[-1].component.i)
        if stage.pool > 1:
            pool = add(
                f"{stage.name}_pool",
                MaxPool(
                    stage.output,
                    lanes=lanes,
                    rows=stage.out_rows,
                    cols=stage.out_cols,
                    blocks=stage.blocks[0],
                    records=stage.takes_errors,
                ),
            )
            connect(m, source, pool.i)
            # Every second row of the map gives a row of squares, at twice the mean rate.
            burst = min(stage.pooled[1] * stage.blocks[0], DISTRIBUTED_DEPTH)
            source = _queued(m, f"{stage.name}_pool_queue", pool.o, burst, head=True)
        if stage.relu:
            relu = add(
                f"{stage.name}_relu", ReLU(stage.output, lanes, records=stage.takes_errors)
            )
            connect(m, source, relu.i)
            source = relu.o
        last = number == len(plan.stages) - 1
        following = 1 if last else plan.stages[number + 1].folding[1]
        resize = add(f"{stage.name}_lanes", Resize(stage.output, lanes, following))
        m.d.comb += [
            resize.i.valid.eq(source.valid),
            resize.i.payload.eq(source.payload.data),
            source.ready.eq(resize.i.ready),
        ]
        elements = resize.o
    return links, elements


def backpropagate(m, links, errors):
    """Wire the error stream back through the links, last to first.

    Parameters
    ----------
    m : :class:`Module`
        Where the links are submodules.
    links : sequence of :class:`Link`
    errors : stream
        Errors of the last link's output.

    Raises
    ------
    ConnectionError
        :exc:`wiring.ConnectionError`, if a link gives errors in a format that the one before it
        does not take.
    """
    for link in reversed(links):
        errors = link.back(m, errors)
