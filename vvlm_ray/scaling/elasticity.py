"""How the optimal configuration moves with the data size.

e_k(c, n) = [x*_k(c; n + dn) - x*_k(c; n)] / dn * n / x*_k(c; n), averaged over budgets and data sizes
(Wang et al. 2025, Eq. 8-11; the subtraction is missing in their printed Eq. 9).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.bagging import Bag
from vvlm_ray.scaling.cost import inference_flops
from vvlm_ray.scaling.frontier import (
    Cost,
    Grid,
    check_budgets,
    default_budgets,
    default_grid,
    make_grid,
    search,
    sizes_of,
)
from vvlm_ray.scaling.runs import Runs

PAPER_SIZES = (1e6, 10e6)  # N of the paper, 100 of them; its sweep went up to 2M
PAPER_STEP = 5e6  # dn of the paper
PAPER_SWEEP = (0.2e6, 20e6)  # largest n for which the paper's N and dn are still sensible


@dataclass(frozen=True)
class Elasticity:
    """e_k with the `level` band of the members' own.

    mean, low, high {factor: e_k}; by_size {factor: (N,)} is e_k(n), with by_size_low, by_size_high;
    cells {factor: (N, B)} are the e_k(c, n); share_extrapolated is the share of the (c, n) cells whose optimum, at
    n or n + dn, lies outside the swept range of a factor or of cost.
    """

    budgets_flops: np.ndarray
    sizes: np.ndarray
    step: float
    mean: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    by_size: dict[str, np.ndarray]
    by_size_low: dict[str, np.ndarray]
    by_size_high: dict[str, np.ndarray]
    cells: dict[str, np.ndarray]
    share_extrapolated: float


@dataclass(frozen=True)
class Plan:
    """What `elasticity` is about to compute: the affordable grid, C, N, dn, and which grid points are swept."""

    grid: Grid
    budgets_flops: np.ndarray
    sizes: np.ndarray
    step: float
    inside: np.ndarray


def elasticity(bag: Bag, grid: Mapping[str, np.ndarray] | None = None, cost: Cost | None = None, *,
               budgets_flops=None, sizes=None, step: float | None = None, level: float = 0.9,
               threads: int | None = None) -> Elasticity:  # fmt: skip
    """e_k of a bag over budgets C (B,) in FLOPs, data sizes N and an absolute step dn (default: the paper's).

    Raises UserError for runs without a data size.
    """
    plan = plan_elasticity(bag, grid, cost, budgets_flops=budgets_flops, sizes=sizes, step=step)
    cells = gather_cells(bag, plan.grid, plan.budgets_flops, plan.sizes, plan.step, threads=threads)
    return elasticity_from(plan, [cells], level)


def plan_elasticity(bag: Bag, grid=None, cost=None, *, budgets_flops=None, sizes=None, step=None) -> Plan:
    """Defaults filled in, everything checked."""
    if not bag.form.has_data_size:
        raise UserError("elasticity needs runs with a data size (num_examples)")
    cost = cost or inference_flops
    budgets = default_budgets(bag.runs, cost) if budgets_flops is None else budgets_flops
    budgets = np.atleast_1d(np.asarray(budgets, float))
    usual_sizes, usual_step = default_sizes(bag.runs)
    sizes = sizes_of(bag, usual_sizes if sizes is None else sizes)
    step = usual_step if step is None else step
    if not step > 0:
        raise UserError("the step of the data size must be positive")
    full = make_grid(grid if grid is not None else default_grid(bag.runs), cost)
    check_budgets(full, budgets)
    affordable = full.up_to(budgets.max())
    return Plan(affordable, budgets, sizes, step, _inside(bag, cost, affordable))


@dataclass(frozen=True)
class Cells:
    """For some data sizes (S,): chosen points at n and n + dn (S, B), and e_k(n) of the members {factor: (S, M)}."""

    sizes: np.ndarray
    now: np.ndarray
    then: np.ndarray
    by_member: dict[str, np.ndarray]


def gather_cells(bag: Bag, grid: Grid, budgets: np.ndarray, sizes: np.ndarray, step: float, *, threads=None) -> Cells:
    """The frontiers of the median and of every member at n and n + dn for the given sizes."""
    every, now, then = _distinct_sizes(sizes, step)
    chosen, members = search(bag, grid, budgets, every, threads=threads)
    by_member = {}
    for name, values in grid.points.items():
        compact = values.astype(np.float32)  # millions of cells; ratios of levels need no more digits
        by_member[name] = np.empty((len(sizes), bag.num_resamples))
        for s, size in enumerate(sizes):
            ratio = compact[members[then[s]]] / compact[members[now[s]]]
            by_member[name][s] = (ratio.mean(axis=0, dtype=np.float64) - 1) / step * size
    return Cells(sizes, chosen[now], chosen[then], by_member)


def elasticity_from(plan: Plan, pieces: Sequence[Cells], level: float) -> Elasticity:
    """Put the cells together: e_k(c, n) by the forward difference, its averages, and the members' band."""
    now, then = (np.concatenate([getattr(piece, side) for piece in pieces]) for side in ("now", "then"))
    relative = (plan.sizes / plan.step)[:, None]
    cells = {name: (values[then] / values[now] - 1) * relative for name, values in plan.grid.points.items()}
    tails = [(1 - level) / 2, (1 + level) / 2]
    members = {name: np.concatenate([piece.by_member[name] for piece in pieces]) for name in cells}
    by_size = {name: np.quantile(values, tails, axis=1) for name, values in members.items()}
    overall = {name: np.quantile(values.mean(axis=0), tails) for name, values in members.items()}
    return Elasticity(
        budgets_flops=plan.budgets_flops,
        sizes=plan.sizes,
        step=plan.step,
        mean={name: float(cell.mean()) for name, cell in cells.items()},
        low={name: float(band[0]) for name, band in overall.items()},
        high={name: float(band[1]) for name, band in overall.items()},
        by_size={name: cell.mean(axis=1) for name, cell in cells.items()},
        by_size_low={name: band[0] for name, band in by_size.items()},
        by_size_high={name: band[1] for name, band in by_size.items()},
        cells=cells,
        share_extrapolated=float((~(plan.inside[now] & plan.inside[then])).mean()),
    )


def default_sizes(runs: Runs, count: int = 100) -> tuple[np.ndarray, float]:
    """N and dn of the paper: 1M to 10M and 5M; for sweeps on another scale the same multiples of the largest n."""
    largest = runs.num_examples.max()
    unit = 1.0 if PAPER_SWEEP[0] <= largest <= PAPER_SWEEP[1] else largest / 2e6
    return np.linspace(*PAPER_SIZES, count) * unit, PAPER_STEP * unit


def _distinct_sizes(sizes: np.ndarray, step: float):
    """Sizes n and n + dn without the repeats (the paper's N and N + dn share 45 of 100), and where each is."""
    wanted = np.concatenate([sizes, sizes + step])
    _, first, inverse = np.unique(np.round(wanted / wanted.max(), 12), return_index=True, return_inverse=True)
    return wanted[first], inverse[: len(sizes)], inverse[len(sizes) :]


def _inside(bag: Bag, cost: Cost, grid) -> np.ndarray:
    """Which grid points lie within the swept range of every factor and of cost."""
    checks = [(values, bag.runs.factors[name]) for name, values in grid.points.items()]
    checks.append((grid.cost, np.asarray(cost(**bag.runs.factors), float)))
    inside = np.ones(len(grid.cost), bool)
    for values, swept in checks:
        inside &= (values >= swept.min() * (1 - 1e-9)) & (values <= swept.max() * (1 + 1e-9))
    return inside
