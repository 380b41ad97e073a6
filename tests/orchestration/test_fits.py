"""Fits as Ray tasks: the numbers of the process, also when a worker dies."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from vvlm_ray.orchestration.ray_map import ray_map
from vvlm_ray.scaling.bagging import fit_bag_with
from vvlm_ray.scaling.elasticity import elasticity
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import observe, plant

SETTINGS = FitSettings("add-interact", starts=50)


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    factors = {
        "lm_params": rng.choice([1e9, 2.8e9, 7.5e9], 50),
        "num_frames": rng.choice([2.0, 4, 8, 16], 50),
        "tokens_per_frame": rng.choice([4.0, 16, 49, 100], 50),
    }
    design = Runs(factors, np.full(50, 50.0), rng.choice([0.25e6, 0.5e6, 1e6], 50))
    return observe(plant("add-interact", design, 0), design, noise=0.4, seed=0)


@pytest.fixture(scope="module")
def bag(runs):
    return fit_bag_with(runs, SETTINGS, 15)


@pytest.fixture(scope="module")
def ray():
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield ray
    ray.shutdown()


def test_the_bag_is_that_of_the_process(ray, runs, bag):
    found = fit_bag_with(runs, SETTINGS, 15, map=ray_map())
    assert np.array_equal(found.log_coefficients, bag.log_coefficients)
    assert np.array_equal(found.exponents, bag.exponents)
    assert np.array_equal(found.objectives, bag.objectives)


def test_the_elasticity_is_that_of_the_process(ray, bag):
    options = {"budgets": np.linspace(1, 20, 20), "sizes": np.linspace(1e6, 3e6, 25), "step": 0.5e6}
    there, here = elasticity(bag, **options, map=ray_map()), elasticity(bag, **options)
    assert (there.mean, there.low, there.high) == (here.mean, here.low, here.high)
    assert all(np.array_equal(there.cells[name], here.cells[name]) for name in here.cells)


def test_a_killed_worker_costs_time_only(ray, runs, bag):
    killed = []

    def kill_one():
        deadline = time.time() + 60
        while not killed and time.time() < deadline:
            for pid in _busy_workers():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    found = fit_bag_with(runs, SETTINGS, 15, map=ray_map())
    killer.join()
    assert killed, "no worker was seen at work"
    assert np.array_equal(found.exponents, bag.exponents)


def _busy_workers():
    """Pids of this session's Ray workers that run a fit (Ray names the process after its task)."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::_call" in " ".join(process.cmdline()):
                yield process.pid
        except psutil.Error:
            continue
