"""Frames kept on disk: each video is decoded once for a study, and not once for every trial that reads it.

A shard is an Arrow file with a row for each clip: its key, its frames as JPEG (or raw), a checksum. The key says which
file (size and time of change), which part of it, T and the encoding, so what has changed is decoded anew; so is what
is missing or damaged. Frames that are not stored go through the same encoding: what a trial learns from does not
depend on what was stored.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from vvlm_ray.data.examples import Example, find_video
from vvlm_ray.data.frames import UnreadableVideo, read_frames

_KEY_BYTES = 16


@dataclass(frozen=True)
class Encoding:
    """Frames of `size` x `size` pixels as JPEG of `quality` (1..100, full chroma), or raw with None."""

    size: int
    quality: int | None

    def encode(self, frame: np.ndarray) -> bytes:
        """uint8 (size, size, 3) -> bytes."""
        if self.quality is None:
            return frame.tobytes()
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=self.quality, subsampling=0)
        return buffer.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        """What `encode` made, as uint8 (size, size, 3)."""
        if self.quality is None:
            return np.frombuffer(data, np.uint8).reshape(self.size, self.size, 3)
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(data), formats=["JPEG"]).convert("RGB"))


@dataclass(frozen=True)
class Written:
    """What writing a shard gave."""

    num_clips: int
    num_unreadable: int
    num_bytes: int


def decode_video(example: Example, num_frames: int, size: int | None) -> np.ndarray:
    """The frames of an example from its video, uint8 (T, H, W, 3). Raises UnreadableVideo."""
    return read_frames(
        find_video(example.video),
        num_frames,
        start=example.start,
        end=example.end,
        size=size,
        fps=example.fps,
        root=example.root,
    )


def clip_key(example: Example, num_frames: int, encoding: Encoding) -> bytes:
    """16 bytes that tell clips apart. Raises UnreadableVideo when there is no such file."""
    video = find_video(example.video)
    try:
        status = video.stat()
    except (OSError, ValueError):
        raise UnreadableVideo(video, "no such file") from None
    meaning = [str(video), status.st_size, status.st_mtime_ns, example.start, example.end, example.fps]
    meaning += [str(example.root), num_frames, asdict(encoding)]
    return hashlib.blake2b(json.dumps(meaning).encode(), digest_size=_KEY_BYTES).digest()


def write_shard(path: Path, examples: Sequence[Example], num_frames: int, encoding: Encoding) -> Written:
    """Decode the examples' clips into one file, which is complete once it is there; unreadable ones are left out."""
    keys, frames, repeats, checksums, num_unreadable = [], [], [], [], 0
    for example in examples:
        try:
            key = clip_key(example, num_frames, encoding)
            unique, counts = _runs(decode_video(example, num_frames, encoding.size))
        except UnreadableVideo:
            num_unreadable += 1  # the trial that reads it counts it with its reason
            continue
        keys.append(key)
        frames.append([encoding.encode(frame) for frame in unique])
        repeats.append(counts)
        checksums.append(_checksum(frames[-1], counts))
    table = pa.table(
        {
            "key": pa.array(keys, pa.binary(_KEY_BYTES)),
            "frames": pa.array(frames, pa.list_(pa.large_binary())),
            "repeats": pa.array(repeats, pa.list_(pa.int32())),
            "checksum": pa.array(checksums, pa.uint32()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    temporary.replace(path)
    return Written(len(keys), num_unreadable, path.stat().st_size)


def is_whole(path: Path) -> bool:
    """Whether a shard is there and can be opened; single clips are checked as they are read."""
    return _open(path) is not None


@dataclass
class FrameStore:
    """All shards of a folder, memory-mapped; opened by each process that reads from it, at its first clip."""

    folder: Path
    encoding: Encoding
    num_stored: int = field(default=0, init=False)  # clips read here
    num_decoded: int = field(default=0, init=False)  # clips decoded from their videos
    _tables: list[pa.Table] | None = field(default=None, init=False, repr=False)
    _heads: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64), init=False, repr=False)
    _places: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.uint32), init=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "encoding": self.encoding}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, example: Example, num_frames: int) -> np.ndarray:
        """Frames of a clip as the encoding gives them, uint8 (T, size, size, 3). Raises UnreadableVideo."""
        stored = self._stored(clip_key(example, num_frames, self.encoding), num_frames)
        if stored is not None:
            self.num_stored += 1
            return stored
        self.num_decoded += 1
        unique, counts = _runs(decode_video(example, num_frames, self.encoding.size))
        return np.repeat([self.encoding.decode(self.encoding.encode(frame)) for frame in unique], counts, axis=0)

    def _stored(self, key: bytes, num_frames: int) -> np.ndarray | None:
        if self._tables is None:
            self._index()
        head = np.frombuffer(key[:8], ">u8").astype(np.uint64)[0]
        place = int(np.searchsorted(self._heads, head))
        if place == len(self._heads) or self._heads[place] != head:
            return None
        shard, row = self._places[place]
        record = self._tables[shard].slice(int(row), 1).to_pylist()[0]
        if record["key"] != key:
            return None
        if record["checksum"] != _checksum(record["frames"], record["repeats"]):
            return None
        frames = [self.encoding.decode(data) for data in record["frames"]]
        return np.repeat(frames, record["repeats"], axis=0) if sum(record["repeats"]) == num_frames else None

    def _index(self) -> None:
        self._tables = [table for path in sorted(self.folder.glob("*.arrow")) if (table := _open(path)) is not None]
        heads, places = [self._heads], [self._places]
        for number, table in enumerate(self._tables):
            data = b"".join(table["key"].to_pylist())
            heads.append(np.frombuffer(data, ">u8")[::2].astype(np.uint64))  # 12 bytes a clip stay in memory
            places.append(np.stack([np.full(len(table), number), np.arange(len(table))], 1).astype(np.uint32))
        all_heads, all_places = np.concatenate(heads), np.concatenate(places)
        order = np.argsort(all_heads, kind="stable")
        self._heads, self._places = all_heads[order], all_places[order]


def _open(path: Path) -> pa.Table | None:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)  # or wrong offsets would read anywhere
        return table
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _runs(frames: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Frames without those that repeat the one before, and how often each stands."""
    if frames.strides[0] == 0:
        return [frames[0]], [len(frames)]
    starts = [0, *(at for at in range(1, len(frames)) if not np.array_equal(frames[at], frames[at - 1]))]
    return [frames[at] for at in starts], np.diff([*starts, len(frames)]).tolist()


def _checksum(frames: Sequence[bytes], repeats: Sequence[int]) -> int:
    checksum = zlib.crc32(json.dumps(list(repeats)).encode())
    for data in frames:
        checksum = zlib.crc32(data, checksum)
    return checksum
