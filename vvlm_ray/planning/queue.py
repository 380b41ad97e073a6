"""Which job starts next, and where: longest chain first, admitted only when all its slots are free (gang).

A job is a trial, or something that trials need first (a benchmark, a backbone, a projector). The same code
answers for the simulator in `plan` and for the Ray Tune searcher in `run`.
"""

import bisect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

DEFAULT_PATIENCE = 8
POOL = "all"  # the node that stands for a plain number of slots


@dataclass(frozen=True)
class Node:
    """A machine: its slots (GPUs, or CPUs without GPUs), and its kind (the GPU type)."""

    name: str
    slots: float
    kind: str = ""


@dataclass(frozen=True)
class Choice:
    """One way to run a job: so many slots on nodes of one kind (None: any), for so many seconds."""

    slots: float
    seconds: float
    kind: str | None = None


@dataclass(frozen=True)
class Job:
    """Something to run: how long it takes, how many slots (GPUs, or CPUs without GPUs), and what must be done first.

    `choices`, if any, replace `seconds` and `slots` where these depend on the kind of node. `priority`, if given,
    replaces the length of the chain in the order of starting: see `improve_order`.
    """

    job_id: str
    seconds: float
    slots: float = 1
    after: frozenset[str] = frozenset()
    kind: str = "trial"
    choices: tuple[Choice, ...] = ()
    priority: float | None = None

    @property
    def options(self) -> tuple[Choice, ...]:
        """Its ways to run, fastest first."""
        if not self.choices:
            return (Choice(self.slots, self.seconds),)
        return tuple(sorted(self.choices, key=lambda c: c.seconds))


@dataclass(frozen=True)
class Placement:
    """How and where a job runs: {node name: slots taken there}. A gang wider than a node takes whole nodes."""

    choice: Choice
    nodes: dict[str, float]


