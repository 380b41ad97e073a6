"""What a judge's reply says: read whatever stands around it, or not at all.

lmms-eval's tasks evaluate a reply as a Python dictionary and make 0 of everything else. Judges put theirs in fences
and prose, write JSON, fractions and the prompts' own `{''score': 4.8}`. Here a reply is read as what it says; two
verdicts that differ, `yes and no`, `unknown`, null and a score beyond 0..5 say nothing and are asked for again.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

Reads = Literal["score", "prediction"]  # what a task takes from a verdict: its score, or its yes or no
FULL_MARK = 5

_DICTIONARY = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"""['"]*score['"]*\s*[:=]\s*['"]?\s*([+-]?\d+(?:\.\d+)?)\s*['"]?\s*(?=[,}])""", re.IGNORECASE)
_PREDICTION = re.compile(r"""['"]*pred['"]*\s*[:=]\s*['"]([^'"]*)['"]""", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)

# What a task is given where a verdict stays unreadable. It is in no score: -1 marks its document.
UNUSABLE = "{'pred': 'unusable', 'score': -1}"
UNUSABLE_SCORE = -1


@dataclass(frozen=True)
class Verdict:
    """A score on 0..5 as a whole number, and yes or no where the task asks for it."""

    score: int
    pred: str | None = None

    def canonical(self) -> str:
        """The dictionary that lmms-eval's tasks read as this verdict."""
        return repr({"pred": self.pred, "score": self.score} if self.pred else {"score": self.score})


def read_verdict(content: Any, reads: Reads, rounding: str) -> Verdict | None:
    """The verdict in a reply's `message.content` (text, or a list of text parts); None where it says none.

    `rounding`: "truncate" cuts fractions as the tasks' int() does, "nearest" rounds halves up.
    """
    found = {_read(part, reads) for part in _DICTIONARY.findall(text_of(content))} - {None}
    if len(found) != 1:
        return None
    score, pred = found.pop()
    return Verdict(math.floor(score + 0.5) if rounding == "nearest" else int(score), pred)


def text_of(content: Any) -> str:
    """The text of a message, whole or in parts."""
    if isinstance(content, list):
        return "".join(text_of(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _read(text: str, reads: Reads) -> tuple[float, str | None] | None:
    numbers = _NUMBER.findall(text)
    score = float(numbers[0]) if len(numbers) == 1 else None
    if score is not None and not 0 <= score <= FULL_MARK:
        return None
    if reads == "score":
        return None if score is None else (score, None)
    said = {word.lower() for value in _PREDICTION.findall(text) for word in _YES_OR_NO.findall(value)}
    if len(said) != 1:
        return None
    pred = said.pop()  # it alone decides; a score that is missing is made up to agree
    return (score if score is not None else FULL_MARK * (pred == "yes")), pred
