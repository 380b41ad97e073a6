"""Runs by configuration: what the likelihood of `auto` is made of.

Runs of one configuration (same x, same n) share a deviation of their own, so their mean counts once:
Var(mean) = known + tau^2 + sigma_w^2 / count, and the squares within configurations tell sigma_w apart.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_distribution

from vvlm_ray.scaling.runs import Runs

LEAST_SPREAD = 1e-3  # of the level: errors that are all the same still have a scale


@dataclass(frozen=True)
class Grouped:
    """G configurations. u (C, G) centred logs of the columns, z (C, G) standardised ones, y (G,) mean error.

    `counts` (G,) runs of each (sums of weights); `within` the sum of squares within configurations over `freedom`
    degrees; `known` (G,) the variance of y from standard errors of the scores. `level` and `spread` are mean and
    standard deviation of y: priors scale with them. `centre`, `scale` (C,) standardise logs.
    """

    u: np.ndarray
    z: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    within: float
    freedom: int
    known: np.ndarray
    level: float
    spread: float
    centre: np.ndarray
    scale: np.ndarray

    @property
    def num_noise(self) -> int:
        """How many parameters the noise has: tau, and sigma_w where configurations were repeated."""
        return 2 if self.freedom else 1

    def logs(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u and z of columns (C, P)."""
        u = np.log(columns) - self.centre[:, None]
        return u, u / self.scale[:, None]

    def first(self, index: np.ndarray) -> "Grouped":
        """The configurations at `index`, on the same scales."""
        return Grouped(
            self.u[:, index], self.z[:, index], self.y[index], self.counts[index], self.within, self.freedom,
            self.known[index], self.level, self.spread, self.centre, self.scale,
        )  # fmt: skip


def group_runs(runs: Runs) -> Grouped:
    """Weighted means by configuration; runs of weight 0 are left out."""
    weights = np.ones(runs.num_runs) if runs.weights is None else runs.weights
    kept = np.flatnonzero(weights > 0)
    weights, error, columns = weights[kept], runs.error[kept], runs.inputs()[:, kept]
    _, first, group = np.unique(columns, axis=1, return_index=True, return_inverse=True)
    group = group.ravel()
    counts = np.bincount(group, weights)
    y = np.bincount(group, weights * error) / counts
    within = float((weights * (error - y[group]) ** 2).sum())
    known = np.zeros(len(counts))
    if runs.error_se is not None:
        known = np.bincount(group, (weights * runs.error_se[kept]) ** 2) / counts**2
    logs = np.log(columns[:, first])
    centre, scale = logs.mean(axis=1), logs.std(axis=1)
    u = logs - centre[:, None]
    level = float(y.mean())
    spread = max(float(y.std()), LEAST_SPREAD * abs(level))
    return Grouped(
        u, u / scale[:, None], y, counts, within, len(kept) - len(counts), known, level, spread, centre, scale
    )


def lack_of_fit(runs: Runs, predicted: np.ndarray, num_params: float) -> tuple[float, float] | None:
    """F test of the misfit of configurations' means against the scatter of repeated runs: (F, p); None without repeats.

    F = [sum_g r_g (y_g - f_g)^2 / (G - q)] / [sum_ig (y_ig - y_g)^2 / (R - G)] for predictions f (R,) with q
    parameters. A small p says that configurations deviate by more than the runs of each scatter.
    """
    group = runs.configurations
    counts = np.bincount(group)
    freedom, between_freedom = len(group) - len(counts), len(counts) - num_params
    if freedom < 1 or between_freedom < 1:
        return None
    means = np.bincount(group, runs.error) / counts
    within = float(((runs.error - means[group]) ** 2).sum()) / freedom
    between = float((counts * (means - np.bincount(group, predicted) / counts) ** 2).sum()) / between_freedom
    if within <= 0:
        return None
    ratio = between / within
    return ratio, float(f_distribution.sf(ratio, between_freedom, freedom))
