"""What takes long to compute, kept as JSON in a study's fits/ and reused while its meaning is the same."""

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vvlm_ray.scaling.runs import Runs
from vvlm_ray.study.folder import write_json

if TYPE_CHECKING:
    from vvlm_ray.scaling.validation import Scores

VERSION = 4  # raised when the same runs and settings would give other numbers


def remember(folder: Path | None, name: str, meaning: Any, make: Callable[[], Any]) -> Any:
    """The JSON value in folder/<name>.json if it was made for the same meaning, else `make()`, which is kept there."""
    digest = _digest(meaning)
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.json" if folder else None
    if path is not None and path.exists():
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):
            found = None
        # The value's own digest: a damaged file is made anew, whatever is damaged in it.
        if isinstance(found, dict) and found.get("digest") == digest and "value" in found:
            with suppress(RecursionError):
                if found.get("value_digest") == _digest(found["value"]):
                    return found["value"]
    value = make()
    if path is not None:
        as_read = json.loads(json.dumps(value))
        with suppress(OSError):  # a folder that may not be written costs time only
            head = {"digest": digest, "value_digest": _digest(as_read), "meaning": _short(meaning)}
            write_json(path, head | {"value": value})
    return value


def meaning_of(runs: Runs) -> dict[str, Any]:
    """The numbers of the runs and the sweep of each, as JSON."""
    return {
        "runs": {name: values.tolist() for name, values in runs.columns().items()},
        "weights": None if runs.weights is None else runs.weights.tolist(),
        "error_se": None if runs.error_se is None else runs.error_se.tolist(),
        "sweep": None if runs.sweep is None else runs.sweep.tolist(),
    }


def scores_to_json(scores: "Scores") -> dict[str, Any]:
    bands = {"low": scores.low.tolist(), "high": scores.high.tolist()} if scores.low is not None else {}
    return {"predicted": scores.predicted.tolist(), "observed": scores.observed.tolist()} | bands


def scores_from_json(value: dict[str, Any]) -> "Scores":
    from vvlm_ray.scaling.validation import score

    band = (np.array(value["low"], float), np.array(value["high"], float)) if "low" in value else None
    return score(np.array(value["predicted"], float), np.array(value["observed"], float), band)


def _digest(meaning: Any) -> str:
    text = json.dumps([VERSION, meaning], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _short(meaning: Any) -> Any:
    """The settings, for a reader; the runs are in the records."""
    return {key: value for key, value in meaning.items() if key not in {"runs", "weights", "error_se", "sweep"}}
