"""Run a study: start or join Ray, hand its remaining jobs to Tune, and collect the records.

Running the same study again goes on where it stopped, whatever stopped it: what is finished has a record, a
benchmark or backbone that is made is in place, a trial that was interrupted goes on from its last checkpoint.
Nothing of Tune's own state is needed for that, so none is kept. A lock in the study's folder sees to it that one run
alone writes there.
"""

import _thread
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vvlm_ray.errors import UserError
from vvlm_ray.orchestration.frame_store import fill_store
from vvlm_ray.orchestration.preflight import check_study
from vvlm_ray.orchestration.ray_session import ray_session, remove_left_folders
from vvlm_ray.orchestration.refinement import Refinement
from vvlm_ray.planning.check import find_problems
from vvlm_ray.planning.plan import make_plan
from vvlm_ray.planning.queue import Job, Queue
from vvlm_ray.study.additions import all_trials
from vvlm_ray.study.config import Study
from vvlm_ray.study.fingerprints import keep_fingerprints
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.ledger import History, read_history
from vvlm_ray.study.lock import hold
from vvlm_ray.study.records import collect_records, set_damaged_aside, write_tables
from vvlm_ray.study.stages import Stage, read_stage
from vvlm_ray.study.storage import absolute, open_storage, remove_tree


@dataclass(frozen=True)
class Ended:
    """What a run did: trials finished in all, failed with their reasons, and the seconds this run took."""

    num_finished: int
    num_trials: int
    failed: dict[str, str]
    seconds: float


def run_study(
    sweep_file: Path,
    storage: Path,
    *,
    address: str | None = None,
    num_slots: float | None = None,
    take_over: bool = False,
) -> Ended:
    """Start or resume the study of a sweep file in `<storage>/<name>/`.

    Args:
        address: a Ray cluster's address; None starts Ray on this machine (or joins the job's cluster).
        num_slots: GPUs (or CPUs, for trials without GPUs) to use at once; default: all that Ray has.
        take_over: run it although another run holds it, if that one has shown no sign of life for its time to live.

    Raises:
        UserError: the sweep file or the folder is wrong, the plan has problems, or another run holds the study. No
            training has started then.
    """
    from vvlm_ray.study.sweep_file import load_sweep

    start = time.monotonic()
    study = load_sweep(sweep_file)
    folder = StudyFolder(open_storage(storage) / study.name)
    if problems := find_problems(study, sweep_file, folder):  # before anything is written
        raise UserError("\n".join(map(str, problems)))
    checked = check_study(sweep_file, folder.root.parent, num_slots=_pool(study, num_slots, 1))
    if checked.problems:
        raise UserError("\n".join(map(str, checked.problems)))
    study = checked.study
    with hold(folder.root, take_over=take_over, on_lost=_stop_this_run):
        keep = partial(keep_fingerprints, folder, checked.taken.digests)
        _run(study, sweep_file, folder, address or os.environ.get("RAY_ADDRESS"), num_slots, keep_fingerprints=keep)
        collected = collect_records(folder, all_trials(study, folder))
        write_tables(folder, collected)
    failed = {record["trial_id"]: record["reason"] for record in collected.failed}
    failed |= {record["trial_id"]: "; ".join(record["failed_tasks"].values()) for record in collected.partial}
    total = len(collected.finished) + len(failed) + len(collected.missing) + len(collected.damaged)
    return Ended(len(collected.finished), total, failed, time.monotonic() - start)


