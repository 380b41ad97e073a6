"""Bagging: one fit per bootstrap resample of the runs, predictions by their median (Wang et al. 2025, App. D.4).

A resample's numbers depend on (seed, its index) only: threads, processes and machines do not change them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.answers import Answers
from vvlm_ray.scaling.fitting import Fit, FitSettings, fit_with, form_of, solve_weighted
from vvlm_ray.scaling.forms import Form
from vvlm_ray.scaling.parallel import Map, pieces, threads
from vvlm_ray.scaling.problem import PREDICTION_BOUNDS, Objective, scale
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Space


@dataclass(frozen=True)
class Bag(Answers):
    """M fitted resamples: log_coefficients (M, J), exponents (M, E), objectives (M,); `fit` is that of all runs.

    `runs` are those the bag was fitted to: they say what has been swept, and their `space` what may be chosen. A
    bag is a `Predictor`: its point estimate is the median of its members, and its samples are the members.
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

    @property
    def label(self) -> str:
        return self.form.name

    @property
    def warnings(self) -> list[str]:
        """What a user must know before believing the parameters."""
        return self.fit.warnings

    @property
    def has_data_size(self) -> bool:
        return self.form.has_data_size

    @property
    def noise(self) -> float:
        """Standard deviation of a run about the point estimate, with as many degrees of freedom as are left."""
        residual = self.runs.error - self.predict(self.runs.factors, self.runs.num_examples)
        return float(np.sqrt((residual**2).sum() / max(self.runs.num_runs - self.form.num_params, 1)))

    def samples(self, factors, num_examples=None) -> np.ndarray:
        """f of every member: factors {name: (P,)}, num_examples scalar or (P,); (M, P)."""
        return self.form.predict(self.log_coefficients, self.exponents, factors, num_examples)

    def predict(self, factors, num_examples=None, aggregate="median") -> np.ndarray:
        """The median (or mean) of the members' predictions: (P,)."""
        return _aggregate(aggregate)(self.samples(factors, num_examples), axis=0)

    def band(self, factors, num_examples=None, level=0.9) -> tuple[np.ndarray, np.ndarray]:
        """The central `level` band of the members' predictions: low (P,), high (P,)."""
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(self.samples(factors, num_examples), tails, axis=0)
        return low, high

    def prepare_search(self, points, sizes: np.ndarray):
        """The compiled search over points {name: (P,)} sorted by cost (see `Predictor`)."""
        from vvlm_ray.scaling.frontier_kernels import SeparableSearch

        log_reference = float(np.log(sizes).mean())
        fixed, shrinking, decay = self.form.split(
            self.log_coefficients, self.exponents, list(points.values()), log_reference
        )
        return SeparableSearch(fixed, shrinking, decay, log_reference)

    def intervals(self, level=0.9) -> dict[str, tuple[float, float]]:
        """Bootstrap percentile interval of every parameter, in the units of the runs."""
        with np.errstate(over="ignore"):
            members = np.concatenate([np.exp(self.log_coefficients), self.exponents], axis=1)
        members = np.minimum(members, np.finfo(float).max)
        low, high = np.quantile(members, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return {name: (float(a), float(b)) for name, a, b in zip(self.form.param_names, low, high, strict=True)}

    def over(self, space: Space) -> "Bag":
        """The same bag with another space to choose from."""
        return replace(self, runs=self.runs.over(space))

    def save(self, path: str | PathLike) -> None:
        """Keep the bag as JSON, its runs and space included."""
        from vvlm_ray.scaling.saved import save_bag

        save_bag(self, path)

    @staticmethod
    def load(path: str | PathLike) -> "Bag":
        """A bag that was saved. Raises UserError where the file does not hold one."""
        from vvlm_ray.scaling.saved import load_bag

        return load_bag(path)

    def take(self, count: int) -> "Bag":
        """The bag of the first `count` resamples."""
        return Bag(
            self.form, self.runs, self.fit,
            self.log_coefficients[:count], self.exponents[:count], self.objectives[:count],
        )  # fmt: skip


def fit_bag(runs: Runs, form: str = "add-interact", *, resamples=100, engine="fast", starts=500, seed=0, loss="mse",
            huber_delta=1e-3, log_space=True, exponent_bounds=PREDICTION_BOUNDS, init="random", map: Map | None = None,
            progress: Callable[[int], None] | None = None) -> Bag:  # fmt: skip
    """Fit `form` to all runs and to `resamples` bootstrap resamples of them (Wang et al. 2025, App. D.4).

    Exponents are kept within `exponent_bounds` (None: free): free ones wreck extrapolation.
    `map` says where the resamples are fitted (on all cores of this machine by default); `progress` is called with
    the number of resamples done.
    """
    objective = Objective(loss, huber_delta, log_space, exponent_bounds)
    settings = FitSettings(form, engine, starts, seed, objective, init)
    return fit_bag_with(runs, settings, resamples, map=map, progress=progress)


def fit_bag_with(runs: Runs, settings: FitSettings, resamples: int, *, map: Map | None = None, progress=None,
                 race=False) -> Bag:  # fmt: skip
    """`fit_bag` with its options in one object; `race` hurries the fit to all runs like those to resamples."""
    if resamples < 1:
        raise UserError("a bag needs at least one resample")
    parent = fit_with(runs, settings, race=race)
    found, done = [], 0
    work = partial(fit_resamples, runs, settings, basins=parent.basins)
    for piece in (map or threads())(work, pieces(range(resamples))):
        found.append(piece)
        done += len(piece[2])
        if progress:
            progress(done)
    logs, exponents, objectives = (np.concatenate(column) for column in zip(*found, strict=True))
    return Bag(parent.form, runs, parent, logs, exponents, objectives)


def fit_resamples(runs: Runs, settings: FitSettings, indices: Sequence[int], basins: np.ndarray):
    """Fit the resamples of the given indices: log coefficients, exponents, objectives.

    What is drawn are configurations, with all their runs: those of one configuration are not independent.
    `basins` (centred thetas of the fit to all runs) are starts beside the random ones.
    """
    form = form_of(runs, settings)
    scaled = scale(runs, form, settings.objective)
    base = np.ones(runs.num_runs) if runs.weights is None else runs.weights
    configurations = runs.configurations
    count = int(configurations.max()) + 1
    thetas, losses = [], []
    for index in indices:
        rng = np.random.default_rng([settings.seed, 1 + index])
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        weights = base * times[configurations]
        best, loss = solve_weighted(scaled, weights, rng, settings, race=True, basins=basins)
        thetas.append(best[0])
        losses.append(scaled.report(loss[0]))
    return *scaled.to_user(np.array(thetas)), np.array(losses)


def _aggregate(name: str):
    if name not in {"median", "mean"}:
        raise UserError(f"unknown aggregate {name!r}: choose median or mean")
    return np.median if name == "median" else np.mean
