"""The compiled search over a cost-sorted grid: every budget, every data size, median and members in one pass.

For data size s, member m predicts v_m(p) = fixed[m, p] + shrinking[m, p] powers[s, m]. The running best of the
median is exact without taking every median: a point whose median is below the best has at least half of its members
below it, so points with fewer are passed over after a count, and only the rest are sorted.
"""

import numba
import numpy as np

from vvlm_ray.scaling.forms import shrinkage


class SeparableSearch:
    """The search for members f_m(x, n) = fixed[m, x] + shrinking[m, x] (n / n_0)^-d_m at points sorted by cost.

    fixed, shrinking (M, P), decay (M,) = d, log_reference = log n_0.
    """

    def __init__(self, fixed, shrinking, decay, log_reference: float):
        self.fixed, self.shrinking = np.ascontiguousarray(fixed.T), np.ascontiguousarray(shrinking.T)
        self.decay, self.log_reference = decay, log_reference

    def __call__(self, ends: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the optima for B budgets that afford points [0, ends[b]) and S sizes: (S, B), (S, B, M)."""
        powers = np.ascontiguousarray(shrinkage(sizes, self.log_reference, self.decay).T)
        order = np.argsort(ends, kind="stable")
        sorted_ends = ends[order].astype(np.int64)
        chosen = np.empty((len(powers), len(ends)), np.int32)
        by_member = np.empty((len(powers), len(ends), self.fixed.shape[1]), np.int32)
        for s, power in enumerate(powers):
            _search_one(self.fixed, self.shrinking, power, sorted_ends, chosen[s], by_member[s])
        back = np.argsort(order, kind="stable")
        return chosen[:, back], by_member[:, back]


@numba.njit(nogil=True, cache=True)
def _search_one(  # noqa: PLR0917
    fixed, shrinking, power, ends, chosen, by_member
):
    points, members = fixed.shape
    value = np.empty(members)
    best_of = np.full(members, np.inf)
    where = np.zeros(members, np.int32)
    best, best_at = np.inf, 0
    half = members // 2
    b = 0
    for p in range(points):
        while b < len(ends) and ends[b] <= p:
            chosen[b] = best_at
            by_member[b] = where
            b += 1
        if b == len(ends):
            return
        below = 0
        for m in range(members):
            v = fixed[p, m] + shrinking[p, m] * power[m]
            value[m] = v
            below += v < best
            better = v < best_of[m]
            best_of[m] = v if better else best_of[m]
            where[m] = p if better else where[m]
        if below >= half:
            for m in range(1, members):  # insertion sort: seldom needed, and quick to compile
                v = value[m]
                k = m
                while k > 0 and value[k - 1] > v:
                    value[k] = value[k - 1]
                    k -= 1
                value[k] = v
            middle = value[half] if members % 2 else 0.5 * (value[half - 1] + value[half])
            if middle < best:
                best, best_at = middle, p
    while b < len(ends):
        chosen[b] = best_at
        by_member[b] = where
        b += 1