def _run(
    study: Study,
    sweep_file: Path,
    folder: StudyFolder,
    address: str | None,
    num_slots: float | None,
    *,
    keep_fingerprints: Callable[[], None],
) -> None:
    """Bring the folder in order, and run what is left."""
    from vvlm_ray.orchestration.book import close_open_attempts

    remove_left_folders()
    folder.adopt(sweep_file)
    keep_fingerprints()
    for aside in set_damaged_aside(folder, collect_records(folder, all_trials(study, folder)).damaged):
        print(f"set aside: {aside} is no record; its trial runs again", file=sys.stderr)
    history = read_history(folder)
    if history.num_damaged:
        print(f"{folder.ledger}: {history.num_damaged} lines are damaged and left out", file=sys.stderr)
    if close_open_attempts(folder, study, history, lambda text: print(text, file=sys.stderr)):
        history = read_history(folder)
    plan = make_plan(study, sweep_file, folder, _pool(study, num_slots, 1))
    trials = {t.trial_id: t for t in plan.trials}
    if Refinement(study, folder, sweep_file, num_slots, trials).further_jobs():  # a run that stopped may owe some
        plan = make_plan(study, sweep_file, folder, _pool(study, num_slots, 1))
    if plan.jobs:
        with ray_session(address):
            pool = _pool(study, num_slots, _available_slots(study))
            fill_store(study, folder, absolute(sweep_file), all_trials(study, folder))
            _run_jobs(study, folder, absolute(sweep_file), pool, history, is_own_ray=address is None)


def _stop_this_run() -> None:
    """Another run has taken the study over: this one stops as if by Ctrl-C."""
    print("another run has taken this study over; this one stops", file=sys.stderr)
    _thread.interrupt_main()


def _pool(study: Study, num_slots: float | None, available: float) -> float | None:
    """Slots to admit jobs on: what the caller says, else None where the file names its cluster, else what there is.

    A cluster that is named may still have to start its machines: what Ray shows is not what it will have.
    """
    if num_slots is None and study.cluster and study.resources.gpus_per_worker:
        return None
    return num_slots or available


def _available_slots(study: Study) -> float:
    """All GPUs of the cluster, or all CPUs where trials use none."""
    import ray

    kind = "GPU" if study.resources.gpus_per_worker else "CPU"
    return ray.cluster_resources().get(kind, 0)


def _run_jobs(
    study: Study,
    folder: StudyFolder,
    sweep_file: Path,
    num_slots: float | None,
    history: History,
    *,
    is_own_ray: bool,
) -> None:
    from vvlm_ray.orchestration.attempts import FIRST_PAUSE, Attempts
    from vvlm_ray.orchestration.book import StudyBook, run_folder
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

    def label(job_id: str) -> str:
        return trials[job_id].label if job_id in trials else f"make {job_id}"

    def stage(job_id: str) -> Stage | None:
        return read_stage(run_folder(study, folder, jobs[job_id]))

    with Progress(plan.jobs, label, stage, plan.makespan_seconds, len(plan.finished)) as progress:

        def on_added(job: Job) -> None:
            jobs[job.job_id] = job
            progress.add(job)

        refinement.on_added = on_added
        book = StudyBook(study, folder, trials, history, progress, is_own_ray=is_own_ray)
        first_pause = FIRST_PAUSE / 4 if is_own_ray else FIRST_PAUSE
        searcher = StudySearcher(
            Queue(plan.jobs, plan.nodes),
            Machines(plan.nodes, plan.gpus, alive_nodes),
            Attempts(study.resources.max_retries, history, first_pause=first_pause),
            book,
            refinement.further_jobs,
        )
        scratch = absolute(folder.root) / "tune"
        settings = {
            "study_root": str(absolute(folder.root)),
            "sweep_file": str(sweep_file),
            "scratch": str(scratch),
            "is_own_ray": is_own_ray,
            "max_silent_seconds": study.resources.max_silent_seconds,
        }
        try:
            _tune(study.name, searcher, settings)
        except BaseException:
            with contextlib.suppress(Exception):
                book.stopped(searcher.running, "its run was stopped")
            raise
        finally:
            remove_tree(scratch)
    if searcher.error is not None:
        raise searcher.error


def _tune(name: str, searcher: Any, settings: dict[str, Any]) -> None:
    """Run the searcher's jobs with Ray Tune. Its state is thrown away: the records are the state."""
    from ray import tune

    from vvlm_ray.orchestration.driver import DRIVER_RESOURCES, drive

    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C stops at once
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # how jobs end is said by Progress
    with tempfile.TemporaryDirectory(prefix="vvlm-ray-tune-") as state:
        tune.Tuner(
            tune.with_resources(partial(drive, settings=settings), DRIVER_RESOURCES),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,  # the searcher says when it is finished
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name=name, storage_path=state, verbose=0),
        ).fit()
