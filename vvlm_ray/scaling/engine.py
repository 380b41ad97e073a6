"""The fast engine: many starts at once in compiled code (see `kernels.py` for the mathematics).

One call solves one weighted data set; the compiled code releases the interpreter, so threads over resamples use
every core. The numbers depend on the seed alone, never on threads or processes.
"""

import numpy as np

from vvlm_ray.scaling.problem import Scaled

# Rounds of a resample: (how many starts are kept, Gauss-Newton iterations for each); what is left is polished.
RACE = ((24, 5), (8, 8))
# Rounds of a single fit: nobody is dropped, so that the share of starts at the best objective means something.
FULL = ((10**9, 20),)
POLISH_ITERATIONS = 150
POLISH_ROUNDS = 20
SCANS = 2
SCAN_BUDGET = 8


def solve(scaled: Scaled, weights: np.ndarray, starts: np.ndarray, extra: np.ndarray, rounds):
    """Minimise from starts (S, E) and extra thetas (X, P): thetas (left, P) best first, losses (left,)."""
    kernels = load_kernels()
    keep, iterations = (np.array(column, np.int64) for column in zip(*rounds, strict=True))
    problem = build_problem(scaled, weights)
    return kernels.solve(problem, starts, extra, keep, iterations, POLISH_ITERATIONS, POLISH_ROUNDS, SCANS, SCAN_BUDGET)


def load_kernels():
    """The compiled module (numba takes half a second to import, so only those who fit pay for it)."""
    from vvlm_ray.scaling import kernels

    return kernels


def build_problem(scaled: Scaled, weights: np.ndarray):
    """The kernels' arrays for the runs of positive weight."""
    kernels = load_kernels()
    form = scaled.form
    rows = np.flatnonzero(weights > 0)
    logs = np.ascontiguousarray(scaled.log_columns[:, rows])
    tables = [np.unique(column, return_inverse=True) for column in logs]
    num_levels = np.array([len(table[0]) for table in tables], np.int64)
    level = np.zeros((len(tables), num_levels.max()))
    for column, (values, _) in enumerate(tables):
        level[column, : len(values)] = values
    width = max(1, max(len(term) for term in form.terms))
    term_atoms = np.full((len(form.terms), width), -1, np.int64)
    for j, term in enumerate(form.terms):
        term_atoms[j, : len(term)] = term
    return kernels.Problem(
        np.array([atom.column for atom in form.atoms], np.int64),
        np.array([atom.exponent for atom in form.atoms], np.int64),
        np.array([atom.sign for atom in form.atoms], float),
        term_atoms,
        level,
        num_levels,
        np.stack([table[1] for table in tables]).astype(np.int64),
        logs,
        np.ascontiguousarray(scaled.target[rows]),
        np.ascontiguousarray(weights[rows], float),
        scaled.lower,
        scaled.upper,
        bool(scaled.objective.log_space),
        float(scaled.huber_delta),
    )
