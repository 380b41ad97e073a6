"""What a run writes down about its jobs: the ledger, and the records of trials that were given up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vvlm_ray.orchestration.attempts import Outcome, Verdict
from vvlm_ray.orchestration.checkpoints import FOLDER, find
from vvlm_ray.orchestration.logs import log_file
from vvlm_ray.orchestration.placement import free_groups, group_name
from vvlm_ray.orchestration.progress import Progress
from vvlm_ray.planning.jobs import backbone_of_projector, projector_run
from vvlm_ray.planning.queue import Job
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.ledger import ENDED, GIVEN_UP, LOST, STARTED, History, Ledger
from vvlm_ray.study.records import failed_record, write_record
from vvlm_ray.study.stages import read_stage
from vvlm_ray.study.storage import patiently
from vvlm_ray.study.trials import Trial


class StudyBook:
    """The searcher's `Book` of a study. While storage refuses, every method waits and says so: the run is parked."""

    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        trials: dict[str, Trial],
        history: History,
        progress: Progress,
        *,
        is_own_ray: bool,
    ):
        self._study, self._folder, self._trials, self._progress = study, folder, trials, progress
        self._say = progress.say
        self._ledger = Ledger(folder, self._say)
        self._seconds = {job_id: history.seconds(job_id) for job_id in history.attempts}
        self._is_own_ray = is_own_ray
        self._groups: set[str] = set()  # names of placement groups of what runs

    def started(self, job: Job, attempt: int, nodes: list[str]) -> dict[str, Any]:
        """Note it; returns what the driver must know of the job beside its place."""
        run = run_folder(self._study, self._folder, job)
        log = log_file(run, attempt)
        found = find(run / FOLDER)
        self._ledger.note(
            STARTED,
            job.job_id,
            attempt=attempt,
            where=nodes,
            log=log.relative_to(self._folder.root).as_posix(),
            resumes_from=int(found.folder.name) if found.folder else 0,
            damaged_checkpoints={folder.name: problem for folder, problem in found.damaged.items()},
        )
        self._progress.started(job.job_id)
        resources = self._study.resources
        is_training = job.kind in ("trial", "projector")
        slots = resources.gpus_per_worker or resources.cpus_per_worker
        has_group = is_training and not (
            self._is_own_ray and resources.gpus_per_worker == 0 and round(job.options[0].slots / slots) <= 1
        )
        if has_group:
            self._groups.add(group_name(job.job_id, attempt))
        trial = self._trials.get(job.job_id)
        return {
            "run": str(run),
            "trial": json.dumps(trial.to_dict()) if trial else None,  # as text: Tune looks for its own things in dicts
            "seconds_before": self._seconds.get(job.job_id, 0.0),
            "has_worker_group": has_group,
            "group_name": group_name(job.job_id, attempt),
            "cpus": resources.cpus_per_worker if is_training else 1,
        }

    def has_left(self, job: Job) -> bool:
        """Whether a trial on GPUs has its answers; on CPUs its scoring takes the place of its workers."""
        is_on_gpus = job.kind == "trial" and self._study.resources.gpus_per_worker > 0
        return is_on_gpus and self._folder.answered(job.job_id).exists()

    def ended(self, job: Job, attempt: int, outcome: Outcome, verdict: Verdict) -> None:
        self._progress.ended(job.job_id, attempt, outcome, verdict)
        self._seconds[job.job_id] = self._seconds.get(job.job_id, 0.0) + outcome.seconds
        self._groups.discard(group_name(job.job_id, attempt))
        if freed := free_groups(self._groups):
            self._say(f"freed what {', '.join(freed)} had left reserved")
        self._ledger.note(
            ENDED,
            job.job_id,
            attempt=attempt,
            outcome=outcome.outcome,
            cause=outcome.cause,
            counts=verdict.counts,
            checkpoint=outcome.checkpoint,
            step=outcome.step,
            seconds=round(outcome.seconds, 3),
            host=outcome.where,
        )

    def given_up(self, job: Job, cause: str, attempts: int) -> None:
        self._progress.given_up(job.job_id)
        self._ledger.note(GIVEN_UP, job.job_id, attempts=attempts, cause=cause)
        if trial := self._trials.get(job.job_id):
            record = failed_record(trial, cause, attempts)
            what = f"the record of {trial.label}"
            patiently(lambda: write_record(self._folder, record), what, self._say)

    def stopped(self, running: list[tuple[Job, int]], why: str) -> None:
        """The run ends while these run. One try: a run that is told to stop does not wait for storage."""
        ledger = Ledger(self._folder, self._say, patience=2.0)
        for job, attempt in running:
            ledger.note(ENDED, job.job_id, attempt=attempt, outcome=LOST, cause=why, counts=False)


def close_open_attempts(folder: StudyFolder, study: Study, history: History, say: Callable[[str], Any]) -> bool:
    """Note the end of attempts whose run ended without a word; their seconds are up to their last sign of life."""
    ledger, has_closed = Ledger(folder, say), False
    for job_id, attempts in history.attempts.items():
        for attempt in attempts:
            if attempt.ended is None:
                stage = read_stage(run_folder_of(study, folder, job_id))
                seconds = max(0.0, stage.time - attempt.started) if stage else 0.0
                about = {"attempt": attempt.number, "outcome": LOST, "cause": "its run ended without a word"}
                ledger.note(ENDED, job_id, **about, counts=False, seconds=round(seconds, 3))
                has_closed = True
    return has_closed


def run_folder(study: Study, folder: StudyFolder, job: Job) -> Path:
    """Where a job keeps its checkpoints, stage and logs."""
    if job.kind == "projector":
        return projector_run(study, folder, backbone_of_projector(job.job_id))
    return folder.trial(job.job_id) if job.kind == "trial" else folder.assets / "jobs" / job.job_id


def run_folder_of(study: Study, folder: StudyFolder, job_id: str) -> Path:
    """The same by the job's id alone."""
    from vvlm_ray.planning.jobs import BENCHMARK_JOB, PROJECTOR_JOB

    if job_id.startswith(PROJECTOR_JOB) and backbone_of_projector(job_id) in study.backbones:
        return projector_run(study, folder, backbone_of_projector(job_id))
    if job_id == BENCHMARK_JOB or job_id in study.backbones:
        return folder.assets / "jobs" / job_id
    return folder.trial(job_id)
