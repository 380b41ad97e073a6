"""How an attempt at a job ended, and what follows from it: again, when, or given up.

Counted are attempts that ended by themselves without a checkpoint that the attempt had not begun with. What machines
do to a trial (a lost node, a preemption, a killed driver) does not count, and neither does an attempt that came
further: whatever ends it, a job that advances is not given up. A cause of the job's own (a bad row, a loss that is no
number, the same end in the same step twice) is not tried again.
"""

import math
import random
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from vvlm_ray.study.ledger import FAILED, FINISHED, LOST, NOT_STARTED, History

MAX_LOST_IN_A_ROW = 20  # without progress in between: then it may well be the job that kills its machines
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0  # seconds before a job starts again


@dataclass(frozen=True)
class Outcome:
    """What a driver reports of an attempt.

    `step`: the step of training that it was in; `resumed_from`, `checkpoint`: numbers of checkpoints, 0 for none;
    `is_own`: the cause lies in the job itself.
    """

    outcome: str
    seconds: float = 0.0
    cause: str | None = None
    is_own: bool = False
    step: int = 0
    resumed_from: int = 0
    checkpoint: int = 0
    where: str = ""

    @property
    def has_progress(self) -> bool:
        return self.checkpoint > self.resumed_from

    def to_report(self) -> dict[str, Any]:
        """As Tune takes it: flat, and with the metric `seconds`."""
        return asdict(self)

    @classmethod
    def from_report(cls, result: dict[str, Any] | None, error: bool) -> "Outcome":
        """A driver that said nothing was ended, which is not the job's doing."""
        if not result or "outcome" not in result:
            return cls(LOST, cause="its driver's process ended" if error else "its driver said nothing")
        return cls(**{key: result[key] for key in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Verdict:
    """What follows from an attempt: it `counts` or not, the job is given up (why) or starts again after a pause."""

    counts: bool
    pause: float = 0.0
    given_up: str | None = None


class Attempts:
    """Numbers the attempts of all jobs, over all runs of the study, and judges them; counts begin anew with a run."""

    def __init__(self, max_retries: int, history: History, *, first_pause: float = FIRST_PAUSE):
        self._max_retries, self._first_pause = max_retries, first_pause
        self._number = defaultdict(int, {job: max(a.number for a in past) for job, past in history.attempts.items()})
        self._counted: dict[str, int] = defaultdict(int)
        self._lost: dict[str, int] = defaultdict(int)
        self._bad: dict[str, int] = defaultdict(int)  # ends in a row without progress, of any kind
        self._last: dict[str, tuple[str | None, int]] = {}

    def start(self, job_id: str) -> int:
        """The number of an attempt that starts now: 1, 2, ..."""
        self._number[job_id] += 1
        return self._number[job_id]

    def made(self, job_id: str) -> int:
        return self._number[job_id]

    def judge(self, job_id: str, outcome: Outcome) -> Verdict:
        if outcome.outcome == FINISHED:
            return Verdict(counts=False)
        if outcome.has_progress:
            self._counted[job_id] = self._lost[job_id] = self._bad[job_id] = 0
        pause = self._pause(job_id)
        self._bad[job_id] += 1
        if outcome.outcome == NOT_STARTED:
            return Verdict(counts=False, pause=pause)
        cause = outcome.cause or "it ended without a word"
        if outcome.outcome == LOST:
            self._lost[job_id] += 1
            if self._lost[job_id] > MAX_LOST_IN_A_ROW:
                return Verdict(True, given_up=f"lost {self._lost[job_id]} times in a row without progress: {cause}")
            return Verdict(counts=False, pause=pause)
        if outcome.is_own:
            return Verdict(True, given_up=cause)
        end = (outcome.cause, outcome.step)
        if outcome.step and self._last.get(job_id) == end and not outcome.has_progress:
            return Verdict(True, given_up=f"it ended twice in the same way in step {outcome.step}: {cause}")
        self._last[job_id] = end
        if outcome.has_progress:
            return Verdict(counts=False, pause=pause)
        self._counted[job_id] += 1
        if self._counted[job_id] > self._max_retries:
            return Verdict(True, given_up=cause)
        return Verdict(True, pause=pause)

    def _pause(self, job_id: str) -> float:
        """Doubles with every end without progress; a tenth at random, so that jobs do not come back all at once."""
        pause = min(self._first_pause * math.pow(2, self._bad[job_id]), LONGEST_PAUSE)
        return pause * random.uniform(1.0, 1.1)


__all__ = ["FAILED", "FINISHED", "LOST", "NOT_STARTED", "Attempts", "Outcome", "Verdict"]
