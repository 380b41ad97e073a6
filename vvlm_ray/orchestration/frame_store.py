"""Fills a study's frame store with Ray Data, before its first trial: for the T where a gigabyte saves most decoding."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder, write_json
from vvlm_ray.study.storage import absolute, is_local
from vvlm_ray.study.trials import Trial

if TYPE_CHECKING:
    from vvlm_ray.data.examples import Example
    from vvlm_ray.data.frame_store import Encoding, FrameStore

CLIPS_PER_SHARD = 256
_SAMPLE = 8  # clips on which decoding is timed


@dataclass(frozen=True)
class Level:
    """What storing one T's clips would take and save: `reads` of them by all trials, seconds and bytes a clip."""

    num_frames: int
    num_clips: int
    reads: int
    seconds_saved: float
    bytes_per_clip: float

    @property
    def saved_per_byte(self) -> float:
        return self.reads * self.seconds_saved / (self.num_clips * self.bytes_per_clip)


def open_store(study: Study, folder: StudyFolder, size: int) -> FrameStore | None:
    """The store that trials read from, None where the sweep file asks for none."""
    from vvlm_ray.data.frame_store import FrameStore

    return FrameStore(_shards(folder), _encoding(study, size)) if study.data.frame_store else None


def fill_store(study: Study, folder: StudyFolder, sweep_file: Path, trials: Iterable[Trial]) -> dict[str, Any] | None:
    """Decode what is worth it and is not there yet; what was done, also written to `frames/filled.json`.

    Needs a connection to Ray. None where the sweep file asks for no store, or trials have no videos yet.
    """
    from vvlm_ray.data.mixtures import nested_subset
    from vvlm_ray.data.sources import open_mixture

    settings, sizes = study.data.frame_store, _sizes(study, folder, sweep_file)
    if settings is None or not sizes:
        return None
    if not is_local(folder.root):
        raise UserError(f"data.frame_store: {folder.root} is no disk that shards can be mapped from; leave it out")
    if len(sizes) > 1:
        raise UserError(
            f"data.frame_store: backbones take pictures of {sorted(sizes)} pixels; a store holds one size, leave it out"
        )
    encoding = _encoding(study, sizes.pop())
    sources = open_mixture(
        study.data.sources,
        folder,
        lambda raw: folder.resolve(raw, sweep_file),
        max_unusable_share=study.data.max_unusable_share,
        digests=study.fingerprints,
    )
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)  # subsets are nested: the largest holds the others
    for trial in trials:
        assert trial.num_frames is not None  # a study with videos has frames
        groups[trial.num_frames, trial.seed].append(trial.num_examples or sum(map(len, sources.values())))
    clips = {key: _distinct(nested_subset(sources, max(sizes), key[1])) for key, sizes in groups.items()}
    wanted = {
        "encoding": asdict(encoding),
        "gigabytes": settings.gigabytes,
        "reads": {f"T{T}, seed {seed}": sum(reads) * study.finetune.epochs for (T, seed), reads in groups.items()},
    }
    before = _report_of(folder)
    if before.get("wanted") == wanted:  # another timing would choose otherwise, and throw away what is stored
        levels = [Level(**level) for level in before["levels"]]
    else:
        levels = [
            measure_level(key[0], examples, reads, encoding)
            for (key, examples), reads in zip(clips.items(), wanted["reads"].values(), strict=True)
        ]
    shares = choose_levels(levels, settings.gigabytes * 1e9)
    shards = [
        (key[0], examples[start : min(start + CLIPS_PER_SHARD, count)])
        for (key, examples), count in zip(clips.items(), shares, strict=True)
        for start in range(0, count, CLIPS_PER_SHARD)
    ]
    begun = time.monotonic()
    written = write_shards(_shards(folder), shards, encoding)
    report = {
        "wanted": wanted,
        "levels": [asdict(level) for level in levels],
        "stored_clips": shares,
        "bytes": sum(path.stat().st_size for path in _shards(folder).glob("*.arrow")),
        "seconds": time.monotonic() - begun,
        **written,
    }
    write_json(_shards(folder) / "filled.json", report)
    return report


