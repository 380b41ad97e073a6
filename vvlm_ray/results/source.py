"""Where an analysis gets its runs: a study's folder, or any table with one row per run.

Of a study the trials' own records are read, those of the sweep as it stands; what is missing, failed or of other
trials is said. A folder of records made elsewhere may have a short sweep.yaml: factors, cost, grid, budgets.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.results import tables
from vvlm_ray.results.columns import DEFAULT_FACTORS, DEFAULT_SCORE, Columns
from vvlm_ray.results.tables import Observed, Table
from vvlm_ray.scaling.cost import EQ1_CONSTANTS, Cost, cost_from_expression
from vvlm_ray.scaling.space import Limit, Space, usual_cost
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sections import Answer, CostExpression

if TYPE_CHECKING:
    import pandas as pd

NO_SCORES = {"seed", "target_flops", "seconds", "attempts"}  # numbers of a record that are no scores


@dataclass(frozen=True)
class Choice:
    """What may be chosen and what it costs, where that is not what the study says: levels {factor: (L,)} and a cost.

    `vision_params` and `vision_tokens` replace those of Eq. 1; `expression` is a cost of one's own, in `unit`; `limits`
    ("num_frames <= 64") hold beside the budget.
    """

    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)
    expression: str | None = None
    unit: str | None = None
    vision_params: float | None = None
    vision_tokens: float | None = None
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Records and what is known of their study.

    `fits` is where results are kept, `notes` are sentences about the records as a whole.
    """

    path: Path
    table: Table
    columns: Columns
    cost: Cost | None
    grid: Mapping[str, np.ndarray] | None
    answer: Answer | None
    tasks: tuple[str, ...]
    fits: Path | None
    notes: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def name(self) -> str:
        return self.path.resolve().name if self.is_folder else self.path.stem

    @property
    def frame(self) -> "pd.DataFrame":
        return self.table.frame

    @property
    def done(self) -> np.ndarray:
        """Which rows are finished runs."""
        return self.table.done

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


def open_source(path: str | Path, columns: Columns | None = None, choice: Choice | None = None, *,
                table: Table | None = None) -> Source:  # fmt: skip
    """The records at `path`: a study's folder, a folder with records.csv or .parquet, or a table.

    `table` is one that was read already, from elsewhere than a file.

    Raises:
        UserError: there are no records, or they or the sweep file are not readable.
    """
    from vvlm_ray.study.sweep_file import load_partial_sweep

    path, columns, choice = Path(path), columns or Columns(), choice or Choice()
    folder = StudyFolder(path) if path.is_dir() else None
    said: Any = load_partial_sweep(folder.sweep_file) if folder and folder.sweep_file.exists() else None
    if said and said.factors and tuple(columns.factors) == DEFAULT_FACTORS:
        columns = replace(columns, factors=tuple(said.factors))
    notes: Sequence[str] = ()
    if folder:
        table, notes = _records(folder, columns)
    elif table is None:
        table = tables.read_table(path, columns)
    levels = {name: np.asarray(values, float) for name, values in ((said and said.grid) or {}).items()}
    unknown = [name for name in choice.levels if name not in columns.factors]
    if unknown:
        raise UserError(f"--grid: {unknown[0]!r} is no factor; the factors are {', '.join(columns.factors)}")
    return Source(
        path=path,
        table=table,
        columns=columns,
        cost=_cost(said.cost if said else None, choice, tuple(columns.factors)),
        grid={**levels, **choice.levels} or None,
        answer=said.answer if said else None,
        tasks=tuple((said.evaluation.tasks if said and said.evaluation else None) or ()),
        fits=folder.fits if folder else _cache_of(path),
        notes=tuple(notes),
        limits=tuple(Limit.parse(text) for text in choice.limits),
    )


def _records(folder: StudyFolder, columns: Columns) -> tuple[Table, Sequence[str]]:
    """The table of a folder's records and what to say of it: of its trials, else records.csv or .parquet."""
    if not (folder.sweep_file.exists() and folder.trials.exists()):
        return tables.read_table(tables.records_in(folder.root), columns), ()
    from vvlm_ray.study.additions import all_trials
    from vvlm_ray.study.folder import open_study
    from vvlm_ray.study.records import collect_records

    _, study = open_study(folder.root)
    collected = collect_records(folder, all_trials(study, folder))
    if not collected.finished:
        raise UserError(
            f"{folder.root}: no trial of {folder.sweep_file.name} has finished; " + "; ".join(collected.notes)
        )
    return tables.table_of(collected.table(), folder.root, columns), collected.notes


def _cost(said: Any, choice: Choice, factors: tuple[str, ...]) -> Cost | None:
    """The cost that was asked for, else the study's, else Eq. 1 where the factors are its own; None where unknown."""
    constants = {name: value for name in EQ1_CONSTANTS if (value := getattr(choice, name)) is not None}
    if choice.expression is not None:
        if constants:
            raise UserError("--vision-params and --vision-tokens belong to Eq. 1; --cost replaces it: give one of them")
        return cost_from_expression(choice.expression, factors, choice.unit or "")
    if choice.unit is not None:
        raise UserError("--cost-unit is the unit of --cost: give both")
    if isinstance(said, CostExpression):
        found: Cost | None = cost_from_expression(said.expression, factors)
    else:
        found = usual_cost(factors)
        if found is not None and said is not None:
            found = replace(found, **said.model_dump())
    if constants:
        if found is None or not found.is_eq1:
            raise UserError("--vision-params and --vision-tokens belong to Eq. 1, the cost of the default factors")
        found = replace(found, **constants)
    return found


def _cache_of(path: Path) -> Path:
    """Where the fits of a lone table are kept: the user's cache, by the place of the table."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "vvlm_ray" / "fits" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def read_runs(source: Source, score: str) -> Observed:
    """The finished runs that have this score, with the space of the source.

    Raises:
        UserError: a column that is not there, or a row that cannot be used, named with its column.
    """
    found = tables.runs_of(source.table, source.columns, score)
    grid = {name: levels for name, levels in (source.grid or {}).items() if name in found.runs.factors}
    runs = replace(found.runs, space=Space(grid, source.cost, source.limits))
    return replace(found, runs=runs, notes=(*source.notes, *found.notes))


def backbone_names(source: Source) -> dict[float, str]:
    """{lm_params: backbone} from the records."""
    if not {"backbone", "lm_params"} <= set(source.frame.columns):
        return {}
    pairs = source.frame[["lm_params", "backbone"]].dropna().drop_duplicates()
    return {float(size): str(name) for size, name in pairs.itertuples(index=False)}
