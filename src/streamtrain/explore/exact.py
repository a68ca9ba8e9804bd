"""The exact Pareto front of a space of foldings, by branch and bound over stages.

A design's resources are sums over its stages. Its cycles are not, but they are the longest path in a
graph whose arcs are such durations (:mod:`streamtrain.pipeline.timing`), so they are convex in them:
at each design, the longest path gives a *cut*, a sum over stages that no design's cycles are below, and
that is exact there. From this the front follows in four steps.

1. Cuts. For a ladder of budgets of multipliers the relaxed problem (fractions of foldings) is solved with
   Kelley's cutting planes (Journal of SIAM 8, 1960). The dual solution mixes the cuts that matter at that
   budget to a single one.
2. Bounds. For each mixed cut, dynamic programming from the last stage to the first tabulates the least
   that the stages to come can add, for every remainder of two resources.
3. A first front, from the choices that the tables make.
4. Branch and bound. Stage by stage all partial designs are extended. One is dropped when, whatever follows,
   a design of the front is at least as good. What is complete is evaluated.

Nothing is dropped for any other reason, so what remains is the front. Of designs that are alike in all
objectives one is kept.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.optimize import linprog

from streamtrain.explore.pareto import non_dominated
from streamtrain.explore.space import FIGURES, RESOURCES
from streamtrain.pipeline import timing

__all__ = ["exact_front"]