def measure_level(num_frames: int, clips: Sequence[Example], reads: int, encoding: Encoding) -> Level:
    """Times decoding against reading back what was stored, on a few clips spread over all."""
    from vvlm_ray.data.frame_store import decode_video
    from vvlm_ray.data.frames import UnreadableVideo

    live = stored = num_bytes = num_clips = 0.0
    for example in clips[:: max(1, len(clips) // _SAMPLE)]:
        start = time.perf_counter()
        try:
            frames = decode_video(example, num_frames, encoding.size)
        except UnreadableVideo:
            continue
        live += time.perf_counter() - start
        data = [encoding.encode(frame) for frame in frames]
        start = time.perf_counter()
        for frame in data:
            encoding.decode(frame)
        stored += time.perf_counter() - start
        num_bytes += sum(map(len, data))
        num_clips += 1
    if not num_clips:
        return Level(num_frames, len(clips), reads, 0.0, 1.0)
    return Level(num_frames, len(clips), reads, (live - stored) / num_clips, num_bytes / num_clips)


def choose_levels(levels: Sequence[Level], limit_bytes: float) -> list[int]:
    """How many clips of each level are stored: the level that saves most seconds per byte first, until disk is used up.

    A level that does not fit is stored in part. One that is read but once, or that is read back no faster than it is
    decoded, is left out.
    """
    stored = [0] * len(levels)
    for place in sorted(range(len(levels)), key=lambda place: -levels[place].saved_per_byte):
        level = levels[place]
        if level.seconds_saved <= 0 or level.reads <= level.num_clips:
            continue
        stored[place] = min(level.num_clips, int(limit_bytes // level.bytes_per_clip))
        limit_bytes -= stored[place] * level.bytes_per_clip
    return stored


def write_shards(folder: Path, shards: Sequence[tuple[int, list[Example]]], encoding: Encoding) -> dict[str, int]:
    """Those that are missing or damaged, as Ray Data tasks of one CPU each; sums of what they wrote.

    Shards of other settings or videos that are gone are removed.
    """
    import ray.data

    from vvlm_ray.data.frame_store import clip_key, is_whole
    from vvlm_ray.data.frames import UnreadableVideo

    def name(num_frames: int, examples: list[Example]) -> str:
        digest = hashlib.blake2b(digest_size=12)
        for example in examples:
            try:
                digest.update(clip_key(example, num_frames, encoding))
            except UnreadableVideo:
                digest.update(b"missing")
        return f"T{num_frames}-{digest.hexdigest()}.arrow"

    wanted = {folder / name(num_frames, examples): (num_frames, examples) for num_frames, examples in shards}
    for path in folder.glob("*.arrow"):
        if path not in wanted:
            path.unlink()
    missing = {path: shard for path, shard in wanted.items() if not is_whole(path)}
    if not missing:
        return {"shards_written": 0, "clips_written": 0, "unreadable": 0}
    rows = [
        {"path": str(path), "num_frames": num_frames, "examples": json.dumps([_as_dict(e) for e in examples])}
        for path, (num_frames, examples) in missing.items()
    ]
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its progress is no part of the run's
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    written = dataset.map(_writer(asdict(encoding)), num_cpus=1).take_all()
    return {
        "shards_written": len(written),
        "clips_written": sum(row["num_clips"] for row in written),
        "unreadable": sum(row["num_unreadable"] for row in written),
    }


def _writer(encoding: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def write(row: dict[str, Any]) -> dict[str, Any]:
        from vvlm_ray.data.frame_store import Encoding, write_shard

        examples = [_from_dict(example) for example in json.loads(row["examples"])]
        return asdict(write_shard(Path(row["path"]), examples, int(row["num_frames"]), Encoding(**encoding)))

    return write


def _as_dict(example: Example) -> dict[str, Any]:
    root = None if example.root is None else str(example.root)
    return {"video": str(example.video), "start": example.start, "end": example.end, "fps": example.fps, "root": root}


def _from_dict(row: dict[str, Any]) -> Example:
    from vvlm_ray.data.examples import Example

    root = None if row["root"] is None else Path(row["root"])
    return Example("", Path(row["video"]), (), "", row["start"], row["end"], root, row["fps"])


def _distinct(examples: Iterable[Example]) -> list[Example]:
    """One example for each clip: many questions are asked about a video."""
    return list({(e.video, e.start, e.end, e.fps, e.root): e for e in examples}.values())


def _shards(folder: StudyFolder) -> Path:
    return absolute(folder.root) / "frames"


def _encoding(study: Study, size: int) -> Encoding:
    from vvlm_ray.data.frame_store import Encoding

    quality = study.data.frame_store.jpeg_quality  # type: ignore[union-attr]
    return Encoding(size, None if quality == "raw" else quality)


def _report_of(folder: StudyFolder) -> dict[str, Any]:
    try:
        return json.loads((_shards(folder) / "filled.json").read_text())
    except (OSError, ValueError):
        return {}


def _sizes(study: Study, folder: StudyFolder, sweep_file: Path) -> set[int]:
    """Picture sizes of the backbones that are there (synthetic ones are not yet, nor are their clips)."""
    from vvlm_ray.model.preprocess import ImagePreprocessor

    sizes = set()
    for backbone in study.backbones.values():
        vision = folder.resolve(backbone.vision, sweep_file)
        if (vision / "preprocessor_config.json").is_file():
            sizes.add(ImagePreprocessor.from_pretrained(vision).size)
    return sizes
