"""Phase two of an evaluation, where no model is: the kept answers through lmms-eval's own scoring, and the judge.

One process, in document order, so that the number of workers that answered cannot matter. A score is only made when
every question has an answer and every answer was scored; what lmms-eval would count as zero or leave out silently
fails its benchmark by name, and the others stay. Scoring again asks the judge nothing that it has answered.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.answer_files import Key, read_answers
from vvlm_ray.evaluation.benchmarks import Metric
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.judge_client import JudgeClient, JudgeUnavailable, key_problem, shown
from vvlm_ray.evaluation.local_scoring import UNREADABLE_ANSWER
from vvlm_ray.evaluation.questions import Answer
from vvlm_ray.evaluation.relay import JudgeRelay
from vvlm_ray.evaluation.scores import Documents, combined
from vvlm_ray.evaluation.surroundings import chatter
from vvlm_ray.evaluation.tasks import Plan, Resolve, plan_of
from vvlm_ray.evaluation.verdicts import UNUSABLE_SCORE
from vvlm_ray.study.evaluation_section import Evaluation

if TYPE_CHECKING:
    from vvlm_ray.evaluation.lmms import Loaded, Outcome


@dataclass(frozen=True)
class TaskScore:
    """One benchmark: its score on 0..100, the standard error where there is one, and the scores of its parts.

    Of its questions `num_unreadable` are in no score. `unparseable_share`: answers that name no option, which are
    wrong; None where none is asked for. `unusable_share`: verdicts that could not be read and are in no score.
    """

    score: float
    standard_error: float | None
    parts: Mapping[str, float]
    num_questions: int
    num_unreadable: int
    unparseable_share: float | None = None
    unusable_share: float | None = None


@dataclass(frozen=True)
class Scored:
    """What came of all tasks: those with a score, and for the others why they have none.

    `judge`: {"model", "answered_by", "url", "dollars"} where one was asked; dollars are the whole study's so far.
    """

    tasks: Mapping[str, TaskScore]
    failed: Mapping[str, str]
    judge: Mapping[str, Any] | None
    lmms_eval_version: str
    scores: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", {name: task.score for name, task in self.tasks.items()})

    @property
    def avg(self) -> float | None:
        """The plain mean of the scores there are ("Metrics/Avg"); None where there are none."""
        return sum(self.scores.values()) / len(self.scores) if self.scores else None


def score_answers(
    settings: Evaluation,
    answers: Path,
    *,
    resolve: Resolve = Path,
    judge_store: Path | None = None,
    on_task: Callable[[str], None] | None = None,
    quiet: bool = True,
) -> Scored:
    """The scores of the answers that `answers` holds to `settings.tasks`.

    `judge_store`: where the study keeps its judge's replies (see judge_store.py); None keeps them for this call only.
    Raises UserError for what is wrong with the settings; what is wrong with one task stands in `failed`.
    """
    from vvlm_ray.evaluation.lmms import VERSION, version_problem

    if problem := version_problem():
        raise UserError(problem)
    scored: dict[str, TaskScore] = {}
    failed: dict[str, str] = {}
    with _judge(settings, judge_store) as client:
        was_asked = False
        for name in settings.tasks:
            plan = plan_of(settings, name, resolve)
            if on_task:
                on_task(name)
            try:
                if plan.is_judged and (problem := key_problem(settings.judge)):
                    raise EvaluationFailed(f"{name}: {problem}")
                with chatter(quiet):
                    scored[name] = _score(plan, settings, answers, client)
            except EvaluationFailed as error:
                failed[name] = str(error)
            was_asked = was_asked or plan.is_judged
        judge = _who(client) if was_asked else None
    return Scored(scored, failed, judge, VERSION)


@contextlib.contextmanager
def _judge(settings: Evaluation, store: Path | None) -> Iterator[JudgeClient]:
    with tempfile.TemporaryDirectory(prefix="vvlm-ray-judge-") as folder:
        client = JudgeClient(settings.judge, store or Path(folder) / "judge.sqlite")
        try:
            yield client
        finally:
            client.store.close()


def _who(client: JudgeClient) -> dict[str, Any]:
    return {
        "model": client.judge.model,
        "answered_by": sorted(client.models),
        "url": shown(client.url),
        "dollars": round(client.store.spent(), 6) if client.judge.tokens_price else None,
    }


def _score(plan: Plan, settings: Evaluation, folder: Path, client: JudgeClient) -> TaskScore:
    from vvlm_ray.evaluation.lmms import load

    relay = JudgeRelay(client, is_live=plan.is_asked_live)
    with relay.serving():  # before loading: the tasks read its address when they are imported
        tasks = load(plan, settings.limit)
        answers = {loaded.name: _answers(loaded, folder) for loaded in tasks}
        num_threads = client.judge.num_threads if plan.is_asked_live else 1
        if plan.benchmark.reads:
            for loaded in tasks:
                _evaluate(loaded, answers[loaded.name], num_threads)
            relay.answer_with(_verdicts(plan, client, relay))
        outcomes = {loaded.name: _evaluate(loaded, answers[loaded.name], num_threads) for loaded in tasks}
    if relay.problem:
        raise EvaluationFailed(f"{plan.name}: {relay.problem}; score again (what was answered is kept)")
    if relay.asked and not plan.is_judged:
        raise EvaluationFailed(f"{plan.name}: the task asks a judge; say so with judged: true, and name the judge")
    parts = [
        _documents(plan, metric, loaded, answers[loaded.name], outcomes[loaded.name])
        for loaded in tasks
        for metric in _metrics_of(plan, loaded)
    ]
    unusable_share = _unusable_share(plan, settings, relay, parts) if plan.benchmark.reads else None
    score, error, points = combined(plan.name, parts)
    asked = {loaded.name: answers[loaded.name] for loaded in tasks}
    return TaskScore(
        score=score,
        standard_error=error,
        parts={part.metric.part or part.metric.task: value for part, value in zip(parts, points, strict=True)}
        if len(parts) > 1
        else {},
        num_questions=sum(len({doc for doc, _ in kept}) for kept in asked.values()),
        num_unreadable=sum(answer.unreadable is not None for kept in asked.values() for answer in kept.values()),
        unparseable_share=_unparseable_share(plan, tasks, outcomes),
        unusable_share=unusable_share,
    )


def _answers(loaded: Loaded, folder: Path) -> dict[Key, Answer]:
    """Every answer to the task's questions; EvaluationFailed where one is missing."""
    from vvlm_ray.evaluation.lmms import questions_of

    questions = questions_of(loaded)
    found = read_answers(folder, questions)
    num_missing = len(questions) - len(found)
    if num_missing:
        raise EvaluationFailed(
            f"{loaded.name}: {num_missing} of {len(questions)} questions have no answer in {folder}; run the study to "
            "have them answered (or the data has changed since they were)"
        )
    return found