@dataclass
class Queue:
    """Jobs that wait or run on nodes (a number stands for one pool of so many slots).

    Jobs start by the length of the longest chain that hangs on them, or by their stated priority. A job that no node
    has room for is passed over by smaller ones, at most `patience` times; then the nodes that will soonest have room
    are kept for it, so that wide jobs do not starve. A job goes to the node that it leaves fullest, so that room for
    wide ones stays in one piece. On a slower kind of node it starts only if it ends there before all that waits
    could be done.

    `order="fifo"` is the baseline: the order given, and nothing passes the first.
    """

    jobs: Sequence[Job]
    nodes: float | Sequence[Node]
    patience: int = DEFAULT_PATIENCE
    order: Literal["longest", "fifo"] = "longest"
    _running: dict[str, Placement] = field(init=False, default_factory=dict)
    _done: set[str] = field(init=False, default_factory=set)
    _failed: set[str] = field(init=False, default_factory=set)
    _paused: set[str] = field(init=False, default_factory=set)
    _passed_over: dict[str, int] = field(init=False, default_factory=dict)
    _reserved: tuple[str, frozenset[str]] | None = field(init=False, default=None)  # job and nodes kept for it

    def __post_init__(self) -> None:
        if isinstance(self.nodes, int | float):
            self.nodes = [Node(POOL, self.nodes)]
        self._nodes = {node.name: node for node in self.nodes}
        self._free = {node.name: node.slots for node in self.nodes}
        self._of_kind = {kind: [n for n in self.nodes if n.kind == kind] for kind in {n.kind for n in self.nodes}}
        self._of_kind[None] = list(self.nodes)
        self._jobs = {job.job_id: job for job in self.jobs}
        self._options = {job.job_id: job.options for job in self.jobs}
        self._check()
        if self.order == "fifo":
            order = list(self._jobs)
        else:
            chains = chain_seconds(self.jobs)
            first = {j.job_id: chains[j.job_id] if j.priority is None else j.priority for j in self.jobs}
            order = sorted(self._jobs, key=lambda i: (-first[i], i))
        self._rank = {job_id: rank for rank, job_id in enumerate(order)}
        self._ahead = itertools.count(-1, -1)  # ranks of jobs that are put back at the head
        self._waiting = dict.fromkeys(order)
        self._missing = {job.job_id: len(job.after) for job in self.jobs}
        self._dependents: dict[str, list[str]] = {job_id: [] for job_id in self._jobs}
        for job in self.jobs:
            for needed in job.after:
                self._dependents[needed].append(job.job_id)
        # Ready jobs by the room that they ask for: whether one fits depends on that alone.
        self._ready: dict[tuple, list[tuple[int, str]]] = {}
        self._share = {job_id: self._share_of(job_id) for job_id in self._jobs}
        self._remaining = sum(self._share.values())
        for job_id in order:
            self._make_ready(job_id)

    def _check(self) -> None:
        for job in self.jobs:
            if not any(self._could_hold(choice) for choice in self._options[job.job_id]):
                slots, total = self._options[job.job_id][0].slots, self.num_slots
                raise ValueError(f"job {job.job_id} needs {slots:g} slots and there are {total:g}")
            if missing := job.after - self._jobs.keys():
                raise ValueError(f"job {job.job_id} waits for {sorted(missing)}, which are not in the queue")

    @property
    def num_slots(self) -> float:
        return sum(node.slots for node in self._nodes.values())

    @property
    def free_slots(self) -> float:
        return sum(self._free.values())

    @property
    def is_empty(self) -> bool:
        return not self._waiting and not self._running and not self._paused

    def next(self) -> Job | None:
        """The job to start now, which then counts as running; None if none can start. `placement` says where."""
        found = self._first_in_line() if self.order == "fifo" else self._first_that_fits()
        if found is None:
            return None
        job_id, placement = found
        self._start(job_id, placement)
        return self._jobs[job_id]

    def placement(self, job_id: str) -> Placement:
        """How and where a running job runs."""
        return self._running[job_id]

    def finish(self, job_id: str) -> None:
        self._release(job_id)
        self._done.add(job_id)
        for dependent in self._dependents[job_id]:
            self._missing[dependent] -= 1
            self._make_ready(dependent)

    def free(self, job_id: str) -> None:
        """Take a job off its nodes that goes on without them."""
        running = self._running[job_id]
        for name, slots in running.nodes.items():
            self._free[name] += slots
        self._running[job_id] = Placement(running.choice, {})

    def pause(self, job_id: str) -> None:
        """Take a running job off its nodes; it waits aside until `retry`."""
        self._release(job_id)
        self._paused.add(job_id)

    def retry(self, job_id: str) -> None:
        """Put a running or paused job back at the head of the waiting ones."""
        if job_id in self._paused:
            self._paused.remove(job_id)
        else:
            self._release(job_id)
        self._rank[job_id] = next(self._ahead)
        self._waiting = {job_id: None, **self._waiting}
        self._remaining += self._share[job_id]
        self._make_ready(job_id)

    def give_up(self, job_id: str) -> list[Job]:
        """Mark a running job as failed; returns the waiting jobs that can never start now, which leave the queue."""
        if job_id in self._paused:
            self._paused.remove(job_id)
        else:
            self._release(job_id)
        self._failed.add(job_id)
        lost: list[Job] = []
        doomed = list(self._dependents[job_id])
        while doomed:
            dependent = doomed.pop(0)
            if dependent in self._failed:
                continue
            self._failed.add(dependent)
            del self._waiting[dependent]
            self._remaining -= self._share[dependent]
            lost.append(self._jobs[dependent])
            doomed += self._dependents[dependent]
        return lost

    def add(self, job: Job) -> None:
        """A further job, after everything that waits; what it needs must be in the queue or done."""
        self._jobs[job.job_id] = job
        self.jobs = [*self.jobs, job]
        self._options[job.job_id] = job.options
        self._check()
        self._rank[job.job_id] = max(self._rank.values(), default=0) + 1
        self._waiting[job.job_id] = None
        self._missing[job.job_id] = len(job.after - self._done)
        self._dependents[job.job_id] = []
        for needed in job.after - self._done:
            self._dependents[needed].append(job.job_id)
        self._share[job.job_id] = self._share_of(job.job_id)
        self._remaining += self._share[job.job_id]
        self._make_ready(job.job_id)

    def _make_ready(self, job_id: str) -> None:
        if self._missing[job_id] == 0 and job_id in self._waiting:
            bisect.insort(self._ready.setdefault(self._room(job_id), []), (self._rank[job_id], job_id))

    def _room(self, job_id: str) -> tuple:
        return tuple((choice.kind, choice.slots) for choice in self._options[job_id])

    def _start(self, job_id: str, placement: Placement) -> None:
        for name, slots in placement.nodes.items():
            self._free[name] -= slots
        self._running[job_id] = placement
        del self._waiting[job_id]
        self._remaining -= self._share[job_id]
        ready = self._ready[self._room(job_id)]
        del ready[bisect.bisect_left(ready, (self._rank[job_id], job_id))]
        self._passed_over.pop(job_id, None)
        if self._reserved and self._reserved[0] == job_id:
            self._reserved = None

    def _release(self, job_id: str) -> None:
        for name, slots in self._running.pop(job_id).nodes.items():
            self._free[name] += slots

    def _first_in_line(self) -> tuple[str, Placement] | None:
        job_id = next(iter(self._waiting), None)
        if job_id is None or self._missing[job_id]:
            return None
        return next(((job_id, p) for c in self._options[job_id] if (p := self._place(c))), None)

    def _first_that_fits(self) -> tuple[str, Placement] | None:
        """The first startable job in the order; jobs before it that found no room count one more pass."""
        found = [best for room in list(self._ready) if (best := self._first_of(room))]
        if not found:
            return None
        rank, job_id, placement = min(found, key=lambda f: f[0])
        for ready in self._ready.values():
            if ready and ready[0][0] < rank:
                self._pass_over(ready[0][1])
        return job_id, placement

    def _first_of(self, room: tuple) -> tuple[int, str, Placement] | None:
        """The first job of those asking for the same room that has a place and may take it."""
        ready = self._ready[room]
        if not ready:
            return None
        # What is kept for a job is open to those before it too: it may have been overtaken by one put back or freed.
        may_use_kept = self._reserved is None or ready[0][0] <= self._rank[self._reserved[0]]
        places = [self._place(Choice(slots, 0, kind), may_use_kept) for kind, slots in room]
        if not any(places):
            return None
        for rank, job_id in ready:
            for place, choice in zip(places, self._options[job_id], strict=True):
                if place and self._is_worth_it(job_id, choice):
                    return rank, job_id, Placement(choice, place.nodes)
            if len(room) == 1:
                return None
        return None

    def _is_worth_it(self, job_id: str, choice: Choice) -> bool:
        fastest = self._options[job_id][0].seconds
        return choice.seconds <= fastest or choice.seconds <= max(self._remaining, fastest)

    def _pass_over(self, job_id: str) -> None:
        self._passed_over[job_id] = self._passed_over.get(job_id, 0) + 1
        if self._passed_over[job_id] > self.patience and self._reserved is None:
            self._reserved = job_id, self._soonest_nodes(self._options[job_id])

    def _soonest_nodes(self, options: Sequence[Choice]) -> frozenset[str]:
        """The nodes that come closest to having room for the fastest choice that the cluster can hold."""
        choice = next(c for c in options if self._could_hold(c))
        mine = self._of_kind[choice.kind]
        single = [n for n in mine if n.slots >= choice.slots]
        if single:
            return frozenset({max(single, key=lambda n: (self._free[n.name], n.name)).name})
        taken, names = 0.0, []
        for node in sorted(mine, key=lambda n: (-self._free[n.name] / n.slots, -n.slots, n.name)):
            if taken >= choice.slots:
                break
            taken += node.slots
            names.append(node.name)
        return frozenset(names)

    def _could_hold(self, choice: Choice) -> bool:
        """Whether the empty cluster has room for it."""
        return sum(n.slots for n in self._of_kind.get(choice.kind, ())) >= choice.slots

    def _place(self, choice: Choice, may_use_kept: bool = False) -> Placement | None:
        """Nodes with room now: one that it leaves fullest, or whole ones where no single node could ever hold it."""
        kept = self._reserved[1] if self._reserved else frozenset()
        mine = self._of_kind.get(choice.kind, ())
        fits = [n for n in mine if self._free[n.name] >= choice.slots and (may_use_kept or n.name not in kept)]
        if fits:
            best = min(fits, key=lambda n: (self._free[n.name] - choice.slots, n.slots, n.name))
            return Placement(choice, {best.name: choice.slots})
        if any(n.slots >= choice.slots for n in mine):
            return None
        idle = [n for n in mine if self._free[n.name] == n.slots and (may_use_kept or n.name not in kept)]
        taken: dict[str, float] = {}
        for node in sorted(idle, key=lambda n: (-n.slots, n.name)):
            if sum(taken.values()) >= choice.slots:
                break
            taken[node.name] = node.slots
        return Placement(choice, taken) if sum(taken.values()) >= choice.slots else None

    def _share_of(self, job_id: str) -> float:
        """Seconds that the whole cluster would take for jobs like this one, if they were many: its work."""
        rate = sum(
            sum(n.slots for n in self._of_kind.get(c.kind, ())) / (c.slots * max(c.seconds, 1e-9))
            for c in self._options[job_id]
        )
        return 1 / rate


