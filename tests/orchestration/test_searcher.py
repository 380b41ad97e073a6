"""The searcher under the real Ray Tune: order, gang admission, retries, dependencies."""

import itertools
import json
import time

import pytest

from vvlm_ray.orchestration.attempts import FAILED, FINISHED, LOST, NOT_STARTED, Attempts, Outcome
from vvlm_ray.orchestration.driver import DRIVER_RESOURCES
from vvlm_ray.orchestration.placement import Machines
from vvlm_ray.orchestration.searcher import NoBook, StudySearcher
from vvlm_ray.planning.order import simulate
from vvlm_ray.planning.queue import Job, Queue
from vvlm_ray.study.ledger import History


@pytest.fixture(scope="module")
def local_ray():
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,  # logical: Ray counts them, none is there
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def make_driver(folder, seconds, failing):
    """Stands where the real driver stands: hold the job's GPUs for a while, fail as often as asked to."""

    def drive(config):  # nested, so that Ray sends it by value: its workers cannot import test modules
        import ray
        from ray import tune

        @ray.remote(num_cpus=0, num_gpus=config["slots"], scheduling_strategy="DEFAULT")
        def hold():
            assert len(ray.get_gpu_ids()) == config["slots"]
            time.sleep(seconds[config["job_id"]])

        log = folder / f"{config['job_id']}-{config['attempt']}.json"
        start = time.time()
        ray.get(hold.remote())
        log.write_text(json.dumps({"job": config["job_id"], "start": start, "end": time.time()}))
        failed = config["attempt"] <= failing.get(config["job_id"], 0)
        tune.report(Outcome(FAILED, cause="asked to fail").to_report() if failed else Outcome(FINISHED).to_report())

    return drive


