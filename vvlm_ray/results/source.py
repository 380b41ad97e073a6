"""Where an analysis gets its runs: a study's folder, or any CSV or parquet file with one row per run.

A folder also says what its sweep file knows: factors, cost, grid, tasks, and the budgets to answer for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.results import tables
from vvlm_ray.results.tables import DEFAULT_DATA_SIZE, DEFAULT_FACTORS, DEFAULT_SCORE, Columns
from vvlm_ray.scaling.cost import EQ1_FACTORS, Cost, cost_from_expression
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Space
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sections import Answer

if TYPE_CHECKING:
    import pandas as pd

NO_SCORES = {"seed", "target_flops", "seconds", "attempts"}  # numbers of a record that are no scores


@dataclass(frozen=True)
class Source:
    """Records and what is known of their study. `fits` is where results are kept, None for a lone table."""

    path: Path
    frame: "pd.DataFrame"
    columns: Columns
    cost: Cost | None
    grid: Mapping[str, np.ndarray] | None
    answer: Answer | None
    tasks: tuple[str, ...]
    fits: Path | None

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def name(self) -> str:
        return self.path.resolve().name if self.is_folder else self.path.stem

    @property
    def done(self) -> np.ndarray:
        """Which rows are finished runs."""
        if "status" not in self.frame.columns:
            return np.ones(len(self.frame), bool)
        return self.frame["status"].astype(str).str.lower().isin(tables.DONE).to_numpy()

    def scores(self) -> list[str]:
        """The average first, then the tasks; with a single task the average alone, since it repeats it."""
        if self.columns.score or self.columns.error:
            return [self.columns.score or self.columns.error]
        found = self.tasks or tables.metric_columns(self.frame)
        not_scores = {DEFAULT_SCORE, *NO_SCORES, *self.columns.factors}
        tasks = [name for name in found if name in self.frame.columns and name not in not_scores]
        if DEFAULT_SCORE not in self.frame.columns:
            return tasks or [DEFAULT_SCORE]
        return [DEFAULT_SCORE] if len(tasks) == 1 else [DEFAULT_SCORE, *tasks]


@dataclass(frozen=True)
class Observed:
    """The runs of one score, the target budget of each where its sweep had one (R,), and what was left out."""

    runs: Runs
    targets: np.ndarray
    notes: tuple[str, ...] = field(default=())


def open_source(path: str | Path, columns: Columns | None = None, cost: str | None = None) -> Source:
    """The records at `path`; `cost` is arithmetic over the factors, for factors that Eq. 1 does not know.

    Raises:
        UserError: there are no records, or they or the sweep file are not readable.
    """
    path, columns = Path(path), columns or Columns()
    folder = StudyFolder(path) if path.is_dir() else None
    frame = tables.read_table(tables.records_in(path) if folder else path)
    raw = _read_yaml(folder.sweep_file) if folder else {}
    if raw.get("factors") and tuple(columns.factors) == DEFAULT_FACTORS:
        columns = replace(columns, factors=tuple(raw["factors"]))
    if columns.data_size is None and folder and DEFAULT_DATA_SIZE in frame.columns:
        columns = replace(columns, data_size=DEFAULT_DATA_SIZE)
    constants, grid = tables.read_sweep(folder.sweep_file) if folder else ({}, None)
    expression = cost or (raw.get("cost") or {}).get("expression")
    known = None
    if expression:
        known = cost_from_expression(expression, tuple(columns.factors))
    elif set(columns.factors) == set(EQ1_FACTORS):
        known = Cost(**constants)
    return Source(
        path=path,
        frame=frame,
        columns=columns,
        cost=known,
        grid=grid,
        answer=_answer_of(raw, folder.sweep_file) if folder else None,
        tasks=tuple((raw.get("evaluation") or {}).get("tasks") or ()),
        fits=folder.fits if folder else None,
    )


def read_runs(source: Source, score: str) -> Observed:
    """The finished runs that have this score; how many have none is said.

    Raises:
        UserError: a row that cannot be used, named with its column.
    """
    columns = source.columns if source.columns.error else replace(source.columns, score=score)
    frame, missing = _filled(source.frame, score, source.done)
    runs, said = tables.runs_of(frame, tables.records_in(source.path) if source.is_folder else source.path, columns)
    grid = {name: levels for name, levels in (source.grid or {}).items() if name in runs.factors}
    runs = replace(runs, space=Space(grid, source.cost))
    done = frame[source.done]
    targets = np.full(len(done), np.nan)
    if "target_flops" in done.columns:
        targets = done["target_flops"].to_numpy(float)
    there = ~missing[source.done]
    if there.all():
        return Observed(runs, targets, said)
    note = f"{(~there).sum()} finished runs have no {score} score and were left out"
    return Observed(runs.select(there), targets[there], (*said, note))


def _filled(frame, score: str, done: np.ndarray):
    """The frame with a stand-in where a finished run has no score, and where that is: (frame, rows as a mask).

    Rows keep their numbers that way, so that whatever else is wrong is reported where it stands in the file.
    """
    import pandas as pd

    nowhere = np.zeros(len(frame), bool)
    if score not in frame.columns or not pd.api.types.is_numeric_dtype(frame[score]):
        return frame, nowhere
    missing = frame[score].isna().to_numpy() & done
    if not missing.any() or missing[done].all():
        return frame, nowhere
    # All different, so that two runs without a score are not taken for one that was written down twice.
    usual = frame.loc[done, score].where(lambda values: (values > 0) & (values < 100)).max()
    stand_in = usual * (1 - 1e-9 * np.arange(1, missing.sum() + 1))
    frame = frame.astype({score: float})
    frame.loc[missing, score] = stand_in
    return frame, missing


def backbone_names(source: Source) -> dict[float, str]:
    """{lm_params: backbone} from the records."""
    if not {"backbone", "lm_params"} <= set(source.frame.columns):
        return {}
    pairs = source.frame[["lm_params", "backbone"]].dropna().drop_duplicates()
    return {float(size): str(name) for size, name in pairs.itertuples(index=False)}


def _read_yaml(sweep_file: Path) -> dict[str, Any]:
    """The sweep file as it stands. It need not be a whole sweep: records made elsewhere may have a short one."""
    import yaml

    if not sweep_file.exists():
        return {}
    try:
        raw = yaml.safe_load(sweep_file.read_text()) or {}
    except yaml.YAMLError as problem:
        raise UserError(f"{sweep_file}: not readable as YAML: {problem}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{sweep_file}: a sweep file is a mapping with keys such as cost, grid and answer")
    return raw


def _answer_of(raw: dict[str, Any], sweep_file: Path) -> Answer | None:
    from pydantic import ValidationError

    try:
        return Answer.model_validate(raw["answer"]) if raw.get("answer") else None
    except ValidationError as problem:
        wrong = problem.errors()[0]
        key = ".".join(str(part) for part in ("answer", *wrong["loc"]))
        raise UserError(f"{sweep_file}, {key}: {wrong['msg']}") from None
