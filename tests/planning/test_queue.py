"""Order and admission: chains, gangs, gaps, starvation, retries."""

import random

import pytest

from vvlm_ray.planning.order import improve_order, lower_bound, simulate
from vvlm_ray.planning.queue import Choice, Job, Node, Queue


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


def nodes_of_two_kinds():
    return [Node(f"a{i}", 8, "a") for i in range(4)] + [Node(f"b{i}", 4, "b") for i in range(4)]


def random_jobs(rng, count):
    jobs = []
    for i in range(count):
        after = frozenset(rng.sample([j.job_id for j in jobs], k=min(len(jobs), rng.choice([0, 0, 0, 1]))))
        width, seconds = rng.choice([1, 1, 2, 4, 8, 16]), rng.uniform(1, 50)
        choices = rng.choice([(), (Choice(width, seconds, "a"), Choice(width, 3 * seconds, "b"))])
        jobs.append(Job(f"{i:03}", seconds, width, after, choices=choices))
    return jobs


def test_gangs_fit_nodes_or_take_whole_ones_on_a_mixed_cluster():
    rng = random.Random(1)
    nodes = nodes_of_two_kinds()
    capacity = {n.name: n.slots for n in nodes}
    for patience in (0, 1, 8) * 10:
        jobs = random_jobs(rng, rng.choice([5, 30, 60]))
        starts = simulate(jobs, nodes, patience=patience)
        assert len(starts) == len(jobs)
        for s in starts:
            taken = s.placement.nodes
            assert sum(taken.values()) >= s.placement.choice.slots
            assert len(taken) == 1 or all(slots == capacity[name] for name, slots in taken.items())
            for name in taken:
                at_once = sum(o.placement.nodes.get(name, 0) for o in starts if o.start <= s.start < o.end)
                assert at_once <= capacity[name]
        assert max(s.end for s in starts) >= lower_bound(jobs, nodes) - 1e-9


def test_any_order_of_ends_retries_and_failures_empties_the_queue():
    rng = random.Random(2)
    for _ in range(30):
        jobs = random_jobs(rng, 40)
        queue, running, finished, lost = Queue(jobs, nodes_of_two_kinds()), [], set(), set()
        while not queue.is_empty:
            while job := queue.next():
                running.append(job.job_id)
            job_id = running.pop(rng.randrange(len(running)))
            chance = rng.random()
            if chance < 0.2:
                queue.retry(job_id)
            elif chance < 0.25:
                lost |= {job_id} | {j.job_id for j in queue.give_up(job_id)}
            else:
                queue.finish(job_id)
                finished.add(job_id)
        assert finished | lost == {j.job_id for j in jobs}
        assert not finished & lost
        assert queue.free_slots == queue.num_slots


def test_asking_again_and_again_changes_nothing():
    # Tune asks its searcher many times a second; only a start may count as passing a job over.
    jobs = [Job("long", 100, 3), Job("wide", 90, 4), *[Job(f"s{i}", 1, 1) for i in range(20)]]
    queue = Queue(jobs, 4)
    assert [queue.next().job_id, queue.next().job_id] == ["long", "s0"]
    for _ in range(100):
        assert queue.next() is None
    queue.finish("s0")
    assert queue.next().job_id == "s1"


def test_small_jobs_leave_room_in_one_piece():
    nodes = [Node("n0", 4), Node("n1", 4)]
    queue = Queue([Job("a", 9, 1), Job("b", 8, 1), Job("c", 7, 4)], nodes)
    places = {queue.next().job_id: None for _ in range(3)}
    assert set(places) == {"a", "b", "c"}
    assert queue.placement("a").nodes.keys() == queue.placement("b").nodes.keys()


def test_nodes_kept_for_a_wide_job_do_not_idle_the_rest():
    nodes = [Node("n0", 2), Node("n1", 2)]
    jobs = [Job("x", 10, 1), Job("y", 9, 1), Job("z", 8, 1), Job("w", 100, 2, after=frozenset({"z"}))]
    jobs += [Job(f"s{i:02}", 3 + i / 100, 1) for i in range(60)]
    starts = simulate(jobs, nodes, patience=2)
    wide = next(s for s in starts if s.job.job_id == "w")
    assert wide.start < 30
    beside = [s for s in starts if s.job.job_id.startswith("s") and wide.start <= s.start < wide.end]
    assert len(beside) > 20
    assert all(not s.placement.nodes.keys() & wide.placement.nodes.keys() for s in beside)


def test_a_slow_node_takes_work_but_never_the_last_long_job():
    fast_and_slow = [Node("fast", 1, "f"), Node("slow", 1, "s")]

    def job(name, seconds):
        return Job(name, seconds, choices=(Choice(1, seconds, "f"), Choice(1, 10 * seconds, "s")))

    starts = simulate([job(f"j{i:02}", 1) for i in range(50)], fast_and_slow)
    used = {s.placement.choice.kind for s in starts}
    assert used == {"f", "s"}
    assert max(s.end for s in starts) <= 1.06 * lower_bound([s.job for s in starts], fast_and_slow)
    assert max(s.end for s in simulate([job("a", 5), job("b", 5)], fast_and_slow)) == 10


def test_bounds_by_work_chains_and_widths():
    assert lower_bound([Job("a", 3), Job("b", 5)], 1) == 8
    assert lower_bound([Job("a", 3), Job("b", 5, after=frozenset({"a"}))], 9) == 8
    wide = [Job(f"w{i}", 10, 5) for i in range(4)]
    assert lower_bound(wide, [Node("n0", 8), Node("n1", 8)]) == 20  # one a node, though the work would take 12.5
    assert lower_bound([], 4) == 0


def test_an_improved_order_is_never_worse_and_the_queue_follows_it():
    rng = random.Random(3)
    for _ in range(10):
        jobs = random_jobs(rng, 25)
        nodes = nodes_of_two_kinds()
        better = improve_order(jobs, nodes, tries=20)
        assert {j.job_id for j in better} == {j.job_id for j in jobs}
        assert max(s.end for s in simulate(better, nodes)) <= max(s.end for s in simulate(jobs, nodes))
        assert better == improve_order(jobs, nodes, tries=20)


def test_fifo_lets_nothing_pass():
    jobs = [Job("a", 5, 2), Job("b", 5, 4), Job("c", 1, 1)]
    assert {s.job.job_id: s.start for s in simulate(jobs, 4, order="fifo")} == {"a": 0, "b": 5, "c": 10}


def test_a_circle_is_refused():
    with pytest.raises(ValueError, match="circle"):
        Queue([Job("a", 1, after=frozenset({"b"})), Job("b", 1, after=frozenset({"a"}))], 1)


def test_jobs_may_be_added_while_others_run():
    queue = Queue([Job("a", 1)], 1)
    queue.next()
    queue.add(Job("b", 5, after=frozenset({"a"})))
    assert queue.next() is None
    queue.finish("a")
    assert queue.next().job_id == "b"
