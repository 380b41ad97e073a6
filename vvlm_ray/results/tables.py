"""From any table of results to checked `Runs`: the one reader of tables that were made elsewhere.

`read_table` understands a file (see `files`, `layout`, `numbers`), `runs_of` takes the runs of one score out of it.
Nothing is dropped or reinterpreted in silence, and a missing score is never a zero: what was read, what was understood
and what was left out stands in one sentence, `Observed.read`, and in `Observed.notes`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from vvlm_ray.errors import UserError
from vvlm_ray.results import files
from vvlm_ray.results.columns import (
    DEFAULT_DATA_SIZE,
    DEFAULT_SCORE,
    Columns,
    data_size_lookalike,
    kept,
    listed,
    missing_columns,
    renamed,
)
from vvlm_ray.results.layout import Layout
from vvlm_ray.results.measured import Measured, errors_of
from vvlm_ray.results.numbers import cell_of, clean, columns_of, number
from vvlm_ray.scaling.runs import Runs

DONE = {"done", "ok", "finished", "completed", "complete", "succeeded", "success", "successful", "terminated"}
NOT_DONE = {"failed", "crashed", "running", "killed", "preempted", "preempting", "pending", "queued", "error",
            "errored", "cancelled", "canceled", "timeout", "oom", "aborted", "waiting", "stopped", "skipped", "paused",
            "failure", "partial"}  # fmt: skip
LEAST_LM_PARAMS = 1000  # below, they are in billions or millions
LEAST_NUM_EXAMPLES = 100  # a table whose every data size is below is in millions or thousands
_BOOKKEEPING = {"trial_id", "sweep", "seed", "status", "reason", "inference_flops", "target_flops", "backbone"}


@dataclass(frozen=True)
class Table:
    """What a file holds under our names: numbers where a column is all numbers, text elsewhere.

    `labels` (R,) say where a row stands; `left_out` what is no run; `how` {column: how its numbers were written};
    `problems` {column: why it cannot be used}.
    """

    path: Path | str
    format: str
    frame: pd.DataFrame
    columns: Columns
    labels: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    how: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def is_of_a_study(self) -> bool:
        """Whether this package wrote it: scores are on 0..100 then, and sizes are counts."""
        return {"trial_id", "inference_flops"} <= set(self.frame.columns)

    @cached_property
    def done(self) -> np.ndarray:
        """Which rows are finished runs, (R,).

        Raises:
            UserError: a status that is neither known as finished nor as unfinished, and no --where that decides.
        """
        name = next((n for n in self.frame.columns if n == "status"), None) or next(
            (n for n in self.frame.columns if n.casefold() in {"status", "state"}), None
        )
        if name is None or any(name in {c.column, self.columns.names.get(c.column)} for c in self.columns.where):
            return np.ones(len(self.frame), bool)
        words = self.frame[name].map(lambda value: str(cell_of(value) or "").casefold())
        for label, word, value in zip(self.labels, words, self.frame[name], strict=True):
            if word not in DONE | NOT_DONE:
                shown = "nothing" if not word else f"{value:g}" if isinstance(value, float) else str(value)
                raise UserError(
                    f"{self.path}, {label}, column {name!r}: {shown} is not known as finished or unfinished; finished "
                    f"are {', '.join(sorted(DONE))}; unfinished are {', '.join(sorted(NOT_DONE))}; or say which rows "
                    f"to take: --where {name}={'VALUE' if shown == 'nothing' else shown}"
                )
        if not words.isin(DONE).any():
            found = ", ".join(sorted(set(words)))
            raise UserError(f"{self.path}: no row has status done (column {name!r} says: {found})")
        return words.isin(DONE).to_numpy()


@dataclass(frozen=True)
class Observed:
    """The runs of one score, the target budget of each where its sweep had one (R,), and what was done to get them.

    `read` is one sentence: what was read, how it was understood, what was left out. `notes` are doubts.
    """

    runs: Runs
    targets: np.ndarray
    read: str
    notes: tuple[str, ...] = ()


def read_table(path: str | Path, columns: Columns | None = None) -> Table:
    """The table in a file: CSV with any separator, TSV, Excel, JSON, JSON lines, parquet, packed with gzip or not.

    Raises:
        UserError: the file cannot be read as a table, or `columns` maps or filters by columns that are not there.
    """
    parsed = files.parse_file(Path(path))
    layout, kind = parsed.layout, parsed.format
    places = {"parquet": "", "JSON": "", "Excel": " (row {} of the sheet)"}.get(kind, " (line {})")
    labels = [f"row {row}{places.format(line)}" for row, line in enumerate(layout.lines, 1)]
    return _table(Path(path), kind, layout, labels, columns or Columns(), separator=parsed.separator)


def table_of(frame: pd.DataFrame, path: Path | str, columns: Columns | None = None, kind: str = "records") -> Table:
    """The same from a frame that is there already, as `path` calls it."""
    rows = [[cell_of(value) for value in row] for row in frame.astype(object).itertuples(index=False, name=None)]
    layout = Layout([str(name).strip() for name in frame.columns], rows, list(range(1, len(rows) + 1)))
    return _table(path, kind, layout, [f"row {row}" for row in layout.lines], columns or Columns())


def _table(path, kind: str, layout: Layout, labels: list[str], columns: Columns, *,
           separator: str | None = None) -> Table:  # fmt: skip
    if not layout.rows:
        raise UserError(f"{path}: there are no rows in it")
    if not layout.names:
        raise UserError(f"{path}: there are no columns in it")
    left_out, problems = list(layout.left_out), {}
    found = columns_of(list(zip(*layout.rows, strict=True)), separator)
    series, how = {}, {}
    for name, column in zip(_distinct(layout, left_out, problems), found, strict=True):
        if name is None:
            continue
        series[name] = _series(column.values) if column.is_number else pd.Series(column.values, dtype=object)
        how[name] = column.how
        if column.problem:
            problems[name] = column.problem
    frame = renamed(pd.DataFrame(series), columns, str(path))
    ours = {theirs: name for name, theirs in columns.names.items()}
    keep = kept(frame, columns.where, columns.names, str(path))
    if not keep.all():
        conditions = " ".join(map(str, columns.where))
        left_out.append(
            f"{_rows(int((~keep).sum()))} that {'does' if (~keep).sum() == 1 else 'do'} not have {conditions}"
        )
    return Table(
        path=path,
        format=kind,
        frame=frame[keep].reset_index(drop=True),
        columns=columns,
        labels=tuple(label for label, keeps in zip(labels, keep, strict=True) if keeps),
        left_out=tuple(left_out),
        how={ours.get(name, name): said for name, said in how.items() if said},
        problems={ours.get(name, name): why for name, why in problems.items()},
    )


def _distinct(layout: Layout, left_out: list[str], problems: dict[str, str]) -> list[str | None]:
    """The names; a column that stands twice is read once where both are equal, and cannot be used where they differ."""
    names: list[str | None] = []
    for position, name in enumerate(layout.names):
        if name not in layout.names[:position]:
            names.append(name)
            continue
        first = layout.names.index(name)
        if all(row[first] == row[position] for row in layout.rows):
            left_out.append(f"column {name!r} the second time, which is the same")
            names.append(None)
        else:
            problems[name] = "stands twice with different values: rename one of them"
            number_of = Counter(layout.names[:position])[name] + 1
            other = f"{name} ({number_of})"
            names.append(None if other in layout.names or other in names else other)
    return names


def _series(values: Sequence[float]) -> pd.Series:
    array = np.array(values, float)
    whole = np.isfinite(array).all() and (array == np.rint(array)).all() and (np.abs(array) < 2**53).all()
    return pd.Series(array.astype(np.int64) if whole else array)


def metric_columns(frame: pd.DataFrame) -> list[str]:
    """The task columns of a study's records: what stands between inference_flops and avg, and avg."""
    names = list(frame.columns)
    if "inference_flops" not in names or DEFAULT_SCORE not in names:
        return [DEFAULT_SCORE] if DEFAULT_SCORE in names else []
    return names[names.index("inference_flops") + 1 : names.index(DEFAULT_SCORE) + 1]


