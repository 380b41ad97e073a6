"""Which video a question is about, and whether it is there: found by lmms-eval's tasks themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.model import lmms

from vvlm_ray.errors import UserError

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance


class VideoMissing(Exception):
    """A task does not find a question's video; the message is the task's own."""


def find_video(doc_to_visual: Any, doc: dict[str, Any], task: str) -> str:
    """Path of the one video of a question, as its task gives it; the file may still not be there.

    Raises VideoMissing where the task itself looks and does not find it, UserError for anything but one video.
    """
    try:
        visuals = doc_to_visual(doc)
    except (SystemExit, OSError) as error:  # the tasks' ways to say so
        raise VideoMissing(str(error)) from None
    if not isinstance(visuals, list) or len(visuals) != 1 or not isinstance(visuals[0], (str, Path)):
        raise UserError(
            f"{task}: a document comes with {visuals!r:.100}, not with the path of one video; "
            "only video tasks can be evaluated"
        )
    return str(visuals[0])


class SingleQuestionModel(lmms):
    """What all of our models of lmms-eval are: one video, one question, one answer."""

    is_simple = True

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refuse: none of the eight benchmarks asks in rounds, and the paper's models do not answer in rounds."""
        raise UserError(f"{requests[0].task_name}: asks in several rounds; only single questions are supported")


class QuestionsSeen(Exception):
    """All questions were looked at, and nobody is to answer them."""


class VideoInspector(SingleQuestionModel):
    """In the model's place: looks whether each question's video is there, and ends the evaluation.

    `missing` names what is not; `num_questions` counts all questions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.missing: list[str] = []
        self.num_questions = 0

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Raise QuestionsSeen, having looked."""
        videos = set()
        for request in requests:
            doc_to_visual, doc_id, task, split = request.args[-4:]
            try:
                videos.add(find_video(doc_to_visual, self.task_dict[task][split][doc_id], task))
            except VideoMissing as error:
                self.missing.append(str(error))
        self.missing += [f"{video} does not exist" for video in sorted(videos) if not Path(video).is_file()]
        self.missing = list(dict.fromkeys(self.missing))
        self.num_questions = len(requests)
        raise QuestionsSeen

    loglikelihood = generate_until
