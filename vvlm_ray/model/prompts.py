"""Conversations as token ids: chat template, place of the video, and which tokens are trained on.

`<video>` in the first user turn marks where the T * V visual tokens stand (LLaVA's JSON writes `<image>` for
videos too); without a mark the video goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vvlm_ray.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VIDEO_TOKEN = "<video>"
IGNORED_LABEL = -100
_LLAMA3_PLACEHOLDER = "<|reserved_special_token_0|>"
# Llama-3's templates print a date: fixed, so that training today and evaluation tomorrow see one prompt.
_DATE = "26 Jul 2024"


def video_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the place holder of visual tokens: an own `<video>` token, else one that Llama-3 reserves."""
    return tokenizer.convert_tokens_to_ids(_video_token(tokenizer))


def encode_prompt(tokenizer: PreTrainedTokenizerBase, question: str, num_video_tokens: int) -> list[int]:
    """Token ids of one question, ready for the model to answer; holds `num_video_tokens` video tokens."""
    messages = _messages(tokenizer, [("user", question)])
    ids = _apply_template(tokenizer, messages, add_generation_prompt=True)
    return _expand_video(ids, video_token_id(tokenizer), num_video_tokens)


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], num_video_tokens: int
) -> tuple[list[int], list[int]]:
    """(input_ids, labels) of equal length; labels are -100 but for the assistant's answers and end tokens.

    `turns`: (role, text) with roles "user" and "assistant", the user first.
    Raises UserError for other roles, a second video mark, or a chat template that rewrites earlier turns.
    """
    messages = _messages(tokenizer, turns)
    ids = _apply_template(tokenizer, messages, add_generation_prompt=False)
    labels = [IGNORED_LABEL] * len(ids)
    for index, (role, _) in enumerate(turns):
        if role != "assistant":
            continue
        before = _apply_template(tokenizer, messages[:index], add_generation_prompt=True)
        after = _apply_template(tokenizer, messages[: index + 1], add_generation_prompt=False)
        if ids[: len(after)] != after or after[: len(before)] != before:
            raise UserError(
                f"{tokenizer.name_or_path}: the chat template changes earlier turns when a turn is added, so "
                "answers cannot be told from prompts; use a tokenizer whose template only appends"
            )
        labels[len(before) : len(after)] = after[len(before) :]
    token = video_token_id(tokenizer)
    at = _video_position(ids, token)
    labels[at : at + 1] = [IGNORED_LABEL] * num_video_tokens
    return _expand_video(ids, token, num_video_tokens), labels


def encode_caption(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], num_video_tokens: int
) -> tuple[list[int], list[int]]:
    """(input_ids, labels) of a plain caption: the image, what was said about it, a new line; no template, no prompt.

    Stage 1 of LLaVA's code base ("plain"), whose questions are never shown. With the tokenizer's start token, if it
    puts one. Raises UserError when nobody says anything.
    """
    answers = [text for role, text in turns if role == "assistant"]
    if not answers:
        raise UserError("turns: no answer to learn")
    caption = tokenizer("\n".join(answers) + "\n", add_special_tokens=False)["input_ids"]
    has_start = tokenizer.bos_token_id is not None
    before = [*([tokenizer.bos_token_id] if has_start else []), *[video_token_id(tokenizer)] * num_video_tokens]
    return [*before, *caption], [*[IGNORED_LABEL] * len(before), *caption]


def _video_token(tokenizer: PreTrainedTokenizerBase) -> str:
    for token in (VIDEO_TOKEN, _LLAMA3_PLACEHOLDER):
        index = tokenizer.convert_tokens_to_ids(token)  # the unknown token's id, or None, if there is no such token
        if index is not None and tokenizer.convert_ids_to_tokens(index) == token:
            return token
    raise UserError(
        f"{tokenizer.name_or_path}: the tokenizer has neither {VIDEO_TOKEN!r} nor {_LLAMA3_PLACEHOLDER!r}; "
        f"add one with tokenizer.add_special_tokens({{'additional_special_tokens': ['{VIDEO_TOKEN}']}})"
    )


def _messages(tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Chat messages whose first user turn holds the tokenizer's own video token exactly once."""
    roles = [role for role, _ in turns]
    if not roles or roles[0] != "user" or not set(roles) <= {"user", "assistant"}:
        raise UserError(f"turns: roles are {roles}; a conversation starts with 'user' and knows 'user' and 'assistant'")
    texts = [text.replace("<image>", VIDEO_TOKEN) for _, text in turns]
    marks = [text.count(VIDEO_TOKEN) for text in texts]
    if sum(marks) > marks[0] or marks[0] > 1:
        raise UserError(f"turns: {marks} video marks per turn; one {VIDEO_TOKEN} in the first turn is what is meant")
    if marks[0] == 0:
        texts[0] = f"{VIDEO_TOKEN}\n{texts[0]}"
    texts[0] = texts[0].replace(VIDEO_TOKEN, _video_token(tokenizer))
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def _apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool
) -> list[int]:
    encoding = tokenizer.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=add_generation_prompt,
        date_string=_DATE,
    )
    return list(encoding["input_ids"])


def _video_position(ids: list[int], token: int) -> int:
    if ids.count(token) != 1:
        raise UserError(f"the chat template kept {ids.count(token)} of 1 video marks; it has to keep user texts as is")
    return ids.index(token)


def _expand_video(ids: list[int], token: int, num_video_tokens: int) -> list[int]:
    at = _video_position(ids, token)
    return [*ids[:at], *[token] * num_video_tokens, *ids[at + 1 :]]
