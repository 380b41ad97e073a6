"""Both phases of an evaluation after each other, in the processes that hold the model. A study runs them apart."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.answers import Answered, OnBatch, answer_tasks
from vvlm_ray.evaluation.processes import on_first_process
from vvlm_ray.evaluation.scoring import Scored, score_answers
from vvlm_ray.evaluation.tasks import Resolve, task_problems
from vvlm_ray.study.evaluation_section import Evaluation

if TYPE_CHECKING:
    from vvlm_ray.evaluation.answering import VideoAnswerer


def evaluate(
    answerer: VideoAnswerer,
    settings: Evaluation,
    *,
    answers: Path | None = None,
    resolve: Resolve = Path,
    judge_store: Path | None = None,
    on_batch: OnBatch | None = None,
    quiet: bool = True,
) -> tuple[Scored, Answered]:
    """The scores of a model on `settings.tasks`; on several processes, all call this and get the same.

    `answers`: a folder to keep the answers in, which is then gone on from. Raises UserError for what `task_problems`
    finds and EvaluationFailed where answers cannot be had; a task that cannot be scored stands in `failed`.
    """
    problems = on_first_process(lambda: task_problems(settings, resolve))
    if problems:
        raise UserError("; ".join(problems))
    with _folder(answers) as folder:
        answered = answer_tasks(answerer, settings, folder, resolve=resolve, on_batch=on_batch, quiet=quiet)
        scored = on_first_process(
            lambda: score_answers(settings, folder, resolve=resolve, judge_store=judge_store, quiet=quiet)
        )
    return scored, answered


@contextlib.contextmanager
def _folder(answers: Path | None) -> Iterator[Path]:
    """The given folder, or one that all processes of this machine share and that ends with the block."""
    if answers is not None:
        yield answers
        return
    with contextlib.ExitStack() as stack:
        yield on_first_process(
            lambda: Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vvlm-ray-answers-")))
        )