def runs_of(table: Table, columns: Columns | None = None, score: str | None = None) -> Observed:
    """The finished runs of one score (that of `columns` unless given), in an order that is not that of the file.

    Raises:
        UserError: a column that is not there, too many missing values, or a value that cannot be used, by row.
    """
    columns = columns or table.columns
    if score is not None and not columns.error:
        columns = replace(columns, score=score)
    return _Reader(table, columns).observed()


class _Reader:
    """Takes the columns of one score out of a table, and says where they are wrong and what was left out."""

    def __init__(self, table: Table, columns: Columns):
        self.table, self.columns = table, columns
        self.left_out, self.notes = list(table.left_out), []
        self.values = (columns.error,) if columns.error else columns.scores
        if columns.score in table.frame.columns:
            self.values = (columns.score,)  # a name with a comma in it
        self.size = self._data_size()
        lacking = [name for name in self.needed if name not in table.frame.columns]
        if lacking:
            raise missing_columns(table.frame, columns, lacking, str(table.path))
        if self.size is None and columns.data_size is None and (other := data_size_lookalike(table.frame, columns)):
            raise UserError(
                f"{table.path}: there is no column {DEFAULT_DATA_SIZE!r}, but {other!r} may be it: say "
                f"--map {DEFAULT_DATA_SIZE}={other}, or --data-size none if it is not"
            )
        done = table.done
        if not done.all():
            count = int((~done).sum())
            self.left_out.append(f"{_rows(count)} that {'is' if count == 1 else 'are'} not done")
        self.frame = table.frame[done]
        self.labels = [label for label, is_done in zip(table.labels, done, strict=True) if is_done]

    @property
    def needed(self) -> list[str]:
        return list(dict.fromkeys([*self.columns.factors, *([self.size] if self.size else []), *self.values]))

    def observed(self) -> Observed:
        for name in self.needed:
            self._check_numbers(name)
        self._leave_out_missing()
        factors = {name: self._positive(name) for name in self.columns.factors}
        sizes = self._positive(self.size) if self.size else None
        self._check_counts(factors.get("lm_params"), sizes)
        measured = self._measured()
        self.notes += measured.notes
        keep = self._without_copies()
        keys = [factors[name] for name in factors] + ([sizes] if sizes is not None else []) + [measured.error]
        sweep = self.frame["sweep"].fillna("").astype(str).to_numpy() if "sweep" in self.frame.columns else None
        order = np.lexsort(([sweep] if sweep is not None else []) + keys[::-1])
        order = order[keep[order]]
        runs = Runs(
            {name: values[order] for name, values in factors.items()},
            measured.error[order],
            None if sizes is None else sizes[order],
            sweep=None if sweep is None else sweep[order],
            labels=tuple(self.labels[i] for i in order),
        )
        if runs.num_runs > 1 and np.ptp(runs.error) == 0:
            self.notes.append(f"the error is {runs.error[0]:g} in every run, so nothing can be said about any factor")
        targets = np.full(runs.num_runs, np.nan)
        if "target_flops" in self.frame.columns:
            targets = pd.to_numeric(self.frame["target_flops"], errors="coerce").to_numpy(float)[order]
        return Observed(runs, targets, self._read(runs, measured), tuple(self.notes))

    def _data_size(self) -> str | None:
        name, there = self.columns.data_size, DEFAULT_DATA_SIZE in self.table.frame.columns
        if name == "none":
            if there:
                self.left_out.append(f"{DEFAULT_DATA_SIZE} (--data-size none)")
            return None
        if name is None:
            return DEFAULT_DATA_SIZE if there and DEFAULT_DATA_SIZE not in self.columns.factors else None
        return name

    def _check_numbers(self, name: str) -> None:
        column = self.frame[name]
        if name in self.table.problems:
            raise UserError(f"{self.table.path}, column {name!r} {self.table.problems[name]}")
        if pd.api.types.is_numeric_dtype(column):
            return
        is_text = np.array([isinstance(v, str) and number(v) is None and number(v, ",") is None for v in column])
        self._refuse(name, is_text, "is not a number")
        # Numbers one by one, but not as a column: decimal commas here, a text in a row that is not done.
        try:
            self.frame = self.frame.assign(**{name: [np.nan if v is None else _one(v) for v in column]})
        except ValueError:
            raise UserError(f"{self.table.path}, column {name!r}: numbers are written in several ways") from None

    def _leave_out_missing(self) -> None:
        """One rule for every column and command: up to a stated share of the rows may lack a value."""
        absent = self.frame[self.needed].isna()
        missing = absent.any(axis=1).to_numpy()
        if not missing.any():
            return
        first = int(np.flatnonzero(missing)[0])
        name = self.needed[int(np.flatnonzero(absent.iloc[first])[0])]
        count, share = int(missing.sum()), missing.mean()
        if missing.all():
            where = f"{self.table.path}, {self.labels[first]}, column {name!r}"
            raise UserError(f"{where}: is missing, and no finished run has all values")
        if share > self.columns.max_missing:
            more = f" (and in {count - 1} more rows)" if count > 1 else ""
            raise UserError(
                f"{self.table.path}, {self.labels[first]}, column {name!r}: is missing{more}; fill it in, remove the "
                f"rows, or allow to leave out {share:.0%} of the rows: --max-missing {np.ceil(share * 100) / 100:.2f}"
            )
        shown = ", ".join(self.labels[i] for i in np.flatnonzero(missing)[:3]) + (", ..." if count > 3 else "")
        where = [n for n in self.needed if absent[n].any()]
        self.left_out.append(f"{_rows(count)} without {' or '.join(where)} ({shown})")
        self.frame = self.frame[~missing]
        self.labels = [label for label, out in zip(self.labels, missing, strict=True) if not out]

    def _positive(self, name: str) -> np.ndarray:
        values = self.frame[name].to_numpy(float)
        self._refuse(name, ~np.isfinite(values), "is not finite")
        self._refuse(name, values <= 0, "must be positive")
        unit = self.columns.units.get(name)
        return values if unit is None else np.array([clean(value * unit) for value in values])

    def _check_counts(self, params: np.ndarray | None, sizes: np.ndarray | None) -> None:
        """Eq. 1 counts parameters; a table in billions would be answered with the wrong costs."""
        if params is not None:
            why = (
                "parameters are no LM; if these are billions say --unit lm_params=1e9, if millions --unit lm_params=1e6"
            )
            self._refuse("lm_params", params < LEAST_LM_PARAMS, why)
            if params.max() < 1e6 and not self.table.is_of_a_study and "lm_params" not in self.columns.units:
                self.notes.append(f"the largest LM has {params.max():,.0f} parameters; if these are millions say "
                                  "--unit lm_params=1e6")  # fmt: skip
        if sizes is None or self.size in self.columns.units:
            return
        why = f"is no count of examples; if these are millions say --unit {self.size}=1e6, if thousands {self.size}=1e3"
        self._refuse(self.size, sizes < 1, why)
        if sizes.max() < LEAST_NUM_EXAMPLES and not self.table.is_of_a_study:
            raise UserError(
                f"{self.table.path}, column {self.size!r}: no run has more than {sizes.max():g} examples; if these are "
                f"millions say --unit {self.size}=1e6, if they are examples --unit {self.size}=1"
            )

    def _measured(self) -> Measured:
        for name in self.values:
            values = self.frame[name].to_numpy(float)
            self._refuse(name, ~np.isfinite(values), "is not finite")
            if self.columns.error:
                self._refuse(
                    name, values < 0, "is no error: errors must be positive, because their logarithm is fitted"
                )
            else:
                self._refuse(name, values < 0, "is no score on 0..100 (for an error column use --error)")
        measured = errors_of(self.frame[list(self.values)], self.labels, self.columns, self.table)
        if measured.bad is not None:
            self._refuse(*measured.bad)
        return measured

    def _without_copies(self) -> np.ndarray:
        """Rows to keep, (R,): those that repeat another in every column were written down twice."""
        copies = self.frame.duplicated().to_numpy()
        if self.columns.keep_duplicates or not copies.any():
            return np.ones(len(self.frame), bool)
        shown = ", ".join(self.labels[i] for i in np.flatnonzero(copies)[:3]) + (", ..." if copies.sum() > 3 else "")
        more = "a row that repeats" if copies.sum() == 1 else f"{copies.sum()} rows that repeat"
        self.left_out.append(f"{more} another in every column ({shown}; --keep-duplicates counts them)")
        return ~copies

    def _refuse(self, name: str, bad: np.ndarray, why: str) -> None:
        where = np.flatnonzero(bad)
        if len(where):
            value = self.frame[name].iloc[where[0]]
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            more = f" (and {len(where) - 1} more rows)" if len(where) > 1 else ""
            raise UserError(f"{self.table.path}, {self.labels[where[0]]}, column {name!r}: {shown} {why}{more}")

    def _read(self, runs: Runs, measured: Measured) -> str:
        names, units = self.columns.names, self.columns.units
        inputs = [*self.columns.factors, *([self.size] if self.size else [])]
        called = [
            name + (f" = {names[name]}" if name in names else "") + (f" x {units[name]:g}" if name in units else "")
            for name in inputs
        ]
        count = len(np.unique(runs.inputs(), axis=1).T)
        replicates = f" of {count} configurations" if count < runs.num_runs else ""
        how = [said for said in dict.fromkeys(s for n in self.needed for s in self.table.how.get(n, ()))]
        used = {*inputs, *self.values, *_BOOKKEEPING}
        filled = self.frame.columns[self.frame.notna().any()]
        unused = [] if self.table.is_of_a_study else [name for name in filled if name not in used]
        parts = [
            f"Read {runs.num_runs} run{'s' * (runs.num_runs != 1)}{replicates} from {self.table.path} "
            f"({self.table.format}): {measured.what} over {', '.join(called)}"
        ]
        if not self.size:
            parts.append("no data size")
        if how:
            parts.append(f"understood: {', '.join(how)}")
        if self.left_out:
            parts.append(f"left out: {', '.join(self.left_out)}")
        if unused:
            parts.append(f"not used: {listed(unused, 6)}")
        return "; ".join(parts)


def _one(value: object) -> float:
    if not isinstance(value, str):
        return float(value)
    read = {found for mark in ".," if (found := number(value, mark)) is not None}
    if len(read) != 1 or value.endswith("%"):
        raise ValueError(value)
    return read.pop()


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def records_in(folder: Path) -> Path:
    for name in ("records.csv", "records.parquet"):
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder}: there is no records.csv or records.parquet in it; has the study finished a trial?")
