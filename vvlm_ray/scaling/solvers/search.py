"""The fast engine: places all starts, races them, settles the best, scans for basins that none of them found.

The mathematics and the compiled code are in `kernels.py`. One call solves one weighted data set; compiled code
releases the interpreter, so threads over resamples use every core. The numbers depend on the seed alone.
"""

from dataclasses import dataclass

import numpy as np

from vvlm_ray.scaling.problem import Scaled


@dataclass(frozen=True)
class Effort:
    """rounds: (how many starts are kept, iterations for each); how many fits are scanned; candidates of a scan."""

    rounds: tuple[tuple[int, int], ...]
    scans: int
    scan_budget: int = 8


RACE = Effort(((24, 5), (8, 8)), scans=2)  # for resamples and folds
FULL = Effort(((10**9, 20),), scans=8)  # nobody is dropped, so that the share at the best objective means something
ONE = Effort((), scans=0)  # a plain descent, for the ablation with one start
# Exponents looked at in a scan, times the log-range: 0 and both signs, growing geometrically
SCANNED = np.concatenate([-(0.15 * 1.6 ** np.arange(14, -1, -1)), [0.0], 0.15 * 1.6 ** np.arange(15)])
ITERATIONS = 150
RETURNS = 20
SAME_BASIN = 1e-6  # relative difference of losses
PROMISING = 1.01  # candidates of a scan that come this close after a hurried descent are settled


def solve(scaled: Scaled, weights: np.ndarray, starts: np.ndarray, extra: np.ndarray, effort: Effort):
    """Minimise from starts (S, E) and extra thetas (X, P): thetas (left, P) best first, losses (left,)."""
    kernels = load_kernels()
    state = build_state(scaled, weights)
    terms = len(scaled.form.terms)
    thetas = np.empty((len(starts), scaled.form.num_params))
    thetas[:, terms:] = np.clip(starts, scaled.lower, scaled.upper)
    losses = kernels.place(state, thetas, np.empty((0, thetas.shape[1])))
    thetas = np.concatenate([extra, thetas])
    losses = np.concatenate([np.full(len(extra), -1.0), losses])  # extra starts survive the first round
    for keep, iterations in effort.rounds:
        thetas, losses = _sorted(thetas, losses, keep)
        losses = kernels.settle(state, thetas, iterations, False, 0)
    losses = kernels.settle(state, thetas, ITERATIONS, True, RETURNS)
    thetas, losses = _sorted(thetas, losses, len(losses))
    _scan_basins(kernels, state, thetas, losses, effort)
    return _sorted(thetas, losses, len(losses))


def _scan_basins(kernels, state, thetas, losses, effort: Effort) -> None:
    """Improve the best distinct fits by scanning, in place."""
    distinct = [0, *(1 + np.flatnonzero(losses[1:] > losses[:-1] * (1 + SAME_BASIN)))]
    for s in distinct[: effort.scans]:
        for _ in range(4):
            before = losses[s]
            tried = _other_basins(kernels, state, thetas[s], effort.scan_budget)
            reached = kernels.settle(state, tried, 12, False, 0)
            tried = tried[reached < before * PROMISING]
            if len(tried):
                reached = kernels.settle(state, tried, ITERATIONS, True, 4)
                best = np.argmin(reached)
                if reached[best] < before:
                    thetas[s], losses[s] = tried[best], reached[best]
            if losses[s] >= before * (1 - 1e-9):
                break


def _other_basins(kernels, state, theta, budget: int) -> np.ndarray:
    """Local minima along every exponent in turn, coefficients solved for, without the one theta is in: (found, P)."""
    exponents, scanned = state.grid.shape
    terms = len(theta) - exponents
    points = np.tile(theta, (exponents, scanned, 1))
    for e in range(exponents):
        points[e, :, terms + e] = state.grid[e]
    values = kernels.place(state, points.reshape(-1, len(theta)), theta[None]).reshape(exponents, scanned)
    edge = np.full((exponents, 1), np.inf)
    left, right = np.hstack([edge, values[:, :-1]]), np.hstack([values[:, 1:], edge])
    below = np.hstack([state.grid[:, :1], state.grid[:, :-1]])
    above = np.hstack([state.grid[:, 1:], state.grid[:, -1:]])
    here = theta[terms:, None]
    found = (values <= left) & (values < right) & ~((below < here) & (here < above))
    return _sorted(points[found], values[found], budget)[0]


def _sorted(thetas, losses, keep: int):
    order = np.argsort(losses, kind="stable")[:keep]
    return thetas[order], losses[order]


def load_kernels():
    """The compiled module (numba takes half a second to import, so only those who fit pay for it)."""
    from vvlm_ray.scaling.solvers import fast

    return fast


def build_state(scaled: Scaled, weights: np.ndarray):
    """The kernels' arrays for the runs of positive weight."""
    kernels = load_kernels()
    form = scaled.form
    rows = np.flatnonzero(weights > 0)
    logs = np.ascontiguousarray(scaled.log_columns[:, rows])
    tables = [np.unique(column, return_inverse=True) for column in logs]
    num_levels = np.array([len(values) for values, _ in tables], np.int64)
    level = np.zeros((len(tables) + 1, num_levels.max()))
    for column, (values, _) in enumerate(tables):
        level[column, : len(values)] = values
    width = max([1, *(len(term) for term in form.terms)])
    term_atoms = np.full((len(form.terms), width), -1, np.int64)
    for j, term in enumerate(form.terms):
        term_atoms[j, : len(term)] = term
    runs, params = len(rows), form.num_params
    per_run = np.zeros((kernels.NUM_PER_RUN, runs))
    per_run[kernels.TARGET], per_run[kernels.WEIGHT] = scaled.target[rows], weights[rows]
    per_param = np.zeros((kernels.NUM_PER_PARAM, params))
    exponents = len(form.exponents)
    per_param[kernels.LOWER, :exponents], per_param[kernels.UPPER, :exponents] = scaled.lower, scaled.upper
    per_param[kernels.REACH] = 1e-12
    for atom in form.atoms:
        reach = np.abs(logs[atom.column]).max()
        per_param[kernels.REACH, atom.exponent] = max(per_param[kernels.REACH, atom.exponent], reach)
    grid = np.outer(1 / per_param[kernels.REACH, :exponents], SCANNED)
    grid = np.clip(grid, scaled.lower[:, None], scaled.upper[:, None])
    return kernels.State(
        atom=np.array([(atom.column, atom.exponent) for atom in form.atoms], np.int64),
        sign=np.array([atom.sign for atom in form.atoms], float),
        term_atoms=term_atoms,
        level=level,
        num_levels=num_levels,
        index=np.stack([inverse for _, inverse in tables]).astype(np.int64),
        log_column=logs,
        per_run=per_run,
        per_param=per_param,
        power=np.empty((len(form.atoms), runs)),
        term=np.empty((len(form.terms), runs)),
        slope=np.empty((params, runs)),
        square=np.empty((3, params, params)),
        grid=grid,
        log_space=bool(scaled.objective.log_space),
        huber_delta=float(scaled.huber_delta),
    )
