"""From scores or errors as people write them (0..100, 0..1, percent, perfect) to errors in points; it is said how."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vvlm_ray.results.columns import Columns
from vvlm_ray.results.numbers import PERCENT, clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vvlm_ray.results.tables import Table

DEFAULT_QUESTIONS = 1000  # of a benchmark whose number of questions nobody stated


@dataclass(frozen=True)
class Measured:
    """Errors (R,) in points or in the unit of the file, what they are in words, and doubts.

    `bad` (column, rows, why) where a value is none.
    """

    error: np.ndarray
    what: str
    notes: tuple[str, ...] = ()
    bad: tuple[str, np.ndarray, str] | None = None


def errors_of(values: pd.DataFrame, labels: "Sequence[str]", columns: Columns, table: "Table") -> Measured:
    """The error of each row: 100 - the mean of the score columns, or the error column as it is.

    Values that are all within 0..1 are shares unless they have % signs, a unit is stated, or the column is a loss.
    An error of exactly 0 is taken as half a question, since its logarithm has no value.
    """
    names = list(values.columns)
    points = values.to_numpy(float)
    stated = [columns.units.get(name) for name in names]
    percent = any(PERCENT in table.how.get(name, ()) for name in names)
    is_loss = bool(columns.error) and bool(re.search("loss|nll|ppl|perplexity|entropy", columns.error.lower()))
    scale = ""
    if any(unit is not None for unit in stated):
        points = points * np.array([1.0 if unit is None else unit for unit in stated])
        scale = f" (x {', '.join(f'{unit:g}' for unit in stated if unit is not None)})"
    elif not percent and not is_loss and not table.is_of_a_study and 0 < points.max() <= 1:
        points = points * 100
        scale = " (0..1, taken as shares and multiplied by 100)"
    for column, name in enumerate(names):
        if not columns.error and (points[:, column] > 100).any():
            why = "is no score on 0..100 (for an error column use --error)"
            return Measured(points[:, column], "", bad=(name, points[:, column] > 100, why))
    mean = points.mean(axis=1) if len(names) > 1 else points[:, 0]
    error = mean if columns.error else np.round(100 - mean, 12)
    error = np.array([clean(value) for value in error])
    label = columns.error or (columns.score or names[0] if len(names) == 1 else f"the mean of {', '.join(names)}")
    mapped = columns.names.get(label)
    label += f" = {mapped}" if mapped else ""
    what = f"error = {label}{scale}" if columns.error else f"error = 100 - {label}{scale}"
    zero = np.flatnonzero(error <= 0)
    if not len(zero):
        return Measured(error, what)
    if columns.error and (is_loss or error.max() > 100):
        why = "is an error of 0: errors must be positive, because their logarithm is fitted"
        return Measured(error, what, bad=(names[0], error <= 0, why))
    return _half_a_question(error, zero, what, labels, columns)


def _half_a_question(error, zero, what: str, labels: "Sequence[str]", columns: Columns) -> Measured:
    questions = columns.num_questions or DEFAULT_QUESTIONS
    error = error.copy()
    error[zero] = clean(100 * 0.5 / questions)
    rows = ", ".join(labels[i] for i in zero[:3]) + (", ..." if len(zero) > 3 else "")
    said = "" if columns.num_questions else " (a guess: state theirs with --questions)"
    subject = "1 score is perfect" if len(zero) == 1 else f"{len(zero)} scores are perfect"
    note = f"{subject} ({rows}); the error is taken as half of one of {questions:,} questions{said}: {error[zero[0]]:g}"
    return Measured(error, what, (note,))
