"""How well forms, ways of fitting and ways of aggregating predict runs they have not seen.

The tables of Wang et al. 2025: 2 (forms), 8 (ways of fitting the chosen form), 9 (aggregation over the bag).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.results import cache
from vvlm_ray.results.analysis import Analysis, Progress, Settings
from vvlm_ray.scaling.forms import AUTO, FORM_NAMES
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.runs import Runs

if TYPE_CHECKING:
    from vvlm_ray.scaling.bagging import Bag
    from vvlm_ray.scaling.fitting import FitSettings

CHEAP_SHARE = 0.7  # of the runs, where there are no two sweeps: fit the cheaper, predict the costlier
MEASURES = ("mse", "error_percent", "r2")


@dataclass(frozen=True)
class Split:
    """Which runs to fit (R,) when predicting the others, and what this is called: "star -> isoflop"."""

    train: np.ndarray
    name: str


@dataclass(frozen=True)
class Row:
    """One line of a table: what was tried, its (MSE, E%, R^2) on known ground and in extrapolation, None if impossible.

    The known ground is cross-validation (Tables 2, 8) or the runs of the fit themselves (Table 9).
    """

    what: str
    known: tuple[float, float, float] | None
    extrapolated: tuple[float, float, float] | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """Tables 2, 8 and 9."""

    split: Split
    forms: tuple[Row, ...]
    fits: tuple[Row, ...]
    aggregates: tuple[Row, ...]


def split_of(analysis: Analysis) -> Split:
    """Fit the star sweep and predict the others; without two sweeps, fit the cheaper 70 % and predict the costlier."""
    sweep = analysis.runs.sweep
    if sweep is not None and "star" in sweep and (sweep != "star").any():
        others = sorted(set(sweep) - {"star"})
        return Split(sweep == "star", f"star -> {', '.join(others)}")
    if analysis.cost is None:
        raise UserError("there is no second sweep to predict, and no cost to split the runs by")
    cost = analysis.swept_flops
    train = cost <= np.quantile(cost, CHEAP_SHARE) * (1 + 1e-9)
    if train.all():
        raise UserError("there is no second sweep to predict, and all runs cost the same")
    return Split(train, f"cheaper {train.mean():.0%} of the runs -> costlier")


def extrapolated(analysis: Analysis, fits: Path | None, *, map=None, progress: Progress | None = None):
    """Scores of the bag fitted to the split's runs, predicting the others; kept in fits/<score>.extrapolation.json.

    Raises:
        UserError: there is nothing to extrapolate from or to.
    """
    split = split_of(analysis)
    runs, settings = analysis.runs, analysis.settings

    def make():
        from vvlm_ray.scaling.validation import extrapolate

        if progress:
            progress(f"extrapolate {analysis.score}", 0, 1)
        try:
            scores = extrapolate(runs, split.train, settings.fit, resamples=settings.resamples, map=map)
        except UserError as problem:
            return {"impossible": str(problem)}
        if progress:
            progress(f"extrapolate {analysis.score}", 1, 1)
        return cache.scores_to_json(scores)

    meaning = cache.meaning_of(runs) | asdict(settings) | {"train": split.train.tolist()}
    value = cache.remember(fits, f"{analysis.score}.extrapolation", meaning, make)
    if "impossible" in value:
        raise UserError(f"{split.name}: {value['impossible']}")
    return cache.scores_from_json(value)


def compare(analysis: Analysis, fits: Path | None, *, map=None, progress: Progress | None = None) -> Comparison:
    """All three tables for one score; kept in fits/<score>.comparison.json.

    Raises:
        UserError: there is nothing to extrapolate from or to.
    """
    split = split_of(analysis)
    runs, settings = analysis.runs, replace(analysis.settings, form=analysis.bag.form.name)
    work = _Work(runs, split.train, settings, map)
    tries = [(form, replace(settings.fit, form=form)) for form in (AUTO, *FORM_NAMES)]
    variants = list(variants_of(settings))

    def make():
        total = len(tries) + len(variants) + 1
        rows: dict[str, list] = {"forms": [], "fits": [], "aggregates": []}

        def done():
            if progress:
                progress(f"compare {analysis.score}", sum(len(each) for each in rows.values()), total)

        done()
        for key, group in (("forms", tries), ("fits", variants)):
            for what, fit in group:
                rows[key].append(work.row(what, fit))
                done()
        rows["aggregates"] = work.aggregates(analysis.bag)
        return rows

    meaning = cache.meaning_of(runs) | asdict(settings) | {"train": split.train.tolist()}
    value = cache.remember(fits, f"{analysis.score}.comparison", meaning, make)
    return Comparison(split, **{key: tuple(_row(row) for row in rows) for key, rows in value.items()})


def variants_of(settings: Settings):
    """The ablations of Table 8: (what, fit settings)."""
    usual = settings.fit
    objective = usual.objective
    yield f"as above: {usual.starts} random starts, squared log error", usual
    yield "Huber loss", replace(usual, objective=replace(objective, loss="huber"))
    yield "one start, all zeros", replace(usual, init="zeros")
    if usual.starts > 100:
        yield "100 random starts", replace(usual, starts=100)
    yield "exponents at least 0", replace(usual, objective=replace(objective, exponent_bounds=(0.0, np.inf)))
    yield "not in log space", replace(usual, objective=replace(objective, log_space=False))


class _Work:
    """The runs, the split and the settings that all rows share."""

    def __init__(self, runs: Runs, train: np.ndarray, settings: Settings, map: Map | None):
        self.runs, self.train, self.settings, self.map = runs, train, settings, map
        self.known_rows: dict[FitSettings, dict[str, Any]] = {}

    def row(self, what: str, fit: "FitSettings") -> dict[str, Any]:
        """The scores of these settings; the chosen form stands in two tables and is worked out once."""
        if fit not in self.known_rows:
            self.known_rows[fit] = self._row(fit)
        return {"what": what, **self.known_rows[fit]}

    def _row(self, fit: "FitSettings") -> dict[str, Any]:
        from vvlm_ray.scaling.validation import cross_validate, extrapolate

        options = {"resamples": self.settings.resamples, "map": self.map}
        folds = min(self.settings.folds, self.runs.num_runs)
        known, first = _tried(lambda: cross_validate(self.runs, fit, folds=folds, seed=self.settings.seed, **options))
        ahead, second = _tried(lambda: extrapolate(self.runs, self.train, fit, **options))
        return {"known": known, "extrapolated": ahead, "reason": first or second}

    def aggregates(self, bag: "Bag") -> list[dict[str, Any]]:
        """Table 9: the mean of all members, and the median of 1, half and all of them."""
        from vvlm_ray.scaling.bagging import fit_bag_with
        from vvlm_ray.scaling.validation import predict_runs, score

        held_out = self.runs.select(~self.train)
        try:
            smaller = fit_bag_with(self.runs.select(self.train), self.settings.fit, self.settings.resamples,
                                   map=self.map, race=True)  # fmt: skip
            reason = ""
        except UserError as problem:
            smaller, reason = None, str(problem)
        size = bag.num_resamples
        rows = []
        for how, count in [("mean", size), *(("median", m) for m in sorted({1, max(1, size // 2), size}))]:

            def scored(members, runs, how=how, count=count):
                return score(predict_runs(members.take(count), runs, how), runs.error)

            known, first = _tried(lambda scored=scored: scored(bag, self.runs))
            ahead, second = (
                (None, reason) if smaller is None else _tried(lambda scored=scored: scored(smaller, held_out))
            )
            rows.append({"what": f"{how} of {count}", "known": known, "extrapolated": ahead, "reason": first or second})
        return rows


def _tried(make: Callable[[], Any]) -> tuple[list[float] | None, str]:
    """(MSE, E%, R^2), or None and why there is none."""
    try:
        scores = make()
    except UserError as problem:
        return None, str(problem)
    values = [float(getattr(scores, name)) for name in MEASURES]
    if not np.isfinite(values).all():
        return None, "the predictions are not finite"
    return values, ""


def _row(value: dict[str, Any]) -> Row:
    both = {key: tuple(value[key]) if value[key] is not None else None for key in ("known", "extrapolated")}
    return Row(value["what"], reason=value["reason"], **both)
