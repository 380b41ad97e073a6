"""The compute-optimal frontier over a discrete grid, with bands.

x*(c; n) = argmin over {x in X : c(x) <= c} of f(x, n), by exhaustive search (Wang et al. 2025, Eq. 4);
f is what the predictor predicts; ties go to the cheaper x. All budgets take one pass over the grid sorted by cost.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.display import Shown
from vvlm_ray.scaling.parallel import Map, pieces, threads
from vvlm_ray.scaling.predictor import Predictor, prepare_search
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Grid, Space

PAPER_BUDGETS = (1.0, 100.0)  # TFLOPs, Wang et al. 2025, App. E


@dataclass(frozen=True)
class Frontier(Shown):
    """x*(c; n) for B budgets at one data size.

    `budgets` (B,) and `cost` (B,) of x* are in `unit` (TFLOPs for Eq. 1). factors {name: (B,)}; error (B,), the
    prediction at x*, with its `level` band low, high; gap (B,): what x* may lose against the true best, exceeded in
    1 - `level` of the samples; factor_low, factor_high {name: (B,)}: the band of the samples' own x*_k,
    widened to hold x*_k; agreement (B,): the share of samples whose own x* is the same; extrapolates (B,): whether
    x*, its cost or n lies outside what was swept, and reasons (B,): how. `index` (B,) counts points of the sorted grid.
    """

    budgets: np.ndarray
    unit: str
    num_examples: float | None
    level: float
    factors: dict[str, np.ndarray]
    cost: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gap: np.ndarray
    factor_low: dict[str, np.ndarray]
    factor_high: dict[str, np.ndarray]
    agreement: np.ndarray
    extrapolates: np.ndarray
    reasons: tuple[tuple[str, ...], ...]
    index: np.ndarray
    space: Space = field(repr=False)

    @property
    def raw_budgets(self) -> np.ndarray:
        """The budgets in what the cost function returns, FLOPs for Eq. 1: (B,)."""
        return self.budgets * self.space.known_cost().scale

    @property
    def raw_cost(self) -> np.ndarray:
        """c(x*) in what the cost function returns: (B,)."""
        return self.cost * self.space.known_cost().scale


def frontier(predictor: Predictor, budgets=None, num_examples: float | None = None, *, level: float = 0.9,
             map: Map | None = None) -> Frontier:  # fmt: skip
    """The frontier of a predictor over the space of its runs, at budgets (B,) in the cost's unit (C of the paper).

    Raises:
        UserError: the cost is unknown, a budget lies below the cheapest point, or the data size is not given.
    """
    space = predictor.runs.space
    scale = space.known_cost().scale
    budgets = default_budgets(predictor.runs) if budgets is None else budgets
    budgets = np.atleast_1d(np.asarray(budgets, float))
    full = space.grid()
    check_budgets(full, budgets, space)
    affordable = full.up_to(budgets.max() * scale)
    chosen, by_sample = search(predictor, affordable, budgets * scale, sizes_of(predictor, num_examples), map=map)
    index, own = chosen[0], by_sample[0]
    points = {name: values[index] for name, values in affordable.points.items()}
    tails = [(1 - level) / 2, (1 + level) / 2]
    samples = predictor.samples(points, num_examples)
    low, high = np.quantile(samples, tails, axis=0)
    bands = {
        name: np.quantile(values[own], tails, axis=1, method="nearest") for name, values in affordable.points.items()
    }
    reasons = outside(predictor.runs, points, affordable.cost[index], num_examples)
    return Frontier(
        budgets=budgets,
        unit=space.known_cost().budget_unit,
        num_examples=num_examples,
        level=level,
        factors=points,
        cost=affordable.cost[index] / scale,
        error=predictor.predict(points, num_examples),
        low=low,
        high=high,
        gap=np.quantile(np.maximum(samples - _least(predictor, affordable, own, num_examples), 0), level, axis=0),
        factor_low={name: np.minimum(band[0], points[name]) for name, band in bands.items()},
        factor_high={name: np.maximum(band[1], points[name]) for name, band in bands.items()},
        agreement=(own == index[:, None]).mean(axis=1),
        extrapolates=np.array([bool(reason) for reason in reasons]),
        reasons=reasons,
        index=index,
        space=space,
    )


def default_budgets(runs: Runs, count: int = 300) -> np.ndarray:
    """C of the paper, evenly spaced from 1 to 100 TFLOPs; for sweeps on another scale, over the swept costs."""
    cost = runs.space.known_cost()
    swept = runs.cost / cost.scale
    if cost.budget_unit == "TFLOPs" and swept.min() <= PAPER_BUDGETS[1] and swept.max() >= PAPER_BUDGETS[0]:
        return np.linspace(*PAPER_BUDGETS, count)
    return np.linspace(swept.min(), swept.max(), count)


def sizes_of(predictor: Predictor, num_examples) -> np.ndarray:
    """The data sizes as an array (S,), [1] for a predictor without one."""
    if not predictor.has_data_size:
        return np.ones(1)
    if num_examples is None:
        raise UserError("the runs have a data size: say for which num_examples the frontier is wanted")
    sizes = np.atleast_1d(np.asarray(num_examples, float))
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise UserError("num_examples must be positive")
    return sizes


def check_budgets(grid: Grid, budgets: np.ndarray, space: Space) -> None:
    """Budgets are in the cost's `budget_unit`."""
    cost = space.known_cost()
    if not len(budgets) or not (np.isfinite(budgets) & (budgets > 0)).all():
        raise UserError("budgets must be positive numbers, at least one")
    if not grid.count(budgets.min() * cost.scale):
        cheapest = ", ".join(f"{name}={values[0]:g}" for name, values in grid.points.items())
        raise UserError(
            f"a budget of {cost.text(budgets.min() * cost.scale)} buys nothing: the cheapest point of the grid "
            f"({cheapest}) costs {cost.text(grid.cost[0])}"
        )


