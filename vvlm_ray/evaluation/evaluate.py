"""Scores of a model on lmms-eval's tasks, in process: benchmark by benchmark, each on 0..100, or an error.

A score is only returned when every question was asked, answered and scored: whatever lmms-eval would count
as zero or leave out silently (a judge's failure, a missing video, a lost document) raises EvaluationFailed.
With several processes (RANK, WORLD_SIZE) all call `evaluate` together and all get the same result.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.benchmarks import BENCHMARKS, Benchmark, Metric
from vvlm_ray.evaluation.checks import check_tasks
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.judge import JudgeRelay, JudgeSettings, Verdicts, check_judge
from vvlm_ray.evaluation.local_tasks import LocalTask, find_local_tasks, write_local_task
from vvlm_ray.evaluation.processes import gathered, on_first_process
from vvlm_ray.evaluation.scores import checked_score
from vvlm_ray.evaluation.surroundings import chatter, random_states_kept

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vvlm_ray.evaluation.adapter import VideoVLMAdapter
    from vvlm_ray.evaluation.videos import SingleQuestionModel
    from vvlm_ray.model.preprocess import ImagePreprocessor
    from vvlm_ray.model.video_vlm import VideoVLM

__all__ = [
    "EvaluationFailed",
    "EvaluationResult",
    "check_data",
    "check_tasks",
    "evaluate",
    "write_local_task",
]

_EXACT_MATCH = "exact_match"


@dataclass(frozen=True)
class EvaluationResult:
    """`scores` on 0..100 per benchmark or local task, and `avg`, their plain mean (Metrics/Avg).

    `num_questions` counts all questions asked, `num_unreadable` those among them that no score contains.
    `judge` names the model that gave verdicts, None where no task was judged.
    """

    scores: dict[str, float]
    avg: float
    num_questions: int
    num_unreadable: int
    seconds: float
    judge: str | None = None


def evaluate(
    model: VideoVLM,
    tokenizer: PreTrainedTokenizerBase,
    preprocessor: ImagePreprocessor,
    *,
    tasks: Sequence[str],
    num_frames: int,
    batch_size: int = 16,
    limit: int | None = None,
    task_folders: Sequence[Path] = (),
    video_root: Path | None = None,
    max_unreadable_share: float = 0.0,
    judge: JudgeSettings | None = None,
    num_decode_threads: int | None = None,
    on_batch: Callable[[str, int, int], None] | None = None,
    quiet: bool = True,
) -> EvaluationResult:
    """Evaluate on the paper's benchmarks (abbreviations, see benchmarks.py) and on local tasks (names).

    `limit`: only the first questions of each lmms-eval task, for trying things out. `video_root` replaces the
    local tasks' own. `max_unreadable_share` holds for local tasks; a published benchmark tolerates none.
    `on_batch` is called on every process with the benchmark, and the number of batches answered and in all.
    The model's training mode and all random states are left as they were.
    Raises UserError for what `check_tasks` finds, EvaluationFailed for a score that would be false.
    """
    problems = check_tasks(tasks, task_folders=task_folders, video_root=video_root)
    if problems:
        raise UserError("; ".join(problems))
    judge = judge or JudgeSettings()
    model = getattr(model, "module", model)  # without the wrapper of DistributedDataParallel
    started = time.monotonic()
    plans = _plans(tasks, task_folders, video_root)
    is_judged = any(plan.benchmark.is_judged for plan in plans)
    if is_judged:
        on_first_process(lambda: check_judge(judge))
    scores: dict[str, float] = {}
    num_questions = num_unreadable = 0
    was_training = model.training
    model.eval()
    try:
        for plan in plans:
            adapter = _new_adapter(
                model,
                tokenizer,
                preprocessor,
                num_frames=num_frames,
                batch_size=batch_size,
                tolerated_unreadable=max_unreadable_share if plan.is_local else 0.0,
                num_decode_threads=num_decode_threads,
                on_batch=partial(on_batch, plan.benchmark.abbreviation) if on_batch else None,
            )
            with random_states_kept(), chatter(quiet):
                score, asked = _run(plan, adapter, limit=limit, judge=judge)
            scores[plan.benchmark.abbreviation] = score
            num_questions += asked
            num_unreadable += adapter.num_unreadable
    finally:
        model.train(was_training)
    return EvaluationResult(
        scores=scores,
        avg=sum(scores.values()) / len(scores),
        num_questions=num_questions,
        num_unreadable=num_unreadable,
        seconds=time.monotonic() - started,
        judge=judge.model if is_judged else None,
    )


def check_data(
    tasks: Sequence[str], *, task_folders: Sequence[Path] = (), video_root: Path | None = None, limit: int | None = None
) -> list[str]:
    """Problems in the annotations and videos themselves: loads every task and looks for each question's video.

    For the machine that starts a study, once, after `check_tasks` found nothing: downloads annotations that are not
    cached yet (minutes), and finds a missing login or video before the first GPU is taken, not after a training.
    """
    from vvlm_ray.evaluation.videos import QuestionsSeen, VideoInspector

    problems = []
    for plan in _plans(tasks, task_folders, video_root):
        inspector = VideoInspector()
        name = plan.benchmark.abbreviation
        try:
            with random_states_kept(), chatter(quiet=True), contextlib.suppress(QuestionsSeen):
                _simple_evaluate(plan, inspector, limit=limit, num_threads=1)
        except (EvaluationFailed, UserError, OSError, ValueError) as error:
            problems.append(f"{name}: {error}")
        if inspector.missing:
            problems.append(
                f"{name}: {len(inspector.missing)} videos of {inspector.num_questions} questions are missing, "
                f"for example {inspector.missing[0]}"
            )
    return problems


@dataclass(frozen=True)
class _Plan:
    """One benchmark or local task, and what lmms-eval is to be told: names or configurations of tasks."""

    benchmark: Benchmark
    requests: tuple[Any, ...]
    index: tuple[str, ...]  # folders whose YAML files lmms-eval reads
    is_local: bool


def _plans(tasks: Sequence[str], task_folders: Sequence[Path], video_root: Path | None) -> list[_Plan]:
    from lmms_eval import tasks as lmms_tasks

    local = find_local_tasks(task_folders)
    root = Path(lmms_tasks.__file__).parent
    return [
        _local_plan(local[name], task_folders, video_root)
        if name in local
        else _Plan(
            BENCHMARKS[name],
            requests=BENCHMARKS[name].tasks,
            index=(str(root / BENCHMARKS[name].folder),),
            is_local=False,
        )
        for name in tasks
    ]


def _local_plan(task: LocalTask, task_folders: Sequence[Path], video_root: Path | None) -> _Plan:
    request: Any = task.name
    if video_root is not None:
        settings = {"default": {"video_root": str(Path(video_root).resolve())}}
        request = {"task": task.name, "lmms_eval_specific_kwargs": settings}
    metric = Metric(task.name, _EXACT_MATCH, 1.0)
    return _Plan(
        Benchmark(task.name, task.name, folder="", videos="", metrics=(metric,)),
        requests=(request,),
        index=tuple(str(folder) for folder in task_folders),
        is_local=True,
    )


def _run(plan: _Plan, adapter: VideoVLMAdapter, *, limit: int | None, judge: JudgeSettings) -> tuple[float, int]:
    """(score, number of questions) of one plan, the same on all processes."""
    if not plan.benchmark.is_judged:
        results = _simple_evaluate(plan, adapter, limit=limit, num_threads=1)
        return on_first_process(lambda: checked_score(plan.benchmark, results, None))
    relay = JudgeRelay(judge)
    with relay.serving():
        try:
            results = _simple_evaluate(plan, adapter, limit=limit, num_threads=judge.num_threads)
        except EvaluationFailed:
            if relay.verdicts.failed:  # the cause of whatever the task made of it
                relay.verdicts.check(plan.benchmark.abbreviation, relay.verdicts.num_usable + 1)
            raise
    verdicts = Verdicts.sum(gathered(relay.verdicts))
    return on_first_process(lambda: checked_score(plan.benchmark, results, verdicts))


def _simple_evaluate(plan: _Plan, adapter: SingleQuestionModel, *, limit: int | None, num_threads: int) -> Any:
    from lmms_eval.evaluator import simple_evaluate
    from tenacity import RetryError

    with tempfile.TemporaryDirectory(prefix="vvlm-ray-evaluation-") as folder:
        try:
            return simple_evaluate(
                model=adapter,
                tasks=[dict(request) if isinstance(request, dict) else request for request in plan.requests],
                task_manager=_task_manager(plan.index),
                limit=limit,
                bootstrap_iters=0,
                log_samples=True,
                process_docs_parallel=num_threads,
                distributed_executor_backend="torchrun",  # plain torch.distributed: no Accelerator is made
                # Some tasks write submission files: not into the current folder.
                cli_args=SimpleNamespace(output_path=folder, process_with_media=False),
            )
        except RetryError as error:
            cause = error.last_attempt.exception()
            raise EvaluationFailed(
                f"{plan.benchmark.abbreviation}: lmms-eval gave up after several tries: {cause!r}"
            ) from cause


@lru_cache(maxsize=32)
def _task_manager(index: tuple[str, ...]) -> Any:
    # Only the folders that are needed: reading all of lmms-eval's tasks takes 7 to 11 s.
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=list(index), include_defaults=False)


def _new_adapter(*args: Any, **kwargs: Any) -> VideoVLMAdapter:
    from vvlm_ray.evaluation.adapter import VideoVLMAdapter

    return VideoVLMAdapter(*args, **kwargs)