def _evaluate(loaded: Loaded, answers: Mapping[Key, Answer], num_threads: int) -> Outcome:
    from vvlm_ray.evaluation.lmms import evaluate_answers

    def answer_of(doc: int, option: int) -> Any:
        answer = answers[doc, option]
        return UNREADABLE_ANSWER if answer.unreadable else answer.answer

    outcome = evaluate_answers(loaded, answer_of, num_threads=num_threads)
    scored = {sample["doc_id"] for sample in outcome.samples}
    if len(scored) != loaded.num_documents:
        raise EvaluationFailed(
            f"{loaded.name}: has {loaded.num_documents} questions, but lmms-eval returned {len(scored)}; a score over "
            "a part of them would be false"
        )
    return outcome


def _verdicts(plan: Plan, client: JudgeClient, relay: JudgeRelay) -> Mapping[str, Any]:
    try:
        return client.verdicts(relay.asked.values(), plan.benchmark.reads)
    except JudgeUnavailable as error:
        raise EvaluationFailed(
            f"{plan.name}: the judge {client.judge.model} could not be asked all {len(relay.asked)} questions: {error}."
            " Its verdicts so far are kept: mend the connection, the key or the quota and score again"
        ) from None


def _metrics_of(plan: Plan, loaded: Loaded) -> list[Metric]:
    """The benchmark's metrics of this task; one of a group stands for each of the group's tasks."""
    own = [metric for metric in plan.benchmark.metrics if metric.task == loaded.name]
    if own:
        return own
    group = plan.benchmark.metrics[0]
    return [Metric(loaded.name, group.key, group.full_mark, loaded.name, group.higher_is_better)]


