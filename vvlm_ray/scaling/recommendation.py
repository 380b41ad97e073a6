"""What to deploy for one budget: x*(c; n), how sure that is, and what would do as well.

Differences between two configurations are taken member by member, so that errors they share cancel.
"""

from dataclasses import dataclass

import numpy as np

from vvlm_ray.scaling.frontier import Frontier, frontier, search, sizes_of
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.predictor import Predictor

NUM_ALTERNATIVES = 3


@dataclass(frozen=True)
class Alternative:
    """Another configuration, its cost in the cost's unit: the share of the samples that prefer it, and the band of its
    error minus that of x*."""

    factors: dict[str, float]
    cost: float
    error: float
    share: float
    worse_by: float
    worse_low: float
    worse_high: float


@dataclass(frozen=True)
class Recommendation:
    """x* in `line` (a frontier of one budget); what other members chose; the cheapest configuration within noise.

    Within noise: the `level` band of its error minus that of x* reaches 0. None where x* itself is the cheapest.
    """

    line: Frontier
    alternatives: tuple[Alternative, ...]
    cheapest: Alternative | None


def recommend(predictor: Predictor, budget: float, num_examples: float | None = None, *, level: float = 0.9,
              map: Map | None = None) -> Recommendation:  # fmt: skip
    """The configuration to deploy for a budget in the cost's unit, with its doubts.

    Raises:
        UserError: the budget buys nothing, or the data size is not given.
    """
    line = frontier(predictor, [budget], num_examples, level=level, map=map)
    space = predictor.runs.space
    scale = space.known_cost().scale
    affordable = space.grid().up_to(budget * scale)
    _, by_sample = search(predictor, affordable, line.budgets * scale, sizes_of(predictor, num_examples), map=map)
    chosen = int(line.index[0])
    samples = predictor.samples(affordable.points, num_examples)
    error = predictor.predict(affordable.points, num_examples)
    worse = samples - samples[:, [chosen]]
    low, middle, high = np.quantile(worse, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    shares = np.bincount(by_sample[0, 0], minlength=len(affordable.cost)) / len(samples)

    def describe(index: int) -> Alternative:
        return Alternative(
            factors={name: float(values[index]) for name, values in affordable.points.items()},
            cost=float(affordable.cost[index] / scale),
            error=float(error[index]),
            share=float(shares[index]),
            worse_by=float(middle[index]),
            worse_low=float(low[index]),
            worse_high=float(high[index]),
        )

    popular = [int(index) for index in np.argsort(-shares, kind="stable") if shares[index] > 0 and index != chosen]
    cheapest = int(np.argmax(low <= 0))  # the grid is sorted by cost
    return Recommendation(
        line,
        tuple(describe(index) for index in popular[:NUM_ALTERNATIVES]),
        describe(cheapest) if cheapest < chosen else None,
    )
