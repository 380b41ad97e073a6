"""What a Tune trial runs: the driver of one job. It starts the job elsewhere, watches it, and reports how it ended.

A driver stays on the head node, which is never a spot node, for as long as its job runs, and there may be hundreds:
so it imports neither torch nor the study, asks for no CPU, and everything heavy is in the job's process (`job.py`).
"""

import time
from dataclasses import replace
from typing import Any

from vvlm_ray.orchestration.attempts import FAILED, FINISHED, LOST, Outcome

# Every Ray head node has this resource; a sliver of it keeps the drivers there and takes no CPU.
DRIVER_RESOURCES = {"node:__internal_head__": 0.0001}
MAX_CALLS = 50  # jobs of one process in local mode: decord and allocators grow over long runs
WATCH_SECONDS = 5.0
ANSWERED_FILE = "answered.json"  # StudyFolder.answered


def drive(config: dict[str, Any], *, settings: dict[str, Any]) -> None:
    """Run one job to its end.

    Args:
        config: the job, its attempt and its place (see `StudySearcher`), and what `run.StudyBook` adds.
        settings: the same for all jobs: `study_root`, `sweep_file`, `is_own_ray` (Ray was started for this run, on this
            machine), `max_silent_seconds`.
    """
    from ray import tune

    start = time.monotonic()
    outcome = _run(settings | config)
    tune.report(outcome.to_report() | {"seconds": time.monotonic() - start})


def _run(spec: dict[str, Any]) -> Outcome:
    """The job; of a trial, until it has its answers, and then their scoring, for which no GPU is needed."""
    if spec["kind"] != "trial":
        return _attempt(spec)
    if not _is_answered(spec):
        outcome = _attempt(spec)
        if outcome.outcome != FINISHED:
            return outcome
    return _score(spec)


def _is_answered(spec: dict[str, Any]) -> bool:
    from vvlm_ray.study.storage import open_storage

    return (open_storage(spec["run"]) / ANSWERED_FILE).exists()


def _score(spec: dict[str, Any]) -> Outcome:
    """A task of one CPU, on this machine where that has one: the judge's store trusts locks within a machine.

    Nobody watches how it gets on: it may wait for a busy judge, and knows itself for how long.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from vvlm_ray.orchestration.job import score_answered

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    task = ray.remote(num_cpus=1, max_retries=0, max_calls=MAX_CALLS, scheduling_strategy=here)(score_answered)
    try:
        return Outcome(**ray.get(task.remote(spec)))
    except ray.exceptions.RayError as error:
        return _outcome_of(error, 0)


def _attempt(spec: dict[str, Any]) -> Outcome:
    before = _newest_checkpoint(spec["run"])
    outcome = _watched(spec)
    if outcome.where:  # the job's own word
        return outcome
    return replace(outcome, resumed_from=before, checkpoint=_newest_checkpoint(spec["run"]))


def _watched(spec: dict[str, Any]) -> Outcome:
    import ray

    runner, ref = _start(spec)
    watch = _Watch(spec["run"], spec["max_silent_seconds"])
    try:
        while not ray.wait([ref], timeout=WATCH_SECONDS)[0]:
            if silence := watch.silence():
                _end(runner, ref)
                return Outcome(FAILED, cause=silence, step=watch.step)
        return Outcome(**ray.get(ref))
    except ray.exceptions.RayError as error:
        return _outcome_of(error, watch.step)


def _start(spec: dict[str, Any]) -> tuple[Any, Any]:
    """Start the job: a plain task, whose process Ray keeps for the next one, or an actor of its own for a worker
    group.
    """
    import ray

    if spec["has_worker_group"]:
        # The controller of a worker group lives on a machine of its workers, not on the head: lost with it, no more.
        runner = ray.remote(num_cpus=0, scheduling_strategy=_beside_workers(spec))(GroupRunner).remote()
        return runner, runner.run.remote(spec)
    from vvlm_ray.orchestration.job import run_job

    # DEFAULT takes the task out of the driver's placement group, which holds no CPU.
    task = ray.remote(num_cpus=spec["cpus"], max_retries=0, max_calls=MAX_CALLS, scheduling_strategy="DEFAULT")(run_job)
    return None, task.remote(spec)


class GroupRunner:
    """The process of a worker group's controller."""

    def run(self, spec: dict[str, Any]) -> dict[str, Any]:
        from vvlm_ray.orchestration.job import run_job

        return run_job(spec)


def _beside_workers(spec: dict[str, Any]) -> Any:
    """A machine that the job is tied to, else the one with most GPUs; if it is lost before the start, any."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]}
    tied = [node_id for node_id in spec["node_ids"] if node_id in nodes]
    return NodeAffinitySchedulingStrategy(tied[0] if tied else max(nodes, key=lambda n: (nodes[n], n)), soft=True)


def _newest_checkpoint(run: str) -> int:
    """The number of the newest complete checkpoint, whole or damaged since; 0 for none."""
    from vvlm_ray.study.storage import open_storage

    numbers = [manifest.parent.name for manifest in open_storage(run).glob("checkpoints/*/manifest.json")]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _end(runner: Any, ref: Any) -> None:
    import ray

    if runner is not None:
        ray.kill(runner)
    else:
        ray.cancel(ref, force=True)


def _outcome_of(error: Exception, step: int) -> Outcome:
    """Of a job whose process did not live to report: lost with its machine, or ended by itself."""
    import ray

    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    is_machine = isinstance(error, ray.exceptions.NodeDiedError) or ("node" in text.lower() and "die" in text.lower())
    if isinstance(error, ray.exceptions.RayActorError):  # the controller's process: nothing of the trial runs in it
        return Outcome(LOST, cause="the machine of its controller was lost" if is_machine else "its controller ended")
    if is_machine:
        return Outcome(LOST, cause="its machine was lost")
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return Outcome(FAILED, cause="its process was ended from outside or crashed", step=step)
    return Outcome(FAILED, cause=f"{type(error).__name__}: {text}", step=step)


class _Watch:
    """Whether a job still gets on, by the stage that its first worker writes."""

    def __init__(self, run: str, max_silent_seconds: float):
        from vvlm_ray.study.storage import open_storage

        self._run, self._limit = open_storage(run), max_silent_seconds
        self._last, self._since = "", time.monotonic()
        self.step = 0

    def silence(self) -> str | None:
        """Why the job is to be ended; None while it gets on."""
        from vvlm_ray.study.stages import read_stage

        stage = read_stage(self._run)
        seen = stage.text if stage else ""
        if stage and stage.name in ("finetuning", "pretraining"):
            self.step = stage.done
        if seen != self._last:
            self._last, self._since = seen, time.monotonic()
        silent = time.monotonic() - self._since
        if silent > self._limit:
            return f"no progress for {silent:.0f} s" + (f" ({seen})" if seen else "")
        return None
