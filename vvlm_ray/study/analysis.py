"""From a study's records to its answer: the bag of fits, how well it predicts, the frontier and the elasticity.

`analyse` is the one way there for the report, for the answer at the end of a run and for the scripts in analysis/.
What takes long (the bag, cross-validation) is kept in the study's fits/ and reused while the records are the same.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.forms import FORM_NAMES, make_form
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.study import tables
from vvlm_ray.study.config import Answer
from vvlm_ray.study.folder import StudyFolder, write_json
from vvlm_ray.study.tables import DEFAULT_SCORE, Columns

if TYPE_CHECKING:
    import pandas as pd

    from vvlm_ray.scaling.bagging import Bag
    from vvlm_ray.scaling.elasticity import Elasticity
    from vvlm_ray.scaling.frontier import Frontier
    from vvlm_ray.scaling.validation import Scores

KEPT_VERSION = 1  # raised when the same records and settings would give other numbers, so that old fits are not reused
NUM_CURVE_BUDGETS = 240
Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


@dataclass(frozen=True)
class Settings:
    """How to fit: the form, resamples of the runs, starts of each fit, folds of the cross-validation, the bands."""

    form: str = "add-interact"
    resamples: int = 100
    starts: int = 500
    folds: int = 5
    seed: int = 0
    level: float = 0.9


@dataclass(frozen=True)
class Analysis:
    """What the records say about one score.

    `runs` and `bag` have the factors that vary; `fixed` {factor: value} those that do not. `cost` and `grid` are of
    the factors that vary. `frontier` is at the budgets asked for, `curve` at many budgets for drawing; both are None
    where the cost of a configuration is unknown. `validation` is None where the runs are too few to be split.
    `names` {lm_params: backbone}. `notes` are sentences that a reader must know.
    """

    name: str
    score: str
    settings: Settings
    runs: Runs
    fixed: Mapping[str, float]
    bag: "Bag"
    validation: "Scores | None"
    num_examples: float | None
    cost: Callable[..., np.ndarray] | None
    grid: Mapping[str, np.ndarray] | None
    frontier: "Frontier | None"
    curve: "Frontier | None"
    elasticity: "Elasticity | None"
    names: Mapping[float, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def swept_flops(self) -> np.ndarray:
        """c(x) of the runs: (R,)."""
        return np.asarray(self.cost(**self.runs.factors), float)


@dataclass(frozen=True)
class Source:
    """Records in a study's folder or a table: `read(score)` gives the runs of one score; see `open_source`."""

    path: Path
    frame: "pd.DataFrame"
    columns: Columns
    cost: Callable[..., np.ndarray] | None
    answer: Answer | None
    fits: Path | None

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def name(self) -> str:
        return self.path.resolve().name if self.is_folder else self.path.stem

    def scores(self) -> list[str]:
        """The task columns and the average, the average last."""
        found = tables.metric_columns(self.frame)
        tasks = [name for name in found if name != DEFAULT_SCORE]
        # With one task the average repeats it.
        if len(tasks) == 1:
            return [DEFAULT_SCORE]
        return found or [self.columns.score or self.columns.error or DEFAULT_SCORE]


def open_source(path: str | Path, columns: Columns | None = None, cost: str | None = None) -> Source:
    """The records in a study's folder, a CSV or a parquet file; `cost` is an expression over the factors.

    Raises:
        UserError: there are no records, or they are not readable.
    """
    from vvlm_ray.scaling.cost import cost_from_expression

    path, columns = Path(path), columns or Columns()
    records = tables._records_in(path) if path.is_dir() else path
    expression = cost_from_expression(cost, tuple(columns.factors)) if cost else None
    folder = StudyFolder(path)
    asked = _asked(folder.sweep_file) if path.is_dir() else None
    return Source(path, tables.read_table(records), columns, expression, asked, folder.fits if path.is_dir() else None)


