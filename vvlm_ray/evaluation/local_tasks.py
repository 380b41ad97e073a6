"""Local tasks: your own test questions as an lmms-eval task, one YAML file in a folder; writing and finding.

Reads YAML only: no lmms-eval, no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from vvlm_ray.errors import UserError

_FIELDS = ("id", "video", "question", "answer")


@dataclass(frozen=True)
class LocalTask:
    """A task's YAML file with the two paths that have to exist before anything is evaluated."""

    name: str
    yaml_path: Path
    data_files: tuple[Path, ...]
    video_root: Path | None


def write_local_task(folder: Path, name: str, test_jsonl: Path, video_root: Path, *, max_new_tokens: int = 16) -> Path:
    """Write `folder`/<name>.yaml, a task over the questions of `test_jsonl`; returns its path.

    One JSON object per line: `id`, `video` (below `video_root`), `question`, `answer`, all text; any number
    of questions may share a video. The score is the share of exact matches (see local_scoring.py), 0..100.
    Raises UserError naming the file and the row for anything else.
    """
    check_questions(test_jsonl)
    text = resources.files("vvlm_ray.evaluation").joinpath("local_task.yaml").read_text(encoding="utf-8")
    fillings = {
        "NAME": name,
        "TEST_JSONL": str(Path(test_jsonl).resolve()),
        "VIDEO_ROOT": str(Path(video_root).resolve()),
        "MAX_NEW_TOKENS": max_new_tokens,
    }
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for mark, value in fillings.items():
        lines = [line.replace(f": {mark}", f": {json.dumps(value)}") for line in lines]
    path = Path(folder) / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def check_questions(path: Path) -> int:
    """Number of questions in a JSONL file; UserError naming the row for the first that is not one."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; a local task needs its questions there") from None
    rows = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, line in rows:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, row {number}: not JSON ({error.msg}); one object per line") from None
        wrong = [key for key in _FIELDS if not isinstance(row, dict) or not isinstance(row.get(key), str)]
        if wrong:
            raise UserError(f"{path}, row {number}: {', '.join(wrong)} missing or not text")
    if not rows:
        raise UserError(f"{path}: no questions in it")
    return len(rows)


def find_local_tasks(folders: Iterable[Path]) -> dict[str, LocalTask]:
    """The tasks defined by YAML files in the folders and below, by name; UserError for a name used twice."""
    found: dict[str, LocalTask] = {}
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*.yaml")):
        task = _read_task(path)
        if task is None:
            continue
        if task.name in found:
            raise UserError(f"{path}: task {task.name} is also defined in {found[task.name].yaml_path}")
        found[task.name] = task
    return found


def local_problems(task: LocalTask, video_root: Path | None) -> list[str]:
    """What keeps a local task from being evaluated: missing questions or videos."""
    problems = [
        f"{task.name}: {path} does not exist ({task.yaml_path}: data_files)"
        for path in task.data_files
        if not path.is_file()
    ]
    root = video_root or task.video_root
    if root is not None and not root.is_dir():
        problems.append(f"{task.name}: the video folder {root} does not exist ({task.yaml_path}: video_root)")
    return problems


class _PlainLoader(yaml.SafeLoader):
    """Reads lmms-eval's YAML without importing the functions that it names."""


_PlainLoader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def _read_task(path: Path) -> LocalTask | None:
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    if not isinstance(content, dict) or not isinstance(content.get("task"), str):
        return None
    files = (content.get("dataset_kwargs") or {}).get("data_files") or {}
    root = ((content.get("lmms_eval_specific_kwargs") or {}).get("default") or {}).get("video_root")
    return LocalTask(
        name=content["task"],
        yaml_path=path,
        data_files=tuple(path.parent / name for name in _strings(files)),
        video_root=Path(root) if root else None,
    )


def _strings(value: object) -> Sequence[str]:
    """All strings in a nested structure of dicts and lists that are not addresses on the web."""
    if isinstance(value, str):
        return [] if "://" in value else [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [string for child in children for string in _strings(child)]
