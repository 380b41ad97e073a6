"""lmms-eval's insides, as far as we lean on them: all of it stands in this file, for the version named here.

What is used beyond its documented names: how tasks are loaded and asked for their requests, `evaluator.evaluate`,
what `process_results` leaves of a document, the file that VCGBench's consistency writes its pairs to, and its random
guesses.
tests/evaluation/test_lmms.py says what another version does otherwise.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.local_scoring import (
    UNREADABLE_ANSWER,
    chosen_letter,
    correct_letter,
    is_right,
    judged,
    prompt_of,
)
from vvlm_ray.evaluation.questions import Question, Stop, stop_of
from vvlm_ray.evaluation.surroundings import random_states_kept
from vvlm_ray.evaluation.tasks import Plan

if TYPE_CHECKING:
    from lmms_eval.api.task import ConfigurableTask

VERSION = "0.7.3"
FILTER = "none"  # lmms-eval's name for a task's answers as they are
_SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}  # simple_evaluate's own
_LOCAL_METRIC = "exact_match"
_ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


def version_problem() -> str | None:
    """Why the installed lmms-eval cannot be used, if so; it is not imported."""
    try:
        found = version("lmms-eval")
    except PackageNotFoundError:
        return f"lmms-eval is not installed; pip install lmms-eval=={VERSION}"
    if found != VERSION:
        return f"lmms-eval {found} is installed and {VERSION} is what the scores are made with; install that one"
    return None


@dataclass(frozen=True)
class Loaded:
    """One of lmms-eval's tasks with its documents, ready to be asked. `limit`: how many of them, None for all."""

    name: str
    task: ConfigurableTask
    limit: int | None

    @property
    def num_documents(self) -> int:
        total = len(self.task.eval_docs_no_media)
        return total if self.limit is None else min(self.limit, total)


@dataclass(frozen=True)
class Outcome:
    """What lmms-eval made of a task's answers.

    `results`: its numbers by "metric,filter". `samples`: one dict for each document, in their order, with `doc_id`.
    `guessed`: the documents whose answer it would have guessed at random. `pairs`: of VCGBench's consistency.
    """

    results: Mapping[str, Any]
    samples: tuple[Mapping[str, Any], ...]
    guessed: frozenset[int]
    pairs: tuple[Mapping[str, Any], ...]


def load(plan: Plan, limit: int | None) -> list[Loaded]:
    """The plan's tasks with their documents, on one process, whatever others there are.

    Downloads annotations that are not cached yet. Raises EvaluationFailed naming the plan where that fails.
    """
    from tenacity import RetryError

    _quiet_datasets()
    with _seeded(), _no_accelerator(), _no_word_lists(), alone():
        try:
            tasks = {plan.name: _local_task(plan)} if plan.questions else _published_tasks(plan)
        except (RetryError, OSError, ValueError, LookupError, ImportError, AttributeError) as error:
            cause = error.last_attempt.exception() if isinstance(error, RetryError) else error
            raise EvaluationFailed(f"{plan.name}: lmms-eval cannot load its data: {cause!r:.500}") from error
    order = {name: number for number, name in enumerate(plan.benchmark.tasks)}
    names = sorted(tasks, key=lambda name: (order.get(name, len(order)), name))
    return [Loaded(name, tasks[name], _limit(plan, name, tasks[name], limit)) for name in names]


def questions_of(loaded: Loaded) -> list[Question]:
    """All questions of a task, in document order.

    Raises UserError for a task that does not ask single questions, each about one video.
    """
    with _seeded(), alone():
        _build(loaded)
    return [question_of(instance, {loaded.name: loaded.task.dataset}) for instance in loaded.task.instances]


