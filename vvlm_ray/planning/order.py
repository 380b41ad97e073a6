"""The order of starting: simulated schedules, the best of many, and what no schedule can beat."""

import heapq
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vvlm_ray.planning.queue import (
    DEFAULT_PATIENCE,
    POOL,
    Choice,
    Job,
    Node,
    Placement,
    Queue,
    chain_lengths,
    chain_seconds,
)


def improve_order(
    jobs: Sequence[Job], nodes: float | Sequence[Node], tries: int, target: float = 1.0, seed: int = 0
) -> list[Job]:
    """The jobs with the priorities that gave the shortest of `tries` simulated schedules, longest-first among them.

    It stops once a schedule is within `target` times the lower bound.

    Tried are chains of seconds x slots^p (p = 1 is work: wide jobs first) for several p, then the best of these with
    random factors. Deterministic for a seed.
    """
    rng = random.Random(seed)
    if not tries or not jobs:
        return list(jobs)
    best, shortest = list(jobs), _makespan(jobs, nodes)
    bound = lower_bound(jobs, nodes)
    powers = (0.25, 0.5, 0.75, 1.0, 1.5)
    best_power = 0.0
    for attempt in range(tries):
        if shortest <= bound * target:
            break
        power = powers[attempt] if attempt < len(powers) else best_power
        spread = 0.0 if attempt < len(powers) else rng.choice((0.05, 0.2, 0.5))
        lengths = {}
        for job in jobs:
            first = job.options[0]
            lengths[job.job_id] = first.seconds * first.slots**power * math.exp(spread * rng.gauss(0, 1))
        chains = chain_lengths(jobs, lengths)
        candidate = [replace(job, priority=chains[job.job_id]) for job in jobs]
        makespan = _makespan(candidate, nodes)
        if makespan < shortest:
            best, shortest = candidate, makespan
            best_power = power if attempt < len(powers) else best_power
    return best


def _makespan(jobs: Sequence[Job], nodes: float | Sequence[Node]) -> float:
    return max((s.end for s in simulate(jobs, nodes)), default=0.0)


@dataclass(frozen=True)
class Start:
    """When a job started and ended in a simulated schedule, in seconds from its beginning, and where it ran."""

    job: Job
    start: float
    end: float
    placement: Placement


def simulate(
    jobs: Sequence[Job],
    nodes: float | Sequence[Node],
    order: Literal["longest", "fifo"] = "longest",
    patience: int = DEFAULT_PATIENCE,
) -> list[Start]:
    """The schedule that `Queue` gives when every job takes exactly its expected seconds."""
    queue, now, ends, starts = Queue(jobs, nodes, patience, order), 0.0, [], []
    while not queue.is_empty:
        while job := queue.next():
            placement = queue.placement(job.job_id)
            end = now + placement.choice.seconds
            starts.append(Start(job, now, end, placement))
            heapq.heappush(ends, (end, job.job_id))
        now, job_id = heapq.heappop(ends)
        queue.finish(job_id)
    return starts


def lower_bound(jobs: Sequence[Job], nodes: float | Sequence[Node]) -> float:
    """Seconds that no schedule can beat: the largest of the bounds by work, by chains and by gang widths.

    Work: sum of each job's smallest weighted slot-seconds over the cluster's weighted slots (any weights give a
    bound; a kind's weight here is its speed). Chains: the longest, each job at its fastest. Widths: jobs of at
    least w slots run at most sum_nodes floor(slots / w) at a time (wider than a node: whole nodes).
    """
    nodes = [Node(POOL, nodes)] if isinstance(nodes, int | float) else list(nodes)
    if not jobs:
        return 0.0
    options = {job.job_id: job.options for job in jobs}
    capacity: dict[str, float] = {}
    for node in nodes:
        capacity[node.kind] = capacity.get(node.kind, 0.0) + node.slots
    speed = _speeds(jobs, capacity)
    work = sum(min(speed[k] * c.slots * c.seconds for c in o for k in _kinds(c, capacity)) for o in options.values())
    bounds = [work / sum(speed[kind] * slots for kind, slots in capacity.items())]
    bounds.append(max(chain_seconds(jobs).values()))
    for width in {c.slots for o in options.values() for c in o}:
        wide = [min(c.seconds for c in o) for o in options.values() if min(c.slots for c in o) >= width]
        bounds.append(sum(wide) / max(_most_at_once(width, options.values(), nodes), 1))
    return max(bounds)


def _most_at_once(width: float, options: Iterable[Sequence[Choice]], nodes: Sequence[Node]) -> float:
    """How many jobs of at least `width` slots the nodes hold together, by the rules of `Queue`."""
    count = 0.0
    by_kind = {c.kind: [n for n in nodes if c.kind in (None, n.kind)] for o in options for c in o}
    for kind, mine in by_kind.items():
        largest = max((n.slots for n in mine), default=0)
        count += sum(n.slots // width for n in mine)
        if any(c.slots > largest for o in options for c in o if c.kind == kind):  # gangs of whole nodes
            count += sum(n.slots for n in mine if n.slots < width) // width
    return count


def _kinds(choice: Choice, capacity: dict[str, float]) -> list[str]:
    return list(capacity) if choice.kind is None else [choice.kind] if choice.kind in capacity else []


def _speeds(jobs: Sequence[Job], capacity: dict[str, float]) -> dict[str, float]:
    """Relative speed of a slot of each kind: the inverse of the slot-seconds that it takes for the same jobs."""
    used = dict.fromkeys(capacity, 0.0)
    for job in jobs:
        if {c.kind for c in job.options} >= capacity.keys():
            for c in job.options:
                if c.kind in used:
                    used[c.kind] += c.slots * c.seconds
    return {kind: 1 / seconds if seconds else 1.0 for kind, seconds in used.items()}
