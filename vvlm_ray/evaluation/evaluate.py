"""Scores of a model on lmms-eval's tasks, in process: benchmark by benchmark, each on 0..100, or an error.

A score is only returned when every question was asked, answered and scored: whatever lmms-eval would count
as zero or leave out silently (a judge's failure, a missing video, a lost document) raises EvaluationFailed.
With several processes (RANK, WORLD_SIZE) all call `evaluate` together and all get the same result.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.benchmarks import BENCHMARKS, Benchmark, Metric
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.judge import JudgeRelay, JudgeSettings, Verdicts, check_judge, key_problem
from vvlm_ray.evaluation.local_tasks import LocalTask, find_local_tasks, local_problems, write_local_task

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
    "normalised_score",
    "write_local_task",
]

_EXACT_MATCH = "exact_match"


@dataclass(frozen=True)
class EvaluationResult:
    """`scores` on 0..100 per benchmark or local task, and `avg`, their plain mean (Metrics/Avg).

    `num_questions` counts all questions asked, `num_unreadable` those among them that no score contains.
    """

    scores: dict[str, float]
    avg: float
    num_questions: int
    num_unreadable: int
    seconds: float


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
    quiet: bool = True,
) -> EvaluationResult:
    """Evaluate on the paper's benchmarks (abbreviations, see benchmarks.py) and on local tasks (names).

    `limit`: only the first questions of each lmms-eval task, for trying things out. `video_root` replaces the
    local tasks' own. `max_unreadable_share` holds for local tasks; a published benchmark tolerates none.
    The model's training mode and all random states are left as they were.
    Raises UserError for what `check_tasks` finds, EvaluationFailed for a score that would be false.
    """
    problems = check_tasks(tasks, task_folders=task_folders, video_root=video_root)
    if problems:
        raise UserError("; ".join(problems))
    judge = judge or JudgeSettings.from_environment()
    model = getattr(model, "module", model)  # without the wrapper of DistributedDataParallel
    started = time.monotonic()
    plans = _plans(tasks, task_folders, video_root)
    if any(plan.benchmark.is_judged for plan in plans):
        _on_first_process(lambda: check_judge(judge))
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
            )
            with _random_states_kept(), _chatter(quiet):
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
    )


def check_tasks(
    tasks: Sequence[str], *, task_folders: Sequence[Path] = (), video_root: Path | None = None
) -> list[str]:
    """Problems that would stop an evaluation, found without a GPU, a model, lmms-eval or the network.

    Unknown or doubled names, missing local files, no HF_HOME or no videos in it, no key for the judge.
    """
    local = find_local_tasks(task_folders)
    problems = [] if tasks else ["tasks: none given"]
    problems += [f"{name}: named twice in tasks" for name in dict.fromkeys(tasks) if tasks.count(name) > 1]
    problems += [f"{folder}: no such folder (task_folders)" for folder in task_folders if not folder.is_dir()]
    for name in dict.fromkeys(tasks):
        if name in local and name in BENCHMARKS:
            problems.append(f"{name}: {local[name].yaml_path} takes a published benchmark's name; rename it")
        elif name in local:
            problems += local_problems(local[name], video_root)
        elif name in BENCHMARKS:
            problems += _benchmark_problems(BENCHMARKS[name])
        else:
            known = ", ".join((*BENCHMARKS, *local))
            problems.append(f"{name}: not a task; known are {known} (local ones are sought in task_folders)")
    return list(dict.fromkeys(problems))


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
            with _random_states_kept(), _chatter(quiet=True), contextlib.suppress(QuestionsSeen):
                _simple_evaluate(plan, inspector, limit=limit, num_threads=1)
        except (EvaluationFailed, UserError, OSError, ValueError) as error:
            problems.append(f"{name}: {error}")
        if inspector.missing:
            problems.append(
                f"{name}: {len(inspector.missing)} videos of {inspector.num_questions} questions are missing, "
                f"for example {inspector.missing[0]}"
            )
    return problems


def normalised_score(
    benchmark: Benchmark,
    results: Mapping[str, Mapping[str, Any]],
    num_answered: Mapping[str, float] | None = None,
) -> float:
    """Mean over the benchmark's metrics of 100 * value / full mark, from lmms-eval's `results`.

    `num_answered`: per task the share of non-empty answers, for metrics whose mean leaves empty ones out;
    they count as wrong here, as everywhere else.
    Raises EvaluationFailed for a missing metric, NaN, or a value beyond its scale.
    """
    points = []
    for metric in benchmark.metrics:
        value = results.get(metric.task, {}).get(f"{metric.key},none")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise EvaluationFailed(
                f"{benchmark.abbreviation}: lmms-eval gave {value!r} for {metric.key} of {metric.task}; "
                "no score is recorded. Look at this task's log, and whether its data is complete"
            )
        if not 0 <= value <= metric.full_mark:
            raise EvaluationFailed(
                f"{benchmark.abbreviation}: {metric.key} of {metric.task} is {value}, beyond its scale of "
                f"0..{metric.full_mark:g}; is another version of lmms-eval installed than 0.7.3?"
            )
        share = (num_answered or {}).get(metric.task, 1.0) if metric.skips_empty else 1.0
        points.append(100 * value / metric.full_mark * share)
    return sum(points) / len(points)


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
        return _on_first_process(lambda: _checked(plan.benchmark, results, None))
    relay = JudgeRelay(judge)
    with relay.serving():
        try:
            results = _simple_evaluate(plan, adapter, limit=limit, num_threads=judge.num_threads)
        except EvaluationFailed:
            if relay.verdicts.failed:  # the cause of whatever the task made of it
                relay.verdicts.check(plan.benchmark.abbreviation, relay.verdicts.num_usable + 1)
            raise
    verdicts = _all_verdicts(relay.verdicts)
    return _on_first_process(lambda: _checked(plan.benchmark, results, verdicts))


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


def _checked(benchmark: Benchmark, results: Any, verdicts: Verdicts | None) -> tuple[float, int]:
    """(score, number of questions) once nothing is missing."""
    num_questions = 0
    answered_share: dict[str, float] = {}
    for task in benchmark.tasks:
        samples = results["samples"].get(task, [])
        expected = results["n-samples"][task]["effective"]
        scored = {sample["doc_id"] for sample in samples}
        if len(scored) != expected:
            raise EvaluationFailed(
                f"{benchmark.abbreviation}: {task} has {expected} questions, but lmms-eval returned "
                f"{len(scored)}; a score over a part of them would be false. Run the evaluation again"
            )
        num_questions += expected
        answered_share[task] = sum(bool(_answer(sample)) for sample in samples) / expected
    if verdicts is not None:
        calls = sum(
            int(metric.judge_calls * results["n-samples"][metric.task]["effective"]) for metric in benchmark.metrics
        )
        verdicts.check(benchmark.abbreviation, calls)
    return normalised_score(benchmark, results["results"], answered_share), num_questions


def _answer(sample: Mapping[str, Any]) -> str:
    answer = sample["filtered_resps"][0]
    return answer.strip() if isinstance(answer, str) else str(answer)


def _benchmark_problems(benchmark: Benchmark) -> list[str]:
    name = benchmark.abbreviation
    problems = []
    home = os.environ.get("HF_HOME")
    if not home:
        problems.append(f"{name}: HF_HOME is not set; lmms-eval looks for videos and annotations in it")
    else:
        videos = Path(home).expanduser() / benchmark.videos
        if not videos.is_dir() or not any(videos.iterdir()):
            problems.append(f"{name}: no videos in {videos}; put the videos of {benchmark.name} there")
    problem = key_problem() if benchmark.is_judged else None
    return [*problems, f"{name}: {problem}"] if problem else problems


def _new_adapter(*args: Any, **kwargs: Any) -> VideoVLMAdapter:
    from vvlm_ray.evaluation.adapter import VideoVLMAdapter

    return VideoVLMAdapter(*args, **kwargs)


def _num_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _on_first_process(compute: Any) -> Any:
    """`compute()` on rank 0; its result, or the error it raised, on all."""
    if _num_processes() == 1:
        return compute()
    import torch.distributed as dist

    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = compute()
        except (EvaluationFailed, UserError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _all_verdicts(own: Verdicts) -> Verdicts:
    if _num_processes() == 1:
        return own
    import torch.distributed as dist

    parts: list[Any] = [None] * _num_processes()
    dist.all_gather_object(parts, own)
    return Verdicts(
        num_usable=sum(part.num_usable for part in parts),
        unusable=[reason for part in parts for reason in part.unusable],
        failed=[reason for part in parts for reason in part.failed],
    )


@contextlib.contextmanager
def _random_states_kept() -> Iterator[None]:
    """lmms-eval seeds python's, numpy's and torch's generators; a training around it must not notice."""
    import numpy as np
    import torch

    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002 (the generator that lmms-eval seeds)
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


@contextlib.contextmanager
def _chatter(quiet: bool) -> Iterator[None]:
    """Keep lmms-eval's log lines and progress bars to itself, unless it fails."""
    if not quiet:
        yield
        return
    from loguru import logger

    said = io.StringIO()
    sources = ("lmms_eval", "utils")  # lmms-eval imports every task's utils.py as "utils"
    for source in sources:
        logger.disable(source)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            yield
    except (EvaluationFailed, UserError):
        raise  # these say themselves what is wrong
    except BaseException:
        sys.stderr.write(said.getvalue()[-2000:])
        raise
    finally:
        for source in sources:
            logger.enable(source)
