"""Records: one JSON file per trial, written once and atomically, and the table collected from them."""

import json
import math
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError
from vvlm_ray.study.folder import StudyFolder, write_atomically, write_json
from vvlm_ray.study.trials import Trial

if TYPE_CHECKING:
    import pandas as pd

FINISHED, FAILED = "finished", "failed"


def finished_record(trial: Trial, scores: dict[str, float], details: dict[str, Any]) -> dict[str, Any]:
    """The record of a trial that ran to its end: what it was, its scores on 0..100, their mean `avg`, and details.

    Raises:
        ValueError: no score, or one that is missing, not a number or outside 0..100. It is never recorded as 0.
    """
    if not scores:
        raise ValueError(f"trial {trial.trial_id}: no scores")
    for task, score in scores.items():
        if not (isinstance(score, int | float) and math.isfinite(score) and 0 <= score <= 100):
            raise ValueError(f"trial {trial.trial_id}: the score of {task} is {score!r}, not a number on 0..100")
    return {**trial.to_dict(), **scores, "avg": sum(scores.values()) / len(scores), "status": FINISHED, **details}


def failed_record(trial: Trial, reason: str, attempts: int) -> dict[str, Any]:
    """The record of a trial that was given up: why, and after how many attempts. It has no score columns."""
    return {**trial.to_dict(), "status": FAILED, "reason": reason, "attempts": attempts}


def write_record(folder: StudyFolder, record: dict[str, Any]) -> None:
    write_json(folder.record(record["trial_id"]), record)


def read_record(folder: StudyFolder, trial_id: str) -> dict[str, Any] | None:
    """The record of a trial, or None where there is none.

    Raises:
        UserError: the file is there but is not a record.
    """
    path = folder.record(trial_id)
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as err:
        raise UserError(f"{path}: not JSON ({err}); remove it to run the trial again") from err
    if not isinstance(record, dict) or record.get("trial_id") != trial_id or "status" not in record:
        raise UserError(f"{path}: not the record of trial {trial_id}; remove it to run the trial again")
    return record


def is_finished(folder: StudyFolder, trial_id: str) -> bool:
    record = read_record(folder, trial_id)
    return record is not None and record["status"] == FINISHED


def collect(folder: StudyFolder, trials: list[Trial]) -> "pd.DataFrame":
    """The records of these trials as a table, one row each, also written to records.csv and records.parquet."""
    import pandas as pd

    records = [r for t in trials if (r := read_record(folder, t.trial_id)) is not None]
    table = pd.DataFrame([{k: v for k, v in r.items() if not isinstance(v, dict | list)} for r in records])
    if len(table):
        write_atomically(folder.root / "records.csv", table.to_csv(index=False))
        temporary = folder.root / ".records.parquet"
        table.to_parquet(temporary, index=False)
        temporary.replace(folder.root / "records.parquet")
    return table
