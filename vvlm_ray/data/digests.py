"""SHA-256 of files, worked out once for a path, size and time of modification."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vvlm_ray.data.examples import Example, find_video
from vvlm_ray.study.identity import identity

NUM_SAMPLED_VIDEOS = 256
_ENDS = 1 << 16
# What makes a model, of the files in its folder: weights, configuration, tokenizer, chat template.
_MODEL_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt")


class NotHashed(Exception):
    """A file whose digest is not known, and that is too large to be read now."""


class Digests:
    """Digests of files; with `cache` (a JSON file) they are kept, and with `max_bytes` no larger file is read.

    `read_bytes` counts what was read. Raises OSError for a file that cannot be read, NotHashed beyond `max_bytes`.
    """

    def __init__(self, cache: Path | None = None, max_bytes: float = float("inf")) -> None:
        self._cache, self._max_bytes = cache, max_bytes
        self._known: dict[str, list] = _read_cache(cache) if cache else {}
        self._is_changed = False
        self.read_bytes = 0

    def of(self, path: Path) -> str:
        """SHA-256 of a whole file."""
        return self._remember(path, "", _hash_all)

    def of_ends(self, path: Path) -> str:
        """SHA-256 of size, first and last 64 KiB of a file; a folder's (of frames) names, sizes and first file."""
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file())
            return identity([[file.name, file.stat().st_size] for file in files] + [self.of_ends(f) for f in files[:1]])
        return self._remember(path, "ends:", _hash_ends)

    def of_model(self, folder: Path) -> str:
        """Weights, configuration and tokenizer in a folder, by name; of a single file its digest."""
        if folder.is_file():
            return self.of(folder)
        files = sorted(file for file in folder.iterdir() if file.suffix in _MODEL_SUFFIXES and file.is_file())
        if not files:
            raise FileNotFoundError(2, "no file of a model in it", str(folder))
        return identity([[file.name, self.of(file)] for file in files])

    def of_videos(self, videos: Iterable[Path]) -> str:
        """Ends of the files; one that is missing counts as that."""
        found = []
        for video in videos:
            try:
                found.append(self.of_ends(find_video(video)))
            except OSError:
                found.append("missing")
        return identity(found)

    def save(self) -> None:
        """Keep what was worked out."""
        if self._cache is not None and self._is_changed:
            from vvlm_ray.study.folder import write_json

            write_json(self._cache, self._known)
            self._is_changed = False

    def _remember(self, path: Path, kind: str, work_out) -> str:
        state = path.stat()
        key = f"{kind}{path}"
        known = self._known.get(key)
        if known and known[:2] == [state.st_size, state.st_mtime_ns]:
            return known[2]
        if not kind:
            if self.read_bytes + state.st_size > self._max_bytes:
                raise NotHashed(str(path))
            self.read_bytes += state.st_size
        digest = work_out(path)
        self._known[key] = [state.st_size, state.st_mtime_ns, digest]
        self._is_changed = True
        return digest


def sampled_videos(examples: Sequence[Example], count: int = NUM_SAMPLED_VIDEOS) -> list[Path]:
    """Videos of `count` examples spread evenly over all, each once, in order: always the same of the same examples."""
    places = np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int))
    return list(dict.fromkeys(examples[int(place)].video for place in places))


def _read_cache(path: Path) -> dict[str, list]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}  # it only spares work
    if not isinstance(known, dict):
        return {}
    return {key: entry for key, entry in known.items() if isinstance(entry, list) and len(entry) == 3}


def _hash_all(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_ends(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        found = hashlib.sha256(str(size).encode() + file.read(_ENDS))
        if size > _ENDS:
            file.seek(max(_ENDS, size - _ENDS))
            found.update(file.read(_ENDS))
    return found.hexdigest()
