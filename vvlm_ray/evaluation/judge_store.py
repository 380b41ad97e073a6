"""What a study's judge has said, how fast it may be asked, and what it has cost: one SQLite file, many processes.

A reply is kept before it is used, readable or not: nothing that was paid for is asked for again, by this process, by
another one, or after a kill. A question that is on its way is claimed, so that two processes never ask it at once;
the claim of a process that has died is free at once, and its estimated cost stays counted, as it may have been paid.

SQLite locks are trusted within one machine: all scoring of a study runs on one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    question TEXT NOT NULL, ask INTEGER NOT NULL, owner TEXT, claimed REAL, content TEXT, model TEXT,
    dollars REAL NOT NULL, PRIMARY KEY (question, ask));
CREATE TABLE IF NOT EXISTS pace (one INTEGER PRIMARY KEY CHECK (one = 1), next REAL NOT NULL, paused REAL NOT NULL);
INSERT OR IGNORE INTO pace VALUES (1, 0, 0);
"""
_LEASE_SECONDS = 900.0  # of a claim from another machine, whose process cannot be looked at
_LONGEST_QUEUE_SECONDS = 86400.0  # a clock that was set back must not hold everybody for ever


@dataclass(frozen=True)
class Reply:
    """One kept reply: `content` is the JSON text of the message's content; `model` is who says to have answered."""

    content: str
    model: str | None


_OPEN: set[str] = set()  # the owners in this process


class SpendReached(Exception):
    """Asking once more could cost more than the study allows; holds the dollars spent or on their way."""

    def __init__(self, dollars: float) -> None:
        super().__init__(dollars)
        self.dollars = dollars


class JudgeStore:
    """Replies by (question, ask): `question` is the hash of a request, `ask` counts how often it was put."""

    def __init__(self, path: Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, timeout=120, isolation_level=None, check_same_thread=False)
        with self._lock:
            self._database.executescript(_TABLES)
        self._owner = f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())} {uuid.uuid4().hex[:8]}"
        _OPEN.add(self._owner)

    def close(self) -> None:
        """Let go of the file, and of what is still claimed."""
        _OPEN.discard(self._owner)
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def reply(self, question: str, ask: int) -> Reply | None:
        """The kept reply, or None."""
        with self._lock:
            row = self._database.execute(
                "SELECT content, model FROM replies WHERE question = ? AND ask = ? AND content IS NOT NULL",
                (question, ask),
            ).fetchone()
        return Reply(*row) if row else None

    def claim(self, question: str, ask: int, estimate: float, max_spend: float | None) -> bool:
        """Whether this process is now the one to ask; False where it is answered, or another one is asking.

        `estimate`: dollars that the reply will cost at most. Raises SpendReached where it would exceed `max_spend`.
        """
        with self._writing() as database:
            row = database.execute(
                "SELECT owner, claimed, content FROM replies WHERE question = ? AND ask = ?", (question, ask)
            ).fetchone()
            if row and (row[2] is not None or not self._is_free(row[0], row[1])):
                return False
            spent = database.execute("SELECT COALESCE(SUM(dollars), 0) FROM replies").fetchone()[0]
            if max_spend is not None and spent + estimate > max_spend:
                raise SpendReached(spent)
            database.execute(  # what a dead owner may have paid stays counted
                "INSERT INTO replies VALUES (?, ?, ?, ?, NULL, NULL, ?) ON CONFLICT DO UPDATE SET "
                "owner = excluded.owner, claimed = excluded.claimed, dollars = dollars + excluded.dollars",
                (question, ask, self._owner, time.time(), estimate),
            )
        return True

    def release(self, question: str, ask: int, estimate: float) -> None:
        """Give a claim back unanswered and unpaid."""
        with self._writing() as database:
            database.execute(
                "UPDATE replies SET owner = NULL, dollars = MAX(0, dollars - ?) "
                "WHERE question = ? AND ask = ? AND content IS NULL",
                (estimate, question, ask),
            )

    def keep(self, question: str, ask: int, reply: Reply, estimate: float, dollars: float) -> None:
        """Keep the reply to a claimed question; `dollars` takes the place of the estimate."""
        with self._writing() as database:
            database.execute(
                "UPDATE replies SET content = ?, model = ?, owner = NULL, dollars = MAX(0, dollars - ?) + ? "
                "WHERE question = ? AND ask = ?",
                (reply.content, reply.model, estimate, dollars, question, ask),
            )

    def spent(self) -> float:
        """Dollars of all replies, and of those on their way at most."""
        with self._lock:
            return self._database.execute("SELECT COALESCE(SUM(dollars), 0) FROM replies").fetchone()[0]

    def turn(self, requests_per_minute: float | None) -> float:
        """Seconds to wait before the next request, which is then this caller's: evenly spaced over all processes."""
        now = time.time()
        with self._writing() as database:
            coming, paused = database.execute("SELECT next, paused FROM pace").fetchone()
            if max(coming, paused) > now + _LONGEST_QUEUE_SECONDS:
                coming = paused = now
            at = max(now, coming, paused)
            if requests_per_minute is not None:
                database.execute("UPDATE pace SET next = ?", (at + 60.0 / requests_per_minute,))
        return at - now

    def pause(self, seconds: float) -> None:
        """Hold all processes' requests for so long: the judge has said that it is asked too much."""
        with self._writing() as database:
            database.execute("UPDATE pace SET paused = MAX(paused, ?)", (time.time() + seconds,))

    def _is_free(self, owner: str | None, claimed: float) -> bool:
        if owner is None:
            return True
        host, pid, started, _ = owner.rsplit(" ", 3)
        if host == socket.gethostname():
            is_ours = int(pid) == os.getpid()  # whose stores of earlier scorings may be gone
            return _started(int(pid)) != started or (is_ours and owner not in _OPEN)
        return time.time() - claimed > _LEASE_SECONDS


def _started(pid: int) -> str:
    """When a process started, in ticks, so that a number used again is told apart; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "" if not _is_alive(pid) else "alive"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
