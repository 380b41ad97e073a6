"""How well a form predicts runs it has not seen: k-fold cross-validation and extrapolation.

Scores as Wang et al. 2025, Tables 2, 8, 9: MSE, E% = 100 mean(|f_hat - f| / f) and R^2, over held-out runs.
"""

from dataclasses import dataclass

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.bagging import Bag, fit_bag_with
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.runs import Runs


@dataclass(frozen=True)
class Scores:
    """Of predictions for held-out runs: mse (points^2), error_percent, r2; predicted and observed (held out,)."""

    mse: float
    error_percent: float
    r2: float
    predicted: np.ndarray
    observed: np.ndarray


def score(predicted: np.ndarray, observed: np.ndarray) -> Scores:
    """MSE, E% and R^2 = 1 - sum (f_hat - f)^2 / sum (f - mean f)^2."""
    residual = predicted - observed
    spread = np.square(observed - observed.mean()).sum()
    return Scores(
        mse=float(np.mean(residual**2)),
        error_percent=float(100 * np.mean(np.abs(residual) / observed)),
        r2=float(1 - np.square(residual).sum() / spread) if spread > 0 else float("nan"),
        predicted=predicted,
        observed=observed,
    )


def predict_runs(bag: Bag, runs: Runs, aggregate="median") -> np.ndarray:
    return bag.predict(runs.factors, runs.num_examples, aggregate)


def cross_validate(runs: Runs, settings: FitSettings | None = None, *, resamples=100, folds=5, seed=0,
                   aggregate="median", map: Map | None = None) -> Scores:  # fmt: skip
    """Predict every run from a bag fitted to the other folds; the folds are a seeded shuffle of the configurations."""
    settings = settings or FitSettings()
    predicted = np.empty(runs.num_runs)
    for held_out in fold_masks(runs, folds, seed):
        bag = fit_bag_with(runs.select(~held_out), settings, resamples, map=map, race=True)
        predicted[held_out] = predict_runs(bag, runs.select(held_out), aggregate)
    return score(predicted, runs.error)


def fold_masks(runs: Runs, folds: int, seed: int) -> list[np.ndarray]:
    """`folds` masks of held-out runs (R,), disjoint and of about the same size; runs of one configuration together."""
    configurations = runs.configurations
    count = int(configurations.max()) + 1
    if not 2 <= folds <= count:
        raise UserError(f"{folds} folds of {count} configurations: choose between 2 and their number")
    fold = np.random.default_rng([seed, 5]).permutation(count) % folds
    return [fold[configurations] == k for k in range(folds)]


def extrapolate(runs: Runs, train: np.ndarray, settings: FitSettings | None = None, *, resamples=100,
                aggregate="median", map: Map | None = None) -> Scores:  # fmt: skip
    """Fit the runs where `train` is True, predict the others."""
    train = np.asarray(train, bool)
    if train.all() or not train.any():
        raise UserError("extrapolation needs runs on both sides of the split")
    bag = fit_bag_with(runs.select(train), settings or FitSettings(), resamples, map=map, race=True)
    held_out = runs.select(~train)
    return score(predict_runs(bag, held_out, aggregate), held_out.error)


def below_budget(runs: Runs, budget: float) -> np.ndarray:
    """The mask of runs that cost at most the budget, in the cost's unit: fit below it, predict above it."""
    return runs.cost <= budget * runs.space.known_cost().scale * (1 + 1e-9)
