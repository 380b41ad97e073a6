"""From any CSV or parquet of results to checked `Runs` (`source.py` opens studies with it).

A row that cannot be used is an error that names row and column; nothing is dropped silently, and a missing score is
never a zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.runs import Runs

DEFAULT_FACTORS = ("lm_params", "num_frames", "tokens_per_frame")
DEFAULT_DATA_SIZE = "num_examples"
DEFAULT_SCORE = "avg"
DONE = {"done", "ok", "finished", "completed", "complete", "succeeded", "success", "terminated"}


@dataclass(frozen=True)
class Columns:
    """Which columns to read. `data_size` None means the file's default column where it has one; "none" means none.

    Give `score` (0..100, the error is 100 - score) or `error` (taken as it is).
    """

    factors: Sequence[str] = DEFAULT_FACTORS
    data_size: str | None = None
    score: str | None = None
    error: str | None = None
    keep_duplicates: bool = False


def read_table(path: str | Path):
    """A pandas DataFrame from CSV or parquet, with text kept where a column is not all numbers."""
    import pandas as pd

    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, skipinitialspace=True)
    except (ValueError, OSError, pd.errors.ParserError) as problem:
        raise UserError(f"{path}: not readable as {path.suffix.lstrip('.') or 'CSV'}: {problem}") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    if frame.empty:
        raise UserError(f"{path}: there are no rows in it")
    return frame


def metric_columns(frame) -> list[str]:
    """The task columns of a study's records: what stands between inference_flops and avg, and avg."""
    names = list(frame.columns)
    if "inference_flops" not in names or DEFAULT_SCORE not in names:
        return [DEFAULT_SCORE] if DEFAULT_SCORE in names else []
    return names[names.index("inference_flops") + 1 : names.index(DEFAULT_SCORE) + 1]


def runs_of(frame, path: Path, columns: Columns) -> tuple[Runs, tuple[str, ...]]:
    notes = []
    frame = frame.assign(**{_ROW: np.arange(1, len(frame) + 1)})
    if "status" in frame.columns:
        done = frame["status"].astype(str).str.lower().isin(DONE)
        if not done.all():
            notes.append(f"{(~done).sum()} of {len(frame)} rows are not done and were left out")
            frame = frame[done]
        if frame.empty:
            raise UserError(f"{path}: no row has status done")
    if columns.score and columns.error:
        raise UserError("give a score column or an error column, not both")
    value_name = columns.error or columns.score or DEFAULT_SCORE
    size_name = columns.data_size
    if size_name is None and DEFAULT_DATA_SIZE in frame.columns and DEFAULT_DATA_SIZE not in columns.factors:
        size_name = DEFAULT_DATA_SIZE
    if size_name == "none":
        if DEFAULT_DATA_SIZE in frame.columns and frame[DEFAULT_DATA_SIZE].nunique() > 1:
            notes.append(f"the column {DEFAULT_DATA_SIZE} varies and was left out, as asked (--data-size none)")
        size_name = None
    if len(set(columns.factors)) < len(columns.factors) or size_name in columns.factors:
        raise UserError("a column is named twice among the factors and the data size")
    reader = _Reader(frame, path)
    factors = {name: reader.positive(name) for name in columns.factors}
    sizes = reader.positive(size_name) if size_name else None
    error = reader.positive(value_name, "error") if columns.error else reader.error_of_score(value_name)
    if not columns.keep_duplicates:
        reader.refuse_duplicates([*columns.factors, *([size_name] if size_name else []), value_name])
    sweep = frame["sweep"].astype(str).to_numpy() if "sweep" in frame.columns else None
    return Runs(factors, error, sizes, sweep=sweep, labels=tuple(reader.labels)), tuple(notes)


_ROW = "row number in the file"


class _Reader:
    """Takes columns out of a frame and says where they are wrong."""

    def __init__(self, frame, path: Path):
        self.frame, self.path = frame, path
        lines = path.suffix != ".parquet"
        self.labels = [f"row {row} (line {row + 1})" if lines else f"row {row}" for row in frame[_ROW]]

    def numbers(self, name: str) -> np.ndarray:
        import pandas as pd

        if name not in self.frame.columns:
            there = ", ".join(column for column in self.frame.columns if column != _ROW)
            raise UserError(f"{self.path}: there is no column {name!r}; the columns are {there}")
        column = self.frame[name]
        values = pd.to_numeric(column, errors="coerce").to_numpy(float)
        missing = column.isna().to_numpy() | column.astype(str).str.strip().eq("").to_numpy()
        self._refuse(name, missing, "is missing; fill it in or remove the row")
        self._refuse(name, np.isnan(values), "is not a number")
        self._refuse(name, ~np.isfinite(values), "is not finite")
        return values

    def positive(self, name: str, kind: str = "factor") -> np.ndarray:
        values = self.numbers(name)
        why = "errors must be positive, because their logarithm is fitted" if kind == "error" else "must be positive"
        self._refuse(name, values <= 0, why)
        return values

    def error_of_score(self, name: str) -> np.ndarray:
        values = self.numbers(name)
        self._refuse(name, (values < 0) | (values > 100), "is no score on 0..100 (for an error column use --error)")
        self._refuse(name, values == 100, "is a perfect score: its error is 0, and the logarithm of 0 has no value")
        if values.max() <= 1:
            raise UserError(
                f"{self.path}, column {name!r}: no score is above 1, so they seem to be on 0..1; "
                f"scores are on 0..100: multiply them by 100, or give an error column with --error"
            )
        return 100.0 - values

    def refuse_duplicates(self, names: Sequence[str]) -> None:
        keys = [*names, *(extra for extra in ("seed", "sweep") if extra in self.frame.columns and extra not in names)]
        again = self.frame.duplicated(keys).to_numpy()
        if again.any():
            second = int(np.flatnonzero(again)[0])
            same = (self.frame[keys] == self.frame[keys].iloc[second]).all(axis=1).to_numpy()
            first = int(np.flatnonzero(same)[0])
            values = ", ".join(f"{name}={self.frame[name].iloc[second]}" for name in names)
            raise UserError(
                f"{self.path}: {self.labels[second]} repeats {self.labels[first]} ({values}): "
                f"remove one, or say --keep-duplicates if both were measured"
            )

    def _refuse(self, name: str, bad: np.ndarray, why: str) -> None:
        where = np.flatnonzero(bad)
        if len(where):
            value = self.frame[name].iloc[where[0]]
            more = f" (and {len(where) - 1} more rows)" if len(where) > 1 else ""
            raise UserError(f"{self.path}, {self.labels[where[0]]}, column {name!r}: {value!s} {why}{more}")


def records_in(folder: Path) -> Path:
    for name in ("records.csv", "records.parquet"):
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder}: there is no records.csv or records.parquet in it; has the study finished a trial?")