def chain_seconds(jobs: Iterable[Job]) -> dict[str, float]:
    """For each job the seconds of the longest chain of jobs that starts with it, each at its fastest.

    Raises:
        ValueError: jobs wait for one another in a circle.
    """
    jobs = list(jobs)
    return chain_lengths(jobs, {job.job_id: job.options[0].seconds for job in jobs})


def chain_lengths(jobs: Sequence[Job], lengths: dict[str, float]) -> dict[str, float]:
    """For each job its length plus the longest chain of lengths among the jobs that wait for it."""
    by_id = {job.job_id: job for job in jobs}
    dependents: dict[str, list[str]] = {job_id: [] for job_id in by_id}
    for job in by_id.values():
        for needed in job.after & by_id.keys():
            dependents[needed].append(job.job_id)
    chains: dict[str, float] = {}
    unsettled = {job_id: len(names) for job_id, names in dependents.items()}
    settled = [job_id for job_id, count in unsettled.items() if not count]
    while settled:
        job = by_id[settled.pop()]
        chains[job.job_id] = lengths[job.job_id] + max((chains[d] for d in dependents[job.job_id]), default=0.0)
        for needed in job.after & by_id.keys():
            unsettled[needed] -= 1
            if not unsettled[needed]:
                settled.append(needed)
    if len(chains) < len(by_id):
        raise ValueError(f"jobs wait for one another in a circle: {sorted(by_id.keys() - chains.keys())}")
    return chains
