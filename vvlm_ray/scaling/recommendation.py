"""What to deploy for one budget: x*(c; n), how sure that is, and what would do as well.

Differences between two configurations are taken member by member, so that errors they share cancel.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vvlm_ray.scaling.bagging import Bag
from vvlm_ray.scaling.cost import inference_flops
from vvlm_ray.scaling.frontier import Cost, Frontier, default_grid, frontier, make_grid, search, sizes_of

NUM_ALTERNATIVES = 3


@dataclass(frozen=True)
class Alternative:
    """Another configuration: share of the members that prefer it, and the band of its error minus that of x*."""

    factors: dict[str, float]
    cost_flops: float
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


def recommend(bag: Bag, budget_flops: float, num_examples: float | None = None, *,
              grid: Mapping[str, np.ndarray] | None = None, cost: Cost = inference_flops,
              level: float = 0.9) -> Recommendation:  # fmt: skip
    """The configuration to deploy for a budget, with its doubts. Raises UserError for a budget that buys nothing."""
    levels = grid if grid is not None else default_grid(bag.runs)
    line = frontier(bag, levels, cost, [budget_flops], num_examples, level=level)
    affordable = make_grid(levels, cost).up_to(budget_flops)
    _, by_member = search(bag, affordable, line.budgets_flops, sizes_of(bag, num_examples))
    chosen = int(line.index[0])
    predictions = bag.predict_members(affordable.points, num_examples)
    worse = predictions - predictions[:, [chosen]]
    low, middle, high = np.quantile(worse, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    shares = np.bincount(by_member[0, 0], minlength=len(affordable.cost)) / bag.num_resamples

    def describe(index: int) -> Alternative:
        return Alternative(
            factors={name: float(values[index]) for name, values in affordable.points.items()},
            cost_flops=float(affordable.cost[index]),
            error=float(np.median(predictions[:, index])),
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
