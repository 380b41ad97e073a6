"""What a Tune trial runs: the driver of one job. A trial becomes one Ray Train job; what trials need first
(the synthetic benchmark, its backbones) becomes a plain Ray task, a projector of stage 1 a Ray Train job too.

A driver is light: it asks for no CPU and stays on the head node, which is never a spot node.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vvlm_ray.orchestration.placement import failure_config, never_started, scaling_config
from vvlm_ray.orchestration.searcher import FAILURE_KEY, NOT_STARTED_KEY
from vvlm_ray.planning.jobs import WORKERS_NOTE, backbone_of_projector, projector_file, projector_run
from vvlm_ray.study.additions import all_trials
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder, open_study, write_json
from vvlm_ray.study.records import is_finished
from vvlm_ray.study.stages import forget_stage
from vvlm_ray.study.trials import Trial

# Every Ray head node has this resource; a sliver of it keeps the drivers there and takes no CPU.
DRIVER_RESOURCES = {"node:__internal_head__": 0.0001}
MAX_CALLS = 50  # tasks of one process: decord and allocators grow over long runs


def drive(
    config: dict[str, Any],
    *,
    study_root: str,
    sweep_file: str,
    trials: dict[str, dict[str, Any]],
    in_local_mode: bool,
) -> None:
    """Run one job to its end and report its seconds, or the reason why it failed.

    `config` names the job (see StudySearcher); `trials` holds the study's trials as dicts, by id. `in_local_mode`: jobs
    of one CPU worker run in Ray Train's local mode, without a worker group.
    """
    from ray import tune

    start = time.monotonic()
    folder, study = open_study(study_root)
    config = config | {"in_local_mode": in_local_mode}
    try:
        if config["kind"] == "trial":
            trial = trials.get(config["job_id"]) or _added_trial(folder, study, config["job_id"])
            _train(folder, study, Trial.from_dict(trial), sweep_file, config)
        elif config["kind"] == "projector":
            _pretrain(folder, study, backbone_of_projector(config["job_id"]), sweep_file, config)
        else:
            _make(folder, study, config["kind"], config["job_id"])
    except Exception as err:  # whatever it is, the other trials go on and the searcher decides about this one
        outcome = {NOT_STARTED_KEY: True} if never_started(err) else {FAILURE_KEY: _reason(err)}
        tune.report(outcome | {"seconds": time.monotonic() - start})
        return
    tune.report({"seconds": time.monotonic() - start})


def _added_trial(folder: StudyFolder, study: Study, trial_id: str) -> dict[str, Any]:
    """A trial that refinement has added since the study started."""
    return next(t.to_dict() for t in all_trials(study, folder) if t.trial_id == trial_id)


def _train(folder: StudyFolder, study: Study, trial: Trial, sweep_file: str, config: dict[str, Any]) -> None:
    """One Ray Train job; its workers write the trial's record."""
    from vvlm_ray.orchestration.worker import finetune_and_evaluate

    job = {"study_root": str(folder.root), "sweep_file": sweep_file, "trial": trial.to_dict()}
    _fit(study, finetune_and_evaluate, job, folder.trials / trial.trial_id, config)
    if not is_finished(folder, trial.trial_id):
        raise RuntimeError(f"the training job of {trial.label} ended and left no record")


def _pretrain(folder: StudyFolder, study: Study, backbone: str, sweep_file: str, config: dict[str, Any]) -> None:
    """Stage 1 of one backbone, as a Ray Train job."""
    from vvlm_ray.orchestration.worker import pretrain_projector

    target = projector_file(study, folder, backbone)
    job = {"study_root": str(folder.root), "sweep_file": sweep_file, "backbone": backbone}
    _fit(study, pretrain_projector, job, projector_run(study, folder, backbone), config)
    if not target.exists():
        raise RuntimeError(f"the training job of {backbone}'s projector ended and left no {target.name}")


def _fit(study: Study, loop: Callable[..., None], job: dict[str, Any], run: Path, config: dict[str, Any]) -> None:
    """Run `loop` on the slots that the queue has admitted: in this machine's processes, or in a worker group."""
    scaling = scaling_config(study.resources, config)
    write_json(run / WORKERS_NOTE, {"workers": scaling.num_workers})
    forget_stage(run)
    if config["in_local_mode"] and scaling.num_workers == 1 and not scaling.use_gpu:
        _run_task(study.resources.cpus_per_worker, fit_locally, loop, job)
    else:
        _fit_in_worker_group(loop, job, run, scaling, config)


def fit_locally(loop: Callable[..., None], job: dict[str, Any]) -> None:
    """A Ray Train job in local mode: the worker function in this process, which Ray keeps for the next trial.

    A worker group is five processes (controller, three helpers, the worker), each of which imports what it needs: on a
    cluster that is nothing beside a trial, on a laptop it would be most of the time.
    """
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    TorchTrainer(loop, train_loop_config=job, scaling_config=ScalingConfig(num_workers=0)).fit()


def _fit_in_worker_group(
    loop: Callable[..., None], job: dict[str, Any], run: Path, scaling: Any, config: dict[str, Any]
) -> None:
    from ray.train import RunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        loop,
        train_loop_config=job,
        scaling_config=scaling,
        torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
        run_config=RunConfig(
            name=run.name, storage_path=str(run.parent.resolve()), failure_config=failure_config(config)
        ),
    ).fit()


def _make(folder: StudyFolder, study: Study, kind: str, job_id: str) -> None:
    """The synthetic benchmark or one of its backbones, as a Ray task on one CPU."""
    make = {"benchmark": make_benchmark, "backbone": make_backbone}[kind]
    _run_task(1, make, str(folder.assets.resolve()), study.synthetic.model_dump(), job_id)


def _run_task(num_cpus: float, function: Callable[..., None], *arguments: Any) -> None:
    """Run a function as a Ray task; Ray keeps its process, with what it has imported, for the next one."""
    import ray

    # DEFAULT takes the task out of the driver's placement group, which holds no CPU.
    task = ray.remote(num_cpus=num_cpus, max_retries=0, max_calls=MAX_CALLS, scheduling_strategy="DEFAULT")(function)
    ray.get(task.remote(*arguments))


def make_benchmark(assets: str, settings: dict[str, Any], _job_id: str) -> None:
    from vvlm_ray.synthetic.benchmark import SyntheticSettings, build_synthetic

    sizes = {key: settings[key] for key in ("num_train", "num_test", "seed")}
    build_synthetic(Path(assets, "benchmark"), SyntheticSettings(**sizes))


def make_backbone(assets: str, settings: dict[str, Any], name: str) -> None:
    from vvlm_ray.synthetic.backbones import BackboneSettings, build_backbone

    build_backbone(
        Path(assets, "backbones"), name, BackboneSettings(scale=settings["base_training"], seed=settings["seed"])
    )


def _reason(err: Exception) -> str:
    """The worker's own error, without the layers that Train and Ray put around it."""
    failures = getattr(err, "worker_failures", None)
    cause = next(iter(failures.values())) if failures else err
    cause = getattr(cause, "cause", None) or getattr(cause, "_base_exc", None) or cause
    return f"{type(cause).__name__}: {cause}".strip()
