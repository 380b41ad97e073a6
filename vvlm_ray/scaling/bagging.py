"""Bagging: one fit per bootstrap resample of the runs, predictions by their median (Wang et al. 2025, App. D.4).

A resample's numbers depend on (seed, its index) only: threads, processes and machines do not change them.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.fitting import Fit, FitSettings, fit_with, form_of, solve_weighted
from vvlm_ray.scaling.forms import Form
from vvlm_ray.scaling.problem import PREDICTION_BOUNDS, Objective, scale
from vvlm_ray.scaling.runs import Runs


@dataclass(frozen=True)
class Bag:
    """M fitted resamples: log_coefficients (M, J), exponents (M, E), objectives (M,); `fit` is that of all runs.

    `runs` are those the bag was fitted to: they say what has been swept.
    """

    form: Form
    runs: Runs
    fit: Fit
    log_coefficients: np.ndarray
    exponents: np.ndarray
    objectives: np.ndarray

    @property
    def num_resamples(self) -> int:
        return len(self.objectives)

    def predict_members(self, factors, num_examples=None) -> np.ndarray:
        """f of every member: factors {name: (P,)}, num_examples scalar or (P,); (M, P)."""
        return self.form.predict(self.log_coefficients, self.exponents, factors, num_examples)

    def predict(self, factors, num_examples=None, aggregate="median") -> np.ndarray:
        """The median (or mean) of the members' predictions: (P,)."""
        return _aggregate(aggregate)(self.predict_members(factors, num_examples), axis=0)

    def band(self, factors, num_examples=None, level=0.9) -> tuple[np.ndarray, np.ndarray]:
        """The central `level` band of the members' predictions: low (P,), high (P,)."""
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(self.predict_members(factors, num_examples), tails, axis=0)
        return low, high

    def intervals(self, level=0.9) -> dict[str, tuple[float, float]]:
        """Bootstrap percentile interval of every parameter, in the units of the runs."""
        with np.errstate(over="ignore"):
            members = np.concatenate([np.exp(self.log_coefficients), self.exponents], axis=1)
        members = np.minimum(members, np.finfo(float).max)
        low, high = np.quantile(members, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return {name: (float(a), float(b)) for name, a, b in zip(self.form.param_names, low, high, strict=True)}

    def take(self, count: int) -> "Bag":
        """The bag of the first `count` resamples."""
        return Bag(
            self.form, self.runs, self.fit,
            self.log_coefficients[:count], self.exponents[:count], self.objectives[:count],
        )  # fmt: skip


def fit_bag(runs: Runs, form: str = "add-interact", *, resamples=100, engine="fast", starts=500, seed=0, loss="mse",
            huber_delta=1e-3, log_space=True, exponent_bounds=PREDICTION_BOUNDS, init="random", threads=None,
            progress: Callable[[int], None] | None = None) -> Bag:  # fmt: skip
    """Fit `form` to all runs and to `resamples` bootstrap resamples of them (Wang et al. 2025, App. D.4).

    Exponents are kept within `exponent_bounds` (None: free): free ones wreck extrapolation.
    `threads` is how many cores to use (all by default); `progress` is called with the number of resamples done.
    """
    objective = Objective(loss, huber_delta, log_space, exponent_bounds)
    settings = FitSettings(form, engine, starts, seed, objective, init)
    return fit_bag_with(runs, settings, resamples, threads=threads, progress=progress)


def fit_bag_with(runs: Runs, settings: FitSettings, resamples: int, *, threads=None, progress=None, race=False) -> Bag:
    """`fit_bag` with its options in one object; `race` hurries the fit to all runs like those to resamples."""
    if resamples < 1:
        raise UserError("a bag needs at least one resample")
    parent = fit_with(runs, settings, race=race)
    chunks = [range(i, min(i + 4, resamples)) for i in range(0, resamples, 4)]
    pieces, done = [], 0
    with ThreadPoolExecutor(threads or num_cores()) as pool:
        for piece in pool.map(lambda chunk: fit_resamples(runs, settings, chunk, parent.basins), chunks):
            pieces.append(piece)
            done += len(piece[2])
            if progress:
                progress(done)
    return assemble(runs, parent, pieces)


def assemble(runs: Runs, parent: Fit, pieces: Sequence[tuple]) -> Bag:
    """One bag from the results of `fit_resamples`, in the order of the resamples."""
    logs, exponents, objectives = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Bag(parent.form, runs, parent, logs, exponents, objectives)


def fit_resamples(runs: Runs, settings: FitSettings, indices: Sequence[int], basins: np.ndarray):
    """Fit the resamples of the given indices: log coefficients, exponents, objectives.

    `basins` (centred thetas of the fit to all runs) are starts beside the random ones.
    """
    form = form_of(runs, settings)
    scaled = scale(runs, form, settings.objective)
    base = np.ones(runs.num_runs) if runs.weights is None else runs.weights
    thetas, losses = [], []
    for index in indices:
        rng = np.random.default_rng([settings.seed, 1 + index])
        counts = np.bincount(rng.integers(0, runs.num_runs, runs.num_runs), minlength=runs.num_runs)
        best, loss = solve_weighted(scaled, base * counts, rng, settings, race=True, basins=basins)
        thetas.append(best[0])
        losses.append(scaled.report(loss[0]))
    return *scaled.to_user(np.array(thetas)), np.array(losses)


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _aggregate(name: str):
    if name not in {"median", "mean"}:
        raise UserError(f"unknown aggregate {name!r}: choose median or mean")
    return np.median if name == "median" else np.mean