def question_of(instance: Any, datasets_of: Mapping[str, Any]) -> Question:
    """A request of lmms-eval as a question; `datasets_of` is its models' `task_dict`.

    Raises UserError for a task that does not ask single questions, each about one video.
    """
    name = instance.task_name
    if instance.request_type not in {"generate_until", "loglikelihood"} or len(instance.args) != 6:
        raise UserError(f"{name}: asks by {instance.request_type}; only single questions can be asked")
    context, asked, doc_to_visual, doc_id, task, split = instance.args
    doc = datasets_of[task][split][doc_id]
    video, problem = _find_video(doc_to_visual, doc, name)
    is_likelihood = instance.request_type == "loglikelihood"
    continuation = asked(doc) if is_likelihood and callable(asked) else asked
    return Question(
        task=task,
        doc=doc_id,
        option=instance.idx,
        prompt=context,
        video=video or f"{task}, document {doc_id}",
        stop=Stop(0) if is_likelihood else stop_of(asked),
        continuation=str(continuation).strip() if is_likelihood else None,
        problem=problem,
    )


def evaluate_answers(loaded: Loaded, answer_of: Callable[[int, int], Any], *, num_threads: int) -> Outcome:
    """Hand the answers, `answer_of(doc, option)`, to the task's own code, in one process and document order."""
    from lmms_eval.evaluator import evaluate
    from tenacity import RetryError

    with _seeded(), alone(), tempfile.TemporaryDirectory(prefix="vvlm-ray-scoring-") as folder:
        with _guesses_caught(loaded.task, is_on=num_threads == 1) as guessed:
            try:
                found = evaluate(
                    _replay(answer_of),
                    {loaded.name: loaded.task},
                    limit=loaded.limit,
                    bootstrap_iters=0,
                    log_samples=True,
                    distributed_executor_backend="torchrun",  # plain torch.distributed: no Accelerator is made
                    cli_args=SimpleNamespace(output_path=folder, process_with_media=False),
                    process_docs_parallel=num_threads,
                )
            except RetryError as error:
                cause = error.last_attempt.exception()
                raise EvaluationFailed(f"{loaded.name}: lmms-eval gave up after several tries: {cause!r}") from cause
        samples = tuple(found["samples"].get(loaded.name, ()))
        ids = [sample["doc_id"] for sample in samples]
        return Outcome(
            results=found["results"].get(loaded.name, {}),
            samples=samples,
            guessed=frozenset(doc for doc, was in zip(ids, guessed, strict=False) if was),
            pairs=_pairs(Path(folder)),
        )


def document_value(key: str, sample: Mapping[str, Any]) -> float | None:
    """What one document counts in a metric's mean; None where it has no value (left out, no verdict, or no mean)."""
    value = sample.get(key)
    if isinstance(value, (bool, int, float)):
        return float(value)
    if not isinstance(value, Mapping):
        return None
    if key == "gpt_eval_accuracy":
        return {"yes": 100.0, "no": 0.0}.get(value["Correctness"])
    if key == "lvb_acc":
        return float(value["parsed_pred"] == value["answer"])
    if key in {"mvbench_accuracy", "videomme_perception_score"}:
        return 100.0 * value["score"]
    if key == "accuracy" and "correct" in value:
        return float(value["correct"])
    score = value.get("score")
    return float(score) if isinstance(score, (bool, int, float)) else None


def names_no_option(loaded: Loaded, key: str, sample: Mapping[str, Any]) -> bool:
    """Whether the task found no option in the answer, as far as it says so (see `Outcome.guessed`)."""
    value = sample.get(key)
    if isinstance(value, Mapping) and key == "accuracy" and "pred_id" in value:
        return value["pred_id"] == -1
    if isinstance(value, Mapping) and key == "videomme_perception_score":
        return not value["pred_answer"]
    if isinstance(value, Mapping) and key == "mvbench_accuracy":
        same = loaded.task.config.process_results.__globals__["mcq_acc"]
        return not any(same(letter, value["pred_answer"]) for letter in "ABCDE")
    return bool(sample.get("unparseable", False))


