"""Phase two of a trial, a job of one CPU: its kept answers become scores, and its record is written.

No GPU and no model is needed, so it can be repeated by itself: by `run` after a failure, by `vvlm-ray score` at will.
"""

from __future__ import annotations

import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vvlm_ray.study.folder import StudyFolder, open_study, write_json
from vvlm_ray.study.records import Scores, finished_record, write_record
from vvlm_ray.study.stages import StageWriter
from vvlm_ray.study.storage import is_local, open_storage, patiently
from vvlm_ray.study.trials import Trial, meaning_of

if TYPE_CHECKING:
    from vvlm_ray.evaluation.scoring import Scored

VERSIONS = ("vvlm-ray", "torch", "transformers", "ray", "lmms-eval")


class ScoringFailed(RuntimeError):
    """Some tasks could not be scored; the message names each and what to do. The others are in the record."""


def answers_of(folder: StudyFolder, trial_id: str) -> Path:
    """Where a trial's answers are kept."""
    return folder.trial(trial_id) / "answers"


def note_answered(folder: StudyFolder, trial_id: str, sweep_file: str, details: dict[str, Any]) -> None:
    """Say that all answers are there; `details` is what only the trial's workers know of it.

    `sweep_file`: beside which its relative paths lie.
    """
    write_json(folder.answered(trial_id), {"sweep_file": sweep_file, "details": details})


def score_trial(study_root: str, sweep_file: str, trial: dict[str, Any]) -> None:
    """Score an answered trial and write its record.

    Raises:
        ScoringFailed: tasks without a score. Those that have one are in a record of status "partial".
    """
    scored = rescore(study_root, sweep_file, trial)
    if scored.failed:
        raise ScoringFailed("; ".join(scored.failed.values()))


def rescore(study_root: str, sweep_file: str | None, trial: dict[str, Any]) -> Scored:
    """The scores of a trial's answers, which go into its record too.

    `sweep_file`: beside which relative paths lie; None for the one that the trial was answered for.
    """
    from vvlm_ray.evaluation.scoring import score_answers

    start = time.monotonic()
    folder, study = open_study(study_root)
    own = Trial.from_dict(trial)
    note = json.loads(folder.answered(own.trial_id).read_text())
    beside, details = open_storage(sweep_file or note["sweep_file"]), note["details"]
    stage = StageWriter(folder.trial(own.trial_id))
    scored = score_answers(
        study.evaluation,
        answers_of(folder, own.trial_id),
        resolve=lambda raw: folder.resolve(raw, beside),
        judge_store=_judge_store(folder),
        on_task=lambda task: stage(f"scoring {task}", len(study.evaluation.tasks), len(study.evaluation.tasks)),
    )
    seconds = time.monotonic() - start
    if scored.tasks:
        record = finished_record(
            own,
            _scores(scored),
            meaning=meaning_of(study, own),
            details=details
            | {
                "seconds": details["seconds"] + seconds,
                "score_seconds": seconds,
                "unparseable": _shares(scored, "unparseable_share"),
                "unusable_verdicts": _shares(scored, "unusable_share"),
                "judge": dict(scored.judge) if scored.judge else None,
                "versions": {name: version(name) for name in VERSIONS},
            },
        )
        patiently(lambda: write_record(folder, record, replace=True), f"the record of {own.label}", print)
    stage.end()
    return scored


def _judge_store(folder: StudyFolder) -> Path:
    """Where the study keeps its judge's replies: in its folder, or, where that is no disk, in this machine's cache."""
    if is_local(folder.root):
        return folder.root / "judge.sqlite"
    name = hashlib.sha256(str(folder.root).encode()).hexdigest()[:16]
    return Path.home() / ".cache/vvlm_ray/judges" / f"{name}.sqlite"


def _scores(scored: Scored) -> Scores:
    errors = {name: task.standard_error for name, task in scored.tasks.items() if task.standard_error is not None}
    return Scores(
        scores=scored.scores,
        standard_errors=errors,
        subtasks={name: task.parts for name, task in scored.tasks.items() if task.parts},
        is_partial=bool(scored.failed),
        judge=scored.judge["model"] if scored.judge else None,
        failed=scored.failed,
    )


def _shares(scored: Scored, key: str) -> dict[str, float]:
    shares = {name: getattr(task, key) for name, task in scored.tasks.items()}
    return {name: share for name, share in shares.items() if share is not None}
