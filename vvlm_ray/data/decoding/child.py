"""A decoding process: takes one open file after the other and sends frames back (pool.py is the other end).

It may open nothing itself (lockdown.py), so everything that it will need is imported before.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

from vvlm_ray.data.decoding import lockdown
from vvlm_ray.data.decoding.decord_reader import is_plain, read_with_decord
from vvlm_ray.data.decoding.failures import CannotDecode, OutOfMemory
from vvlm_ray.data.decoding.formats import recognise
from vvlm_ray.data.decoding.image_reader import image_frames, image_times
from vvlm_ray.data.decoding.pyav_reader import FrameMissing, count_frames, frames_at, frames_by_number, scan
from vvlm_ray.data.decoding.sampling import sample_times

_REQUEST_BYTES = 4096

Message = tuple[dict[str, Any], np.ndarray | None]
_RESTART: Message = ({"restart": True}, None)  # what was sent before does not count


def serve(descriptor: int) -> None:
    """Answer requests that come over a socket until its other end is gone."""
    connection = socket.socket(fileno=descriptor)
    _import_everything()
    lockdown.lock_down()
    while True:
        message, files, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 1)
        if not message:
            return
        lockdown.allow_time_for_a_file()
        with os.fdopen(files[0], "rb") as file:
            _answer(connection, file, json.loads(message))


def _answer(connection: socket.socket, file: IO[bytes], request: dict[str, Any]) -> None:
    try:
        for message, frame in _messages(file, request):
            _send(connection, message, frame)
        _send(connection, {"done": True})
    except (BrokenPipeError, ConnectionError):
        raise
    except (OutOfMemory, MemoryError):
        _send(connection, {"failed": "needs more memory than a decoding process may take", "memory": True})
    except CannotDecode as error:
        _send(connection, {"failed": str(error), "memory": False})
    except Exception as error:  # a damaged file may raise nearly anything (OSError, SyntaxError, ValueError)
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        _send(connection, {"failed": f"cannot be decoded ({line})", "memory": False})


def _messages(file: IO[bytes], request: dict[str, Any]) -> Iterator[Message]:
    """Every frame asked for, once; the first way that works. Which one it is depends on the file alone, but for
    decord, and where decord is asked, PyAV gives the same pixels to the bit."""

    def choose(times: np.ndarray) -> tuple[list[int], list[int]]:
        chosen = sample_times(times, request["num_frames"], request["start"], request["end"])
        wanted, repeats = np.unique(chosen, return_counts=True)
        return wanted.tolist(), repeats.tolist()

    kind = recognise(file.fileno())
    if kind.is_image:
        wanted, repeats = choose(image_times(file, kind.name))
        yield from _frames(image_frames(file, kind.name, wanted), repeats)
        return
    index, first = scan(file, kind.name)
    if index is not None:
        wanted, repeats = choose(index.times)
        if request["use_decord"] and is_plain(file, kind.name, index, first):
            yield {"stage": "decord"}, None
            try:
                yield from _frames(read_with_decord(file, wanted, index.times), repeats)
                return
            except Exception:  # decord raises its own, RuntimeError, AssertionError and IndexError, now and then
                yield _RESTART
        try:
            yield from _frames(frames_at(file, kind.name, index, wanted), repeats)
            return
        except FrameMissing:
            yield _RESTART
    wanted, repeats = choose(count_frames(file, kind.name))
    yield from _frames(frames_by_number(file, kind.name, wanted), repeats)


def _frames(frames: Iterable[np.ndarray], repeats: Iterable[int]) -> Iterator[Message]:
    for frame, count in zip(frames, repeats, strict=True):
        yield {"shape": frame.shape, "repeats": count}, frame


def _send(connection: socket.socket, message: dict[str, Any], frame: np.ndarray | None = None) -> None:
    text = json.dumps(message).encode()
    connection.sendall(struct.pack("!I", len(text)) + text)
    if frame is not None:
        connection.sendall(memoryview(np.ascontiguousarray(frame)).cast("B"))


def _import_everything() -> None:
    """Also what the libraries would only import at the first file of a kind."""
    import av
    import decord  # noqa: F401
    from PIL import Image

    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    Image.init()
