"""A question as phase one asks it and phase two finds its answer again: plain data, known by what it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What lmms-eval's LLaVA models take where a task says nothing; captions need it, letters end themselves.
_DEFAULT_MAX_NEW_TOKENS = 1024
# lmms-eval adds its few-shot delimiter to `until` of every task that names none. A chat model ends its answer
# itself, and a caption of two paragraphs is not to be cut: lmms-eval's own models leave it out as well.
_FEWSHOT_DELIMITER = "\n\n"


@dataclass(frozen=True)
class Stop:
    """When one answer ends, besides at an end token: at `max_new_tokens`, or before one of `strings`."""

    max_new_tokens: int
    strings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """One request of an lmms-eval task about one video.

    `doc` is the document's place in its data set and `option` that among the document's requests: an answer belongs
    to (task, doc, option) and to nothing else. `continuation`: whose likelihood is asked, in place of an answer.
    `problem`: why the task finds no video.
    """

    task: str
    doc: int
    option: int
    prompt: str
    video: str
    stop: Stop
    continuation: str | None = None
    problem: str | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of what is asked: an answer to another wording, or about another file, is not this one's."""
        asked = [self.prompt, self.continuation, Path(self.video).name, self.stop.max_new_tokens, self.stop.strings]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Answer:
    """What came of one question: text, or [mean loss, whether greedy] of a continuation; its tokens and seconds.

    `unreadable`: why the video could not be read; there is no answer then.
    """

    task: str
    doc: int
    option: int
    fingerprint: str
    video: str
    answer: Any
    tokens: int
    seconds: float
    unreadable: str | None = None


def stop_of(settings: dict[str, Any]) -> Stop:
    """A task's `generation_kwargs` as a Stop; sampling settings are ignored, answers are always greedy."""
    until = settings.get("until") or []
    strings = [until] if isinstance(until, str) else until
    return Stop(
        max_new_tokens=int(settings.get("max_new_tokens") or _DEFAULT_MAX_NEW_TOKENS),
        strings=tuple(string for string in strings if string and string != _FEWSHOT_DELIMITER),
    )