def analyse(source: Source | str | Path, score: str | None = None, *, settings: Settings | None = None,
            budgets_flops=None, num_examples: float | None = None, validate: bool = True,
            with_elasticity: bool = False, threads: int | None = None, progress: Progress | None = None,
            ) -> Analysis:  # fmt: skip
    """Fit a bag to the runs of one score, say how well it predicts runs it has not seen, and find x*(c; n).

    Without settings, budgets (B,) in FLOPs or a data size, those in `answer` of the study's sweep file are taken,
    else the method's, eight budgets over the swept costs, and the largest swept n.

    Raises:
        UserError: the records cannot be read or fitted, or a budget buys nothing.
    """
    source = source if isinstance(source, Source) else open_source(source)
    score = score or source.columns.score or DEFAULT_SCORE
    settings = settings or _settings_of(source.answer)
    study, notes = _read(source, score)
    cost = source.cost or study.cost
    runs, fixed, form, said = usable(study.runs, settings.form)
    settings, notes = replace(settings, form=form), [*notes, *said]
    cost = partial(cost, **fixed) if cost and fixed else cost
    grid = {name: study.grid[name] for name in runs.factors} if _covers(study.grid, runs) else None
    bag, validation, said = fitted(
        runs, settings, _kept_at(source, score), validate=validate, threads=threads, progress=progress
    )
    notes += said
    if num_examples is None and runs.num_examples is not None:
        asked = source.answer.num_examples if source.answer else None
        num_examples = float(asked or runs.num_examples.max())
    line = curve = None
    if cost is None:
        notes.append("what a configuration costs is unknown for these factors, so there is no frontier: give a cost")
    else:
        line, curve = _frontiers(
            bag, grid, cost, budgets=budgets_flops, asked=source.answer, num_examples=num_examples, level=settings.level
        )
    movement = None
    if with_elasticity and cost is not None and runs.num_examples is not None:
        from vvlm_ray.scaling.elasticity import elasticity

        _say(progress, f"elasticity of {score}", 0, 1)
        movement = elasticity(bag, grid, cost, level=settings.level, threads=threads)
        _say(progress, f"elasticity of {score}", 1, 1)
    return Analysis(
        name=source.name,
        score=score,
        settings=settings,
        runs=runs,
        fixed=fixed,
        bag=bag,
        validation=validation,
        num_examples=num_examples if runs.num_examples is not None else None,
        cost=cost,
        grid=grid,
        frontier=line,
        curve=curve,
        elasticity=movement,
        names=_backbone_names(source.frame),
        notes=tuple(notes),
    )


def usable(runs: Runs, form: str) -> tuple[Runs, dict[str, float], str, list[str]]:
    """The part of the runs that can be fitted: factors and data size that vary, and the largest form they allow.

    Returns runs, {factor: its one value}, the form, and a sentence for each thing given up.
    """
    notes: list[str] = []
    fixed = {name: float(values[0]) for name, values in runs.factors.items() if np.ptp(values) == 0}
    if len(fixed) == len(runs.factors):
        raise UserError("no factor varies over the runs: there is nothing to fit")
    for name, value in fixed.items():
        notes.append(f"{name} is {value:g} in every run: its effect is unknown, and the answer keeps it there")
    varying = {name: values for name, values in runs.factors.items() if name not in fixed}
    sizes = runs.num_examples
    if sizes is not None and np.ptp(sizes) == 0:
        notes.append(f"num_examples is {sizes[0]:g} in every run: the answer holds for that data size")
        sizes = None
    runs = replace(runs, factors=varying, num_examples=sizes)
    distinct = len(np.unique(runs.inputs(), axis=1).T)
    fitting = [name for name in FORM_NAMES if _num_params(name, runs) <= distinct]
    if not fitting:
        raise UserError(
            f"there are {distinct} distinct runs, and the smallest form needs {_num_params('mult', runs)}: "
            f"finish more trials"
        )
    if form not in fitting:
        notes.append(
            f"{distinct} distinct runs are too few for the {_num_params(form, runs)} parameters of {form}: "
            f"{fitting[-1]} is fitted instead"
        )
        form = fitting[-1]
    return runs, fixed, form, notes