def search(predictor: Predictor, grid: Grid, most, sizes: np.ndarray, *, map: Map | None = None):
    """Positions in the sorted grid of x*(c; n): by the prediction (S, B), and by each sample (S, B, M).

    `most` (B,) are budgets in the unit of the grid's cost.
    """
    find = prepare_search(predictor, grid.points, sizes)
    parts = list((map or threads())(partial(find, grid.count(most)), pieces(sizes)))
    chosen, by_sample = (np.concatenate(column) for column in zip(*parts, strict=True))
    return chosen, by_sample


def _least(predictor: Predictor, grid: Grid, own: np.ndarray, num_examples) -> np.ndarray:
    """f_m at each sample's own optimum, own (B, M): (M, B)."""
    distinct, inverse = np.unique(own, return_inverse=True)
    values = predictor.samples({name: column[distinct] for name, column in grid.points.items()}, num_examples)
    return values[np.arange(own.shape[1]), inverse.reshape(own.shape)].T


def outside_of_each(runs: Runs, points, num_examples) -> tuple[tuple[str, ...], ...]:
    """`outside` of any configurations, factors {name: (P,)}, whether their cost is known or not."""
    if runs.space.cost is not None:
        return outside(runs, points, np.asarray(runs.space.cost(**points), float), num_examples)
    return _beyond([(name, values, runs.factors[name]) for name, values in points.items()], runs, num_examples)


def outside(runs: Runs, points, flops, num_examples) -> tuple[tuple[str, ...], ...]:
    """For each point, in what it lies outside the swept range."""
    checks = [(name, values, runs.factors[name]) for name, values in points.items()]
    checks.append(("cost", flops, runs.cost))
    return _beyond(checks, runs, num_examples)


def _beyond(checks, runs: Runs, num_examples) -> tuple[tuple[str, ...], ...]:
    count = len(checks[0][1])
    if runs.num_examples is not None:
        checks.append(("num_examples", np.full(count, float(num_examples)), runs.num_examples))
    found: list[list[str]] = [[] for _ in range(count)]
    for name, values, swept in checks:
        low, high = swept.min() * (1 - 1e-9), swept.max() * (1 + 1e-9)
        for position in np.flatnonzero((values < low) | (values > high)):
            side = "below" if values[position] < low else "above"
            found[position].append(f"{name} {side} the swept range")
    return tuple(tuple(reasons) for reasons in found)
