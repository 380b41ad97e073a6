"""Answers on disk: `<task>.jsonl`, one line for each, and `<task>.part-<process>.jsonl` while they are being written.

A line is kept as it comes and is whole or is no line: what a kill has cut off is asked again. The last of several
lines about one question holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vvlm_ray.evaluation.questions import Answer, Question
from vvlm_ray.study.storage import is_local, write_atomically

Key = tuple[int, int]  # (document, option)

_REWRITE_SECONDS = 30.0


def read_answers(folder: Path, questions: Sequence[Question]) -> dict[Key, Answer]:
    """The kept answers to these questions of one task, by (document, option); those to another wording do not count."""
    wanted = {(question.doc, question.option): question.fingerprint for question in questions}
    task = questions[0].task if questions else ""
    found: dict[Key, Answer] = {}
    for path in [_whole(folder, task), *_parts(folder, task)]:
        for answer in _lines(path):
            key = (answer.doc, answer.option)
            if wanted.get(key) == answer.fingerprint:
                found[key] = answer
    return found


def join_parts(folder: Path, task: str, answers: Iterable[Answer]) -> None:
    """Write all answers of a task into its one file, in document order; the parts go."""
    ordered = sorted(answers, key=lambda answer: (answer.doc, answer.option))
    text = "".join(_line(answer) for answer in ordered)
    path = _whole(folder, task)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
    for part in _parts(folder, task):
        part.unlink()


class Part:
    """What one process adds: whole batches at once, each in the file before the next one is asked."""

    def __init__(self, folder: Path, task: str, process: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{task}.part-{process}.jsonl"
        self._starts = self._path.exists()  # after a kill, perhaps in the middle of a line
        # Object stores cannot append: there the part is written again, now and then.
        self._kept = None if is_local(folder) else (self._path.read_text() if self._starts else "")
        self._written = time.monotonic()

    def add(self, answers: Iterable[Answer]) -> None:
        """Append a batch."""
        text = ("\n" if self._starts else "") + "".join(_line(answer) for answer in answers)
        self._starts = False
        if self._kept is None:
            with self._path.open("ab") as file:
                file.write(text.encode())
            return
        self._kept += text
        if time.monotonic() - self._written > _REWRITE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not in the file yet."""
        if self._kept:
            write_atomically(self._path, self._kept)
            self._written = time.monotonic()


def _whole(folder: Path, task: str) -> Path:
    return folder / f"{task}.jsonl"


def _parts(folder: Path, task: str) -> list[Path]:
    return sorted(folder.glob(f"{task}.part-*.jsonl"))


def _line(answer: Answer) -> str:
    return json.dumps({name: value for name, value in asdict(answer).items() if value is not None}) + "\n"


def _lines(path: Path) -> Iterable[Answer]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            row: Any = json.loads(line)
            yield Answer(**({"answer": None} | row))
        except (ValueError, TypeError):  # cut off, or not ours
            continue
