"""Phase one of an evaluation, where the model is: ask every question once, keep each answer as it comes.

All processes of a trial call `answer_tasks` together. The first one asks lmms-eval for the questions and hands them
out; the others need no lmms-eval. Nothing is scored here and no judge is asked: that is phase two (scoring.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.answer_files import Part, join_parts, read_answers
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.processes import barrier, gathered, on_first_process, rank, world_size
from vvlm_ray.evaluation.questions import Answer, Question
from vvlm_ray.evaluation.surroundings import chatter
from vvlm_ray.evaluation.tasks import Plan, Resolve, plan_of, plans_of
from vvlm_ray.study.evaluation_section import Evaluation

if TYPE_CHECKING:
    from vvlm_ray.evaluation.answering import VideoAnswerer

OnBatch = Callable[[str, int, int], None]  # (task, batches answered, batches in all)

_NUM_NAMED = 5


@dataclass(frozen=True)
class Answered:
    """How many questions have an answer now, and how many of them a video that cannot be read."""

    num_questions: int
    num_unreadable: int
    seconds: float


def answer_tasks(
    answerer: VideoAnswerer,
    settings: Evaluation,
    folder: Path,
    *,
    resolve: Resolve = Path,
    on_batch: OnBatch | None = None,
    quiet: bool = True,
) -> Answered:
    """Answer all questions of `settings.tasks` into `folder`; those that it holds are not asked again.

    `settings.max_unreadable_share` holds for local tasks; a published benchmark tolerates no unreadable video.
    The model's training mode and all random states are left as they were.

    Raises:
        UserError: what is named is not there, on all processes.
        EvaluationFailed: too many videos cannot be read, or the model's logits are not finite.
    """
    started = time.monotonic()
    was_training = answerer.model.training
    num_questions = num_unreadable = 0
    try:
        for name in settings.tasks:
            tolerated = settings.max_unreadable_share if name in settings.local else 0.0
            for questions in on_first_process(lambda name=name: _questions(settings, name, resolve, quiet)):
                answers = _answer(answerer, questions, folder, name, on_batch, tolerated)
                num_questions += len(questions)
                num_unreadable += sum(answer.unreadable is not None for answer in answers)
    finally:
        answerer.model.train(was_training)
    return Answered(num_questions, num_unreadable, time.monotonic() - started)


def questions_of_plan(plan: Plan, limit: int | None, *, quiet: bool = True) -> list[list[Question]]:
    """The questions of each of a plan's tasks."""
    from vvlm_ray.evaluation.lmms import load, questions_of

    with chatter(quiet):
        return [questions_of(loaded) for loaded in load(plan, limit)]


def data_problems(settings: Evaluation, resolve: Resolve = Path) -> list[str]:
    """Problems in the annotations and videos themselves: loads every task and looks for each question's video.

    For the machine that starts a study, once, after `task_problems` found nothing: downloads annotations that are not
    cached yet (minutes), and finds a missing login or video before the first GPU is taken, not after a training.
    """
    problems = []
    for plan in plans_of(settings, resolve):
        try:
            asked = [question for task in questions_of_plan(plan, settings.limit) for question in task]
        except (EvaluationFailed, UserError) as error:
            problems.append(str(error))
            continue
        missing = list(dict.fromkeys(problem for question in asked if (problem := _missing(question))))
        if missing:
            problems.append(
                f"{plan.name}: {len(missing)} videos of {len(asked)} questions are missing, for example {missing[0]}"
            )
    return problems


def _questions(settings: Evaluation, name: str, resolve: Resolve, quiet: bool) -> list[list[Question]]:
    return questions_of_plan(plan_of(settings, name, resolve), settings.limit, quiet=quiet)


def _answer(  # noqa: PLR0917
    answerer: VideoAnswerer,
    questions: Sequence[Question],
    folder: Path,
    name: str,
    on_batch: OnBatch | None,
    tolerated: float,
) -> list[Answer]:
    """All answers of one task, on all processes the same; they are in its one file when this returns."""
    task = questions[0].task
    _check_missing(name, questions, tolerated)
    kept = on_first_process(lambda: _readable(read_answers(folder, questions)))
    batches = answerer.batches(questions)
    todo = [batch for batch in batches if any((question.doc, question.option) not in kept for question in batch)]
    mine = todo[rank() :: world_size()]
    num_steps = -(-len(todo) // world_size())
    part = Part(folder, task, rank())
    unreadable: dict[tuple[int, int], Answer] = {}
    for number, answers in enumerate(answerer.answers(mine or todo[:1], num_steps), start=1):
        if mine:
            new = [answer for answer in answers if (answer.doc, answer.option) not in kept]
            part.add(answer for answer in new if answer.unreadable is None)
            unreadable |= {(answer.doc, answer.option): answer for answer in new if answer.unreadable}
        if on_batch:
            on_batch(name, len(batches) - len(todo) + min(number * world_size(), len(todo)), len(batches))
    part.flush()
    lost = {key: answer for own in gathered(unreadable) for key, answer in own.items()}
    _check_unreadable(
        name, {answer.video: answer.unreadable or "" for answer in lost.values()}, len(lost), questions, tolerated
    )
    barrier()
    return on_first_process(lambda: _joined(folder, task, questions, lost))


def _joined(
    folder: Path, task: str, questions: Sequence[Question], lost: dict[tuple[int, int], Answer]
) -> list[Answer]:
    found = _readable(read_answers(folder, questions)) | lost
    missing = [question for question in questions if (question.doc, question.option) not in found]
    if missing:
        raise EvaluationFailed(
            f"{task}: {len(missing)} of {len(questions)} answers are not in {folder} though they were written; is "
            "the folder on a disk that all workers share?"
        )
    join_parts(folder, task, found.values())
    return list(found.values())


def _readable(answers: dict[tuple[int, int], Answer]) -> dict[tuple[int, int], Answer]:
    """Without those whose video could not be read: it may have been repaired since."""
    return {key: answer for key, answer in answers.items() if answer.unreadable is None}


def _missing(question: Question) -> str | None:
    if question.problem:
        return question.problem
    return None if Path(question.video).exists() else f"{question.video} does not exist"


def _check_missing(name: str, questions: Sequence[Question], tolerated: float) -> None:
    """Missing files end the evaluation before any computing."""
    missing = {question.video: reason for question in questions if (reason := _missing(question))}
    num_lost = sum(question.video in missing for question in questions)
    _check_unreadable(name, missing, num_lost, questions, tolerated)


def _check_unreadable(
    name: str, reasons: dict[str, str], num_lost: int, questions: Sequence[Question], tolerated: float
) -> None:
    if questions[0].continuation is not None:
        tolerated = 0.0  # likelihoods cannot leave options out
    if num_lost <= tolerated * len(questions):
        return
    named = "; ".join(f"{path} ({reason})" for path, reason in sorted(reasons.items())[:_NUM_NAMED])
    more = f"; and {len(reasons) - _NUM_NAMED} more videos" if len(reasons) > _NUM_NAMED else ""
    raise EvaluationFailed(
        f"{name}: {num_lost} of {len(questions)} questions have a video that cannot be read: {named}{more}. "
        "Fetch or repair these files; a score without them would not be this benchmark's"
    )
