"""The Ray Tune searcher of a study: it hands out jobs in the order of `study.schedule.Queue`, and None while none fits.

Tune alone starts trials in no sure order and counts trials instead of GPUs; here the queue decides both, with the
same code as the simulator behind `vvlm-ray plan`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from vvlm_ray.orchestration.placement import Machines
from vvlm_ray.planning.queue import Job, Queue

# A driver reports this key when its job failed, so that the searcher learns the reason and Tune goes on.
FAILURE_KEY = "failure"
NOT_STARTED_KEY = "not_started"  # reported instead when its workers found no room: the job goes back, uncounted


class StudySearcher(Searcher):
    """Suggests `{"job_id", "kind", "attempt", "slots"}`, and where (see `Machines.locate`), until the queue is empty.

    A job whose driver reports a failure,
    or dies, is retried `max_retries` times and then given up: `on_failed` is called with it and the reason, and with
    every job that waited for it. Whenever a job has ended for good, `more` may give further jobs (refinement).
    """

    def __init__(
        self,
        queue: Queue,
        machines: Machines,
        max_retries: int,
        on_failed: Callable[[Job, str, int], None],
        more: Callable[[], Sequence[Job]] = tuple,
    ):
        super().__init__(metric="seconds", mode="min")
        self._queue = queue
        self._machines = machines
        self._max_retries = max_retries
        self._on_failed = on_failed
        self._more = more
        self._jobs: dict[str, Job] = {}  # Tune's trial id -> job
        self._attempts: dict[str, int] = {}

    def set_search_properties(self, metric, mode, config, **spec) -> bool:
        return True  # the space is the queue; Tune has nothing to add

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._queue.is_empty:
            return Searcher.FINISHED
        job = self._queue.next()
        if job is None:
            return None
        self._jobs[trial_id] = job
        self._attempts[job.job_id] = self._attempts.get(job.job_id, 0) + 1
        placement = self._queue.placement(job.job_id)
        return {
            "job_id": job.job_id,
            "kind": job.kind,
            "attempt": self._attempts[job.job_id],
            "slots": placement.choice.slots,
        } | self._machines.locate(placement)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        job = self._jobs.pop(trial_id, None)
        if job is None:
            return
        if (result or {}).get(NOT_STARTED_KEY):
            self._attempts[job.job_id] -= 1
            self._queue.retry(job.job_id)
            return
        reason = (result or {}).get(FAILURE_KEY) or ("its driver process ended" if error else None)
        if reason is not None and self._attempts[job.job_id] <= self._max_retries:
            self._queue.retry(job.job_id)
            return
        if reason is None:
            self._queue.finish(job.job_id)
        else:
            self._on_failed(job, reason, self._attempts[job.job_id])
            for lost in self._queue.give_up(job.job_id):
                self._on_failed(lost, f"it needs {job.job_id}, which failed: {reason}", 0)
        for further in self._more():
            self._queue.add(further)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a study resumes from its records, which say what is finished."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
