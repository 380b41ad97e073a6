"""Trials that do nothing, through the real Searcher and Ray Tune: seconds and memory per trial, and their growth.

    python benchmarks/searcher_noop.py                              # up to 16 trials at once
    python benchmarks/searcher_noop.py --slots 1 --widest 1         # one at a time

Prints for each tenth of the trials the seconds per trial and the memory of the process that holds Tune and the
searcher. What it costs to *train* (starting Ray Train's workers) is not in here.
"""

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

from vvlm_ray.orchestration.attempts import FINISHED, Attempts, Outcome
from vvlm_ray.orchestration.driver import DRIVER_RESOURCES
from vvlm_ray.orchestration.placement import Machines
from vvlm_ray.orchestration.searcher import NoBook, StudySearcher
from vvlm_ray.planning.queue import Job, Queue
from vvlm_ray.study.ledger import History


def do_nothing(config):
    from ray import tune

    tune.report(Outcome(FINISHED).to_report())


def resident_megabytes():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


class Watch(StudySearcher):
    """The real searcher, noting when each trial ends and how large the process is then."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.log, self.seconds = [], 0.0  # seconds: spent in the searcher itself

    def suggest(self, trial_id):
        start = time.perf_counter()
        suggested = super().suggest(trial_id)
        self.seconds += time.perf_counter() - start
        return suggested

    def on_trial_complete(self, *arguments, **named):
        start = time.perf_counter()
        super().on_trial_complete(*arguments, **named)
        self.seconds += time.perf_counter() - start
        self.log.append((time.monotonic(), resident_megabytes()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--widest", type=int, default=8, help="widths of trials are powers of two up to this one")
    options = parser.parse_args()
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    from ray import tune

    rng = random.Random(0)
    widths = [2**i for i in range(options.widest.bit_length())]
    jobs = [Job(f"job-{i:04}", rng.uniform(1, 100), rng.choice(widths)) for i in range(options.trials)]
    watch = Watch(Queue(jobs, options.slots), Machines([], {}, dict), Attempts(1, History()), NoBook())
    with tempfile.TemporaryDirectory() as scratch:
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        start = time.monotonic()
        tune.Tuner(
            tune.with_resources(do_nothing, DRIVER_RESOURCES),
            tune_config=tune.TuneConfig(search_alg=watch, num_samples=2 * len(jobs), reuse_actors=True),
            run_config=tune.RunConfig(name="noop", storage_path=scratch, verbose=0),
        ).fit()
        total = time.monotonic() - start
        ray.shutdown()
    tenths = []
    size = len(watch.log) // 10
    for i in range(10):
        part = watch.log[i * size : (i + 1) * size]
        before = watch.log[i * size - 1][0] if i else start
        tenths.append(
            {"seconds_per_trial": round((part[-1][0] - before) / len(part), 3), "megabytes": round(part[-1][1], 1)}
        )
    result = {"trials": len(watch.log), "seconds": round(total, 1), "tenths": tenths}
    result["searcher_milliseconds_per_trial"] = round(1000 * watch.seconds / len(watch.log), 3)
    result["megabytes_per_trial"] = round((tenths[-1]["megabytes"] - tenths[1]["megabytes"]) / (8 * size), 4)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
