"""How far a running job is: `stage.json` in its folder, written by its first worker, read by the panel and `status`."""

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vvlm_ray.study.storage import is_local, storage_errors, write_atomically

STAGE_FILE = "stage.json"
SECONDS_BETWEEN = 1.0
SECONDS_BETWEEN_PUTS = 15.0  # to an object store


@dataclass(frozen=True)
class Stage:
    """What a job does, how much of it is done, and when that was written (seconds since 1970).

    `first` was done when the stage began, at the time `since`.
    """

    name: str
    done: int
    total: int
    time: float
    first: int = 0
    since: float = 0.0

    @property
    def per_second(self) -> float | None:
        """How fast it gets on; None while that cannot be said."""
        seconds = self.time - self.since
        return (self.done - self.first) / seconds if self.done > self.first and seconds > 0 else None

    @property
    def text(self) -> str:
        return f"{self.name}, {self.done:,} of {self.total:,}"


class StageWriter:
    """Called with the name of a stage and how far it is; writes the first call of a stage, then one a second.

    A job that cannot write its stage goes on: nothing is decided by it.
    """

    def __init__(self, run: Path, is_writer: bool = True):
        self._file = run / STAGE_FILE
        self._is_writer = is_writer
        self._last: tuple[str, float] = ("", 0.0)
        self._begin = 0, 0.0
        self._pause = SECONDS_BETWEEN if is_local(run) else SECONDS_BETWEEN_PUTS

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.time()
        if not self._is_writer or (name == self._last[0] and now - self._last[1] < self._pause):
            return
        if name != self._last[0]:
            self._begin = done, now
        self._last = name, now
        with contextlib.suppress(*storage_errors()):
            write_atomically(self._file, json.dumps(asdict(Stage(name, done, total, now, *self._begin))))

    def end(self) -> None:
        """Remove the file, if this worker wrote it."""
        if self._is_writer:
            forget_stage(self._file.parent)


def read_stage(run: Path) -> Stage | None:
    """The stage of the job in the folder `run`; None where it has none."""
    try:
        return Stage(**json.loads((run / STAGE_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def forget_stage(run: Path) -> None:
    with contextlib.suppress(*storage_errors()):
        (run / STAGE_FILE).unlink(missing_ok=True)
