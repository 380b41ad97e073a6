"""Order and admission: chains, gangs, gaps, starvation, retries."""

import random

import pytest

from vvlm_ray.study.schedule import Job, Queue, simulate


def test_longest_first_and_dependents_count():
    jobs = [Job("a", 5), Job("b", 3), Job("c", 4, after=frozenset({"b"}))]
    assert [s.job.job_id for s in simulate(jobs, 1)] == ["b", "a", "c"]


def test_no_more_slots_than_there_are_and_nothing_before_what_it_needs():
    rng = random.Random(0)
    for _ in range(30):
        jobs = []
        for i in range(40):
            after = frozenset(rng.sample([j.job_id for j in jobs], k=min(len(jobs), rng.choice([0, 0, 1, 2]))))
            jobs.append(Job(f"{i:02}", rng.uniform(1, 50), rng.choice([1, 1, 2, 4, 8]), after))
        starts = simulate(jobs, 8)
        assert len(starts) == len(jobs)
        ended = {s.job.job_id: s.end for s in starts}
        for s in starts:
            assert sum(o.job.slots for o in starts if o.start <= s.start < o.end) <= 8
            assert all(ended[needed] <= s.start for needed in s.job.after)


def test_a_wide_job_does_not_starve():
    # It comes first in the order, but its slots are taken one by one from the moment that it may start.
    jobs = [Job("first", 5), Job("wide", 60, slots=4, after=frozenset({"first"}))]
    jobs += [Job(f"s{i:03}", 10 + i / 100) for i in range(200)]
    started = next(s.start for s in simulate(jobs, 4) if s.job.job_id == "wide")
    assert started < 60  # the 200 others take 500 seconds


def test_small_jobs_fill_the_gap_beside_a_wide_one():
    jobs = [Job("wide", 10, slots=3), Job("wide2", 9, slots=3), Job("small", 2)]
    starts = {s.job.job_id: s.start for s in simulate(jobs, 4)}
    assert starts == {"wide": 0, "small": 0, "wide2": 10}


def test_a_failed_job_takes_its_dependents_along_and_nobody_else():
    queue = Queue(
        [Job("a", 9), Job("b", 1, after=frozenset({"a"})), Job("c", 1, after=frozenset({"b"})), Job("d", 1)], 1
    )
    assert queue.next().job_id == "a"
    queue.retry("a")
    assert queue.next().job_id == "a"
    assert {j.job_id for j in queue.give_up("a")} == {"b", "c"}
    assert queue.next().job_id == "d"
    queue.finish("d")
    assert queue.is_empty


def test_what_cannot_run_is_refused():
    with pytest.raises(ValueError, match="wide needs 9 slots"):
        Queue([Job("wide", 1, slots=9)], 8)
    with pytest.raises(ValueError, match="not in the queue"):
        Queue([Job("a", 1, after=frozenset({"z"}))], 8)