def fitted(runs: Runs, settings: Settings, kept: Path | None, *, validate=True, threads=None, progress=None):
    """The bag and its cross-validated scores, from the file `kept` if it holds those of the same runs and settings."""
    digest = digest_of(runs, settings)
    found = _read_kept(kept, digest)
    bag = _bag_from(found["bag"], runs, settings) if found else None
    validation, said = None, []
    if bag is None:
        from vvlm_ray.scaling.bagging import fit_bag_with

        _say(progress, "fit", 0, settings.resamples)
        bag = fit_bag_with(runs, _fit_settings(settings), settings.resamples, threads=threads,
                           progress=lambda done: _say(progress, "fit", done, settings.resamples))  # fmt: skip
    if found and "validation" in found:
        validation, said = _scores_from(found["validation"], runs), found["notes"]
    elif validate:
        validation, said = _validate(runs, settings, threads, progress)
    if kept is not None and (found is None or (validate and "validation" not in found)):
        value = {"digest": digest, "settings": asdict(settings), "bag": _bag_to(bag)}
        if validate:
            value |= {"validation": _scores_to(validation), "notes": said}
        write_json(kept, value)
    return bag, validation, said


def digest_of(runs: Runs, settings: Any) -> str:
    """A hash of the runs' numbers and the settings."""
    arrays = {name: values.tolist() for name, values in runs.columns().items()}
    weights = None if runs.weights is None else runs.weights.tolist()
    meaning = [KEPT_VERSION, asdict(settings), arrays, weights]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def _asked(sweep_file: Path) -> Answer | None:
    """`answer` of the sweep file: all that is wanted of it here, so the rest need not be a whole sweep."""
    import yaml
    from pydantic import ValidationError

    if not sweep_file.exists():
        return None
    try:
        asked = (yaml.safe_load(sweep_file.read_text()) or {}).get("answer")
        return Answer.model_validate(asked) if asked else None
    except (yaml.YAMLError, AttributeError, ValidationError) as problem:
        raise UserError(f"{sweep_file}, answer: {problem}") from None


def _settings_of(asked: Answer | None) -> Settings:
    return Settings(resamples=max(1, asked.resamples), starts=asked.starts) if asked else Settings()


def _fit_settings(settings: Settings):
    from vvlm_ray.scaling.fitting import FitSettings

    return FitSettings(settings.form, starts=settings.starts, seed=settings.seed)


def _read(source: Source, score: str) -> tuple[tables.Study, list[str]]:
    """The runs that have this score; how many have not is said."""
    columns = source.columns if source.columns.error else replace(source.columns, score=score)
    frame, notes = source.frame, []
    if score in frame.columns:
        done = frame["status"].astype(str).str.lower().isin(tables.DONE) if "status" in frame.columns else True
        missing = frame[score].isna() & done
        if missing.any() and not missing.all():
            notes.append(f"{int(missing.sum())} of {len(frame)} runs have no score for {score} and were left out of it")
            frame = frame[~missing]
    records = tables._records_in(source.path) if source.is_folder else source.path
    runs, said = tables._runs_of(frame, records, columns)
    constants, grid = tables._read_sweep(source.path / "sweep.yaml") if source.is_folder else ({}, None)
    cost = None
    if set(runs.factors) == set(tables.DEFAULT_FACTORS):
        from vvlm_ray.scaling.cost import inference_flops

        cost = partial(inference_flops, **constants)
    return tables.Study(runs, cost, grid, source.name), [*said, *notes]


def _frontiers(bag, grid, cost, *, budgets, asked, num_examples, level):
    from vvlm_ray.scaling.frontier import default_grid, frontier, make_grid

    grid = grid or default_grid(bag.runs)
    swept = np.asarray(cost(**bag.runs.factors), float)
    low = max(swept.min(), make_grid(grid, cost).cost[0])
    if budgets is None:
        budgets = np.array(asked.tflops) * 1e12 if asked else _round(np.geomspace(low * 1.05, swept.max(), 8))
    budgets = np.atleast_1d(np.asarray(budgets, float))
    ends = min(low, budgets.min()), max(swept.max(), budgets.max())
    every = np.unique(np.concatenate([np.geomspace(*ends, NUM_CURVE_BUDGETS), budgets]))
    options = {"num_examples": num_examples, "level": level}
    return frontier(bag, grid, cost, budgets, **options), frontier(bag, grid, cost, every, **options)


def _round(values: np.ndarray) -> np.ndarray:
    """To two digits, upwards, so that the first still buys what it was made for."""
    unit = 10.0 ** (np.floor(np.log10(values)) - 1)
    return np.ceil(values / unit) * unit


def _covers(grid, runs: Runs) -> bool:
    return grid is not None and set(runs.factors) <= set(grid)


