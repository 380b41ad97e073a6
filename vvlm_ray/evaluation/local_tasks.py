"""Local tasks: the questions of a study's own benchmarks, JSONL files with one object per line.

`id`, `video` (a path below the video root), `question`, `answer`, all text, and for `choice` `options`, a list of
texts. Any number of questions may share a video. Other keys are left alone. No lmms-eval, no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.local_scoring import LETTERS, correct_letter

_FIELDS = ("id", "video", "question", "answer")


def read_questions(path: Path, scoring: str) -> list[dict[str, Any]]:
    """The rows of a file of questions, with the keys named above only.

    Raises:
        UserError: naming the file and the first row that is not a question, or an id that two rows have.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: {getattr(error, 'strerror', error)}; a local task needs its questions there"
        ) from None
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(f"{path}, row {number}", line, scoring)
        if row["id"] in rows:
            raise UserError(f"{path}, row {number}: id {row['id']!r} is another row's too; ids tell questions apart")
        rows[row["id"]] = row
    if not rows:
        raise UserError(f"{path}: no questions in it")
    return list(rows.values())


def _row(where: str, line: str, scoring: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({getattr(error, 'msg', error)}); one object per line") from None
    wrong = [key for key in _FIELDS if not isinstance(row, dict) or not isinstance(row.get(key), str)]
    if wrong:
        raise UserError(f"{where}: {', '.join(wrong)} missing or not text")
    if Path(row["video"]).is_absolute() or ".." in Path(row["video"]).parts:
        raise UserError(f"{where}: video {row['video']!r} does not lie below the video root")
    kept = {key: row[key] for key in _FIELDS}
    if scoring != "choice":
        return kept
    options = row.get("options")
    is_list = isinstance(options, list) and all(isinstance(text, str) for text in options)
    if not is_list or not 2 <= len(options) <= len(LETTERS):
        raise UserError(f"{where}: options missing or not a list of texts, which scoring: choice needs")
    kept["options"] = options
    if correct_letter(kept) is None:
        raise UserError(f"{where}: answer {row['answer']!r} is neither an option's letter nor one of the options")
    return kept
