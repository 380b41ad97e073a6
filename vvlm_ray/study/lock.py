"""One owner: the run that may write to a study's folder, by a lock that works on NFS and on object stores.

`lock.json` says who holds it: host, pid, a token, and the seconds without a sign of life after which it counts as dead.
Its holder rewrites it as a heartbeat. How old a heartbeat is, is asked of the storage alone (the lock's time beside
that of a file written now), so clocks of hosts that disagree do no harm. A holder that was a process of this machine
and is gone is known to be gone at once.
"""

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from vvlm_ray.errors import UserError
from vvlm_ray.study.storage import create, storage_errors, write_atomically

LOCK_FILE = "lock.json"
TIME_TO_LIVE = 120.0  # seconds without a heartbeat
HEARTBEATS = 8  # within a time to live


@dataclass(frozen=True)
class Holder:
    """Who holds a study: host and pid, the machine's boot and the process's start (a pid may come again)."""

    token: str
    host: str
    pid: int
    boot: str
    process_start: int
    time_to_live: float

    @property
    def name(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_gone(self) -> bool:
        """Whether it certainly lives no more: a process of this machine that is not there."""
        return self.boot == _boot() and _process_start(self.pid) != self.process_start


class Taken(UserError):
    """The study is held by another run."""


@contextlib.contextmanager
def hold(
    root: Path, *, take_over: bool = False, on_lost: Callable[[], None] = lambda: None, ttl: float = TIME_TO_LIVE
) -> Iterator[None]:
    """Hold the study in the folder `root` for the time of the block.

    Args:
        take_over: hold it although another run does, if that one's heartbeat has died.
        on_lost: called in another thread when somebody else has taken it over.

    Raises:
        Taken: another run holds it; the message says who, and what to do.
    """
    path = root / LOCK_FILE
    mine = Holder(uuid.uuid4().hex, platform.node(), os.getpid(), _boot(), _process_start(os.getpid()), ttl)
    if not create(path, _text(mine)):
        _remove_dead(path, take_over)
        if not create(path, _text(mine)):
            raise Taken(_refusal(root, read_holder(root), None))
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, mine, stop, on_lost), daemon=True, name="lock's heartbeat")
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join(timeout=10)
        with contextlib.suppress(*storage_errors()):
            if (held := read_holder(root)) and held.token == mine.token:
                path.unlink(missing_ok=True)


def read_holder(root: Path) -> Holder | None:
    """Who holds the study; None where nobody does, or where the lock says nothing."""
    try:
        return Holder(**json.loads((root / LOCK_FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def is_held(root: Path) -> bool:
    """Whether a run that seems alive holds the study; writes nothing, so that another machine's clock is taken."""
    holder = read_holder(root)
    if holder is None or holder.is_gone:
        return False
    with contextlib.suppress(*storage_errors()):
        return holder.boot == _boot() or time.time() - (root / LOCK_FILE).stat().st_mtime < 2 * holder.time_to_live
    return False


def _remove_dead(path: Path, take_over: bool) -> None:
    """Remove the lock of a dead holder.

    Raises:
        Taken: it lives, or it seems dead and `take_over` was not said.
    """
    holder = read_holder(path.parent)
    if holder and holder.is_gone:
        _remove(path, holder)
        return
    age = _age(path)
    limit = holder.time_to_live if holder else TIME_TO_LIVE
    if age is not None and (age < limit or not take_over):
        raise Taken(_refusal(path.parent, holder, age if age >= limit else None))
    _remove(path, holder)


def _remove(path: Path, expected: Holder | None) -> None:
    """Take the lock away, unless it has become another's in the meantime."""
    aside = path.with_name(f".{LOCK_FILE}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    try:
        found = json.loads(aside.read_text())
    except ValueError:
        found = None
    if expected and found and found.get("token") != expected.token:
        create(path, json.dumps(found))  # it was taken over by a third; give it back
    aside.unlink(missing_ok=True)


def _age(path: Path) -> float | None:
    """Seconds since the last heartbeat by the storage's own clock; None where there is no lock any more."""
    probe = path.with_name(f".{LOCK_FILE}.{uuid.uuid4().hex}")
    write_atomically(probe, "")
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def _beat(path: Path, mine: Holder, stop: threading.Event, on_lost: Callable[[], None]) -> None:
    while not stop.wait(mine.time_to_live / HEARTBEATS):
        with contextlib.suppress(*storage_errors()):  # storage that is away says nothing about the owner
            holder = read_holder(path.parent)
            if holder is not None and holder.token != mine.token:
                on_lost()
                return
            if path.parent.exists():
                write_atomically(path, _text(mine))


def _refusal(root: Path, holder: Holder | None, dead_for: float | None) -> str:
    who = holder.name if holder else "another run"
    if dead_for is None:
        return f"{root} is being run by {who}; wait for it, or stop it first"
    return (
        f"{root} was being run by {who}, which has shown no sign of life for {dead_for:.0f} s; "
        "if it is gone for sure, go on with --take-over"
    )


def _text(holder: Holder) -> str:
    return json.dumps(asdict(holder))


def _boot() -> str:
    """Names this start of this machine, and its space of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _process_start(pid: int) -> int:
    """When a process was started, in ticks since the machine's boot; 0 where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
