"""The Ray Tune searcher of a study: it hands out jobs in the order of `planning.queue.Queue`, and None while none fits.

Tune alone starts trials in no sure order and counts trials instead of GPUs; here the queue decides both, with the
same code as the simulator behind `vvlm-ray plan`. Tune logs what a searcher's callback raises and goes on, and a study
would wait for ever: here such an error ends the study's run once what runs has ended, and is raised by it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray.tune.search import Searcher

from vvlm_ray.orchestration.attempts import FINISHED, Attempts, Outcome, Verdict
from vvlm_ray.orchestration.placement import Machines
from vvlm_ray.planning.queue import Job, Queue

LOOK_SECONDS = 1.0  # how often it is looked whether a running job needs its slots no more


class Book(Protocol):
    """Where it is written down what happens to jobs. Its methods wait while storage refuses."""

    def started(self, job: Job, attempt: int, nodes: list[str]) -> dict[str, Any]:
        """Returns what the driver must know further."""
        ...

    def has_left(self, job: Job) -> bool:
        """Whether a running job needs its slots no more."""
        ...

    def ended(self, job: Job, attempt: int, outcome: Outcome, verdict: Verdict) -> None: ...
    def given_up(self, job: Job, cause: str, attempts: int) -> None: ...


class NoBook:
    """Writes nothing down."""

    def started(self, job: Job, attempt: int, nodes: list[str]) -> dict[str, Any]:
        return {}

    def has_left(self, job: Job) -> bool:
        return False

    def ended(self, job: Job, attempt: int, outcome: Outcome, verdict: Verdict) -> None:
        pass

    def given_up(self, job: Job, cause: str, attempts: int) -> None:
        pass


@dataclass
class _Running:
    job: Job
    attempt: int
    has_left: bool = False  # its slots, to be scored elsewhere


class StudySearcher(Searcher):
    """Suggests `{"job_id", "kind", "attempt", "slots"}`, and where (see `Machines.locate`), until the queue is empty.

    What an attempt's end means is for `Attempts` to judge; a job that starts again waits aside first, without its
    slots. Whenever a job has ended for good, `more` may give further jobs (refinement).
    """

    def __init__(
        self,
        queue: Queue,
        machines: Machines,
        attempts: Attempts,
        book: Book,
        more: Callable[[], Sequence[Job]] = tuple,
    ):
        super().__init__(metric="seconds", mode="min")
        self._queue, self._machines, self._attempts = queue, machines, attempts
        self._book, self._more = book, more
        self._running: dict[str, _Running] = {}  # by Tune's trial id
        self._paused: dict[str, float] = {}  # job id -> when it may start again
        self._next_look = 0.0
        self.error: BaseException | None = None

    @property
    def running(self) -> list[tuple[Job, int]]:
        """The jobs that run, and the numbers of their attempts."""
        return [(r.job, r.attempt) for r in self._running.values()]

    def set_search_properties(self, metric, mode, config, **spec) -> bool:
        return True  # the space is the queue; Tune has nothing to add

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.error is not None:
            return Searcher.FINISHED
        try:
            return self._suggest(trial_id)
        except Exception as error:
            self.error = error
            return Searcher.FINISHED

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        for job_id in [job_id for job_id, when in self._paused.items() if when <= time.monotonic()]:
            del self._paused[job_id]
            self._queue.retry(job_id)
        self._free_slots()
        if self._queue.is_empty:
            return Searcher.FINISHED
        job = self._queue.next()
        if job is None:
            return None
        attempt = self._attempts.start(job.job_id)
        self._running[trial_id] = _Running(job, attempt)
        placement = self._queue.placement(job.job_id)
        where = self._machines.locate(placement)
        known = self._book.started(job, attempt, sorted(placement.nodes))
        return {
            "job_id": job.job_id,
            "kind": job.kind,
            "attempt": attempt,
            "slots": placement.choice.slots,
            **where,
            **known,
        }

    def _free_slots(self) -> None:
        """Let others have the slots of trials that have their answers: the judge needs no GPU."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        for running in self._running.values():
            if not running.has_left and self._book.has_left(running.job):
                running.has_left = True
                self._queue.free(running.job.job_id)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        running = self._running.pop(trial_id, None)
        if running is None:
            return
        try:
            self._end(running, Outcome.from_report(result, error))
        except Exception as problem:
            self.error = self.error or problem

    def _end(self, running: _Running, outcome: Outcome) -> None:
        """The queue is told before anything that may raise, or what waits for this job would wait for ever."""
        job = running.job
        verdict = self._attempts.judge(job.job_id, outcome)
        is_over = outcome.outcome == FINISHED or verdict.given_up is not None
        lost: list[Job] = []
        if outcome.outcome == FINISHED:
            self._queue.finish(job.job_id)
        elif verdict.given_up is not None:
            lost = self._queue.give_up(job.job_id)
        else:
            self._queue.pause(job.job_id)
            self._paused[job.job_id] = time.monotonic() + verdict.pause
        self._book.ended(job, running.attempt, outcome, verdict)
        if verdict.given_up is not None:
            self._book.given_up(job, verdict.given_up, self._attempts.made(job.job_id))
            for further in lost:
                self._book.given_up(further, f"it needs {job.job_id}, which failed: {verdict.given_up}", 0)
        if is_over:
            for further in self._more():
                self._queue.add(further)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy of its searcher with its state; this one belongs to this process

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a study resumes from its records, which say what is finished."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
