"""How far a running job is: `stage.json` in its folder, written by its first worker, read by the panel and `status`."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vvlm_ray.study.folder import write_json

STAGE_FILE = "stage.json"
SECONDS_BETWEEN = 1.0


@dataclass(frozen=True)
class Stage:
    """What a job does, how much of it is done, and when that was written (seconds since 1970)."""

    name: str
    done: int
    total: int
    time: float

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

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.time()
        if not self._is_writer or (name == self._last[0] and now - self._last[1] < SECONDS_BETWEEN):
            return
        self._last = name, now
        try:
            write_json(self._file, asdict(Stage(name, done, total, now)))
        except OSError:
            self._is_writer = False

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
    (run / STAGE_FILE).unlink(missing_ok=True)
