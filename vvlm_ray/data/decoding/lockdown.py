"""What a decoding process may take and do: memory, processor time, no files, no network, no other programs."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys

MEMORY_BYTES = 1 << 30
CPU_SECONDS_PER_FILE = 300

# open, openat, openat2, creat, execve, execveat, socket, connect, io_uring_setup, by machine
_SYSTEM_CALLS = {
    "x86_64": (0xC000003E, (2, 257, 437, 85, 59, 322, 41, 42, 425)),
    "aarch64": (0xC00000B7, (56, 437, 221, 281, 198, 203, 425)),
}
_NO_NEW_PRIVILEGES, _SECCOMP = 38, 22  # prctl
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # BPF
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 13, 0x80000000  # 13: EACCES


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def lock_down() -> None:
    """Limit this process for good. On Linux (x86-64, ARM64) the kernel refuses it files, sockets and programs.

    Elsewhere only the limits hold, where the system knows them.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        if platform.machine() in _SYSTEM_CALLS:
            _refuse_system_calls(*_SYSTEM_CALLS[platform.machine()])


def allow_time_for_a_file() -> None:
    """Give the next file its processor time; past it the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS_PER_FILE
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _refuse_system_calls(architecture: int, numbers: tuple[int, ...]) -> None:
    program = [
        _Instruction(_LOAD, 0, 0, 4),
        _Instruction(_EQUALS, 1, 0, architecture),
        _Instruction(_RETURN, 0, 0, _KILL),
        _Instruction(_LOAD, 0, 0, 0),
        *(_Instruction(_EQUALS, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        _Instruction(_RETURN, 0, 0, _ALLOW),
        _Instruction(_RETURN, 0, 0, _REFUSE),
    ]
    array = (_Instruction * len(program))(*program)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        libc.prctl(_SECCOMP, 2, ctypes.byref(_Program(len(program), array)))
