"""Optima of the point estimate and of every sample over a grid sorted by cost, for many data sizes at once.

f of a sample is smooth in log n: it is evaluated at a few sizes and interpolated by a cubic spline between them, which
changes no optimum that matters (a test holds it to direct evaluation). All budgets take one pass over the grid.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
from scipy.interpolate import CubicSpline

if TYPE_CHECKING:
    from vvlm_ray.scaling.posterior import Posterior

NUM_NODES = 12  # data sizes at which surfaces are evaluated, where more are asked for
CHUNK = 4096  # points evaluated together
MOST_KEPT = 100_000_000  # values kept in memory; beyond, they are made again for each piece of sizes


@dataclass(frozen=True)
class PosteriorSearch:
    """Callable (ends (B,), sizes (S,)) -> positions by the point estimate (S, B) and by each sample (S, B, M)."""

    posterior: "Posterior"
    points: dict[str, np.ndarray]
    nodes: np.ndarray
    kept: tuple[np.ndarray, ...]

    def __call__(self, ends: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        blend = interpolation(self.nodes, np.asarray(sizes, float)).astype(np.float32)
        order = np.argsort(ends, kind="stable")
        sorted_ends = np.asarray(ends)[order].astype(np.int64)
        count = self.posterior.num_samples + 1
        best = np.full((len(sizes), count), np.inf, np.float32)
        where = np.zeros((len(sizes), count), np.int32)
        found = np.zeros((len(sizes), len(ends), count), np.int32)
        for chunk, start in enumerate(range(0, int(sorted_ends[-1]), CHUNK)):
            values = self.kept[chunk] if self.kept else evaluate(self.posterior, self.points, self.nodes, start)
            for s in range(len(sizes)):
                _scan(values, blend[s], start, sorted_ends, best[s], where[s], found[s])
        back = np.argsort(order, kind="stable")
        return found[:, back, 0], found[:, back, 1:]


def prepare(posterior: "Posterior", points, sizes) -> PosteriorSearch:
    """Evaluate the surfaces where they will be needed, as far as memory allows."""
    points = {name: np.asarray(values, float) for name, values in points.items()}
    distinct = np.unique(np.asarray(sizes, float))
    nodes = distinct
    if len(distinct) > NUM_NODES:
        nodes = np.geomspace(distinct[0], distinct[-1], NUM_NODES)
    num_points = len(next(iter(points.values())))
    kept: tuple[np.ndarray, ...] = ()
    if num_points * len(nodes) * (posterior.num_samples + 1) <= MOST_KEPT:
        kept = tuple(evaluate(posterior, points, nodes, start) for start in range(0, num_points, CHUNK))
    return PosteriorSearch(posterior, points, nodes, kept)


def evaluate(posterior: "Posterior", points, nodes: np.ndarray, start: int) -> np.ndarray:
    """Point estimate and samples of the points from `start` on: (P, nodes, 1 + M)."""
    part = {name: values[start : start + CHUNK] for name, values in points.items()}
    found = []
    for node in nodes:
        point, samples = posterior.evaluate(posterior.columns(part, node if posterior.has_data_size else None))
        found.append(np.concatenate([point[None], samples]).T)
    return np.ascontiguousarray(np.stack(found, axis=1), np.float32)


def interpolation(nodes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Weights (S, nodes) that turn values at the nodes into values at the sizes, along log n."""
    if len(nodes) == 1:
        return np.ones((len(sizes), 1))
    exact = np.isclose(sizes[:, None], nodes, rtol=1e-12)
    if exact.any(axis=1).all():
        return exact.astype(float)
    return CubicSpline(np.log(nodes), np.eye(len(nodes)))(np.log(sizes))


@numba.njit(nogil=True, cache=True)
def _scan(values, blend, start, ends, best, where, found):  # noqa: PLR0917
    """Go on with the running optima through points start, start + 1, ...; budget b affords points [0, ends[b])."""
    num_points, nodes, count = values.shape
    now = np.empty(count, np.float32)
    b = 0
    while b < len(ends) and ends[b] <= start:
        b += 1
    for p in range(num_points):
        while b < len(ends) and ends[b] <= start + p:
            found[b] = where
            b += 1
        if b == len(ends):
            return
        now[:] = blend[0] * values[p, 0]
        for q in range(1, nodes):
            weight = blend[q]
            if weight != 0:
                row = values[p, q]
                for m in range(count):
                    now[m] += weight * row[m]
        for m in range(count):
            if now[m] < best[m]:
                best[m] = now[m]
                where[m] = start + p
    while b < len(ends) and ends[b] <= start + num_points:
        found[b] = where
        b += 1
