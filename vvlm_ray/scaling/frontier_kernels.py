"""The compiled search over a cost-sorted grid: every budget, every data size, median and members in one pass.

For data size s, member m predicts v_m(p) = fixed[m, p] + shrinking[m, p] powers[s, m]. The running best of the
median is exact without taking every median: a point whose median is below the best has at least half of its members
below it, so points with fewer are passed over after a count, and only the rest are sorted.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from vvlm_ray.scaling.bagging import num_cores


def search(fixed, shrinking, powers, ends, *, threads=None):
    """Best positions for S sizes and B budgets, where budget b affords points [0, ends[b]): (S, B), (S, B, M)."""
    fixed, shrinking = np.ascontiguousarray(fixed.T), np.ascontiguousarray(shrinking.T)
    order = np.argsort(ends, kind="stable")
    chosen = np.empty((len(powers), len(ends)), np.int32)
    by_member = np.empty((len(powers), len(ends), fixed.shape[1]), np.int32)

    def one(s):
        _search_one(fixed, shrinking, powers[s], ends[order].astype(np.int64), chosen[s], by_member[s])

    with ThreadPoolExecutor(threads or num_cores()) as pool:
        list(pool.map(one, range(len(powers))))
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