def _num_params(form: str, runs: Runs) -> int:
    return make_form(form, tuple(runs.factors), runs.num_examples is not None).num_params


def _backbone_names(frame) -> dict[float, str]:
    if not {"backbone", "lm_params"} <= set(frame.columns):
        return {}
    pairs = frame[["lm_params", "backbone"]].dropna().drop_duplicates()
    return {float(size): str(name) for size, name in pairs.itertuples(index=False)}


def _validate(runs, settings, threads, progress):
    from vvlm_ray.scaling.validation import cross_validate

    _say(progress, "cross-validation", 0, 1)
    try:
        scores = cross_validate(runs, _fit_settings(settings), resamples=settings.resamples,
                                folds=min(settings.folds, runs.num_runs), seed=settings.seed,
                                threads=threads)  # fmt: skip
    except UserError as problem:
        return None, [f"the runs cannot be cross-validated: {problem}"]
    _say(progress, "cross-validation", 1, 1)
    return scores, []


def _say(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress:
        progress(what, done, total)


# --- fits/<score>.json ---


def _kept_at(source: Source, score: str) -> Path | None:
    return source.fits / f"{re.sub(r'[^A-Za-z0-9._-]', '_', score)}.json" if source.fits else None


def _read_kept(path: Path | None, digest: str) -> dict[str, Any] | None:
    """The file's content, or None where there is none of these runs and settings: it is made anew then."""
    try:
        value = json.loads(path.read_text()) if path is not None and path.exists() else None
    except (OSError, json.JSONDecodeError):
        return None
    return value if isinstance(value, dict) and value.get("digest") == digest else None


def _bag_to(bag: "Bag") -> dict[str, Any]:
    fit = bag.fit
    return {
        "log_coefficients": _open(bag.log_coefficients),
        "exponents": bag.exponents.tolist(),
        "objectives": bag.objectives.tolist(),
        "fit": {
            "params": {name: float(value) for name, value in fit.params.items()},
            "log_coefficients": _open(fit.log_coefficients),
            "exponents": fit.exponents.tolist(),
            "objective": fit.objective,
            "num_starts": fit.num_starts,
            "share_at_best": fit.share_at_best,
            "gradient_norm": fit.gradient_norm,
            "status": fit.status,
            "unidentified": [asdict(verdict) for verdict in fit.unidentified],
            "basins": _open(fit.basins),
        },
    }


def _bag_from(value: dict[str, Any], runs: Runs, settings: Settings) -> "Bag":
    from vvlm_ray.scaling.bagging import Bag
    from vvlm_ray.scaling.fitting import Fit
    from vvlm_ray.scaling.identify import Verdict

    form = make_form(settings.form, tuple(runs.factors), runs.num_examples is not None)
    kept = value["fit"]
    fit = Fit(
        form=form,
        settings=_fit_settings(settings),
        log_coefficients=_closed(kept["log_coefficients"]),
        exponents=np.array(kept["exponents"], float),
        objective=kept["objective"],
        num_runs=runs.num_runs,
        num_starts=kept["num_starts"],
        share_at_best=kept["share_at_best"],
        gradient_norm=kept["gradient_norm"],
        status=kept["status"],
        unidentified=tuple(Verdict(**verdict) for verdict in kept["unidentified"]),
        basins=_closed(kept["basins"]),
    )
    exponents, objectives = np.array(value["exponents"], float), np.array(value["objectives"], float)
    return Bag(form, runs, fit, _closed(value["log_coefficients"]), exponents, objectives)


def _scores_to(scores: "Scores | None") -> dict[str, Any] | None:
    return {"predicted": scores.predicted.tolist()} if scores else None


def _scores_from(value: dict[str, Any] | None, runs: Runs) -> "Scores | None":
    from vvlm_ray.scaling.validation import score

    return score(np.array(value["predicted"], float), runs.error) if value else None


def _open(logs: np.ndarray) -> list:
    """JSON has no infinity; the log of a coefficient that is zero is null."""
    return np.where(np.isneginf(logs), None, logs.astype(object)).tolist()


def _closed(values: list) -> np.ndarray:
    array = np.array(values, dtype=object)
    return np.where(array == None, -np.inf, array).astype(float)  # noqa: E711
