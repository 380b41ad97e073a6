"""How the optimal configuration moves with the data size.

e_k(c, n) = [x*_k(c; n + dn) - x*_k(c; n)] / dn * n / x*_k(c; n), averaged over budgets and data sizes
(Wang et al. 2025, Eq. 8-11; the subtraction is missing in their printed Eq. 9).
"""

from dataclasses import dataclass

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.forms import AUTO
from vvlm_ray.scaling.frontier import check_budgets, default_budgets, search, sizes_of
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.predictor import Predictor
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Grid

PAPER_SIZES = (1e6, 10e6)  # N of the paper, 100 of them; its sweep went up to 2M
PAPER_STEP = 5e6  # dn of the paper
PAPER_SWEEP = (0.2e6, 20e6)  # largest n for which the paper's N and dn are still sensible


@dataclass(frozen=True)
class Elasticity:
    """e_k with the `level` band of the samples' own.

    The bag's e_k are those of its point estimate, as in the paper. The posterior's are medians over its samples of what
    their bands are quantiles of, so that they lie within them (an optimum of medians beside quantiles of optima may
    not); its cells are means over the samples.

    `budgets` (B,) are in `unit` (TFLOPs for Eq. 1). mean, low, high {factor: e_k}; by_size {factor: (N,)} is e_k(n),
    with by_size_low, by_size_high; cells {factor: (N, B)} are the e_k(c, n); share_extrapolated is the share of the
    (c, n) cells whose optimum, at n or n + dn, lies outside the swept range of a factor or of cost, or whose n or
    n + dn lies outside the swept data sizes; share_beyond_space the same with n left aside.
    """

    budgets: np.ndarray
    unit: str
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
    share_beyond_space: float
    scale: float = 1.0

    @property
    def raw_budgets(self) -> np.ndarray:
        """The budgets in what the cost function returns, FLOPs for Eq. 1: (B,)."""
        return self.budgets * self.scale


def elasticity(predictor: Predictor, budgets=None, sizes=None, *, step: float | None = None, level: float = 0.9,
               map: Map | None = None) -> Elasticity:  # fmt: skip
    """e_k over budgets C (B,) in the cost's unit, data sizes N and an absolute step dn (default: the paper's).

    Raises:
        UserError: runs without a data size, or a budget that buys nothing.
    """
    if not predictor.has_data_size:
        raise UserError("elasticity needs runs with a data size (num_examples)")
    runs, space = predictor.runs, predictor.runs.space
    scale = space.known_cost().scale
    budgets = np.atleast_1d(np.asarray(default_budgets(runs) if budgets is None else budgets, float))
    usual_sizes, usual_step = default_sizes(runs)
    sizes = sizes_of(predictor, usual_sizes if sizes is None else sizes)
    step = usual_step if step is None else step
    if not (np.isfinite(step) and step > 0):
        raise UserError("the step of the data size must be positive")
    full = space.grid()
    check_budgets(full, budgets, space)
    grid = full.up_to(budgets.max() * scale)
    every, now, then = _distinct_sizes(sizes, step)
    chosen, own = search(predictor, grid, budgets * scale, every, map=map)

    tails = [(1 - level) / 2, 0.5, (1 + level) / 2]
    relative = (sizes / step)[:, None]
    cells, by_sample = {}, {}
    for name, values in grid.points.items():
        cells[name] = (values[chosen[then]] / values[chosen[now]] - 1) * relative
        by_sample[name] = _by_sample(values, own, (now, then), sizes, step)
    by_size = {name: np.quantile(values, tails, axis=1) for name, values in by_sample.items()}
    overall = {name: np.quantile(values.mean(axis=0), tails) for name, values in by_sample.items()}
    mean = {name: float(cell.mean()) for name, cell in cells.items()}
    middle = {name: cell.mean(axis=1) for name, cell in cells.items()}
    if predictor.label == AUTO:
        mean = {name: float(band[1]) for name, band in overall.items()}
        middle = {name: band[1] for name, band in by_size.items()}
        cells = {name: _cells(values, own, (now, then), sizes, step) for name, values in grid.points.items()}
    inside = _inside(runs, grid)
    beyond = ~(inside[chosen[now]] & inside[chosen[then]])
    swept = (sizes >= runs.num_examples.min() * (1 - 1e-9)) & (sizes + step <= runs.num_examples.max() * (1 + 1e-9))
    return Elasticity(
        budgets=budgets,
        unit=space.known_cost().budget_unit,
        sizes=sizes,
        step=step,
        mean=mean,
        low={name: float(band[0]) for name, band in overall.items()},
        high={name: float(band[2]) for name, band in overall.items()},
        by_size=middle,
        by_size_low={name: band[0] for name, band in by_size.items()},
        by_size_high={name: band[2] for name, band in by_size.items()},
        cells=cells,
        share_extrapolated=float((beyond | ~swept[:, None]).mean()),
        share_beyond_space=float(beyond.mean()),
        scale=scale,
    )


def default_sizes(runs: Runs, count: int = 100) -> tuple[np.ndarray, float]:
    """N and dn of the paper: 1M to 10M and 5M; for sweeps on another scale the same multiples of the largest n."""
    largest = runs.num_examples.max()
    unit = 1.0 if PAPER_SWEEP[0] <= largest <= PAPER_SWEEP[1] else largest / 2e6
    return np.linspace(*PAPER_SIZES, count) * unit, PAPER_STEP * unit


def _by_sample(values: np.ndarray, own: np.ndarray, where, sizes: np.ndarray, step: float) -> np.ndarray:
    """e_k(n) of every sample, averaged over the budgets: (S, M)."""
    now, then = where
    compact = values.astype(np.float32)  # millions of cells; ratios of levels need no more digits
    found = np.empty((len(sizes), own.shape[2]))
    for s, size in enumerate(sizes):
        ratio = compact[own[then[s]]] / compact[own[now[s]]]
        found[s] = (ratio.mean(axis=0, dtype=np.float64) - 1) / step * size
    return found


def _cells(values: np.ndarray, own: np.ndarray, where, sizes: np.ndarray, step: float) -> np.ndarray:
    """e_k(c, n), averaged over the samples: (S, B)."""
    now, then = where
    compact = values.astype(np.float32)
    ratios = [(compact[own[then[s]]] / compact[own[now[s]]]).mean(axis=1, dtype=np.float64) for s in range(len(sizes))]
    return (np.array(ratios) - 1) * (sizes / step)[:, None]


def _distinct_sizes(sizes: np.ndarray, step: float):
    """Sizes n and n + dn without the repeats (the paper's N and N + dn share 45 of 100), and where each is."""
    wanted = np.concatenate([sizes, sizes + step])
    _, first, inverse = np.unique(np.round(wanted / wanted.max(), 12), return_index=True, return_inverse=True)
    return wanted[first], inverse[: len(sizes)], inverse[len(sizes) :]


def _inside(runs: Runs, grid: Grid) -> np.ndarray:
    """Which grid points lie within the swept range of every factor and of cost."""
    inside = np.ones(len(grid.cost), bool)
    for values, swept in [*((grid.points[name], runs.factors[name]) for name in grid.points), (grid.cost, runs.cost)]:
        inside &= (values >= swept.min() * (1 - 1e-9)) & (values <= swept.max() * (1 + 1e-9))
    return inside
