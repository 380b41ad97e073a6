"""Bags as JSON: of themselves (with runs and space, for people) and of their numbers alone (for the cache)."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.bagging import Bag
from vvlm_ray.scaling.fitting import Fit, FitSettings
from vvlm_ray.scaling.forms import make_form
from vvlm_ray.scaling.identify import Verdict
from vvlm_ray.scaling.problem import Objective
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Space

VERSION = 1  # of the file


def save_bag(bag: Bag, path: str | os.PathLike) -> None:
    """Write the bag; the file is whole or as it was before."""
    settings = asdict(bag.fit.settings)
    value = {"vvlm_ray bag": VERSION, "settings": settings, "runs": _runs_to_json(bag.runs), "bag": bag_to_json(bag)}
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(value, indent=1) + "\n")
        temporary.replace(path)
    except OSError as problem:
        raise UserError(f"{path}: cannot be written ({problem.strerror or problem})") from None


def load_bag(path: str | os.PathLike) -> Bag:
    """Read a bag that `save_bag` wrote.

    Raises:
        UserError: no such file, or one that holds no bag.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise UserError(f"{path}: cannot be read ({problem.strerror or problem})") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON, so no saved bag") from None
    if not isinstance(value, dict) or value.get("vvlm_ray bag") != VERSION:
        raise UserError(f"{path}: not a bag saved by this version of vvlm_ray")
    try:
        runs = _runs_from_json(value["runs"])
        settings = value["settings"]
        bounds = settings["objective"]["exponent_bounds"]
        objective = Objective(**settings["objective"] | {"exponent_bounds": tuple(bounds) if bounds else None})
        bag = bag_from_json(value["bag"], runs, FitSettings(**settings | {"objective": objective}))
        members, terms, powers = len(bag.objectives), len(bag.form.terms), len(bag.form.exponents)
        whole = (bag.log_coefficients.shape, bag.exponents.shape) == ((members, terms), (members, powers))
        whole &= (bag.fit.log_coefficients.shape, bag.fit.exponents.shape) == ((terms,), (powers,))
        if not whole or bag.samples(runs.factors, runs.num_examples).shape[1] != runs.num_runs:
            raise ValueError("the parts do not fit together")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        raise UserError(f"{path}: damaged, not a whole saved bag ({problem})") from None
    return bag


def _runs_to_json(runs: Runs) -> dict[str, Any]:
    def values(array):
        return None if array is None else array.tolist()

    targets = None if runs.targets is None else [None if np.isnan(t) else float(t) for t in runs.targets]
    return {
        "factors": {name: column.tolist() for name, column in runs.factors.items()},
        "error": runs.error.tolist(),
        "num_examples": values(runs.num_examples),
        "weights": values(runs.weights),
        "sweep": values(runs.sweep),
        "labels": list(runs.labels),
        "error_se": values(runs.error_se),
        "targets": targets,
        "notes": list(runs.notes),
        "space": runs.space.to_dict(),
    }


def _runs_from_json(value: dict[str, Any]) -> Runs:
    targets = value["targets"]
    if targets is not None:
        targets = [np.nan if target is None else target for target in targets]
    parts = {"labels": tuple(value["labels"]), "notes": tuple(value["notes"]), "targets": targets}
    return Runs(**value | parts | {"space": Space.from_dict(value["space"])})


def bag_to_json(bag: Bag) -> dict[str, Any]:
    fit = bag.fit
    return {
        "form": fit.form.name,
        "params": {name: float(value) for name, value in fit.params.items()},
        "objective": fit.objective,
        "status": fit.status,
        "unidentified": [asdict(verdict) for verdict in fit.unidentified],
        "num_starts": fit.num_starts,
        "share_at_best": fit.share_at_best,
        "gradient_norm": fit.gradient_norm,
        "log_coefficients": _open(fit.log_coefficients),
        "exponents": fit.exponents.tolist(),
        "basins": _open(fit.basins),
        "resamples": {
            "log_coefficients": _open(bag.log_coefficients),
            "exponents": bag.exponents.tolist(),
            "objectives": bag.objectives.tolist(),
        },
    }


def bag_from_json(value: dict[str, Any], runs: Runs, settings: FitSettings) -> Bag:
    form = make_form(value["form"], tuple(runs.factors), runs.num_examples is not None)
    fit = Fit(
        form=form,
        settings=settings,
        log_coefficients=_closed(value["log_coefficients"]),
        exponents=np.array(value["exponents"], float),
        objective=value["objective"],
        num_runs=runs.num_runs,
        num_starts=value["num_starts"],
        share_at_best=value["share_at_best"],
        gradient_norm=value["gradient_norm"],
        status=value["status"],
        unidentified=tuple(Verdict(**verdict) for verdict in value["unidentified"]),
        basins=_closed(value["basins"]),
    )
    members = value["resamples"]
    exponents, objectives = np.array(members["exponents"], float), np.array(members["objectives"], float)
    return Bag(form, runs, fit, _closed(members["log_coefficients"]), exponents, objectives)


def _open(logs: np.ndarray) -> list:
    """JSON has no infinity; the log of a coefficient that is zero is null."""
    return np.where(np.isneginf(logs), None, logs.astype(object)).tolist()


def _closed(values: list) -> np.ndarray:
    array = np.array(values, dtype=object)
    return np.where(np.equal(array, None), -np.inf, array).astype(float)
