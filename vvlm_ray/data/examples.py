"""Instruction examples about videos, as LLaVA's JSON writes them, and subsets that keep a mixture's fractions.

A row: {"id": ..., "video": path below the video root (or "image"), "conversations": [{"from": "human" | "gpt",
"value": text}, ...]}. A whole mixture of 2.2 million examples is held in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vvlm_ray.errors import UserError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation about one video; `turns` are (role, text) with roles "user" and "assistant"."""

    example_id: str
    video: Path
    turns: tuple[tuple[str, str], ...]
    source: str


def load_examples(path: str | Path, video_root: str | Path, source: str | None = None) -> list[Example]:
    """Examples of a LLaVA JSON (one list) or JSONL (one object a line) file, in the file's order.

    `source` names where the examples come from, for mixtures; the file's stem by default.
    Raises UserError naming file and row (counted from 1) when a row is not of LLaVA's form. Whether the videos
    exist is found out when they are read.
    """
    path, root = Path(path), Path(video_root)
    source = path.stem if source is None else source
    examples = [_example(row, f"{path}: {where}", root, source) for where, row in _rows(path)]
    if not examples:
        raise UserError(f"{path}: holds no examples")
    return examples


def nested_subset(sources: Mapping[str, Sequence[Example]], num_examples: int, seed: int) -> list[Example]:
    """`num_examples` of a mixture with its fractions kept; a smaller subset is part of every larger one.

    Every source's examples are put in an order drawn from `seed`, and the first of each are taken: as many as
    `nested_counts` says. The result is grouped by source; training shuffles it.
    Raises UserError when fewer than `num_examples` exist.
    """
    counts = nested_counts({name: len(examples) for name, examples in sources.items()}, num_examples)
    subset = []
    for name, count in counts.items():
        # The name seeds too: a source's order must not depend on which other sources there are.
        order = np.random.default_rng([seed, *name.encode()]).permutation(len(sources[name]))
        subset.extend(sources[name][index] for index in order[:count])
    return subset


def nested_counts(sizes: Mapping[str, int], num_examples: int) -> dict[str, int]:
    """How many of `num_examples` each source gives, in proportion to its size and never less for a larger total.

    Webster's rule: all examples are lined up by (position in source + 1/2) / size of source, and the first
    `num_examples` are taken. Each count is within 2 of the exact fraction on mixtures like the paper's. Sharing out the
    largest remainders would be within 1, but not nested: a source can lose an example when the total grows (the
    Alabama paradox).
    """
    total = sum(sizes.values())
    if not 0 < num_examples <= total:
        named = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise UserError(
            f"num_examples: {num_examples:,} asked for, but there are {total:,} examples ({named}); "
            "lower num_examples or add data"
        )
    names = sorted(sizes)  # ties must not depend on the order in which sources are listed
    places = np.concatenate([(np.arange(sizes[name]) + 0.5) / sizes[name] for name in names])
    owners = np.repeat(np.arange(len(names)), [sizes[name] for name in names])
    taken = owners[np.argsort(places, kind="stable")[:num_examples]]
    counts = dict(zip(names, np.bincount(taken, minlength=len(names)).tolist(), strict=True))
    return {name: counts[name] for name in sizes}


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, row), one at a time: a list of millions of dictionaries would take many times the file's size."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a LLaVA JSON or JSONL file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    return _list_rows(path, text) if text.startswith("[", _skip(text, 0)) else _line_rows(path, text)


def _line_rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    start, number = 0, 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line, start, number = text[start:end].strip(), end + 1, number + 1
        if line:
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}: line {number} is not JSON: {error.msg} (column {error.colno})") from None


def _list_rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    decoder = json.JSONDecoder()
    at, number = _skip(text, text.index("[") + 1), 0
    while not text.startswith("]", at):
        number += 1
        try:
            row, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}: row {number} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
            ) from None
        yield f"row {number}", row
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith("]", at):
            raise UserError(f"{path}: after row {number} there is neither ',' nor ']'; is the file cut off?")


def _skip(text: str, at: int) -> int:
    """Position of the next character that is not white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _example(row: Any, where: str, root: Path, source: str) -> Example:
    if not isinstance(row, dict):
        raise UserError(f"{where} is {type(row).__name__}; an object with 'video' and 'conversations' is expected")
    video = row.get("video", row.get("image"))
    if not isinstance(video, str) or not video:
        raise UserError(f"{where} has no 'video' (or 'image'): the file's path below the video root")
    return Example(
        example_id=str(row.get("id", where.rpartition(" ")[2])),
        video=root / video,
        turns=_turns(row.get("conversations"), where),
        source=source,
    )


def _turns(conversations: Any, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(conversations, list) or not conversations:
        raise UserError(f"{where} has no 'conversations': a list of {{'from': 'human' | 'gpt', 'value': text}}")
    turns = []
    for number, turn in enumerate(conversations, start=1):
        speaker, text = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if speaker not in ROLES:
            raise UserError(f"{where}, turn {number}: 'from' is {speaker!r}; 'human' or 'gpt' is expected")
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}, turn {number}: 'value' is empty or no text")
        if ROLES[speaker] != ("user", "assistant")[(number - 1) % 2]:
            raise UserError(f"{where}, turn {number}: 'human' and 'gpt' have to take turns, 'human' first")
        turns.append((ROLES[speaker], text))
    if len(turns) % 2:
        raise UserError(f"{where}: the last turn is 'human'; there is no answer to learn")
    return tuple(turns)
