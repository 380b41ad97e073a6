"""What a further run is worth: the expected fall of the regret that it brings, before it is made.

Knowledge gradient (Frazier et al. 2009): a run at c moves the mean of f at x by beta(x) z, z ~ N(0, 1),
beta(x) = Cov(f(x), f(c)) / sqrt(Var f(c) + sigma^2). The regret of the choice then falls by
min_x mu(x) - E_z min_x (mu(x) + beta(x) z), which is averaged over the budgets and data sizes that matter.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.frontier import check_budgets, search, sizes_of
from vvlm_ray.scaling.posterior import Posterior

NODES = ndtri((np.arange(40) + 0.5) / 40)
MOST_CONTENDERS = 500  # grid points that may turn out best, for each data size


@dataclass(frozen=True)
class Question:
    """What the answer is wanted for: budgets (B,) in the cost's unit, data sizes (S,) or None without one."""

    budgets: np.ndarray
    sizes: np.ndarray | None


@dataclass(frozen=True)
class Purchase:
    """One run to make: its position among the candidates, what it is worth in points of expected regret, its price."""

    index: int
    value: float
    price: float


class Values:
    """The worth of candidates (C,), given as columns (K, C), under a posterior and a question.

    Means and covariances are those of the mixture of the members, exactly; the contenders for x* are the optima of
    the samples and of the point estimate.
    """

    def __init__(self, posterior: Posterior, question: Question, candidates: np.ndarray):
        self.posterior = posterior
        contenders, self.cells = _contenders(posterior, question)
        every = np.concatenate([contenders, candidates], axis=1)
        self.first = contenders.shape[1]
        logs = posterior.data.logs(every)
        own = tuple(part[:, self.first :] for part in logs)
        used = [(w, m) for w, m in zip(posterior.weights, posterior.members, strict=True) if w > 0.01]
        total = sum(weight for weight, _ in used)
        means = [member.mean(*logs) for _, member in used]
        centre = sum(weight / total * mean for (weight, _), mean in zip(used, means, strict=True))
        covariance = 0.0
        for (weight, member), mean in zip(used, means, strict=True):
            off = mean - centre
            between = np.outer(off, off[self.first :])
            covariance = covariance + weight / total * (member.covariance(logs, own) + between)
        self.covariance = covariance * posterior.inflation**2
        self.mean = posterior.predict(*_split(posterior, contenders))
        self.noise = posterior.noise**2

    def worth(self) -> np.ndarray:
        """Points of expected regret that each candidate saves: (C,)."""
        own = np.maximum(np.diag(self.covariance[self.first :]), 0.0)
        beta = self.covariance[: self.first] / np.sqrt(own + self.noise)
        total = np.zeros(beta.shape[1])
        for rows, ends in self.cells:
            moved = self.mean[rows, None, None] + beta[rows][:, :, None] * NODES
            best = np.minimum.accumulate(moved, axis=0)[ends - 1].mean(axis=2)
            before = np.minimum.accumulate(self.mean[rows])[ends - 1]
            total += (before[:, None] - best).mean(axis=0)
        return np.maximum(total / len(self.cells), 0.0)

    def make(self, index: int) -> None:
        """Condition on the run being made, whatever it will show: the mean stays, the covariance shrinks."""
        column = self.covariance[:, index].copy()
        row = self.covariance[self.first + index].copy()
        self.covariance -= np.outer(column, row) / (row[index] + self.noise)


def choose_runs(posterior: Posterior, question: Question, candidates: np.ndarray, prices: np.ndarray, *,
                budget: float | None = None, most: int | None = None) -> list[Purchase]:  # fmt: skip
    """Runs to make next, best first, each chosen for the most expected regret saved per price after those before it.

    `candidates` (K, C) are columns (factors, then the data size); `prices` (C,) are what each costs, in the unit of
    `budget` (GPU-hours, say). A candidate may be chosen again: a repeat is worth something where noise is large.
    """
    prices = np.asarray(prices, float)
    if not (np.isfinite(prices) & (prices > 0)).all():
        raise UserError("the price of a run must be a positive number")
    values = Values(posterior, question, candidates)
    left = np.inf if budget is None else budget
    found: list[Purchase] = []
    while most is None or len(found) < most:
        worth = np.where(prices <= left, values.worth(), -1.0)
        best = int(np.argmax(worth / prices))
        if worth[best] <= 1e-9:
            break
        found.append(Purchase(best, float(worth[best]), float(prices[best])))
        left -= prices[best]
        values.make(best)
    return found


def expected_regret(posterior: Posterior, question: Question) -> float:
    """Points by which the present choice is expected to miss the true best, averaged over the question."""
    contenders, cells = _contenders(posterior, question)
    missed = []
    samples = posterior.samples(*_split(posterior, contenders))
    mean = posterior.predict(*_split(posterior, contenders))
    for rows, ends in cells:
        best = np.minimum.accumulate(samples[:, rows], axis=1)[:, ends - 1]
        chosen = [int(np.argmin(mean[rows][:end])) for end in ends]
        missed.append((samples[:, rows][:, chosen] - best).mean())
    return float(np.mean(missed))


def _contenders(posterior: Posterior, question: Question):
    """Columns (K, Q) of the points that may turn out best, and for each data size (rows, ends by budget)."""
    space = posterior.runs.space
    budgets = np.sort(np.atleast_1d(np.asarray(question.budgets, float)))
    full = space.grid()
    check_budgets(full, budgets, space)
    raw = budgets * space.known_cost().scale
    grid = full.up_to(raw.max())
    sizes = sizes_of(posterior, question.sizes)
    chosen, by_sample = search(posterior, grid, raw, sizes)
    columns, cells, start = [], [], 0
    for s, size in enumerate(sizes):
        positions, counts = np.unique(np.concatenate([by_sample[s].ravel(), chosen[s]]), return_counts=True)
        kept = positions[np.argsort(-counts, kind="stable")[:MOST_CONTENDERS]]
        kept = np.unique(np.concatenate([kept, chosen[s]]))
        ends = np.searchsorted(kept, grid.count(raw))
        rows = [values[kept] for values in grid.points.values()]
        if posterior.has_data_size:
            rows.append(np.full(len(kept), size))
        columns.append(np.stack(rows))
        cells.append((np.arange(start, start + len(kept)), ends))
        start += len(kept)
    return np.concatenate(columns, axis=1), cells


def _split(posterior: Posterior, columns: np.ndarray):
    """Columns as the arguments of `predict` and `samples`."""
    factors = dict(zip(posterior.runs.factors, columns, strict=False))
    return factors, (columns[-1] if posterior.has_data_size else None)
