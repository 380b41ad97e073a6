"""How well an estimator predicts runs it has not seen: k-fold cross-validation and extrapolation.

Scores as Wang et al. 2025, Tables 2, 8, 9: MSE, E% = 100 mean(|f_hat - f| / f) and R^2, over held-out runs; and how
many of these lie in their predictive bands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.bagging import Bag
from vvlm_ray.scaling.estimator import fit_predictor
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.forms import AUTO
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.predictor import Predictor, predictive_band
from vvlm_ray.scaling.runs import Runs


@dataclass(frozen=True)
class Scores:
    """Of predictions for held-out runs: mse (points^2), error_percent, r2; predicted and observed (held out,).

    `low`, `high` (held out,) are 90 % bands of what a run would show: f and one run's scatter; None where not made.
    """

    mse: float
    error_percent: float
    r2: float
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    @property
    def coverage(self) -> float:
        """The share of held-out runs within their bands; NaN without bands."""
        if self.low is None or self.high is None:
            return float("nan")
        return float(((self.low <= self.observed) & (self.observed <= self.high)).mean())


def score(predicted: np.ndarray, observed: np.ndarray, band: tuple | None = None) -> Scores:
    """MSE, E% and R^2 = 1 - sum (f_hat - f)^2 / sum (f - mean f)^2."""
    residual = predicted - observed
    spread = np.square(observed - observed.mean()).sum()
    return Scores(
        mse=float(np.mean(residual**2)),
        error_percent=float(100 * np.mean(np.abs(residual) / observed)),
        r2=float(1 - np.square(residual).sum() / spread) if spread > 0 else float("nan"),
        predicted=predicted,
        observed=observed,
        low=band[0] if band else None,
        high=band[1] if band else None,
    )


def predict_runs(predictor: Predictor, runs: Runs, aggregate="median") -> np.ndarray:
    """The predictions for runs: (R,). A bag may aggregate its members otherwise than by the median."""
    if isinstance(predictor, Bag):
        return predictor.predict(runs.factors, runs.num_examples, aggregate)
    return predictor.predict(runs.factors, runs.num_examples)


def cross_validate(runs: Runs, settings: FitSettings | None = None, *, resamples=100, folds=5, seed=0,
                   aggregate="median", map: Map | None = None) -> Scores:  # fmt: skip
    """Predict every run from a fit to the other folds; the folds are a seeded shuffle of the configurations."""
    settings = settings or FitSettings(AUTO)
    predicted, band = np.empty(runs.num_runs), np.empty((2, runs.num_runs))
    for held_out in fold_masks(runs, folds, seed):
        fitted = fit_predictor(runs.select(~held_out), settings, resamples, map=map, race=True)
        predicted[held_out] = predict_runs(fitted, runs.select(held_out), aggregate)
        band[:, held_out] = predictive_band(fitted, runs.select(held_out))
    return score(predicted, runs.error, tuple(band))


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
    fitted = fit_predictor(runs.select(train), settings or FitSettings(AUTO), resamples, map=map, race=True)
    held_out = runs.select(~train)
    return score(predict_runs(fitted, held_out, aggregate), held_out.error, predictive_band(fitted, held_out))


def below_budget(runs: Runs, budget: float) -> np.ndarray:
    """The mask of runs that cost at most the budget, in the cost's unit: fit below it, predict above it."""
    return runs.cost <= budget * runs.space.known_cost().scale * (1 + 1e-9)


@dataclass(frozen=True)
class Split:
    """Which runs to fit (R,) when predicting the `test` ones (R,), and what this is called."""

    train: np.ndarray
    test: np.ndarray
    name: str


def splits(runs: Runs, by: str, share: float = 0.7) -> list[Split]:
    """Ways to fit some runs and predict others that lie beyond them.

    `by` is "cost" (fit the cheaper runs, predict the dearer), "num_examples" or a factor (fit the smaller values,
    predict the larger), or "rolling" (costs rise in steps: fit all below, predict the next quarter). `share` of the
    runs, as near as levels allow, are fitted.

    Raises:
        UserError: there is no such column, or it has one level.
    """
    if by == "rolling":
        return list(_rolling(runs))
    columns = runs.columns()
    del columns["error"]
    if by != "cost" and by not in columns:
        raise UserError(f"validate by {by!r}: choose cost, rolling or one of {', '.join(columns)}")
    values = runs.cost if by == "cost" else columns[by]
    levels = np.unique(values)
    if len(levels) < 2:
        raise UserError(f"validate by {by}: it is {levels[0]:g} in every run, so nothing lies beyond the others")
    below = np.array([(values <= level).mean() for level in levels[:-1]])
    most = levels[int(np.argmin(np.abs(below - share)))]
    train = values <= most
    name = f"{by} up to {_text(runs, by, most)} -> above"
    return [Split(train, ~train, name)]


def _rolling(runs: Runs) -> Iterator[Split]:
    values = runs.cost
    edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75, 1.0], method="nearest"))
    if len(edges) < 2:
        raise UserError("validate rolling: all runs cost about the same")
    for low, high in pairwise(edges):
        test = (values > low) & (values <= high)
        yield Split(values <= low, test, f"cost up to {_text(runs, 'cost', low)} -> up to {_text(runs, 'cost', high)}")


def _text(runs: Runs, by: str, value: float) -> str:
    return runs.space.known_cost().text(value) if by == "cost" else f"{value:g}"


def validate(runs: Runs, parts: Sequence[Split], settings: FitSettings | None = None, *, resamples=100,
             map: Map | None = None) -> dict[str, Scores | str]:  # fmt: skip
    """{name of the split: scores of the runs it predicts, or why there are none}."""
    found: dict[str, Scores | str] = {}
    for part in parts:
        kept = part.train | part.test
        try:
            found[part.name] = extrapolate(runs.select(kept), part.train[kept], settings, resamples=resamples, map=map)
        except UserError as problem:
            found[part.name] = str(problem)
    return found
