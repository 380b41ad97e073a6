"""The compute-optimal frontier over a discrete grid, with bands from a bag.

x*(c; n) = argmin over {x in X : c(x) <= c} of f(x, n), by exhaustive search (Wang et al. 2025, Eq. 4);
f is the median of the bag; ties go to the cheaper x. All budgets take one pass over the grid sorted by cost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.bagging import Bag
from vvlm_ray.scaling.cost import inference_flops
from vvlm_ray.scaling.forms import shrinkage
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.units import si

Cost = Callable[..., np.ndarray]  # cost(**factors) -> FLOPs per example, elementwise

PAPER_BUDGETS = (1e12, 100e12)  # FLOPs, Wang et al. 2025, App. E
DEFAULT_FRAMES = np.arange(1, 129)  # X_T of the method
DEFAULT_TOKENS = np.arange(1, 28) ** 2  # X_V: pooled grids of 1 x 1 to 27 x 27


def default_grid(runs: Runs) -> dict[str, np.ndarray]:
    """X_N = the sizes in the runs, X_T = 1..128, X_V = 1^2..27^2; any other factor: its levels in the runs."""
    defaults = {"num_frames": DEFAULT_FRAMES, "tokens_per_frame": DEFAULT_TOKENS}
    return {name: np.asarray(defaults.get(name, np.unique(values)), float) for name, values in runs.factors.items()}


@dataclass(frozen=True)
class Grid:
    """The points of X, cheapest first: factors {name: (P,)} and cost (P,)."""

    points: Mapping[str, np.ndarray]
    cost: np.ndarray

    def up_to(self, budget_flops: float) -> "Grid":
        """The affordable points."""
        count = int(np.searchsorted(self.cost, budget_flops, side="right"))
        return Grid({name: values[:count] for name, values in self.points.items()}, self.cost[:count])


def make_grid(levels: Mapping[str, np.ndarray], cost: Cost = inference_flops) -> Grid:
    """Every combination of the levels, sorted by cost. Raises UserError where a cost is not positive."""
    mesh = np.meshgrid(*[np.asarray(values, float) for values in levels.values()], indexing="ij")
    points = {name: axis.ravel() for name, axis in zip(levels, mesh, strict=True)}
    flops = np.asarray(cost(**points), float)
    if not (np.isfinite(flops) & (flops > 0)).all():
        raise UserError("the cost of a grid point is not a positive number: check the cost function and the grid")
    order = np.argsort(flops, kind="stable")
    return Grid({name: values[order] for name, values in points.items()}, flops[order])


@dataclass(frozen=True)
class Frontier:
    """x*(c; n) for B budgets at one data size.

    factors {name: (B,)}; cost_flops (B,) of x*; error (B,), the bag's median at x*, with its `level` band low, high;
    factor_low, factor_high {name: (B,)}: the band of the members' own x*_k; agreement (B,): the share of members
    whose own x* is the same; extrapolates (B,): whether x*, its cost or n lies outside what was swept, and
    reasons (B,): how. `index` (B,) counts points of the sorted grid.
    """

    budgets_flops: np.ndarray
    num_examples: float | None
    factors: dict[str, np.ndarray]
    cost_flops: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    factor_low: dict[str, np.ndarray]
    factor_high: dict[str, np.ndarray]
    agreement: np.ndarray
    extrapolates: np.ndarray
    reasons: tuple[tuple[str, ...], ...]
    index: np.ndarray


def frontier(bag: Bag, grid: Mapping[str, np.ndarray] | None = None, cost: Cost = inference_flops,
             budgets_flops=None, num_examples: float | None = None, *,
             level: float = 0.9) -> Frontier:  # fmt: skip
    """The frontier of a bag. `grid` {factor: levels} (the method's grid by default), budgets in FLOPs (C of the paper).

    Raises UserError for a budget below the cheapest point of the grid.
    """
    budgets_flops = default_budgets(bag.runs, cost) if budgets_flops is None else budgets_flops
    budgets = np.atleast_1d(np.asarray(budgets_flops, float))
    full = make_grid(grid if grid is not None else default_grid(bag.runs), cost)
    check_budgets(full, budgets)
    affordable = full.up_to(budgets.max())
    chosen, by_member = search(bag, affordable, budgets, sizes_of(bag, num_examples))
    index, members = chosen[0], by_member[0]
    points = {name: values[index] for name, values in affordable.points.items()}
    tails = [(1 - level) / 2, (1 + level) / 2]
    predictions = bag.predict_members(points, num_examples)
    low, high = np.quantile(predictions, tails, axis=0)
    bands = {
        name: np.quantile(values[members], tails, axis=1, method="nearest")
        for name, values in affordable.points.items()
    }
    reasons = outside(bag.runs, cost, points, affordable.cost[index], num_examples)
    return Frontier(
        budgets_flops=budgets,
        num_examples=num_examples,
        factors=points,
        cost_flops=affordable.cost[index],
        error=np.median(predictions, axis=0),
        low=low,
        high=high,
        factor_low={name: band[0] for name, band in bands.items()},
        factor_high={name: band[1] for name, band in bands.items()},
        agreement=(members == index[:, None]).mean(axis=1),
        extrapolates=np.array([bool(reason) for reason in reasons]),
        reasons=reasons,
        index=index,
    )


def default_budgets(runs: Runs, cost: Cost = inference_flops, count: int = 300) -> np.ndarray:
    """C of the paper, evenly spaced from 1 to 100 TFLOPs; for sweeps on another scale, over the swept costs."""
    swept = np.asarray(cost(**runs.factors), float)
    if swept.min() <= PAPER_BUDGETS[1] and swept.max() >= PAPER_BUDGETS[0]:
        return np.linspace(*PAPER_BUDGETS, count)
    return np.linspace(swept.min(), swept.max(), count)


def sizes_of(bag: Bag, num_examples) -> np.ndarray:
    """The data sizes as an array (S,), [1] for a form without one."""
    if not bag.form.has_data_size:
        return np.ones(1)
    if num_examples is None:
        raise UserError("the runs have a data size: say for which num_examples the frontier is wanted")
    sizes = np.atleast_1d(np.asarray(num_examples, float))
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise UserError("num_examples must be positive")
    return sizes


def check_budgets(grid: Grid, budgets: np.ndarray) -> None:
    if not (np.isfinite(budgets) & (budgets > 0)).all():
        raise UserError("budgets must be positive")
    if budgets.min() < grid.cost[0]:
        cheapest = ", ".join(f"{name}={values[0]:g}" for name, values in grid.points.items())
        raise UserError(
            f"a budget of {si(budgets.min(), 'FLOPs')} buys nothing: the cheapest point of the grid ({cheapest}) "
            f"costs {si(grid.cost[0], 'FLOPs')}"
        )


def search(bag: Bag, grid: Grid, budgets: np.ndarray, sizes: np.ndarray, *, threads=None):
    """Positions in the sorted grid of x*(c; n): by the median (S, B), and by each member (S, B, M)."""
    from vvlm_ray.scaling import frontier_kernels

    log_reference = float(np.log(sizes).mean())
    columns = list(grid.points.values())
    fixed, shrinking, decay = bag.form.split(bag.log_coefficients, bag.exponents, columns, log_reference)
    powers = np.ascontiguousarray(shrinkage(sizes, log_reference, decay).T)
    ends = np.searchsorted(grid.cost, budgets, side="right")
    return frontier_kernels.search(fixed, shrinking, powers, ends, threads=threads)


def outside(runs: Runs, cost: Cost, points, flops, num_examples) -> tuple[tuple[str, ...], ...]:
    """For each point, in what it lies outside the swept range."""
    swept_cost = np.asarray(cost(**runs.factors), float)
    checks = [(name, values, runs.factors[name]) for name, values in points.items()]
    checks.append(("cost", flops, swept_cost))
    if runs.num_examples is not None:
        checks.append(("num_examples", np.full(len(flops), float(num_examples)), runs.num_examples))
    found: list[list[str]] = [[] for _ in flops]
    for name, values, swept in checks:
        low, high = swept.min() * (1 - 1e-9), swept.max() * (1 + 1e-9)
        for position in np.flatnonzero((values < low) | (values > high)):
            side = "below" if values[position] < low else "above"
            found[position].append(f"{name} {side} the swept range")
    return tuple(tuple(reasons) for reasons in found)
