"""Rows and videos of a study, looked at before anything runs on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vvlm_ray.data.examples import Example, find_video
from vvlm_ray.data.sources import open_mixture, source_key
from vvlm_ray.data.table import Rows
from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.local_tasks import read_questions
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.study.evaluation_section import LocalTask
from vvlm_ray.study.sections import Source

if TYPE_CHECKING:
    from vvlm_ray.orchestration.preflight import _Check

NUM_SOUGHT = 1000  # videos of a source whose files are looked for
NUM_DECODED = 8
VIDEOS_PER_PIECE = 200
_ARCHIVES = (".tar", ".gz", ".tgz", ".zip", ".zst")


def check_source(name: str, source: Source, check: _Check, tables: dict[str, Rows]) -> None:
    """Rows, their number, and their videos; the table goes to `tables` under its name."""
    key, study = source_key(name), check.study
    root_key = "stage1.image_root" if name == "stage1" else f"{key}.video_root"
    try:
        (rows,) = open_mixture(
            {name: source},
            check.folder,
            check.resolve,
            max_unusable_share=study.data.max_unusable_share,
            digests=study.fingerprints,
        ).values()
    except UserError as error:
        message = str(error)
        part = next((p for p in ("path", "num_examples") if message.startswith(f"{key}.{p}: ")), None)
        own_key = f"{key}.{part}" if part else key
        check.add(own_key, message.removeprefix(f"{own_key}: "), "correct the files, or how they are read")
        return
    except OSError as error:
        check.add(key, f"its table cannot be written ({error.strerror})", "make room in the study's folder")
        return
    tables[name] = rows
    if rows.tally.num_unusable:
        check.checked.notes.append(
            f"{key}: {rows.tally.num_unusable:,} of {rows.tally.num_rows:,} rows cannot be used and are left out:\n"
            + rows.tally.described()
        )
    root = check.resolve(source.video_root)
    if root.is_dir():
        check_videos(root_key, root, rows, check, study.data.max_unreadable_share)


def check_questions(name: str, task: LocalTask, check: _Check) -> None:
    """Questions of a benchmark of one's own, and their videos."""
    key = f"evaluation.local.{name}"
    path, root = check.resolve(task.questions), check.resolve(task.video_root)
    if not path.is_file():
        return  # named already
    try:
        videos = [row["video"] for row in read_questions(path, task.scoring)]
    except UserError as error:
        check.add(f"{key}.questions", str(error), "give every question id, video, question and its answer")
        return
    if root.is_dir():
        examples = [Example(video, root / video, (), name, root=root) for video in dict.fromkeys(videos)]
        check_videos(f"{key}.video_root", root, examples, check, check.study.evaluation.max_unreadable_share)


def check_videos(key: str, root: Path, examples: Sequence[Example], check: _Check, allowed: float) -> None:
    """Whether videos are there and can be decoded: of a sample, or of all with `--all`."""
    sought = _spread(examples, NUM_SOUGHT)
    missing = [example.video for example in sought if not _exists(example.video)]
    if len(missing) > allowed * len(sought):
        archives = [path.name for path in root.iterdir() if path.suffix in _ARCHIVES][:3]
        remedy = f"unpack {', '.join(archives)}" if archives else "correct the root, or put them there"
        check.add(key, f"{len(missing):,} of {len(sought):,} videos are not there, such as {missing[0]}; {remedy}")
        return
    if check.decode_all:
        every = list({(e.video, e.start, e.end): e for e in examples}.values())
        tried, wrong = every, check.decode_all(every)
        too_many = sum(map(bool, wrong)) > allowed * len(every)
    else:
        tried = [example for example in _spread(examples, NUM_DECODED) if _exists(example.video)]
        wrong = decode(tried)
        # One of a few says little about a share of many; every second one does.
        too_many = sum(map(bool, wrong)) > (allowed if len(tried) == len(examples) else 0.5) * len(tried)
    failed = [(example.video, reason) for example, reason in zip(tried, wrong, strict=True) if reason]
    if failed:
        told = f"{len(failed):,} of {len(tried):,} videos tried cannot be read, such as {failed[0][0]} ({failed[0][1]})"
        if too_many:
            check.add(key, told, "mend or leave out these files, or raise max_unreadable_share")
        else:
            check.checked.notes.append(f"{key}: {told}")


def decode(examples: Sequence[Example]) -> list[str | None]:
    """What is wrong with each example's video, None where two frames of it can be read."""
    return [_decode(example) for example in examples]


def decode_with(map: Map) -> Callable[[Sequence[Example]], list[str | None]]:
    """`decode` in pieces, on whatever runs them (`ray_map()`)."""

    def decode_all(examples: Sequence[Example]) -> list[str | None]:
        starts = range(0, len(examples), VIDEOS_PER_PIECE)
        pieces = [list(examples[start : start + VIDEOS_PER_PIECE]) for start in starts]
        return [reason for piece in map(decode, pieces) for reason in piece]

    return decode_all


def _decode(example: Example) -> str | None:
    from vvlm_ray.data.frames import UnreadableVideo, read_frames

    try:
        read_frames(
            find_video(example.video),
            2,
            start=example.start,
            end=example.end,
            size=64,
            fps=example.fps,
            root=example.root,
        )
    except UnreadableVideo as error:
        return error.reason
    return None


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    if not len(examples):
        return []
    places = np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int))
    return [examples[int(place)] for place in places]


def _exists(video: Path) -> bool:
    try:
        return find_video(video).exists()
    except OSError:
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
