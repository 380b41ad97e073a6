"""A study's ledger: `ledger.jsonl`, one line for everything that happened to a job, in the order in which it did.

Only the run that holds the study's lock appends to it. A torn last line, or bytes that are no line of it, are counted
and passed over. Events:

started   attempt, where (nodes), log (its file), resumes_from (a checkpoint's number; 0: none)
ended     attempt, outcome (finished, failed, lost, not started), cause, counts, checkpoint, step, seconds, host
given up  attempts, cause
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.storage import append_line, patiently

STARTED, ENDED, GIVEN_UP = "started", "ended", "given up"
FINISHED, FAILED, LOST, NOT_STARTED = "finished", "failed", "lost", "not started"


class Ledger:
    """Appends to the ledger; while storage refuses, it waits and says so."""

    def __init__(self, folder: StudyFolder, say: Callable[[str], Any], *, patience: float = float("inf")):
        self._file, self._say, self._patience = folder.ledger, say, patience

    def note(self, event: str, job_id: str, **what: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), "event": event, "job": job_id, **what}, allow_nan=False)
        patiently(lambda: append_line(self._file, line), f"the ledger {self._file}", self._say, seconds=self._patience)


@dataclass(frozen=True)
class Attempt:
    """One start of a job. `outcome` is None while it runs, or when its run ended without a word."""

    number: int
    started: float
    where: tuple[str, ...] = ()
    log: str | None = None
    resumes_from: int = 0
    ended: float | None = None
    outcome: str | None = None
    cause: str | None = None
    counts: bool = False
    checkpoint: int = 0
    step: int = 0
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return self.__dict__ | {"where": list(self.where)}


@dataclass(frozen=True)
class History:
    """What the ledger says: the attempts of each job, and how many lines of the file were not read."""

    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    num_damaged: int = 0

    def seconds(self, job_id: str) -> float:
        """Of all ended attempts of a job together."""
        ended = (a for a in self.attempts.get(job_id, ()) if a.ended is not None)
        return sum(a.ended - a.started if a.seconds is None else a.seconds for a in ended)

    def counted(self, job_id: str) -> int:
        return sum(a.counts for a in self.attempts.get(job_id, ()))


def read_history(folder: StudyFolder) -> History:
    """The ledger as attempts; empty where there is none."""
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    damaged = 0
    for line in _lines(folder.ledger):
        try:
            event = json.loads(line)
            _take(attempts[event["job"]], event)
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged += 1
    return History(dict(attempts), damaged)


def _lines(file: Path) -> Iterator[bytes]:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return
    yield from (line for line in data.split(b"\n") if line.strip())


def _take(attempts: list[Attempt], event: dict[str, Any]) -> None:
    kind, when = event["event"], float(event["time"])
    if kind == STARTED:
        attempts.append(
            Attempt(
                int(event["attempt"]),
                when,
                tuple(event.get("where", ())),
                event.get("log"),
                int(event.get("resumes_from", 0)),
            )
        )
    elif kind == ENDED:
        open_ones = [i for i, a in enumerate(attempts) if a.ended is None and a.number == event["attempt"]]
        if open_ones:
            attempts[open_ones[-1]] = replace(
                attempts[open_ones[-1]],
                ended=when,
                outcome=event["outcome"],
                cause=event.get("cause"),
                counts=bool(event.get("counts", False)),
                checkpoint=int(event.get("checkpoint", 0)),
                step=int(event.get("step", 0)),
                seconds=event.get("seconds"),
            )
