"""What an answer is computed from: anything that predicts f(x, n) with its doubts, a bag of fits or a posterior."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.special import ndtri

from vvlm_ray.scaling.runs import Runs

Factors = Mapping[str, np.ndarray]
NORMAL_NODES = ndtri((np.arange(25) + 0.5) / 25)
# (ends (B,), sizes (S,)) -> (by the prediction (S, B), by each sample (S, B, M)): positions of the optimum among the
# first `ends` points
Search = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@runtime_checkable
class Predictor(Protocol):
    """f(x, n) as learnt from `runs`, whose `space` says what may be chosen and what it costs.

    The M samples are whole functions, the same ones in every call: differences between configurations and between
    data sizes are taken sample by sample. A predictor may also have
    `prepare_search(points {name: (P,)}, sizes (S,)) -> Search`, where it knows a faster way than `by_samples`.
    """

    runs: Runs

    @property
    def label(self) -> str:
        """What it is called in tables and messages: the form, or "auto"."""

    @property
    def warnings(self) -> list[str]:
        """What a user must know before believing it: sentences."""

    @property
    def has_data_size(self) -> bool:
        """Whether f depends on num_examples, which must then be given."""

    @property
    def noise(self) -> float:
        """Standard deviation of one run about f."""

    def predict(self, factors: Factors, num_examples=None) -> np.ndarray:
        """The point estimate that configurations are chosen by: factors {name: (P,)}, num_examples scalar or (P,)."""

    def samples(self, factors: Factors, num_examples=None) -> np.ndarray:
        """M plausible f at these points: (M, P). Bands are their quantiles."""


def prepare_search(predictor: Predictor, points: Factors, sizes: np.ndarray) -> Search:
    """How to find the optima among points sorted by cost, for these data sizes; may be sent to other processes."""
    own = getattr(predictor, "prepare_search", None)
    return own(points, sizes) if own else _BySamples(predictor, points)


class _BySamples:
    """Optima of any predictor, by evaluating its prediction and all its samples at every point."""

    def __init__(self, predictor: Predictor, points: Factors):
        self.predictor, self.points = predictor, points

    def __call__(self, ends: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen, by_sample = [], []
        most = int(ends.max())
        points = {name: values[:most] for name, values in self.points.items()}
        for size in sizes:
            n = float(size) if self.predictor.has_data_size else None
            chosen.append(first_minimum(self.predictor.predict(points, n)[None], ends)[0])
            by_sample.append(first_minimum(self.predictor.samples(points, n), ends).T)
        return np.array(chosen, np.int32), np.array(by_sample, np.int32)


def first_minimum(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Where each row (M, P) has the first of its least values among the first `ends` (B,) points: (M, B)."""
    least = np.minimum.accumulate(values, axis=1)
    is_new = np.ones(values.shape, bool)
    is_new[:, 1:] = values[:, 1:] < least[:, :-1]
    where = np.maximum.accumulate(np.where(is_new, np.arange(values.shape[1], dtype=np.int32), 0), axis=1)
    return where[:, ends - 1]


def predictive_band(predictor: Predictor, at: Runs, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Where a new run at these points would lie: the samples with one run's scatter on top, (R,) each.

    The scatter is added at fixed quantiles of the normal, so that the band depends on nothing random.
    """
    samples = predictor.samples(at.factors, at.num_examples)
    spread = (samples[:, None, :] + predictor.noise * NORMAL_NODES[:, None]).reshape(-1, samples.shape[1])
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
