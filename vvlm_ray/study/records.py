"""Records: one JSON file per trial, written once and atomically, and the table of those that a sweep asks for.

A record holds what the trial was (`factors`, `num_examples`, `meaning`), its `scores` on 0..100, and how it went.
That of a finished trial (record.json) is created once and replaced by nothing but new scores of its own answers; that
of one with some of its scores (partial.json), or given up (failed.json), is of no account once the trial has finished.
"""

import contextlib
import io
import json
import math
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.storage import create, is_local, storage_errors, write_atomically
from vvlm_ray.study.trials import Trial

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2  # of the record's form
FINISHED, FAILED = "finished", "failed"
PARTIAL = "partial"  # answered, and some of its tasks could not be scored: scoring it again is all that is left
STATUSES = (FINISHED, PARTIAL, FAILED)
INDEX_FILE = "records.index.jsonl"
MIN_NEW = 50  # records that are not in the index before it is written again


@dataclass(frozen=True)
class Scores:
    """What an evaluation found, by task: score on 0..100, its standard error where known, the values of its parts.

    `is_partial`: some of the study's tasks have no score; `failed` says why. `judge`: who judged; None where nobody
    was asked.
    """

    scores: Mapping[str, float]
    standard_errors: Mapping[str, float]
    subtasks: Mapping[str, Mapping[str, float]]
    is_partial: bool = False
    judge: str | None = None
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def avg(self) -> float:
        """The plain mean over tasks ("Metrics/Avg" of Wang et al. 2025)."""
        return sum(self.scores.values()) / len(self.scores)


