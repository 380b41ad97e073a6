"""Which columns of a table are meant: names that differ from ours, units, conditions on rows; and what to say if not.

A table that does not have the columns is refused with the flags that would name them.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from vvlm_ray.errors import UserError

DEFAULT_FACTORS = ("lm_params", "num_frames", "tokens_per_frame")
DEFAULT_DATA_SIZE = "num_examples"
DEFAULT_SCORE = "avg"
MAX_MISSING = 0.2

# Lower case, without anything but letters and digits; what people call these.
_SYNONYMS = {
    "lm_params": {"lmparams", "params", "numparams", "nparams", "parameters", "numparameters", "modelsize", "lmsize",
                  "llmsize", "llmparams", "modelparams", "sizeofmodel", "n", "xn"},
    "num_frames": {"frames", "numframes", "nframes", "framecount", "framespervideo", "t", "xt"},
    "tokens_per_frame": {"tok", "tokens", "tokensperframe", "numtokens", "visualtokens", "vistokens", "tokperframe",
                         "visualtokensperframe", "v", "xv"},
    "num_examples": {"examples", "numexamples", "nexamples", "samples", "numsamples", "nsamples", "datasize",
                     "trainsize", "trainingexamples", "trainsamples", "datasetsize"},
    "avg": {"avg", "average", "mean", "score", "accuracy", "acc", "avgscore", "meanscore", "averagescore",
            "meanaccuracy", "metricsavg"},
}  # fmt: skip
_ERRORS = {"err", "error", "errorrate", "avgerror", "meanerror", "loss", "evalloss", "testloss", "valloss"}
_NO_FACTOR = re.compile(r"(^|[^a-z])(seed|step|steps|epoch|runtime|seconds|loss|lr|id|rank|timestamp)([^a-z]|$)|^_")


@dataclass(frozen=True)
class Condition:
    """Rows to keep: those whose `column` has one of the values; with `negated`, none of them."""

    column: str
    value: str
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.column}{'!=' if self.negated else '='}{self.value}"


@dataclass(frozen=True)
class Columns:
    """Which columns to read, and how.

    `data_size` None means num_examples where the table has it; "none" means none. Give `score` (the error is
    100 - score; "a,b,c" is the mean of these columns) or `error` (taken as it is). `names` {ours: theirs},
    `units` {ours: what one unit is}, `where` the rows to keep, `num_questions` behind a score (for perfect ones),
    `max_missing` the share of rows that may lack a value and are then left out.
    """

    factors: Sequence[str] = DEFAULT_FACTORS
    data_size: str | None = None
    score: str | None = None
    error: str | None = None
    keep_duplicates: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, float] = field(default_factory=dict)
    where: Sequence[Condition] = ()
    num_questions: int | None = None
    max_missing: float = MAX_MISSING

    def __post_init__(self):
        if self.score and self.error:
            raise UserError("give a score column or an error column, not both")
        ours = {theirs: name for name, theirs in self.names.items()}  # a flag may name a column either way
        factors = [ours.get(name, name) for name in self.factors]
        known = [name for name in DEFAULT_FACTORS if name in factors]  # so that the order given cannot matter
        factors = tuple(known + [name for name in factors if name not in DEFAULT_FACTORS])
        size = ours.get(self.data_size, self.data_size)
        if len(set(factors)) < len(self.factors) or size in factors:
            raise UserError("a column is named twice among the factors and the data size")
        if not factors:
            raise UserError("no factors are named: give at least one with --factors")
        if not self.scores:
            raise UserError(f"--score {self.score}: it names no column")
        for name, theirs in self.names.items():
            if list(self.names.values()).count(theirs) > 1:
                raise UserError(f"--map {name}={theirs}: {theirs!r} is mapped twice")
        if self.num_questions is not None and self.num_questions < 1:
            raise UserError("--questions must be at least 1")
        if not 0 <= self.max_missing < 1:
            raise UserError("--max-missing is a share of the rows: at least 0 and below 1")
        for name, unit in self.units.items():
            if not (math.isfinite(unit) and unit > 0):
                raise UserError(f"--unit {name}={unit:g}: a unit must be a positive number")
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "data_size", size)
        object.__setattr__(self, "units", {ours.get(name, name): unit for name, unit in self.units.items()})

    @property
    def scores(self) -> tuple[str, ...]:
        """The columns whose mean is the score."""
        return tuple(name.strip() for name in (self.score or DEFAULT_SCORE).split(",") if name.strip())


def renamed(frame: pd.DataFrame, columns: Columns, where: str) -> pd.DataFrame:
    """The frame under our names.

    Raises:
        UserError: --map names a column that is not there.
    """
    for ours, theirs in columns.names.items():
        if theirs not in frame.columns:
            raise UserError(f"{where}: --map {ours}={theirs}: {no_column(theirs, frame.columns)}")
    taken = [ours for ours, theirs in columns.names.items() if ours in frame.columns and ours != theirs]
    return frame.drop(columns=taken).rename(columns={theirs: ours for ours, theirs in columns.names.items()})


def kept(frame: pd.DataFrame, conditions: Iterable[Condition], names: Mapping[str, str], where: str) -> np.ndarray:
    """Which rows meet the conditions, (R,): any of those on one column, on every column."""
    ours = {theirs: name for name, theirs in names.items()}
    by_column: dict[str, list[Condition]] = {}
    for condition in conditions:
        by_column.setdefault(ours.get(condition.column, condition.column), []).append(condition)
    keep = np.ones(len(frame), bool)
    for name, wanted in by_column.items():
        if name not in frame.columns:
            raise UserError(f"{where}: --where {wanted[0]}: {no_column(name, frame.columns)}")
        equal = [(condition.negated, _equals(frame[name], condition.value)) for condition in wanted]
        among = [mask for negated, mask in equal if not negated]
        if among:
            keep &= np.logical_or.reduce(among)
        for negated, mask in equal:
            if negated:
                keep &= ~mask
        if not keep.any():
            there = ", ".join(sorted({_shown(value) for value in frame[name]})[:12])
            flags = " ".join(f"--where {condition}" for condition in wanted)
            raise UserError(f"{where}: {flags} leaves no row; the values of {name!r} are {there}")
    return keep


def no_column(name: str, there: Iterable[str]) -> str:
    there = list(there)
    return f"there is no column {name!r}{did_you_mean(name, there)}; the columns are {listed(there)}"


def did_you_mean(name: str, there: Iterable[str]) -> str:
    """' (did you mean 'num_frames'?)', or nothing."""
    by_plain = {_plain(other): other for other in reversed(list(there))}
    close = difflib.get_close_matches(_plain(name), by_plain, n=1, cutoff=0.7)
    return f" (did you mean {by_plain[close[0]]!r}?)" if close else ""


def listed(names: Iterable[str], most: int = 30) -> str:
    names = [name if len(name) <= 60 else name[:57] + "..." for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def missing_columns(frame: pd.DataFrame, columns: Columns, lacking: Sequence[str], where: str) -> UserError:
    """The error for columns that are not there, with the flags that would name them."""
    first, *others = dict.fromkeys(lacking)
    what = f"there is no column {first!r}" + (f" (nor {', '.join(map(repr, others))})" if others else "")
    alike = lookalikes(frame, columns, lacking)
    no_score = DEFAULT_SCORE in lacking and not columns.score
    flags = [
        f"--map {ours}={_quoted(theirs)}" for ours, theirs in alike.items() if ours != DEFAULT_SCORE or not no_score
    ]
    flags += [f"--map {ours}=COLUMN" for ours in [*others, first] if ours not in alike and ours != DEFAULT_SCORE]
    tasks = score_candidates(frame, columns)
    if no_score:
        score = _quoted(alike.get(DEFAULT_SCORE) or ",".join(tasks) or "COLUMN")
        flags.append(f"--error {score}" if _plain(_last(score)) in _ERRORS else f"--score {score}")
    say = "say which columns are meant, for instance (check it): " + " ".join(flags)
    default = set(columns.factors) == set(DEFAULT_FACTORS)
    if default and set(lacking) & set(DEFAULT_FACTORS) - set(alike):
        scores = [alike[DEFAULT_SCORE]] if DEFAULT_SCORE in alike else tasks
        taken = {*scores, alike.get(DEFAULT_DATA_SIZE), DEFAULT_DATA_SIZE}
        free = [name for name in _numeric(frame) if name not in taken and not _NO_FACTOR.search(name.lower())]
        free = [name for name in free if _plain(_last(name)) not in _ERRORS]
        score = f" {flags[-1]}" if no_score else ""
        names = _quoted(",".join(free[:6]) or "A,B")
        say += f'; or, if these are the factors: --factors {names}{score} --cost "arithmetic over them, in FLOPs"'
    return UserError(f"{where}: {what}; the columns are {listed(frame.columns)}; {say}")


def lookalikes(frame: pd.DataFrame, columns: Columns, lacking: Sequence[str]) -> dict[str, str]:
    """{ours: theirs} for columns that seem to be the same, by name, or by value where names say nothing."""
    used = {*columns.factors, columns.data_size, *columns.names} - set(lacking)
    free = [name for name in _numeric(frame) if name not in used]
    found: dict[str, str] = {}
    wanted = [*dict.fromkeys(lacking)]
    if DEFAULT_DATA_SIZE not in frame.columns and columns.data_size is None and set(wanted) & set(DEFAULT_FACTORS):
        wanted.append(DEFAULT_DATA_SIZE)

    def take(match) -> None:
        for ours in wanted:
            theirs = next((n for n in free if ours not in found and n not in found.values() and match(ours, n)), None)
            if theirs is not None:
                found[ours] = theirs

    take(lambda ours, theirs: _plain(theirs) == _plain(ours) or _plain(_last(theirs)) == _plain(ours))
    take(lambda ours, theirs: {_plain(theirs), _plain(_last(theirs))} & _SYNONYMS.get(ours, set()))
    take(lambda ours, theirs: ours == DEFAULT_SCORE and _plain(_last(theirs)) in _ERRORS and "loss" not in theirs)
    take(lambda ours, theirs: difflib.SequenceMatcher(None, _plain(ours), _plain(_last(theirs))).ratio() > 0.75)
    if not found or set(found) <= {DEFAULT_SCORE}:
        take(lambda ours, theirs: not _NO_FACTOR.search(theirs.lower()) and _looks_like(ours, frame[theirs]))
        rest = [name for name in free if name not in found.values() and not _NO_FACTOR.search(name.lower())]
        if DEFAULT_SCORE in wanted and DEFAULT_SCORE not in found and len(rest) == 1:
            found[DEFAULT_SCORE] = rest[0]
    return {ours: found[ours] for ours in wanted if ours in found}


def data_size_lookalike(frame: pd.DataFrame, columns: Columns) -> str | None:
    """A column that is called like a data size, where the table has no num_examples."""
    free = [name for name in _numeric(frame) if name not in columns.factors]
    names = _SYNONYMS[DEFAULT_DATA_SIZE]
    return next((name for name in free if {_plain(name), _plain(_last(name))} & names), None)


def score_candidates(frame: pd.DataFrame, columns: Columns) -> list[str]:
    """Columns of numbers that may be scores: within 0..100, and not a factor or a setting."""
    used = {*columns.factors, *_SYNONYMS, *lookalikes(frame, columns, columns.factors).values(), "seed", "status"}
    found = []
    for name in _numeric(frame):
        if name in used or _NO_FACTOR.search(name.lower()) or _plain(_last(name)) in _ERRORS:
            continue
        values = frame[name].dropna()
        if len(values) and values.between(0, 100).all() and values.nunique() > 1:
            found.append(name)
    return found


def _looks_like(ours: str, column: pd.Series) -> bool:
    values = column.dropna().to_numpy(float)
    values = values[np.isfinite(values)]
    if not len(values) or np.ptp(values) == 0:
        return False
    whole, low, high = bool((values == np.rint(values)).all()), values.min(), values.max()
    if ours == "lm_params":
        return whole and low >= 1e7
    if ours == "tokens_per_frame":
        return whole and low >= 1 and high <= 4096 and bool((np.sqrt(values) == np.rint(np.sqrt(values))).all())
    if ours == "num_frames":
        return whole and low >= 1 and high <= 2048 and len(np.unique(values)) < len(values)
    if ours == "num_examples":
        return whole and low >= 100 and len(np.unique(values)) < len(values)
    return False


def _numeric(frame: pd.DataFrame) -> list[str]:
    """Columns of numbers, without those whose names are too long to be written into a flag."""
    return [name for name in frame.columns if len(name) <= 100 and pd.api.types.is_numeric_dtype(frame[name])]


def _equals(column: pd.Series, value: str) -> np.ndarray:
    texts = column.map(_shown).str.casefold().to_numpy() == value.strip().casefold()
    try:
        wanted = float(value)
    except ValueError:
        return texts
    return texts | (pd.to_numeric(column, errors="coerce") == wanted).to_numpy()


def _shown(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _last(name: str) -> str:
    return re.split(r"[./]", name)[-1]


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w./,%+:@-]+", name) else "'" + name.replace("'", "'\\''") + "'"
