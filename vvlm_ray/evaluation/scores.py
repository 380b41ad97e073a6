"""From what each document counts to one number on 0..100 with its standard error, or an error where it would be false.

score = mean over metrics m of the mean over documents i of s_mi, each on 0..100.
Standard error: documents about one video are not independent, so the sum goes over videos v,
SE^2 = G/(G-1) sum_v psi_v^2, psi_v = (1/M) sum_m sum_{i in v} (s_mi - mean_m) / n_m,  with G videos and M metrics.
It is what a bootstrap over videos tends to, without its noise.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vvlm_ray.evaluation.benchmarks import Metric
from vvlm_ray.evaluation.failures import EvaluationFailed

# LongVideoBench rounds its mean to five digits.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Documents:
    """What the documents of one metric count, on the metric's own scale: (video, value), None where one has no value.

    `reported` is lmms-eval's mean of them. Where it is another number, `is_mean` is false and `resamples` holds
    what it would be over resampled videos, or nothing.
    """

    metric: Metric
    values: tuple[tuple[str, float | None], ...]
    reported: float
    is_mean: bool = True
    resamples: tuple[float, ...] = ()

    @property
    def counted(self) -> list[tuple[str, float]]:
        """The documents with a value."""
        return [(video, value) for video, value in self.values if value is not None]


def combined(name: str, parts: Sequence[Documents]) -> tuple[float, float | None, list[float]]:
    """(score, standard error, the score of each part); the error is None where documents are no plain mean, or few.

    Raises EvaluationFailed for a part without values, off its scale, or whose mean is not what lmms-eval reports.
    """
    points = [_points(name, part) for part in parts]
    score = sum(points) / len(points)
    if not all(part.is_mean for part in parts):
        return score, _bootstrapped(parts), points
    influence: dict[str, float] = defaultdict(float)
    for part, mean in zip(parts, points, strict=True):
        counted = part.counted
        for video, value in counted:
            influence[video] += (part.metric.points(value) - mean) / len(counted) / len(parts)
    G = len(influence)
    if G < 2:
        return score, None, points
    return score, math.sqrt(G / (G - 1) * sum(psi**2 for psi in influence.values())), points


def _points(name: str, part: Documents) -> float:
    """The part's score on 0..100, once it holds."""
    metric = part.metric
    where = f"{name}: {metric.key} of {metric.task}"
    values = [value for _, value in part.counted]
    value = math.fsum(values) / len(values) if part.is_mean and values else part.reported
    if not isinstance(value, (int, float)) or not math.isfinite(value) or (part.is_mean and not values):
        raise EvaluationFailed(
            f"{where} is {value!r}; no score is recorded. Look at this task's log, and whether its data is complete"
        )
    if not 0 <= value <= metric.full_mark:
        raise EvaluationFailed(
            f"{where} is {value:g}, beyond its scale of 0..{metric.full_mark:g}; is its full mark another one?"
        )
    if part.is_mean and len(values) == len(part.values) and not _agrees(part, value):
        raise EvaluationFailed(f"{where}: lmms-eval reports {part.reported!r}, but its documents' mean is {value:g}")
    return metric.points(value)


def _bootstrapped(parts: Sequence[Documents]) -> float | None:
    """The standard deviation over resamples, of parts taken as independent; None where one has none."""
    if not all(part.resamples for part in parts):
        return None
    spreads = [statistics.stdev(part.metric.points(value) for value in part.resamples) for part in parts]
    return math.hypot(*spreads) / len(parts)


def _agrees(part: Documents, mean: float) -> bool:
    reported = part.reported
    is_number = isinstance(reported, (int, float)) and math.isfinite(reported)
    return is_number and abs(reported - mean) <= max(_ROUNDING, 1e-9 * part.metric.full_mark)