def finished_record(
    trial: Trial, found: Scores, *, meaning: Mapping[str, Any], details: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a trial that ran to its end: what it was, what it scored, and details of how it went.

    Where some of its tasks have no score it is a partial one, whose `avg` is of the others and in no fit.

    Raises:
        ValueError: no score, or one that is missing, not a number or outside 0..100. It is never recorded as 0.
    """
    if not found.scores:
        raise ValueError(f"trial {trial.trial_id}: no scores")
    for task, score in found.scores.items():
        if not (_is_number(score) and 0 <= score <= 100):
            raise ValueError(f"trial {trial.trial_id}: the score of {task} is {score!r}, not a number on 0..100")
    for task, error in found.standard_errors.items():
        if not (_is_number(error) and error >= 0):
            raise ValueError(f"trial {trial.trial_id}: the standard error of {task} is {error!r}")
    return {
        "version": VERSION,
        **trial.to_dict(),
        "status": PARTIAL if found.is_partial else FINISHED,
        "scores": dict(found.scores),
        "standard_errors": dict(found.standard_errors),
        "subtasks": {task: dict(values) for task, values in found.subtasks.items()},
        "avg": found.avg,
        "partial": found.is_partial,
        "judge": found.judge,
        **({"failed_tasks": dict(found.failed)} if found.is_partial else {}),
        "details": dict(details),
        "meaning": dict(meaning),
    }


def failed_record(trial: Trial, reason: str, attempts: int) -> dict[str, Any]:
    """The record of a trial that was given up: why, and after how many attempts. It has no scores."""
    return {"version": VERSION, **trial.to_dict(), "status": FAILED, "reason": reason, "attempts": attempts}


def write_record(folder: StudyFolder, record: dict[str, Any], *, replace: bool = False) -> bool:
    """Write a record; False where a finished one is there already, which stays.

    `replace`: a finished one of the same trial makes way for this one, of new scores.

    Raises:
        OSError: storage refuses, or the study's folder is gone (and must not be made anew on another disk).
    """
    if not folder.root.exists():
        raise FileNotFoundError(f"{folder.root} is not there")
    trial_id, text = record["trial_id"], json.dumps(record, indent=2, allow_nan=False) + "\n"
    if record["status"] != FINISHED:
        if folder.record(trial_id).exists():
            return False
        write_atomically(folder.partial(trial_id) if record["status"] == PARTIAL else folder.failure(trial_id), text)
        return True
    folder.trial(trial_id).mkdir(parents=True, exist_ok=True)
    if replace:
        write_atomically(folder.record(trial_id), text)
        return True
    return create(folder.record(trial_id), text)


def read_record(folder: StudyFolder, trial_id: str) -> dict[str, Any] | None:
    """The record of a trial, or None where there is none.

    Raises:
        UserError: the file is there but is not a record.
    """
    for path in (folder.record(trial_id), folder.partial(trial_id), folder.failure(trial_id)):
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            raise UserError(f"{path}: cannot be read ({err.strerror or err})") from None
        return _parse(path, data, trial_id)
    return None


def _parse(path: Path, data: bytes, trial_id: str) -> dict[str, Any]:
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise UserError(f"{path}: not JSON ({str(err)[:200]}); `run` sets it aside and runs the trial again") from None
    if problem := _problem_of(record, trial_id):
        raise UserError(f"{path}: {problem}; `run` sets it aside and runs the trial again")
    return record


def set_damaged_aside(folder: StudyFolder, damaged: Iterable[str]) -> list[Path]:
    """Rename what cannot be read as the record of these trials, so that they can run again; returns the new names."""
    aside = []
    for trial_id in damaged:
        for path in (folder.record(trial_id), folder.partial(trial_id), folder.failure(trial_id)):
            if path.exists():
                target = path.with_name(f"{path.stem}.damaged-{uuid.uuid4().hex[:8]}.json")
                path.rename(target)
                aside.append(target)
    return aside


def is_finished(folder: StudyFolder, trial_id: str) -> bool:
    record = read_record(folder, trial_id)
    return record is not None and record["status"] == FINISHED


@dataclass(frozen=True)
class Collected:
    """The records of a sweep as it stands. Ids of trials without one are `missing`.

    `damaged` {trial_id: what is wrong} are of the sweep but unreadable; `others` counts records in the folder that
    are of no trial of the sweep, as after a change of what trials mean.
    """

    finished: tuple[dict[str, Any], ...]
    partial: tuple[dict[str, Any], ...]
    failed: tuple[dict[str, Any], ...]
    missing: tuple[str, ...]
    damaged: Mapping[str, str]
    others: int

    @property
    def notes(self) -> list[str]:
        """What a reader of the finished records must know of the others."""
        told = []
        if self.partial:
            told.append(f"{len(self.partial)} have only some of their scores (`vvlm-ray score` makes the others)")
        if self.failed:
            told.append(f"{len(self.failed)} trials failed")
        if self.missing:
            told.append(f"{len(self.missing)} trials have not run yet")
        total = len(self.finished) + len(self.partial) + len(self.failed) + len(self.missing) + len(self.damaged)
        notes = [f"{len(self.finished)} of {total} trials are finished: {', '.join(told)}"] if told else []
        notes += [f"left out: {problem}" for problem in self.damaged.values()]
        if self.others:
            notes.append(
                f"{self.others} further records in the folder are of other trials than the sweep file asks for now "
                "(other settings, data or points) and were left out"
            )
        return notes

    def table(self) -> "pd.DataFrame":
        """One row per record, finished first: a column for each factor and each task; the avg only of whole sets."""
        import pandas as pd

        return pd.DataFrame([row_of(record) for record in (*self.finished, *self.partial, *self.failed)])


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one flat row; standard errors in columns `<task>_se`, settings of training in `finetune.<key>`."""
    row: dict[str, Any] = {"trial_id": record["trial_id"], "sweep": record["sweep"], "backbone": record["backbone"]}
    row |= record["factors"]
    row |= {key: record[key] for key in ("num_examples", "inference_flops", "target_flops", "seed")}
    row |= record.get("scores", {})
    avg = None if record.get("partial") else record.get("avg")
    row |= {"avg": avg, "partial": record.get("partial"), "status": record["status"]}
    row |= {"reason": record.get("reason"), "judge": record.get("judge")}
    row |= {f"{task}_se": error for task, error in record.get("standard_errors", {}).items()}
    row |= {k: v for k, v in record.get("details", {}).items() if not isinstance(v, dict | list) and k not in row}
    finetune = record.get("meaning", {}).get("finetune", {})
    return row | {f"finetune.{key}": value for key, value in finetune.items()}


def collect_records(folder: StudyFolder, trials: Iterable[Trial]) -> Collected:
    """The records of these trials; nothing that is wrong with one of them is in the way of the others."""
    by_status: dict[str, list[dict[str, Any]]] = {status: [] for status in STATUSES}
    missing, damaged = [], {}
    ids = [trial.trial_id for trial in trials]
    for trial_id, record in read_records(folder, ids).items():
        if isinstance(record, UserError):
            damaged[trial_id] = str(record)
        elif record is None:
            missing.append(trial_id)
        else:
            by_status[record["status"]].append(record)
    known = set(ids)
    others = sum(trial_id not in known for trial_id in _stamps(folder))
    return Collected(*(tuple(by_status[status]) for status in STATUSES), tuple(missing), damaged, others)


def read_records(folder: StudyFolder, ids: Sequence[str]) -> dict[str, dict[str, Any] | UserError | None]:
    """The records of these trials by id: None where there is none, the error where it is damaged.

    Finished records are taken from an index, one file that holds them all with the size and time of theirs; what is
    new, changed or gone since is seen by these. The index is a copy: made again when it is damaged or missing.
    """
    stamps, index = _stamps(folder), _read_index(folder)
    found: dict[str, dict[str, Any] | UserError | None] = {}
    num_new = 0
    for trial_id in ids:
        stamp, (indexed, record) = stamps.get(trial_id), index.get(trial_id, (None, None))
        if stamp is None or stamp != indexed:
            try:
                record = read_record(folder, trial_id)
            except UserError as problem:
                record = problem
            if isinstance(record, dict) and record["status"] == FINISHED and stamp:
                index[trial_id], num_new = (stamp, record), num_new + 1
        found[trial_id] = record
    if num_new > MIN_NEW and num_new > len(index) / 50:
        with contextlib.suppress(*storage_errors()):  # a reader may have no right to write
            lines = (json.dumps([i, *index[i]]) for i in index if i in stamps)
            write_atomically(folder.root / INDEX_FILE, "\n".join(lines) + "\n")
    return found


def read_all_records(folder: StudyFolder) -> dict[str, dict[str, Any]]:
    """Every finished record in the folder, of this sweep or not, by trial; damaged ones are left out."""
    found = read_records(folder, list(_stamps(folder)))
    return {trial_id: record for trial_id, record in found.items() if isinstance(record, dict)}


def _stamps(folder: StudyFolder) -> dict[str, list[float]]:
    """Size and time of every finished record in the folder, by trial."""
    if not is_local(folder.trials):
        return _remote_stamps(folder)
    stamps = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder.trials) as entries:
        for entry in entries:
            try:
                stat = os.stat(f"{entry.path}/record.json")
            except OSError:
                continue
            stamps[entry.name] = [stat.st_size, stat.st_mtime_ns]
    return stamps


