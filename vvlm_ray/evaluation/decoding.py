"""Greedy decoding and answer likelihoods of one batch, over the model's forward and its KV cache.

A plain loop instead of transformers' `generate`, which gives the same tokens (tested) in the same time, but knows
one length limit per batch and not how many steps other processes take; questions of several tasks share a batch
here, and processes that hold shards of one model have to step together.

Shapes: B rows, L prompt tokens after padding, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.questions import Stop

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vvlm_ray.model.video_vlm import VideoVLM

_IGNORED = -100


@torch.no_grad()
def decode_greedily(
    model: VideoVLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    pixel_values: torch.Tensor,
    stops: Sequence[Stop],
    *,
    end_ids: frozenset[int],
    any_rank: Callable[[bool], bool] = bool,
) -> list[tuple[str, int]]:
    """(answer, its number of tokens) of B prompts (token ids) about B videos, pixel_values (B, T, 3, H, W).

    `any_rank` tells whether any process still decodes: sharded parameters are gathered in every forward, so
    all processes have to take equally many steps.
    Raises EvaluationFailed where a logit is not finite: greedy decoding would answer all the same.
    """
    B = len(prompts)
    input_ids, attention_mask = pad_left(prompts, pixel_values.device)
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    answers: list[list[int]] = [[] for _ in range(B)]
    texts: list[str | None] = [None] * B
    inputs = {"input_ids": input_ids, "pixel_values": pixel_values, "position_ids": position_ids}
    cache = None
    while True:
        output = model(**inputs, attention_mask=attention_mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        check_finite(output.logits)
        next_ids = output.logits[:, -1].argmax(dim=-1)
        for row, token in enumerate(next_ids.tolist()):
            if texts[row] is None:
                texts[row] = _extend(answers[row], token, stops[row], end_ids, tokenizer)
        if not any_rank(None in texts):
            return [(text or "", len(answer)) for text, answer in zip(texts, answers, strict=True)]
        attention_mask = functional.pad(attention_mask, (0, 1), value=1)
        inputs = {
            "input_ids": next_ids.unsqueeze(1),
            "position_ids": attention_mask.sum(dim=1, keepdim=True) - 1,
        }


@torch.no_grad()
def answer_losses(
    model: VideoVLM,
    sequences: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    pixel_values: torch.Tensor,
) -> list[tuple[float, bool]]:
    """(mean negative log-likelihood per answer token, whether greedy decoding gives the answer) per row.

    `labels` are -100 outside of the answer, as in training.
    """
    input_ids, attention_mask = pad_left(sequences, pixel_values.device)
    targets, _ = pad_left(labels, pixel_values.device, fill=_IGNORED)
    first = int((targets != _IGNORED).any(dim=0).nonzero()[0])
    kept = targets.shape[1] - first + 1
    logits = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(dim=1) - 1).clamp(min=0),
        pixel_values=pixel_values,
        logits_to_keep=kept,
    ).logits[:, :-1]
    check_finite(logits)
    targets = targets[:, first:]
    is_answer = targets != _IGNORED
    losses = functional.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=_IGNORED, reduction="none")
    means = losses.sum(dim=1) / is_answer.sum(dim=1)
    greedy = ((logits.argmax(dim=-1) == targets) | ~is_answer).all(dim=1)
    return list(zip(means.tolist(), greedy.tolist(), strict=True))


def check_finite(logits: torch.Tensor) -> None:
    """Raise EvaluationFailed for a NaN or an infinity: the model is broken, and its answers mean nothing."""
    if not torch.isfinite(logits).all():
        raise EvaluationFailed(
            "the model's logits are not finite (NaN or infinite weights): it has diverged, and no score is recorded; "
            "lower finetune.lr, or look at the training loss"
        )


def pad_left(
    rows: Sequence[Sequence[int]], device: torch.device, fill: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask), both (B, L), rows ending together; `fill` defaults to each row's last token.

    The padding is masked, so any id does, except for the video token, which is counted: never a row's last.
    """
    L = max(len(row) for row in rows)
    ids = [[row[-1] if fill is None else fill] * (L - len(row)) + list(row) for row in rows]
    mask = [[0] * (L - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _extend(
    answer: list[int],
    token: int,
    stop: Stop,
    end_ids: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
) -> str | None:
    """Add a token to the answer in place; its text once it is complete, else None."""
    if token not in end_ids:
        answer.append(token)
    is_complete = token in end_ids or len(answer) >= stop.max_new_tokens
    if not is_complete and not stop.strings:
        return None
    text = tokenizer.decode(answer, skip_special_tokens=True)
    cuts = [text.index(string) for string in stop.strings if string in text]
    if cuts:
        return text[: min(cuts)]
    return text if is_complete else None
