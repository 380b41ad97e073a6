"""A trial's model for lmms-eval's own command line:

    lmms-eval --model vvlm_ray --model_args pretrained=FOLDER --batch_size 16 --tasks nextqa_mc_test

x_T and x_V come from the model's folder. Prompts, frames and answers are those of a study; the scoring is then
lmms-eval's alone: it guesses for an answer that names no option, and asks no judge but its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.answering import VideoAnswerer
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.lmms import question_of
from vvlm_ray.evaluation.questions import Answer


class VvlmRay(lmms):
    """A model folder of a study, as lmms-eval's "simple" models are."""

    is_simple = True

    def __init__(
        self, pretrained: str = "", batch_size: int | str = 16, device: str | None = None, **unknown: Any
    ) -> None:
        super().__init__()
        unknown.pop("max_batch_size", None)
        if unknown or not pretrained:
            raise UserError(f"--model_args: pretrained=FOLDER, not {', '.join(unknown)}")
        from vvlm_ray.model.folder import load_model

        saved = load_model(Path(pretrained))
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.answerer = VideoAnswerer(
            saved.model.to(place).eval(),
            saved.tokenizer,
            saved.preprocessor,
            num_frames=saved.num_frames,
            batch_size=int(batch_size or 16),
        )

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Greedy answers, in the order of the requests."""
        return [answer.answer for answer in self._answers(requests)]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """(mean loss, whether greedy) of each continuation; lmms-eval takes the option of the smallest."""
        return [GenerationResult(tuple(answer.answer)) for answer in self._answers(requests)]

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Refuse: the paper's models do not answer in rounds."""
        raise UserError(f"{requests[0].task_name}: asks in several rounds; only single questions can be asked")

    def _answers(self, requests: list[Any]) -> list[Answer]:
        asked = [question_of(request, self.task_dict) for request in requests]
        found: dict[tuple[str, int, int], Answer] = {}
        for answers in self.answerer.answers(self.answerer.batches(list(dict.fromkeys(asked)))):
            found |= {(answer.task, answer.doc, answer.option): answer for answer in answers}
        answers = [found[question.task, question.doc, question.option] for question in asked]
        lost = next((answer for answer in answers if answer.unreadable), None)
        if lost:
            raise EvaluationFailed(f"{lost.task}: {lost.video} cannot be read ({lost.unreadable})")
        return answers
