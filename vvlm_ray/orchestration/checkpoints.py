"""A trial's checkpoints in its own folder: the same for one worker and for many, on one machine and on a cluster.

<run>/checkpoints/<number>/   the files of all workers, and manifest.json, written last by the first worker

The manifest names every file with its size and SHA-256, so a checkpoint is there when it is whole, and what was cut,
emptied or altered afterwards is not taken for one. Two are kept: where the newer is damaged, the older is used.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vvlm_ray.study.folder import write_json
from vvlm_ray.study.storage import local_copy, put_tree, remove_tree, storage_errors

FOLDER, MANIFEST, PART = "checkpoints", "manifest.json", ".part-"
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
        """The newest checkpoint that is whole, as a local folder; the first worker looks, and all take the same."""
        name = None
        if _rank() == 0:
            found = find(self._folder)
            for damaged, problem in found.damaged.items():
                print(f"{damaged} is not used: {problem}")
            name = found.folder.name if found.folder else None
        name = _from_first(name)
        return local_copy(self._folder / name) if name else None

    def save(self, folder: Path) -> None:
        """Keep this worker's files; called on every worker, and whole when all of them return.

        A checkpoint that storage refuses is left out, and the log says so: training goes on.
        """
        self._number += 1
        target = self._folder / f"{self._number:06d}"
        try:
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            put_tree(folder, target)
            part = {file.relative_to(folder).as_posix(): _fingerprint(file) for file in files}
            write_json(target / f"{PART}{_rank()}", part)
        except storage_errors() as error:
            print(f"{target} could not be written ({error}); training goes on without it")
        _barrier()
        if _rank() == 0:
            try:
                self._complete(target)
            except (*storage_errors(), ValueError) as error:
                print(f"{target} is left out: {error}")
                remove_tree(target)
        _barrier()  # nobody goes on, and perhaps fails, while the others think that it is whole

    def _complete(self, target: Path) -> None:
        """Write the manifest, once every worker's part is there, and remove what is older than the ones kept."""
        files: dict[str, Any] = {}
        for rank in range(_world_size()):
            part = target / f"{PART}{rank}"
            files |= json.loads(part.read_bytes())
            part.unlink()
        write_json(target / MANIFEST, files)
        for old in _numbered(self._folder)[:-KEPT]:
            remove_tree(old)


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
    remove_tree(run / FOLDER)


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


def _world_size() -> int:
    import ray.train

    return ray.train.get_context().get_world_size()


def _from_first(value: Any) -> Any:
    """The first worker's value, on every worker."""
    from ray.train.collective import broadcast_from_rank_zero

    return broadcast_from_rank_zero(value)


def _barrier() -> None:
    from ray.train.collective import barrier

    barrier()
