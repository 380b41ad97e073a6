"""Decoding processes: what a file does to its decoder, it does to a process that has nothing to lose.

A thread that reads a video borrows an idle process or starts one; each lives for a number of files. One that dies or
takes too long is an unreadable video, unless decord or an earlier file may be to blame: then a new process is asked.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vvlm_ray.data.decoding.failures import CannotDecode
from vvlm_ray.data.decoding.image_reader import MAX_PIXELS
from vvlm_ray.data.decoding.lockdown import CPU_SECONDS_PER_FILE

FILES_PER_PROCESS = 500  # decord's memory grows from video to video
DECORD_SECONDS = 60  # without a word from it; PyAV is asked then
SILENT_SECONDS = 3600  # on a machine so busy that the processor time allowed takes that long
_BUFFER_BYTES = 1 << 20
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from vvlm_ray.data.decoding.child import serve; "
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


@dataclass(frozen=True)
class Request:
    """T frames of what is shown within [start, end) seconds."""

    num_frames: int
    start: float | None = None
    end: float | None = None
    use_decord: bool = True


class _Lost(Exception):
    """The process died or had to be killed."""

    def __init__(self, reason: str, *, in_decord: bool, first_file: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_be_innocent = in_decord or not first_file
        self.in_decord = in_decord


class _Process:
    """One decoding process and the connection to it."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        variables = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-c", f"{_START}serve(int(sys.argv[1]))", str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=variables | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self.num_files = 0

    def decode(self, file: int, request: Request, restart: Callable[[], None], add: Callable[..., None]) -> None:
        self.num_files += 1
        in_decord = False
        try:
            socket.send_fds(self._connection, [json.dumps(asdict(request)).encode()], [file])
            while True:
                self._connection.settimeout(DECORD_SECONDS if in_decord else SILENT_SECONDS)
                message = json.loads(self._receive(struct.unpack("!I", self._receive(4))[0]))
                if "shape" in message:
                    add(self._frame(message["shape"]), message["repeats"])
                elif "stage" in message:
                    in_decord = True
                elif "restart" in message:
                    in_decord = False
                    restart()
                elif "done" in message:
                    return
                elif message["memory"]:
                    raise _Lost(message["failed"], in_decord=in_decord, first_file=self.num_files == 1)
                else:
                    raise CannotDecode(message["failed"])
        except TimeoutError:
            reason = f"takes more than {SILENT_SECONDS} s to decode"
        except (OSError, EOFError):
            reason = self._cause_of_death()
        raise _Lost(reason, in_decord=in_decord, first_file=self.num_files == 1)

    def end(self) -> None:
        self._connection.close()
        self._popen.kill()
        self._popen.wait()

    def _receive(self, num_bytes: int) -> bytearray:
        data = bytearray(num_bytes)
        self._receive_into(memoryview(data))
        return data

    def _frame(self, shape: list[int]) -> np.ndarray:
        height, width, _ = shape
        if height * width > MAX_PIXELS:
            raise CannotDecode(f"is too large: {width} x {height} pixels (at most {MAX_PIXELS:,})")
        frame = np.empty((height, width, 3), np.uint8)
        self._receive_into(memoryview(frame).cast("B"))
        return frame

    def _receive_into(self, view: memoryview) -> None:
        while view:
            count = self._connection.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]

    def _cause_of_death(self) -> str:
        try:
            code = self._popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "its decoder stopped answering"
        if code == -signal.SIGXCPU:
            return f"takes more than {CPU_SECONDS_PER_FILE} s of processor time to decode"
        return f"ends its decoder ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


class _Pool:
    """Idle processes of this process (a fork starts with none)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Process] = []

    def take(self) -> _Process:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Process()

    def give_back(self, process: _Process) -> None:
        if process.num_files >= FILES_PER_PROCESS:
            process.end()
        else:
            with self._lock:
                self._idle.append(process)

    def forget_all(self) -> None:
        self._lock, self._idle = threading.Lock(), []

    def end_all(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()


_pool = _Pool()
atexit.register(_pool.end_all)
os.register_at_fork(after_in_child=_pool.forget_all)


def decode(file: int, request: Request, *, restart: Callable[[], None], add: Callable[[np.ndarray, int], Any]) -> None:
    """Call `add(frame, repeats)` for an open file's frames one by one, `restart()` when they have to begin anew.

    `file`: descriptor, read from its beginning; frames are uint8 (H, W, 3). Raises CannotDecode.
    """
    process = _pool.take()
    while True:
        try:
            process.decode(file, request, restart, add)
        except CannotDecode:
            _pool.give_back(process)
            raise
        except _Lost as lost:
            process.end()
            if not lost.may_be_innocent:
                raise CannotDecode(lost.reason) from None
            restart()
            request = replace(request, use_decord=request.use_decord and not lost.in_decord)
            process = _Process()
        except BaseException:
            process.end()  # amidst a file: nobody may talk to it again
            raise
        else:
            _pool.give_back(process)
            return