def _documents(
    plan: Plan, metric: Metric, loaded: Loaded, answers: Mapping[Key, Answer], outcome: Outcome
) -> Documents:
    from vvlm_ray.evaluation.lmms import FILTER, document_value, resampled

    key = metric.key if "," in metric.key else f"{metric.key},{FILTER}"
    reported = outcome.results.get(key)
    if not isinstance(reported, (int, float)):
        known = ", ".join(
            name.removesuffix(f",{FILTER}") for name in outcome.results if "," in name and "_stderr" not in name
        )
        raise EvaluationFailed(
            f"{plan.name}: lmms-eval gave {reported!r} for {metric.key} of {metric.task}; it gives {known}"
        )
    name = metric.key.split(",")[0]
    if metric.is_paired:
        return Documents(metric, _pairs(plan, loaded, outcome), reported)
    video = {doc: answer.video for (doc, _), answer in answers.items()}
    values = tuple((video[sample["doc_id"]], _usable(document_value(name, sample))) for sample in outcome.samples)
    if metric.skips_empty:
        share = sum(bool(str(sample["filtered_resps"][0]).strip()) for sample in outcome.samples) / len(values)
        reported *= share
    documents = Documents(metric, values, reported)
    if not plan.questions and plan.name not in _published():  # a task that we know nothing of: is it a plain mean?
        counted = [value for _, value in documents.counted]
        is_mean = len(counted) == len(values) and abs(sum(counted) / len(counted) - reported) <= 1e-6 * metric.full_mark
        resamples = () if is_mean or plan.is_judged else resampled(loaded, name, outcome, [v for v, _ in values])
        return Documents(metric, values, reported, is_mean=is_mean, resamples=resamples)
    return documents


def _published() -> Mapping[str, Any]:
    from vvlm_ray.evaluation.benchmarks import BENCHMARKS

    return BENCHMARKS


def _usable(value: float | None) -> float | None:
    return None if value == UNUSABLE_SCORE else value


def _pairs(plan: Plan, loaded: Loaded, outcome: Outcome) -> tuple[tuple[str, float | None], ...]:
    """The verdicts on pairs of questions; EvaluationFailed where lmms-eval has left out whole ones."""
    videos = Counter(sample["gpt_eval_score_consistency"]["video_name"] for sample in outcome.samples)
    expected = sum(count // 2 for count in videos.values())
    odd = [video for video, count in videos.items() if count % 2] if loaded.limit is None else []
    if len(outcome.pairs) != expected or odd:
        raise EvaluationFailed(
            f"{plan.name}: {loaded.name} has {expected} pairs of questions and {len(odd)} questions without a second "
            f"one, and lmms-eval judged {len(outcome.pairs)}; is its data complete?"
        )
    return tuple((pair["video_name"], _usable(float(pair["score"]))) for pair in outcome.pairs)


def _unparseable_share(plan: Plan, tasks: list[Loaded], outcomes: Mapping[str, Outcome]) -> float | None:
    from vvlm_ray.evaluation.lmms import names_no_option

    found = total = 0
    for loaded in tasks:
        outcome, key = outcomes[loaded.name], _metrics_of(plan, loaded)[0].key
        total += len(outcome.samples)
        found += sum(
            sample["doc_id"] in outcome.guessed or names_no_option(loaded, key, sample) for sample in outcome.samples
        )
    return found / total if plan.is_choice or found else None


def _unusable_share(plan: Plan, settings: Evaluation, relay: JudgeRelay, parts: list[Documents]) -> float:
    """The share of verdicts that are in no score, once it is tolerable and the tasks read the others as they are."""
    marks = [part.metric.full_mark for part in parts]
    if plan.benchmark.reads == "score":
        said = Counter(float(verdict.score) for verdict in relay.served if verdict)
        read = Counter(value for part in parts for _, value in part.counted)
    else:
        said = Counter(marks[0] * (verdict.pred == "yes") for verdict in relay.served if verdict)
        read = Counter(value for part in parts for _, value in part.counted)
    num_unusable = sum(verdict is None for verdict in relay.served)
    if said != read:
        raise EvaluationFailed(
            f"{plan.name}: the judge's {sum(said.values())} verdicts are not what lmms-eval scored; it has lost or "
            "misread some, so its score would be false. Score again"
        )
    share = num_unusable / len(relay.served) if relay.served else 0.0
    allowed = settings.judge.max_unusable_share
    if share > allowed:
        raise EvaluationFailed(
            f"{plan.name}: {num_unusable} of {len(relay.served)} verdicts of {settings.judge.model} cannot be read, "
            f"also when asked {settings.judge.num_asks} times; evaluation.judge.max_unusable_share allows {allowed:.2%}"
        )
    return share
