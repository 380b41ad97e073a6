"""The model asked: batches of questions in, their answers out. Greedy, exactly `num_frames` frames a video.

Which questions share a batch is a property of the questions alone, never of how many processes answer them or of
where an earlier one stopped: padding changes the last bits of a logit, and an answer must not depend on them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from vvlm_ray.data.frames import UnreadableVideo, read_frames
from vvlm_ray.evaluation.decoding import answer_losses, decode_greedily
from vvlm_ray.evaluation.frame_cache import FrameCache
from vvlm_ray.evaluation.processes import world_size
from vvlm_ray.evaluation.questions import Answer, Question
from vvlm_ray.model.prompts import encode_conversation, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vvlm_ray.model.preprocess import ImagePreprocessor
    from vvlm_ray.model.video_vlm import VideoVLM

Batch = Sequence[Question]


@dataclass(frozen=True)
class _Encoded:
    ids: list[int]
    labels: list[int]


class VideoAnswerer:
    """A model with its tokenizer and preprocessor, answering questions in batches of `batch_size`."""

    def __init__(
        self,
        model: VideoVLM,
        tokenizer: PreTrainedTokenizerBase,
        preprocessor: ImagePreprocessor,
        *,
        num_frames: int,
        batch_size: int,
        num_decode_threads: int | None = None,
    ) -> None:
        self.model = getattr(model, "module", model)  # without the wrapper of DistributedDataParallel
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self.num_frames = num_frames
        self.batch_size = batch_size
        self.num_decode_threads = num_decode_threads or default_decode_threads()
        self.device = next(self.model.parameters()).device

    def batches(self, questions: Sequence[Question]) -> list[Batch]:
        """The questions in batches of similar prompts, those about one video together, so that it is decoded once.

        Videos are ordered by their longest prompt. The same questions in any order give the same batches.
        """
        size = {question: len(self._encode(question).ids) for question in questions}
        longest: Counter[str] = Counter()
        for question, length in size.items():
            longest[question.video] = max(longest[question.video], length)
        ordered = sorted(
            questions,
            key=lambda asked: (-longest[asked.video], asked.video, -size[asked], asked.doc, asked.option),
        )
        return [ordered[at : at + self.batch_size] for at in range(0, len(ordered), self.batch_size)]

    def answers(self, batches: Sequence[Batch], num_steps: int | None = None) -> Iterator[list[Answer]]:
        """The answers of one batch after the other, the next one's videos being decoded meanwhile.

        `num_steps`: of how many batches every process makes so many, whatever it is asked: processes that hold
        shards of one model step together. The last batch is then repeated and yields nothing.
        """
        steps = [*batches, *[batches[-1]] * max(0, (num_steps or 0) - len(batches))] if batches else []
        self.model.eval()
        with FrameCache(self._load, capacity=2 * self.batch_size, num_threads=self.num_decode_threads) as frames:
            for number, batch in enumerate(steps):
                for ahead in steps[number : number + 2]:
                    frames.prefetch(question.video for question in ahead if self._can_exist(question))
                pixels, unreadable = self._pixels(frames, batch)
                found = self._answer(batch, pixels, unreadable)
                if number < len(batches):
                    yield found

    def _answer(self, batch: Batch, pixels: torch.Tensor, unreadable: dict[str, str]) -> list[Answer]:
        started = time.monotonic()
        encoded = [self._encode(question) for question in batch]
        said: list[tuple[Any, int]]
        if batch[0].continuation is None:
            said = decode_greedily(
                self.model,
                self.tokenizer,
                [row.ids for row in encoded],
                pixels,
                [question.stop for question in batch],
                end_ids=self._end_ids(),
                any_rank=self._any_rank,
            )
        else:
            losses = answer_losses(self.model, [row.ids for row in encoded], [row.labels for row in encoded], pixels)
            said = [
                (list(loss), sum(label >= 0 for label in row.labels)) for loss, row in zip(losses, encoded, strict=True)
            ]
        seconds = (time.monotonic() - started) / len(batch)
        return [
            Answer(
                task=question.task,
                doc=question.doc,
                option=question.option,
                fingerprint=question.fingerprint,
                video=question.video,
                answer=None if question.video in unreadable else answer,
                tokens=num_tokens,
                seconds=round(seconds, 4),
                unreadable=unreadable.get(question.video),
            )
            for question, (answer, num_tokens) in zip(batch, said, strict=True)
        ]

    def _encode(self, question: Question) -> _Encoded:
        num_video_tokens = self.num_frames * self.model.config.tokens_per_frame
        if question.continuation is None:
            return _Encoded(encode_prompt(self.tokenizer, question.prompt, num_video_tokens), [])
        turns = [("user", question.prompt), ("assistant", question.continuation)]
        return _Encoded(*encode_conversation(self.tokenizer, turns, num_video_tokens))

    def _can_exist(self, question: Question) -> bool:
        return question.problem is None and Path(question.video).exists()

    def _pixels(self, frames: FrameCache[torch.Tensor], batch: Batch) -> tuple[torch.Tensor, dict[str, str]]:
        """(B, T, 3, S, S), zeros for videos that cannot be read (all processes make the step), and why they cannot."""
        unreadable: dict[str, str] = {}
        rows = []
        S = self.preprocessor.size
        for question in batch:
            pixels = torch.zeros(self.num_frames, 3, S, S, dtype=self.model.dtype)
            if question.problem or not Path(question.video).exists():
                unreadable[question.video] = question.problem or "no such file"
            else:
                try:
                    pixels = frames.get(question.video)
                except UnreadableVideo as error:
                    unreadable[question.video] = error.reason
            rows.append(pixels)
        return torch.stack(rows).to(self.device), unreadable

    def _load(self, path: str) -> torch.Tensor:
        return self.preprocessor(read_frames(path, self.num_frames, size=self.preprocessor.size)).to(self.model.dtype)

    def _end_ids(self) -> frozenset[int]:
        """The model's end tokens and the tokenizer's: a chat template ends turns with the latter."""
        of_model = self.model.generation_config.eos_token_id
        ids = of_model if isinstance(of_model, list) else [of_model]
        return frozenset(token for token in (*ids, self.tokenizer.eos_token_id) if token is not None)

    def _any_rank(self, value: bool) -> bool:
        if world_size() == 1 or not dist.is_initialized():
            return value
        flag = torch.tensor(int(value), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


def default_decode_threads() -> int:
    """Half of the cores this process may use, at most eight: the model's own threads need the rest."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // 2))