def resampled(loaded: Loaded, key: str, outcome: Outcome, clusters: Sequence[str], num: int = 200) -> tuple[float, ...]:
    """The task's own aggregate over `num` resamples of its videos, for what is no plain mean; () where it has none."""
    aggregate = loaded.task.aggregation().get(key)
    if aggregate is None or "args" in inspect.signature(aggregate).parameters or len(set(clusters)) < 2:
        return ()
    by_video: dict[str, list[Any]] = {}
    for video, sample in zip(clusters, outcome.samples, strict=True):
        by_video.setdefault(video, []).append(sample[key])
    videos, draw = sorted(by_video), random.Random(0)
    try:
        return tuple(
            float(aggregate([value for video in draw.choices(videos, k=len(videos)) for value in by_video[video]]))
            for _ in range(num)
        )
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return ()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """lmms-eval takes its rank from the environment; it sees one process, whatever others there are."""
    before = {name: os.environ.get(name) for name in _ALONE}
    os.environ.update(_ALONE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _published_tasks(plan: Plan) -> dict[str, ConfigurableTask]:
    from lmms_eval.tasks import get_task_dict

    found = _flat(get_task_dict(list(plan.benchmark.tasks), _task_manager(plan.folder), "simple"))
    for task in found.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_SEEDS["fewshot"])
    return found


def _flat(tasks: Mapping[Any, Any]) -> dict[str, ConfigurableTask]:
    """The tasks of nested groups, by name."""
    found: dict[str, ConfigurableTask] = {}
    for name, task in tasks.items():
        found |= _flat(task) if isinstance(task, Mapping) else {name: task[1] if isinstance(task, tuple) else task}
    return found


@lru_cache(maxsize=32)
def _task_manager(folder: str) -> Any:
    # Only the folder that is needed: reading all of lmms-eval's tasks takes 7 to 11 s.
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=[folder], include_defaults=False)


