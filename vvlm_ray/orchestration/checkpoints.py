"""A trial's checkpoints in its own folder: the same for one worker and for many, on one machine and on a cluster.

<run>/checkpoints/<number>/   the files of all workers, and manifest.json, written last by the first worker

The manifest names every file with its size and SHA-256, so a checkpoint is there when it is whole, and what was cut,
emptied or altered afterwards is not taken for one. Two are kept: where the newer is damaged, the older is used.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vvlm_ray.study.folder import write_json

FOLDER, MANIFEST = "checkpoints", "manifest.json"
KEPT = 2


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint (None: there is none), and those that were passed over, with what is wrong."""

    folder: Path | None
    damaged: dict[Path, str]


class CheckpointStore:
    """The checkpoints of the job in the folder `run`; every worker has one, inside Ray Train's worker function."""

    def __init__(self, run: Path):
        self._folder = run / FOLDER
        # The first worker's view counts: on a network file system another's may be older.
        newest = max((int(f.name) for f in _numbered(self._folder)), default=0) if _rank() == 0 else 0
        self._number = _from_first(newest)

    def resume_from(self) -> Path | None:
        """The newest checkpoint that is whole; the first worker looks, and all take the same."""
        found = _from_first(str(find(self._folder).folder or "") if _rank() == 0 else None)
        return Path(found) if found else None

    def save(self, folder: Path) -> None:
        """Keep this worker's files; called on every worker, and whole when all of them return."""
        self._number += 1
        target = self._folder / f"{self._number:06d}"
        shutil.copytree(folder, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
        _barrier()
        if _rank() == 0:
            files = sorted(file for file in target.rglob("*") if file.is_file())
            write_json(target / MANIFEST, {str(f.relative_to(target)): _fingerprint(f) for f in files})
            for old in _numbered(self._folder)[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        _barrier()  # nobody goes on, and perhaps fails, while the others think that it is whole


def find(checkpoints: Path) -> Found:
    """The newest whole checkpoint below a folder."""
    damaged: dict[Path, str] = {}
    for folder in reversed(_numbered(checkpoints)):
        problem = _problem(folder)
        if problem is None:
            return Found(folder, damaged)
        damaged[folder] = problem
    return Found(None, damaged)


def remove(run: Path) -> None:
    """Remove a job's checkpoints: it has ended and needs them no more."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def _numbered(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((f for f in folder.iterdir() if f.name.isdigit()), key=lambda f: int(f.name))


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, expected in manifest.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _fingerprint(folder / name) != expected:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"no {MANIFEST}: it was never completed"
    except (OSError, ValueError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None if manifest else f"{MANIFEST} names no files"


def _fingerprint(file: Path) -> list[Any]:
    with file.open("rb") as stream:
        return [file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()]


def _rank() -> int:
    import ray.train

    return ray.train.get_context().get_world_rank()


def _from_first(value: Any) -> Any:
    """The first worker's value, on every worker."""
    from ray.train.collective import broadcast_from_rank_zero

    return broadcast_from_rank_zero(value)


def _barrier() -> None:
    from ray.train.collective import barrier

    barrier()
