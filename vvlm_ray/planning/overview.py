"""How a study stands, from its folder alone, on any machine that sees it: what `vvlm-ray status` shows."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from vvlm_ray.errors import UserError
from vvlm_ray.planning.estimates import Estimator, measure_throughput
from vvlm_ray.planning.sizing import trial_slots
from vvlm_ray.study.additions import all_trials
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.ledger import Attempt, read_history
from vvlm_ray.study.lock import is_held, read_holder
from vvlm_ray.study.records import FINISHED, read_records
from vvlm_ray.study.stages import Stage, read_stage
from vvlm_ray.study.storage import is_local
from vvlm_ray.study.trials import Trial

RUNNING, WAITING, DAMAGED = "running", "waiting", "damaged"


@dataclass(frozen=True)
class TrialState:
    """One trial: finished, failed, running, waiting, or damaged (its record is no record; `run` does it again)."""

    trial: Trial
    status: str
    record: dict[str, Any] | None
    attempts: tuple[Attempt, ...]
    expected_seconds: float
    stage: Stage | None = None
    problem: str | None = None

    @property
    def reason(self) -> str | None:
        """Why it failed, is damaged, or why its last attempt ended."""
        if self.problem or self.status == FINISHED:
            return self.problem
        if self.record:
            return self.record.get("reason") or "; ".join(self.record.get("failed_tasks", {}).values())
        return next((a.cause for a in reversed(self.attempts) if a.cause), None)

    @property
    def seconds(self) -> float | None:
        """Over all attempts; of a running one so far."""
        if self.record and (stated := self.record.get("details", {}).get("seconds")) is not None:
            return float(stated)
        spent = [a.seconds if a.seconds is not None else (a.ended or time.time()) - a.started for a in self.attempts]
        return sum(spent) if spent and (self.status == RUNNING or self.attempts[-1].ended) else None

    @property
    def seconds_left(self) -> float:
        """Of a running trial by its own speed where it has one; else what it is expected to take, less what it took."""
        if self.status not in (RUNNING, WAITING, DAMAGED):
            return 0.0
        if self.status == RUNNING and self.attempts:
            since = time.time() - self.attempts[-1].started
            if self.stage and self.stage.per_second:
                return max(0.0, (self.stage.total - self.stage.done) / self.stage.per_second)
            return max(0.0, self.expected_seconds - since)
        return self.expected_seconds

    def to_dict(self) -> dict[str, Any]:
        stage = self.stage
        return {
            **self.trial.to_dict(),
            "status": self.status,
            "avg": self.record.get("avg") if self.record else None,
            "seconds": self.seconds,
            "expected_seconds": self.expected_seconds,
            "seconds_left": self.seconds_left,
            "reason": self.reason,
            "stage": {"name": stage.name, "done": stage.done, "total": stage.total, "time": stage.time}
            | {"per_second": stage.per_second}
            if stage
            else None,
            "attempts": [a.to_dict() for a in self.attempts],
            "log": self.log,
        }

    @property
    def log(self) -> str | None:
        """The last attempt's, relative to the study's folder."""
        return self.attempts[-1].log if self.attempts else None


@dataclass(frozen=True)
class Overview:
    """A study's trials, who runs it, and how many lines of its ledger are damaged."""

    name: str
    trials: tuple[TrialState, ...]
    holder: str | None
    num_damaged_lines: int

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(t.status for t in self.trials))

    @property
    def seconds_left(self) -> float:
        """All that is left, as many at once as run now."""
        running = sum(t.status == RUNNING for t in self.trials)
        longest = max((t.seconds_left for t in self.trials), default=0.0)
        return max(longest, sum(t.seconds_left for t in self.trials) / max(running, 1))

    def to_dict(self) -> dict[str, Any]:
        about = {"study": self.name, "counts": self.counts, "seconds_left": self.seconds_left, "run_by": self.holder}
        return about | {"damaged_ledger_lines": self.num_damaged_lines, "trials": [t.to_dict() for t in self.trials]}


def overview(folder: StudyFolder, study: Study) -> Overview:
    """How the study in a folder stands."""
    trials, history = all_trials(study, folder), read_history(folder)
    holder = read_holder(folder.root) if is_held(folder.root) else None
    records = read_records(folder, [t.trial_id for t in trials])
    done = [t for t in trials if isinstance(r := records[t.trial_id], dict) and r["status"] == FINISHED]
    estimator = Estimator(study, folder.sweep_file, folder)
    estimator = Estimator(study, folder.sweep_file, folder, measure_throughput(estimator, done))
    gpu = estimator.pool_gpu() if study.resources.gpus_per_worker else None
    slots = trial_slots(study)

    def state(trial: Trial) -> TrialState:
        found, attempts = records[trial.trial_id], tuple(history.attempts.get(trial.trial_id, ()))
        expected = estimator.seconds(trial, slots, gpu)
        if isinstance(found, UserError):
            return TrialState(trial, DAMAGED, None, attempts, expected, problem=str(found))
        is_running = holder is not None and bool(attempts) and attempts[-1].ended is None
        if found is not None and not (is_running and found["status"] != FINISHED):
            return TrialState(trial, found["status"], found, attempts, expected)
        stage = read_stage(folder.trial(trial.trial_id)) if attempts or is_local(folder.root) else None
        return TrialState(trial, RUNNING if is_running else WAITING, None, attempts, expected, stage)

    return Overview(study.name, tuple(map(state, trials)), holder.name if holder else None, history.num_damaged)
