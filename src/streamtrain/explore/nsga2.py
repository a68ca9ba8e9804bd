"""A genetic search over the same space: NSGA-II, for comparison and for what does not decompose."""

import numpy as np

from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.space import FIGURES

__all__ = ["genetic_front"]

_POPULATION = 100


def genetic_front(
    space, objectives, limits, *, batch=1, evaluations=10_000, seed=1, progress=lambda done: None
):
    """Search a space with NSGA-II (Deb et al., IEEE Trans. Evolutionary Computation 6, 2002).

    A gene is the number of a stage's folding. Designs beyond a limit are worse than those within.

    Parameters
    ----------
    space : :class:`~streamtrain.explore.space.Space`
    objectives : sequence of :class:`str`
        Of :data:`~streamtrain.explore.space.FIGURES`; less is better.
    limits : dict of numbers by name of a figure
        At most.
    batch : :class:`int`
        Samples between two updates.
    evaluations : :class:`int`
        Designs that are evaluated.
    seed : :class:`int`
        The same one gives the same front.
    progress : callable, optional
        Is given the part of the search that is done.

    Returns
    -------
    (designs, figures, evaluated)
        As :func:`~streamtrain.explore.exact.exact_front`; of all that were evaluated the best.

    Raises
    ------
    ImportError
        Without pymoo: ``pip install 'streamtrain[search]'``.
    """
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.optimize import minimize
    except ImportError:
        raise ImportError(
            "The genetic search needs pymoo: pip install 'streamtrain[search]'"
        ) from None
    columns = [FIGURES.index(name) for name in objectives]
    bounds = [(FIGURES.index(name), limit) for name, limit in limits.items() if np.isfinite(limit)]
    seen = []

    class Foldings(Problem):
        def __init__(self):
            super().__init__(
                n_var=len(space.own),
                n_obj=len(columns),
                n_ieq_constr=len(bounds),
                xl=0,
                xu=np.array([len(own) - 1 for own in space.own]),
                vtype=int,
            )

        def _evaluate(self, x, out, *args, **kwargs):
            figures = space.figures(x, batch)
            seen.append((x.copy(), figures))
            out["F"] = figures[:, columns]
            if bounds:
                out["G"] = np.stack([figures[:, c] / limit - 1 for c, limit in bounds], axis=1)
            progress(min(1.0, sum(len(part) for part, _ in seen) / evaluations))

    repair = RoundingRepair()
    minimize(
        Foldings(),
        NSGA2(
            pop_size=_POPULATION,
            sampling=IntegerRandomSampling(),
            crossover=SBX(prob=0.9, eta=3, vtype=float, repair=repair),
            mutation=PM(prob=1.0, eta=3, vtype=float, repair=repair),
            eliminate_duplicates=True,
        ),
        ("n_eval", evaluations),
        seed=seed,
    )
    designs = np.concatenate([part for part, _ in seen]).astype(np.int64)
    figures = np.concatenate([part for _, part in seen])
    fits = np.all([figures[:, column] <= limit for column, limit in bounds], axis=0) if bounds else np.ones(len(figures), bool)
    keep = np.flatnonzero(fits)
    keep = keep[non_dominated(figures[keep][:, columns])] if len(keep) else keep
    keep = keep[np.lexsort(figures[keep].T[::-1])]
    return designs[keep], figures[keep], len(figures)