def _remote_stamps(folder: StudyFolder) -> dict[str, list[float]]:
    stamps = {}
    found = folder.trials.fs.find(folder.trials.path, maxdepth=2, detail=True, refresh=True)
    for path, about in found.items():
        if path.endswith("/record.json"):
            changed = about.get("LastModified") or about.get("mtime") or 0
            stamps[path.split("/")[-2]] = [about["size"], str(changed)]
    return stamps


def _read_index(folder: StudyFolder) -> dict[str, tuple[list[float], dict[str, Any]]]:
    try:
        lines = (folder.root / INDEX_FILE).read_bytes().split(b"\n")
    except OSError:
        return {}
    index = {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            trial_id, stamp, record = json.loads(line)
            if record["trial_id"] == trial_id and record["version"] == VERSION:
                index[trial_id] = stamp, record
    return index


def write_tables(folder: StudyFolder, collected: Collected) -> None:
    """records.csv and records.parquet: a copy for people and other tools, never read back here."""
    table = collected.table()
    if len(table):
        write_atomically(folder.root / "records.csv", table.to_csv(index=False))
        parquet = io.BytesIO()
        table.to_parquet(parquet, index=False)
        write_atomically(folder.root / "records.parquet", parquet.getvalue())


def _problem_of(record: Any, trial_id: str) -> str | None:
    if not isinstance(record, dict) or record.get("trial_id") != trial_id or record.get("status") not in STATUSES:
        return f"not the record of trial {trial_id}"
    if record.get("version") != VERSION:
        return f"written in form {record.get('version', 1)!r}, and {VERSION} is read"
    try:
        Trial.from_dict(record)
    except (KeyError, TypeError, ValueError):
        return "a record with parts missing"
    if record["status"] != FAILED:
        scores = record.get("scores")
        if not (isinstance(scores, dict) and scores and all(_is_number(s) and 0 <= s <= 100 for s in scores.values())):
            return "a finished record without scores on 0..100"
        if not _is_number(record.get("avg")):
            return "a finished record without an average"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
