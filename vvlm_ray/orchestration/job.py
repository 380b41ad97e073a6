"""One attempt at a job, in its own process: a trial or a projector as a Ray Train job, or something that a synthetic
study makes for itself. Whatever happens in it, an outcome comes back.
"""

import json
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vvlm_ray.errors import UserError
from vvlm_ray.orchestration import tracking
from vvlm_ray.orchestration.attempts import FAILED, FINISHED, LOST, NOT_STARTED, Outcome
from vvlm_ray.orchestration.checkpoints import FOLDER, find
from vvlm_ray.orchestration.logs import captured
from vvlm_ray.orchestration.placement import failure_config, never_started, scaling_config
from vvlm_ray.planning.jobs import WORKERS_NOTE, backbone_of_projector, projector_file
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder, open_study, write_json
from vvlm_ray.study.stages import forget_stage, read_stage
from vvlm_ray.study.storage import open_storage


def run_job(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a job (see `driver.drive`) to its end and return its `Outcome` as a dict."""
    run = open_storage(spec["run"])
    before = _newest_checkpoint(run)
    forget_stage(run)
    failure: dict[str, Any] = {}
    try:
        folder, study = open_study(spec["study_root"])
        _JOBS[spec["kind"]](folder, study, run, spec)
    except Exception as error:  # whatever it is, the other trials go on and the searcher decides about this one
        failure = _failure(error)
    stage = read_stage(run)
    outcome = Outcome(
        **{"outcome": FINISHED, "where": socket.gethostname()} | failure,
        step=stage.done if stage and stage.name in ("finetuning", "pretraining") else 0,
        resumed_from=before,
        checkpoint=_newest_checkpoint(run),
    )
    return asdict(outcome)


def _trial(folder: StudyFolder, study: Study, run: Path, spec: dict[str, Any]) -> None:
    trial = json.loads(spec["trial"])
    job = {key: spec[key] for key in ("study_root", "sweep_file", "run", "attempt", "seconds_before")}
    _train(study, {"loop": "trial", "trial": trial} | job, run, spec)
    if not folder.answered(spec["job_id"]).exists():
        raise RuntimeError("the training job ended and left no answers")


def score_answered(spec: dict[str, Any]) -> dict[str, Any]:
    """Make an answered trial's record (see scoring.py), once its workers are gone; an `Outcome` as a dict."""
    from vvlm_ray.orchestration.scoring import score_trial

    run = open_storage(spec["run"])
    failure: dict[str, Any] = {}
    try:
        folder, study = open_study(spec["study_root"])
        trial = json.loads(spec["trial"])
        with captured(run, spec["attempt"], 0):
            score_trial(spec["study_root"], spec["sweep_file"], trial)
        tracking.publish(folder, study, trial, run)  # after the record, and it can do no harm
    except Exception as error:
        failure = _failure(error)
    return asdict(Outcome(**{"outcome": FINISHED, "where": socket.gethostname()} | failure))


def _projector(folder: StudyFolder, study: Study, run: Path, spec: dict[str, Any]) -> None:
    backbone = backbone_of_projector(spec["job_id"])
    job = {key: spec[key] for key in ("study_root", "sweep_file", "run", "attempt")}
    _train(study, {"loop": "projector", "backbone": backbone} | job, run, spec)
    target = projector_file(study, folder, backbone)
    if not target.exists():
        raise RuntimeError(f"the training job of {backbone}'s projector ended and left no {target.name}")


def _train(study: Study, job: dict[str, Any], run: Path, spec: dict[str, Any]) -> None:
    """A Ray Train job, in a worker group or in local mode: the worker function in this process.

    A worker group is several processes, each of which imports what it needs: on a cluster that is nothing beside a
    trial, on a laptop it would be most of the time.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from vvlm_ray.orchestration.worker_group import GroupTrainer, torch_config

    if not spec["has_worker_group"]:
        TorchTrainer(work, train_loop_config=job, scaling_config=ScalingConfig(num_workers=0)).fit()
        return
    scaling = scaling_config(study.resources, spec)
    write_json(run / WORKERS_NOTE, {"workers": scaling.num_workers})
    GroupTrainer(
        work,
        train_loop_config=job,
        scaling_config=scaling,
        torch_config=torch_config(use_gpu=bool(scaling.use_gpu), is_own_ray=spec["is_own_ray"]),
        run_config=RunConfig(
            name=spec["group_name"], storage_path=spec["scratch"], failure_config=failure_config(spec)
        ),
    ).fit()


def work(config: dict[str, Any]) -> None:
    """What each worker runs: its part of the job, with all that it prints kept in the job's folder."""
    import ray.train

    from vvlm_ray.orchestration.worker import finetune_and_answer, pretrain_projector

    loop: Callable[[dict[str, Any]], None] = {"trial": finetune_and_answer, "projector": pretrain_projector}[
        config["loop"]
    ]
    with captured(open_storage(config["run"]), config["attempt"], ray.train.get_context().get_world_rank()):
        loop(config)


def _benchmark(folder: StudyFolder, study: Study, run: Path, spec: dict[str, Any]) -> None:
    from vvlm_ray.study.storage import local_output
    from vvlm_ray.synthetic.benchmark import SyntheticSettings, build_synthetic

    sizes = {key: getattr(study.synthetic, key) for key in ("num_train", "num_test", "seed")}
    with captured(run, spec["attempt"], 0), local_output(folder.assets) as assets:
        build_synthetic(assets / "benchmark", SyntheticSettings(**sizes))


def _backbone(folder: StudyFolder, study: Study, run: Path, spec: dict[str, Any]) -> None:
    from vvlm_ray.study.storage import local_output
    from vvlm_ray.synthetic.backbones import BackboneSettings, build_backbone

    settings = BackboneSettings(scale=study.synthetic.base_training, seed=study.synthetic.seed)
    with captured(run, spec["attempt"], 0), local_output(folder.assets) as assets:
        build_backbone(assets / "backbones", spec["job_id"], settings)


_JOBS = {"trial": _trial, "projector": _projector, "benchmark": _benchmark, "backbone": _backbone}


def _newest_checkpoint(run: Path) -> int:
    found = find(run / FOLDER).folder
    return int(found.name) if found else 0


def _failure(error: Exception) -> dict[str, Any]:
    """What ended a job: its own error, without the layers that Train and Ray put around it."""
    if never_started(error):
        return {"outcome": NOT_STARTED, "cause": "its workers found no room"}
    import ray

    from vvlm_ray.training.results import Diverged

    failures = getattr(error, "worker_failures", None)
    cause: BaseException = next(iter(failures.values())) if failures else error
    if isinstance(cause, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError):
        told = str(cause)
        if "node" in told and ("died" in told or "terminated" in told) and "worker process" not in told.lower():
            return {"outcome": LOST, "cause": "a machine of its workers was lost"}
        return {"outcome": FAILED, "cause": "a worker's process was ended from outside or crashed"}
    cause = getattr(cause, "cause", None) or getattr(cause, "_base_exc", None) or cause
    if type(cause).__name__ == "PreemptionError":
        return {"outcome": LOST, "cause": "its machine was taken away"}
    if type(cause).__name__ == "WorkerHealthCheckFailedError":
        return {"outcome": LOST, "cause": "a machine of its workers does not answer any more"}
    return {
        "outcome": FAILED,
        "cause": f"{type(cause).__name__}: {cause}".strip(),
        "is_own": isinstance(cause, UserError | Diverged),
    }
