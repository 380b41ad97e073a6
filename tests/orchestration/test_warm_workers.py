"""Warm workers: forked from the nursery, with the environment Ray asked for; ordinary ones when the nursery is gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vvlm_ray.orchestration.warm_workers import nursery


@pytest.mark.timeout(150)
def test_workers_are_forked_warm_and_survive_the_loss_of_the_nursery():
    import ray
    from ray._raylet import NodeID

    with nursery() as warm:
        python = sys.executable
        with warm.interpreter():
            assert sys.executable == warm.client != python
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            warm.wait_until_ready()
            assert sys.executable == python

            @ray.remote(num_cpus=0)
            class Worker:
                def __init__(self):
                    self.warm = {"lmms_eval.evaluator", "ray.train", "vvlm_ray.training.loop"} <= set(sys.modules)
                    self.drawn = NodeID.from_random().hex()

                def tell(self):
                    return {
                        "warm": self.warm,
                        "drawn": self.drawn,
                        "parent": os.getppid(),
                        "group": os.getpgid(0),
                        "pid": os.getpid(),
                        "variable": os.environ.get("VVLM_TEST"),
                    }

            plain = ray.get(Worker.remote().tell.remote(), timeout=60)
            assert plain["warm"]
            assert plain["parent"] == warm.process.pid
            assert plain["group"] == plain["pid"]  # Ray kills by group, and must not reach the nursery
            special = Worker.options(runtime_env={"env_vars": {"VVLM_TEST": "set"}}).remote()
            told = ray.get(special.tell.remote(), timeout=60)
            assert told["warm"]
            assert told["variable"] == "set"
            assert told["drawn"] != plain["drawn"]  # of ray's own generator, on which placement groups are named

            os.kill(warm.process.pid, signal.SIGKILL)
            warm.process.wait()
            cold = Worker.options(runtime_env={"env_vars": {"VVLM_TEST": "cold"}}).remote()
            told = ray.get(cold.tell.remote(), timeout=60)
            assert not told["warm"]
            assert told["variable"] == "cold"
        finally:
            ray.shutdown()


@pytest.mark.timeout(60)
def test_the_client_is_the_interpreter_for_everything_else():
    with nursery() as warm:
        done = subprocess.run([warm.client, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True)
        assert done.stdout == "42\n"


@pytest.mark.timeout(60)
def test_the_nursery_ends_with_its_owner():
    code = (
        "import os, signal\n"
        "from vvlm_ray.orchestration.warm_workers import nursery\n"
        "with nursery() as warm:\n"
        "    print(warm.process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail("the nursery outlived its owner")
