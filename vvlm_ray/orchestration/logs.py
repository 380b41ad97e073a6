"""What a job prints, in its folder: `logs/attempt-<number>.log`, or `attempt-<number>-rank-<rank>.log` of further
workers.
"""

import contextlib
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from vvlm_ray.study.storage import is_local, storage_errors


def log_file(run: Path, attempt: int, rank: int = 0) -> Path:
    return run / "logs" / (f"attempt-{attempt}.log" if rank == 0 else f"attempt-{attempt}-rank-{rank}.log")


@contextlib.contextmanager
def captured(run: Path, attempt: int, rank: int) -> Iterator[None]:
    """Within the block, standard output and error of this process go to the job's log, and so does what it raises.

    A log that cannot be written is none: the job goes on without.
    """
    target = log_file(run, attempt, rank)
    with contextlib.ExitStack() as stack:
        try:
            if is_local(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(target.open("ab", buffering=0))
            else:
                file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
                stack.callback(_put, file, target)
        except storage_errors():
            file = None
        if file is None:
            yield
            return
        stack.enter_context(_redirected(file.fileno()))
        print(f"attempt {attempt} on {socket.gethostname()}, process {os.getpid()}, {time.strftime('%F %T %z')}")
        try:
            yield
        except BaseException:
            traceback.print_exc()
            raise


@contextlib.contextmanager
def _redirected(descriptor: int) -> Iterator[None]:
    """File descriptors 1 and 2, so that libraries' output is there too."""
    saved = {number: os.dup(number) for number in (1, 2)}
    streams = sys.stdout, sys.stderr
    try:
        for number in saved:
            os.dup2(descriptor, number)
        sys.stdout = os.fdopen(os.dup(descriptor), "w", buffering=1)
        sys.stderr = os.fdopen(os.dup(descriptor), "w", buffering=1)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.close()
        sys.stdout, sys.stderr = streams
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)


def _put(file, target: Path) -> None:
    with contextlib.suppress(*storage_errors()):
        file.seek(0)
        target.write_bytes(file.read())
