"""The model as lmms-eval sees it: requests in, answers out (lmms_eval.api.model.lmms, "simple" interface).

One video per question, always exactly `num_frames` frames. Nothing here scores or forgives: questions whose
video cannot be read are answered with UNREADABLE_ANSWER, counted, and fail the evaluation past the tolerated
share, on all processes together.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lmms_eval.api.instance import GenerationResult

from vvlm_ray.data.frames import UnreadableVideo, read_frames
from vvlm_ray.evaluation.decoding import Stop, answer_losses, decode_greedily
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.frame_cache import FrameCache
from vvlm_ray.evaluation.local_scoring import UNREADABLE_ANSWER
from vvlm_ray.evaluation.processes import gathered, rank, world_size
from vvlm_ray.evaluation.videos import SingleQuestionModel, VideoMissing, find_video
from vvlm_ray.model.prompts import encode_conversation, encode_prompt

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

    from vvlm_ray.model.preprocess import ImagePreprocessor
    from vvlm_ray.model.video_vlm import VideoVLM

# What lmms-eval's LLaVA models take where a task says nothing; captions need it, letters end themselves.
_DEFAULT_MAX_NEW_TOKENS = 1024
# lmms-eval adds its few-shot delimiter to `until` of every task that names none. A chat model ends its answer
# itself, and a caption of two paragraphs is not to be cut: lmms-eval's own models leave it out as well.
_FEWSHOT_DELIMITER = "\n\n"
_NUM_NAMED = 5


@dataclass(frozen=True)
class _Question:
    """One request, resolved: which video, which prompt. `is_padding` marks lmms-eval's copies that only
    keep the processes at equal numbers of requests."""

    index: int
    video: str
    ids: list[int]
    labels: list[int]
    stop: Stop
    task: str
    is_padding: bool


class VideoVLMAdapter(SingleQuestionModel):
    """Answers lmms-eval's requests with a VideoVLM; built anew for each evaluation, cheap.

    `tolerated_unreadable` is the share of a task's questions whose video may be unreadable;
    `on_batch` is called with the number of batches answered and in all.
    After a run `num_unreadable` holds how many there were, over all processes and tasks.
    """

    def __init__(
        self,
        model: VideoVLM,
        tokenizer: PreTrainedTokenizerBase,
        preprocessor: ImagePreprocessor,
        *,
        num_frames: int,
        batch_size: int,
        tolerated_unreadable: float = 0.0,
        num_decode_threads: int | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.on_batch = on_batch
        self.model = model
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self.num_frames = num_frames
        self.batch_size = batch_size
        self.tolerated_unreadable = tolerated_unreadable
        self.num_decode_threads = num_decode_threads or default_decode_threads()
        self.num_unreadable = 0
        self.device = next(model.parameters()).device
        self._rank = rank()
        self._world_size = world_size()

    def clean(self) -> None:
        """Keep the model: it is the caller's, who may train on. (lmms-eval's own deletes it and has the
        accelerator forget its optimisers.)"""

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Greedy answers, in the order of the requests."""
        asked = self._resolve(requests, self._question)
        answers = [""] * len(requests)
        end_ids = self._end_ids()
        for batch, pixel_values in self._batches(asked):
            texts = decode_greedily(
                self.model,
                self.tokenizer,
                [question.ids for question in batch],
                pixel_values,
                [question.stop for question in batch],
                end_ids=end_ids,
                any_rank=self._any_rank,
            )
            for question, text in zip(batch, texts, strict=True):
                answers[question.index] = text
        self._check_unreadable(asked)
        for question in asked:
            if question.video in self._unreadable:
                answers[question.index] = UNREADABLE_ANSWER
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """(loss, is greedy) of each request's continuation as the assistant's whole answer.

        lmms-eval takes the option of the *smallest* value: this is the mean negative log-likelihood of the
        answer's tokens and its end token, as its LLaVA models return it. None of the eight benchmarks needs it.
        """
        asked = self._resolve(requests, self._option)
        losses = [(float("nan"), False)] * len(requests)
        for batch, pixel_values in self._batches(asked):
            ids, labels = [question.ids for question in batch], [question.labels for question in batch]
            for question, row in zip(batch, answer_losses(self.model, ids, labels, pixel_values), strict=True):
                losses[question.index] = row
        self._check_unreadable(asked)
        if self.num_unreadable:
            raise EvaluationFailed(
                f"{asked[0].task}: {self.num_unreadable} options have a video that cannot be read, and tasks scored "
                "by likelihood cannot leave questions out; repair the videos or take their questions out"
            )
        # lmms-eval 0.7.3 turns bare pairs into text ("(0.3, True)"), which its scoring then fails on; what stands
        # in a GenerationResult passes unchanged.
        return [GenerationResult(pair) for pair in losses]

    def _resolve(self, requests: list[Instance], build: Any) -> list[_Question]:
        """Requests with video and prompt; missing files end the evaluation before any computing."""
        self._unreadable: dict[str, str] = {}
        asked = [build(index, request) for index, request in enumerate(requests)]
        for video in dict.fromkeys(question.video for question in asked):
            if video not in self._unreadable and not Path(video).is_file():
                self._unreadable[video] = "no such file"
        self._check_unreadable(asked)
        return asked

    def _question(self, index: int, request: Instance) -> _Question:
        context, settings, doc_to_visual, doc_id, task, split = request.args
        return _Question(
            index=index,
            video=self._video(doc_to_visual, doc_id, task, split),
            ids=encode_prompt(self.tokenizer, context, self._num_video_tokens),
            labels=[],
            stop=stop_of(settings),
            task=task,
            is_padding=_is_padding(request),
        )

    def _option(self, index: int, request: Instance) -> _Question:
        context, continuation, doc_to_visual, doc_id, task, split = request.args
        if callable(continuation):
            continuation = continuation(self.task_dict[task][split][doc_id])
        turns = [("user", context), ("assistant", str(continuation).strip())]
        ids, labels = encode_conversation(self.tokenizer, turns, self._num_video_tokens)
        return _Question(
            index=index,
            video=self._video(doc_to_visual, doc_id, task, split),
            ids=ids,
            labels=labels,
            stop=Stop(0),
            task=task,
            is_padding=_is_padding(request),
        )

    def _video(self, doc_to_visual: Any, doc_id: int, task: str, split: str) -> str:
        """Path of the question's video; where the task cannot find it, a name for the message."""
        try:
            return find_video(doc_to_visual, self.task_dict[task][split][doc_id], task)
        except VideoMissing as error:
            missing = f"{task}, document {doc_id}"
            self._unreadable[missing] = str(error)
            return missing

    @property
    def _num_video_tokens(self) -> int:
        return self.num_frames * self.model.config.tokens_per_frame

    def _batches(self, asked: list[_Question]) -> Iterator[tuple[list[_Question], torch.Tensor]]:
        """Batches of similar prompts with their frames, the next one's being decoded meanwhile.

        Questions about one video stay together, so that it is decoded once; videos are ordered by their
        longest prompt. Every process makes equally many batches, whatever it asks in them.
        """
        lengths: Counter[str] = Counter()
        for question in asked:
            lengths[question.video] = max(lengths[question.video], len(question.ids))
        ordered = sorted(asked, key=lambda question: (-lengths[question.video], question.video, -len(question.ids)))
        batches = [ordered[at : at + self.batch_size] for at in range(0, len(ordered), self.batch_size)]
        with FrameCache(self._load, capacity=2 * self.batch_size, num_threads=self.num_decode_threads) as frames:
            for number, batch in enumerate(batches):
                for ahead in batches[number : number + 2]:
                    frames.prefetch(question.video for question in ahead if question.video not in self._unreadable)
                pixels = [self._pixels(frames, question.video) for question in batch]
                yield batch, torch.stack(pixels).to(self.device)
                if self.on_batch:
                    self.on_batch(number + 1, len(batches))

    def _load(self, path: str) -> torch.Tensor:
        return self.preprocessor(read_frames(path, self.num_frames, size=self.preprocessor.size)).to(self.model.dtype)

    def _pixels(self, frames: FrameCache[torch.Tensor], path: str) -> torch.Tensor:
        """(T, 3, S, S); zeros for an unreadable video, as all processes have to make the step together."""
        if path not in self._unreadable:
            try:
                return frames.get(path)
            except UnreadableVideo as error:
                self._unreadable[path] = error.reason
        S = self.preprocessor.size
        return torch.zeros(self.num_frames, 3, S, S, dtype=self.model.dtype)

    def _check_unreadable(self, asked: Sequence[_Question]) -> None:
        """Raise on all processes when a task has lost more questions than tolerated; count them else."""
        real = [question for question in asked if not question.is_padding]
        total = Counter(question.task for question in real)
        lost = Counter(question.task for question in real if question.video in self._unreadable)
        reports = gathered((total, lost, self._unreadable))
        totals = sum((report[0] for report in reports), Counter())
        losses = sum((report[1] for report in reports), Counter())
        named = {path: reason for report in reports for path, reason in report[2].items()}
        for task, count in losses.items():
            if count > self.tolerated_unreadable * totals[task]:
                raise EvaluationFailed(_lost_message(task, count, totals[task], named))
        self.num_unreadable = sum(losses.values())

    def _end_ids(self) -> frozenset[int]:
        """The model's end tokens and the tokenizer's: a chat template ends turns with the latter."""
        of_model = self.model.generation_config.eos_token_id
        ids = of_model if isinstance(of_model, list) else [of_model]
        return frozenset(token for token in (*ids, self.tokenizer.eos_token_id) if token is not None)

    def _any_rank(self, value: bool) -> bool:
        if self._world_size == 1:
            return value
        flag = torch.tensor(int(value), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


def default_decode_threads() -> int:
    """Half of the cores this process may use, at most eight: the model's own threads need the rest."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // 2))


def stop_of(settings: dict[str, Any]) -> Stop:
    """A task's `generation_kwargs` as a Stop; sampling settings are ignored, answers are always greedy."""
    until = settings.get("until") or []
    strings = [until] if isinstance(until, str) else until
    return Stop(
        max_new_tokens=int(settings.get("max_new_tokens") or _DEFAULT_MAX_NEW_TOKENS),
        strings=tuple(string for string in strings if string and string != _FEWSHOT_DELIMITER),
    )


def _is_padding(request: Instance) -> bool:
    return bool((request.metadata or {}).get("__padding_only__"))


def _lost_message(task: str, lost: int, total: int, reasons: dict[str, str]) -> str:
    named = "; ".join(f"{path} ({reason})" for path, reason in sorted(reasons.items())[:_NUM_NAMED])
    more = f"; and {len(reasons) - _NUM_NAMED} more videos" if len(reasons) > _NUM_NAMED else ""
    return (
        f"{task}: {lost} of {total} questions have a video that cannot be read: {named}{more}. "
        "Fetch or repair these files; a score without them would not be this benchmark's"
    )
