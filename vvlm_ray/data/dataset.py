"""Examples as model inputs: decoded, preprocessed, tokenised, and padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from vvlm_ray.data.examples import Example
from vvlm_ray.data.frame_store import FrameStore, decode_video
from vvlm_ray.data.frames import UnreadableVideo
from vvlm_ray.errors import UserError
from vvlm_ray.model.prompts import IGNORED_LABEL, encode_caption, encode_conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vvlm_ray.model.preprocess import ImagePreprocessor

Item = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Unreadable:
    """Stands where an example would: its video could not be read, or its text not be encoded.

    Nothing takes its place silently.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class ExampleEncoder:
    """Example -> {input_ids (L,), labels (L,), pixel_values (T, 3, H, W)}, or Unreadable.

    Indexed by the example itself, so that a data-loader worker needs this encoder and not a copy of millions of
    examples. A sequence longer than `max_length` (the LM's context) is not cut, which could lose its answer.
    """

    tokenizer: PreTrainedTokenizerBase
    preprocessor: ImagePreprocessor
    num_frames: int
    tokens_per_frame: int
    max_length: int | None = None
    store: FrameStore | None = None
    is_plain: bool = False  # stage 1: image and caption, no template

    def __getitem__(self, example: Example) -> Item | Unreadable:
        num_video_tokens = self.num_frames * self.tokens_per_frame
        try:
            encode = encode_caption if self.is_plain else encode_conversation
            input_ids, labels = encode(self.tokenizer, example.turns, num_video_tokens)
        except UserError as error:
            return Unreadable(f"{example.source}: example {example.example_id}", str(error))
        if self.max_length is not None and len(input_ids) > self.max_length:
            return Unreadable(
                f"{example.source}: example {example.example_id}",
                f"{len(input_ids)} tokens, of which {num_video_tokens} are visual, and the LM's context holds "
                f"{self.max_length}",
            )
        try:
            if self.store is not None:
                frames = self.store.read(example, self.num_frames)
            else:
                frames = decode_video(example, self.num_frames, self.preprocessor.size)
        except UnreadableVideo as error:
            return Unreadable(str(error.path), error.reason)
        return {
            "input_ids": torch.tensor(input_ids),
            "labels": torch.tensor(labels),
            "pixel_values": self.preprocessor(frames),
        }


class VideoInstructionDataset(Dataset):
    """Examples, encoded when asked for: item i is what `encoder` makes of `examples[i]`."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        tokenizer: PreTrainedTokenizerBase,
        preprocessor: ImagePreprocessor,
        num_frames: int,
        tokens_per_frame: int,
        max_length: int | None = None,
        store: FrameStore | None = None,
        is_plain: bool = False,
    ) -> None:
        self.examples = examples
        self.encoder = ExampleEncoder(
            tokenizer, preprocessor, num_frames, tokens_per_frame, max_length, store, is_plain
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Item | Unreadable:
        return self.encoder[self.examples[index]]


@dataclass(frozen=True)
class Collator:
    """List of B items -> one batch, padded on the right to its longest sequence.

    input_ids, attention_mask, labels: (B, L); pixel_values: (B, T, 3, H, W); unreadable: list of (path, reason),
    not counted in B. Where all are unreadable, the tensors are left out.
    """

    pad_token_id: int

    def __call__(self, items: Sequence[Item | Unreadable]) -> dict[str, Any]:
        readable = [item for item in items if not isinstance(item, Unreadable)]
        batch: dict[str, Any] = {
            "unreadable": [(item.path, item.reason) for item in items if isinstance(item, Unreadable)]
        }
        if readable:
            ids = [item["input_ids"] for item in readable]
            batch["input_ids"] = _pad(ids, self.pad_token_id)
            batch["attention_mask"] = _pad([torch.ones_like(row) for row in ids], 0)
            batch["labels"] = _pad([item["labels"] for item in readable], IGNORED_LABEL)
            batch["pixel_values"] = torch.stack([item["pixel_values"] for item in readable])
        return batch


def _pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
