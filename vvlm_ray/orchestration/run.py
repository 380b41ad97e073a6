"""Run a study: start or join Ray, hand its remaining jobs to Tune, and collect the records.

Running the same study again goes on where it stopped, whatever stopped it: what is finished has a record, a
benchmark or backbone that is made is in place, a trial that was interrupted goes on from its last checkpoint.
Nothing of Tune's own state is needed for that, so none is kept.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vvlm_ray.data.fingerprints import fingerprinted
from vvlm_ray.errors import UserError
from vvlm_ray.orchestration.refinement import Refinement
from vvlm_ray.planning.check import find_problems
from vvlm_ray.planning.jobs import backbone_of_projector, projector_run
from vvlm_ray.planning.plan import make_plan
from vvlm_ray.planning.queue import Job, Queue
from vvlm_ray.study.additions import all_trials
from vvlm_ray.study.config import Study
from vvlm_ray.study.fingerprints import keep_fingerprints
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import collect_records, failed_record, write_record, write_tables
from vvlm_ray.study.stages import Stage, read_stage

# Ray's own defaults suit a cluster; on one machine polling faster and serving no metrics saves seconds a trial.
LOCAL_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",  # processes for nobody
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Outcome:
    """What a run did: trials finished in all, failed with their reasons, and the seconds this run took."""

    num_finished: int
    num_trials: int
    failed: dict[str, str]
    seconds: float


def run_study(
    sweep_file: Path, storage: Path, *, address: str | None = None, num_slots: float | None = None
) -> Outcome:
    """Start or resume the study of a sweep file in `<storage>/<name>/`.

    Args:
        address: a Ray cluster's address; None starts Ray on this machine (or joins the job's cluster).
        num_slots: GPUs (or CPUs, for trials without GPUs) to use at once; default: all that Ray has.

    Raises:
        UserError: the sweep file or the folder is wrong, or the plan has problems. No training has started then.
    """
    from vvlm_ray.study.sweep_file import load_sweep

    start = time.monotonic()
    study = load_sweep(sweep_file)
    folder = StudyFolder(storage / study.name)
    if problems := find_problems(study, sweep_file, folder):  # before anything is written
        raise UserError("\n".join(problems))
    study, taken = fingerprinted(study, sweep_file, folder, thorough=True)
    plan = make_plan(study, sweep_file, folder, _pool(study, num_slots, 1))
    if plan.problems:
        raise UserError("\n".join(plan.problems))
    folder.adopt(sweep_file)
    keep_fingerprints(folder, taken.digests)
    trials = {t.trial_id: t for t in plan.trials}
    if Refinement(study, folder, sweep_file, num_slots, trials).further_jobs():  # a run that stopped may owe some
        plan = make_plan(study, sweep_file, folder, _pool(study, num_slots, 1))
    if plan.jobs:
        address = address or os.environ.get("RAY_ADDRESS")
        with _ray(address) as available_slots:
            pool = _pool(study, num_slots, available_slots(study))
            _run_jobs(study, folder, sweep_file.resolve(), pool, in_local_mode=address is None)
    trials = all_trials(study, folder)
    collected = collect_records(folder, trials)
    write_tables(folder, collected)
    failed = {record["trial_id"]: record["reason"] for record in collected.failed}
    return Outcome(len(collected.finished), len(trials), failed, time.monotonic() - start)


def _pool(study: Study, num_slots: float | None, available: float) -> float | None:
    """Slots to admit jobs on: what the caller says, else None where the file names its cluster, else what there is.

    A cluster that is named may still have to start its machines: what Ray shows is not what it will have.
    """
    if num_slots is None and study.cluster and study.resources.gpus_per_worker:
        return None
    return num_slots or available


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[Callable[[Study], float]]:
    """A connection to Ray; without an address, and outside a submitted job, a Ray of our own on this machine."""
    import ray

    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    if address is None:
        os.environ.update({k: v for k, v in LOCAL_ENVIRONMENT.items() if k not in os.environ})
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield _available_slots
    finally:
        ray.shutdown()


def _available_slots(study: Study) -> float:
    """All GPUs of the cluster, or all CPUs where trials use none."""
    import ray

    kind = "GPU" if study.resources.gpus_per_worker else "CPU"
    return ray.cluster_resources().get(kind, 0)


def _run_jobs(
    study: Study, folder: StudyFolder, sweep_file: Path, num_slots: float | None, *, in_local_mode: bool
) -> None:
    from ray import tune

    from vvlm_ray.orchestration.driver import DRIVER_RESOURCES, drive
    from vvlm_ray.orchestration.placement import Machines, alive_nodes
    from vvlm_ray.orchestration.progress import Progress
    from vvlm_ray.orchestration.searcher import StudySearcher

    plan = make_plan(study, sweep_file, folder, num_slots)
    if num_slots is not None and plan.num_slots > num_slots:
        raise UserError(
            f"a trial needs {plan.num_slots:g} GPUs or CPUs at once and Ray has {num_slots:g}; "
            "lower resources.workers or use a larger cluster"
        )
    trials, jobs = {t.trial_id: t for t in plan.trials}, {job.job_id: job for job in plan.jobs}
    refinement = Refinement(study, folder, sweep_file, num_slots, trials)

    def on_failed(job: Job, reason: str, attempts: int) -> None:
        if job.job_id in trials:
            write_record(folder, failed_record(trials[job.job_id], reason, attempts))

    def label(job_id: str) -> str:
        return trials[job_id].label if job_id in trials else f"make {job_id}"

    def stage(job_id: str) -> Stage | None:
        if job_id in trials:
            return read_stage(folder.trial(job_id))
        is_projector = jobs[job_id].kind == "projector"
        return read_stage(projector_run(study, folder, backbone_of_projector(job_id))) if is_projector else None

    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C stops at once; the records are the state
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    scratch = folder.root / "tune"
    shutil.rmtree(scratch, ignore_errors=True)
    with Progress(plan.jobs, label, stage, plan.makespan_seconds, len(plan.finished)) as progress:
        refinement.on_added = progress.add
        tune.Tuner(
            tune.with_resources(
                partial(
                    drive,
                    study_root=str(folder.root.resolve()),
                    sweep_file=str(sweep_file),
                    trials={trial_id: trial.to_dict() for trial_id, trial in trials.items()},
                    in_local_mode=in_local_mode,
                ),
                DRIVER_RESOURCES,
            ),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(
                    Queue(plan.jobs, plan.nodes),
                    Machines(plan.nodes, plan.gpus, alive_nodes),
                    study.resources.max_retries,
                    on_failed,
                    refinement.further_jobs,
                ),
                num_samples=-1,  # the searcher says when it is finished
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=study.name, storage_path=str(scratch.resolve()), callbacks=[progress], verbose=0
            ),
        ).fit()
    shutil.rmtree(scratch, ignore_errors=True)
