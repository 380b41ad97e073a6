"""The searcher under the real Ray Tune: order, gang admission, retries, dependencies."""

import json
import time

import pytest

from vvlm_ray.orchestration.driver import DRIVER_RESOURCES
from vvlm_ray.orchestration.placement import Machines
from vvlm_ray.orchestration.searcher import FAILURE_KEY, StudySearcher
from vvlm_ray.planning.order import simulate
from vvlm_ray.planning.queue import Job, Queue


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
        tune.report({"seconds": 0.0} | ({FAILURE_KEY: "asked to fail"} if failed else {}))

    return drive


def run(tmp_path, jobs, num_slots, failing=None, max_retries=1):
    from ray import tune

    log = tmp_path / "log"
    log.mkdir()
    failed = []
    searcher = StudySearcher(
        Queue(jobs, num_slots), Machines([], {}, dict), max_retries, lambda *what: failed.append(what)
    )
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
    assert [r["job"] for r in log] == ["once", "once", "always", "always", "fine"]
    assert [(job.job_id, attempts) for job, _, attempts in failed] == [("always", 2), ("needs_always", 0)]
    assert failed[0][1] == "asked to fail"
    assert "needs always, which failed: asked to fail" in failed[1][1]
