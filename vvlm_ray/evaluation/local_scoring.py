"""How a local task asks and scores; its YAML (local_task.yaml) names these functions to lmms-eval.

A row: `id`, `video` (a path below the video root), `question`, `answer`. An answer is right when it says the
same as the reference apart from case, punctuation and space; where the reference is one letter, "B", "(b)"
and "B. a red car" all say B, and "A red car" does not say A. Nothing heavy is imported here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# What the adapter answers where the video cannot be read: such a question counts neither as right nor wrong.
UNREADABLE_ANSWER = "[unreadable video]"

_LETTER_FIRST = re.compile(r"\W*([a-z])\s*(?:[.,:;)\]]|$)", re.IGNORECASE)


def doc_to_visual(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any]) -> list[str]:
    """The path of the row's video, as lmms-eval wants it."""
    return [str(Path(lmms_eval_specific_kwargs["video_root"]) / doc["video"])]


def doc_to_text(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any]) -> str:
    """The question as it stands: whatever the training prompts say has to be in it."""
    return doc["question"]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """{"exact_match": 0 or 1}, or nothing at all for an unreadable video."""
    if results[0] == UNREADABLE_ANSWER:
        return {}
    return {"exact_match": float(is_right(results[0], doc["answer"]))}


def is_right(answer: str, reference: str) -> bool:
    """Whether both say the same (see the top of this file)."""
    wanted = _plain(reference)
    if len(wanted) == 1 and wanted.isalpha():
        letter = _LETTER_FIRST.match(answer)
        return letter is not None and letter.group(1).lower() == wanted
    return _plain(answer) == wanted


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