def run(tmp_path, jobs, num_slots, failing=None, max_retries=1):
    from ray import tune

    log = tmp_path / "log"
    log.mkdir()
    failed = []

    class Book(NoBook):
        def given_up(self, job, cause, attempts):
            failed.append((job, cause, attempts))

    attempts = Attempts(max_retries, History(), first_pause=0.1)
    searcher = StudySearcher(Queue(jobs, num_slots), Machines([], {}, dict), attempts, Book())
    driver = make_driver(log, {j.job_id: j.seconds for j in jobs}, failing or {})
    tune.Tuner(
        tune.with_resources(driver, DRIVER_RESOURCES),
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(name="test", storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    return sorted((json.loads(f.read_text()) for f in log.iterdir()), key=lambda r: r["start"]), failed


@pytest.mark.timeout(120)
def test_order_and_admission_equal_the_simulators(tmp_path, local_ray):
    jobs = [
        Job("base", 1.0),
        Job("long", 4.0, after=frozenset({"base"})),
        Job("wide", 3.0, slots=2),
        Job("short", 2.0),
        Job("tiny", 1.0),
    ]
    log, failed = run(tmp_path, jobs, num_slots=2)
    assert not failed
    assert [r["job"] for r in log] == [s.job.job_id for s in simulate(jobs, 2)]
    slots = {j.job_id: j.slots for j in jobs}
    for r in log:
        assert sum(slots[o["job"]] for o in log if o["start"] <= r["start"] < o["end"]) <= 2


@pytest.mark.timeout(120)
def test_failures_are_retried_then_given_up_and_the_others_go_on(tmp_path, local_ray):
    jobs = [
        Job("once", 0.5),
        Job("always", 0.2),
        Job("needs_always", 0.1, after=frozenset({"always"})),
        Job("fine", 0.1),
    ]
    log, failed = run(tmp_path, jobs, num_slots=1, failing={"once": 1, "always": 9})
    starts = [r["job"] for r in log]  # one that starts again waits aside, and others may pass it
    assert sorted(starts) == ["always", "always", "fine", "once", "once"]
    assert starts[0] == "once"
    assert [(job.job_id, attempts) for job, _, attempts in failed] == [("always", 2), ("needs_always", 0)]
    assert failed[0][1] == "asked to fail"
    assert "needs always, which failed: asked to fail" in failed[1][1]


def searcher_of(jobs, book=None, more=tuple, **options):
    attempts = Attempts(options.pop("max_retries", 1), History(), first_pause=0.0)
    return StudySearcher(Queue(jobs, 1), Machines([], {}, dict), attempts, book or NoBook(), more)


def test_an_error_in_a_callback_ends_the_run_and_is_kept():
    class Broken(NoBook):
        def ended(self, job, attempt, outcome, verdict):
            raise RuntimeError("no such column")

    searcher = searcher_of([Job("a", 1.0), Job("b", 1.0)], Broken())
    assert searcher.suggest("1")["job_id"] == "a"
    searcher.on_trial_complete("1", Outcome(FINISHED).to_report())
    assert searcher.suggest("2") == StudySearcher.FINISHED
    assert str(searcher.error) == "no such column"


def test_a_driver_that_ends_without_a_word_does_not_count():
    searcher = searcher_of([Job("a", 1.0)], max_retries=0)
    for attempt in range(1, 5):
        assert searcher.suggest(str(attempt))["attempt"] == attempt
        searcher.on_trial_complete(str(attempt), None, error=True)
    searcher.suggest("last")
    searcher.on_trial_complete("last", Outcome(FINISHED).to_report())
    assert searcher.suggest("next") == StudySearcher.FINISHED
    assert searcher.error is None


def test_a_paused_job_gives_its_slot_to_others(monkeypatch):
    attempts = Attempts(3, History(), first_pause=60.0)
    searcher = StudySearcher(Queue([Job("a", 2.0), Job("b", 1.0)], 1), Machines([], {}, dict), attempts, NoBook())
    assert searcher.suggest("1")["job_id"] == "a"
    searcher.on_trial_complete("1", Outcome(FAILED, cause="once").to_report())
    assert searcher.suggest("2")["job_id"] == "b"
    searcher.on_trial_complete("2", Outcome(FINISHED).to_report())
    assert searcher.suggest("3") is None  # not finished: a waits for its time
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 70)
    assert searcher.suggest("3")["job_id"] == "a"


@pytest.mark.parametrize(
    ("outcomes", "counts", "given_up"),
    [
        ([Outcome(FAILED, cause="x"), Outcome(FAILED, cause="y")], [True, True], True),
        ([Outcome(FAILED, cause="bad row", is_own=True)], [True], True),
        ([Outcome(LOST, cause="node")] * 20, [False] * 20, False),
        ([Outcome(LOST, cause="node")] * 21, [False] * 20 + [True], True),
        ([Outcome(NOT_STARTED)] * 50, [False] * 50, False),
        ([Outcome(FAILED, cause="x", resumed_from=i, checkpoint=i + 1) for i in range(30)], [False] * 30, False),
        ([Outcome(FAILED, cause="x", checkpoint=1)] + [Outcome(FAILED, cause="x", resumed_from=1, checkpoint=1)] * 2,
         [False, True, True], True),
    ],
    ids=["no progress", "own cause", "lost nodes", "lost too often", "no room", "progress", "stuck after progress"],
)  # fmt: skip
def test_what_counts(outcomes, counts, given_up):
    attempts = Attempts(1, History(), first_pause=0.0)
    verdicts = [attempts.judge("job", outcome) for outcome in outcomes]
    assert [v.counts for v in verdicts] == counts
    assert (verdicts[-1].given_up is not None) == given_up
    assert all(v.given_up is None for v in verdicts[:-1])


def test_the_same_end_in_the_same_step_is_poison_however_many_retries_are_left():
    attempts = Attempts(9, History())
    end = Outcome(FAILED, cause="a worker's process was ended", step=17)
    assert attempts.judge("job", end).given_up is None
    assert "twice in the same way in step 17" in attempts.judge("job", end).given_up


def test_pauses_grow():
    attempts = Attempts(99, History(), first_pause=1.0)
    pauses = [attempts.judge("job", Outcome(FAILED, cause=str(i))).pause for i in range(10)]
    assert all(later > earlier for earlier, later in itertools.pairwise(pauses[:8]))
    assert max(pauses) <= 330


class Answers(NoBook):
    """A trial has left its GPUs when its file is there."""

    def __init__(self, folder):
        self.folder = folder

    def has_left(self, job):
        return (self.folder / f"{job.job_id}-answered").exists()


@pytest.mark.timeout(200)
def test_gpus_are_free_before_the_judge_is_asked_and_the_next_trial_takes_them(local_ray, tmp_path):
    """Two trials that need both GPUs: the second answers while the first is judged."""
    from ray import tune

    def drive(config):
        import ray

        @ray.remote(num_cpus=0, num_gpus=config["slots"], scheduling_strategy="DEFAULT")
        def answer():
            time.sleep(0.5)

        times = {"start": time.time()}
        ray.get(answer.remote())
        time.sleep(1.0)  # Ray's count lags a little
        times["free"] = ray.available_resources().get("GPU", 0.0)
        (tmp_path / f"{config['job_id']}-answered").touch()
        times["asked"] = time.time()
        time.sleep(20.0 if config["job_id"] == "first" else 0.0)  # the judge
        times["end"] = time.time()
        (tmp_path / f"{config['job_id']}.json").write_text(json.dumps(times))
        tune.report(Outcome(FINISHED).to_report())

    queue = Queue([Job("first", 9.0, slots=2), Job("second", 8.0, slots=2)], 2)
    searcher = StudySearcher(queue, Machines([], {}, dict), Attempts(0, History()), Answers(tmp_path))
    tune.Tuner(
        tune.with_resources(drive, DRIVER_RESOURCES),
        tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(name="x", storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("first", "second"))
    assert first["free"] == 2.0
    assert first["asked"] < second["start"] < second["end"] < first["end"]
    assert queue.free_slots == 2
