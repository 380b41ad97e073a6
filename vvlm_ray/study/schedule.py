"""Which job starts next: longest chain first, admitted only when all its slots are free (gang).

A job is a trial, or something that trials need first (a benchmark, a backbone, a projector). The same code
answers for the simulator in `plan` and for the Ray Tune searcher in `run`.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Job:
    """Something to run: how long it takes, how many slots (GPUs, or CPUs without GPUs), and what must be done first."""

    job_id: str
    seconds: float
    slots: float = 1
    after: frozenset[str] = frozenset()
    kind: str = "trial"


@dataclass
class Queue:
    """Jobs that wait or run on `num_slots` slots.

    Jobs start by the length of the longest chain that hangs on them. When the first in that order does not fit,
    smaller ones fill the gap, until it has been passed over `patience` times: then nothing starts before it, so
    that wide jobs do not starve.
    """

    jobs: Sequence[Job]
    num_slots: float
    patience: int = 8
    _waiting: dict[str, Job] = field(init=False)
    _running: dict[str, Job] = field(init=False, default_factory=dict)
    _done: set[str] = field(init=False, default_factory=set)
    _failed: set[str] = field(init=False, default_factory=set)
    _passed_over: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        ids = {job.job_id for job in self.jobs}
        for job in self.jobs:
            if job.slots > self.num_slots:
                raise ValueError(f"job {job.job_id} needs {job.slots:g} slots and there are {self.num_slots:g}")
            if missing := job.after - ids:
                raise ValueError(f"job {job.job_id} waits for {sorted(missing)}, which are not in the queue")
        chains = _chain_seconds(self.jobs)
        self._waiting = {j.job_id: j for j in sorted(self.jobs, key=lambda j: (-chains[j.job_id], j.job_id))}

    @property
    def free_slots(self) -> float:
        return self.num_slots - sum(job.slots for job in self._running.values())

    @property
    def is_empty(self) -> bool:
        return not self._waiting and not self._running

    def next(self) -> Job | None:
        """The job to start now, which then counts as running; None if none can start."""
        for job in self._waiting.values():
            if not job.after <= self._done:
                continue
            if job.slots <= self.free_slots:
                self._running[job.job_id] = self._waiting.pop(job.job_id)
                return job
            self._passed_over[job.job_id] = self._passed_over.get(job.job_id, 0) + 1
            if self._passed_over[job.job_id] > self.patience:
                return None
        return None

    def finish(self, job_id: str) -> None:
        del self._running[job_id]
        self._done.add(job_id)

    def retry(self, job_id: str) -> None:
        """Put a running job back at the head of the waiting ones."""
        self._waiting = {job_id: self._running.pop(job_id), **self._waiting}

    def give_up(self, job_id: str) -> list[Job]:
        """Mark a running job as failed; returns the waiting jobs that can never start now, which leave the queue."""
        del self._running[job_id]
        self._failed.add(job_id)
        lost: list[Job] = []
        while blocked := [j for j in self._waiting.values() if j.after & self._failed]:
            for job in blocked:
                lost.append(self._waiting.pop(job.job_id))
                self._failed.add(job.job_id)
        return lost


def _chain_seconds(jobs: Iterable[Job]) -> dict[str, float]:
    """For each job the seconds of the longest chain of jobs that starts with it."""
    by_id = {job.job_id: job for job in jobs}
    dependents: dict[str, list[str]] = {job_id: [] for job_id in by_id}
    for job in by_id.values():
        for needed in job.after:
            dependents[needed].append(job.job_id)
    chains: dict[str, float] = {}

    def chain(job_id: str) -> float:
        if job_id not in chains:
            chains[job_id] = by_id[job_id].seconds + max(map(chain, dependents[job_id]), default=0.0)
        return chains[job_id]

    for job_id in by_id:
        chain(job_id)
    return chains


@dataclass(frozen=True)
class Start:
    """When a job started and ended in a simulated schedule, in seconds from its beginning."""

    job: Job
    start: float
    end: float


def simulate(jobs: Sequence[Job], num_slots: float) -> list[Start]:
    """The schedule that `Queue` gives when every job takes exactly its expected seconds."""
    queue, now, ends, starts = Queue(jobs, num_slots), 0.0, [], []
    while not queue.is_empty:
        while job := queue.next():
            starts.append(Start(job, now, now + job.seconds))
            heapq.heappush(ends, (now + job.seconds, job.job_id))
        now, job_id = heapq.heappop(ends)
        queue.finish(job_id)
    return starts