def _local_task(plan: Plan) -> ConfigurableTask:
    """A study's own questions as a task of lmms-eval, made in memory: no file that others would have to wait for."""
    import datasets
    from lmms_eval.api.task import ConfigurableTask

    rows, scoring, root = list(plan.questions), plan.scoring, plan.video_root

    class LocalTask(ConfigurableTask):
        def download(self, dataset_kwargs: Any = None) -> None:
            # Not load_dataset("json"): it asks the hub, and a cache that knows files by their size.
            self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
            self.dataset_no_image = self.dataset

    def process(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        if results[0] == UNREADABLE_ANSWER:
            return {}
        if scoring == "judged":
            verdict = judged(doc, results[0])
            return {} if verdict == "neither" else {_LOCAL_METRIC: float(verdict == "yes")}
        if scoring == "choice":
            letter = chosen_letter(results[0], doc["options"])
            return {_LOCAL_METRIC: float(letter == correct_letter(doc)), "unparseable": letter is None}
        return {_LOCAL_METRIC: float(is_right(results[0], doc["answer"]))}

    return LocalTask(
        config={
            "task": plan.name,
            "dataset_path": "local",
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_visual": lambda doc: [str(root / doc["video"])],
            "doc_to_text": prompt_of,
            "doc_to_target": "answer",
            "process_results": process,
            "generation_kwargs": {"until": [], "max_new_tokens": plan.max_new_tokens},
            "metric_list": [{"metric": _LOCAL_METRIC, "aggregation": "mean", "higher_is_better": True}],
            "num_fewshot": 0,
        }
    )


def _limit(plan: Plan, name: str, task: ConfigurableTask, limit: int | None) -> int | None:
    """How many documents to ask: where two of them make a question, as many as hold `limit` whole pairs."""
    if limit is None or not any(metric.is_paired for metric in plan.benchmark.metrics if metric.task == name):
        return limit
    num_pairs, waiting = 0, set()
    for number, video in enumerate(task.eval_docs_no_media["video_name"], start=1):
        num_pairs += video in waiting
        waiting ^= {video}
        if num_pairs == limit:
            return number
    return None


def _build(loaded: Loaded) -> None:
    loaded.task.build_all_requests(limit=loaded.limit, rank=0, world_size=1)


def _find_video(doc_to_visual: Any, doc: dict[str, Any], task: str) -> tuple[str | None, str | None]:
    """(path of the document's one video, why there is none): as its task gives it; the file may still be missing."""
    try:
        visuals = doc_to_visual(doc)
    except (SystemExit, OSError, AssertionError) as error:  # the tasks' ways to say so
        return None, str(error) or "no such file"
    if not isinstance(visuals, list) or len(visuals) != 1 or not isinstance(visuals[0], (str, Path)):
        raise UserError(
            f"{task}: a document comes with {visuals!r:.100}, not with the path of one video; "
            "only video tasks can be evaluated"
        )
    return str(visuals[0]), None


def _replay(answer_of: Callable[[int, int], Any]) -> Any:
    """In the model's place: the answers that are kept."""
    from lmms_eval.api.instance import GenerationResult
    from lmms_eval.api.model import lmms

    class Replay(lmms):
        is_simple = True

        def generate_until(self, requests: list[Any]) -> list[str]:
            return [answer_of(request.doc_id, request.idx) for request in requests]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            # Bare pairs would be turned into text ("(0.3, True)"), which scoring then fails on.
            return [GenerationResult(tuple(answer_of(request.doc_id, request.idx))) for request in requests]

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise UserError(f"{requests[0].task_name}: asks in several rounds; only single questions can be asked")

        def clean(self) -> None:
            """There is no model to let go."""

    return Replay()


def _pairs(folder: Path) -> tuple[Mapping[str, Any], ...]:
    found = sorted(folder.rglob("gpt_eval_result_videochatgpt_consistency_*.json"))
    return tuple(json.loads(found[-1].read_text())) if found else ()


@contextlib.contextmanager
def _guesses_caught(task: ConfigurableTask, *, is_on: bool) -> Iterator[list[bool]]:
    """Which documents, in their order, had their option drawn at random: in place of one, none is drawn.

    Some tasks answer for a model that named no option: NExT-QA and LongVideoBench through `random.choice`. Here it
    gives "", which is no option, so that such an answer is wrong whatever the seed.
    """
    was_guessed: list[bool] = []
    if not is_on:
        yield was_guessed
        return
    choice, process = random.choice, task.process_results

    def no_choice(options: Any) -> Any:
        if was_guessed and all(isinstance(option, str) and len(option) == 1 for option in options):
            was_guessed[-1] = True
            return ""
        return choice(options)

    def processed(doc: Any, results: Any, **kwargs: Any) -> Any:
        was_guessed.append(False)
        return process(doc, results, **kwargs)

    task.process_results = processed
    random.choice = no_choice
    try:
        yield was_guessed
    finally:
        random.choice = choice
        del task.process_results


@contextlib.contextmanager
def _no_accelerator() -> Iterator[None]:
    """Loading a video task makes an Accelerator and waits for all its processes; only this one is loading."""
    from lmms_eval.api import task as module

    accelerator = module.Accelerator
    module.Accelerator = lambda: SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)
    try:
        yield
    finally:
        module.Accelerator = accelerator


@contextlib.contextmanager
def _no_word_lists() -> Iterator[None]:
    """NExT-QA's code fetches word lists of nltk whenever it is imported; multiple choice needs none."""
    try:
        import nltk
    except ImportError:
        yield
        return
    download = nltk.download
    nltk.download = lambda *_, **__: False
    try:
        yield
    finally:
        nltk.download = download


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """The random states that lmms-eval's simple_evaluate sets before it loads; a training around it must not notice."""
    import numpy as np
    import torch

    with random_states_kept():
        random.seed(_SEEDS["random"])
        np.random.seed(_SEEDS["numpy"])  # noqa: NPY002 (the generator that lmms-eval's tasks draw from)
        torch.manual_seed(_SEEDS["torch"])
        yield


def _quiet_datasets() -> None:
    """What simple_evaluate prepares before it loads data sets: file locks that may nest."""
    from lmms_eval.evaluator import _enable_reentrant_filelocks

    _enable_reentrant_filelocks()
