"""Videos through PyAV: which frames there are, and the ones asked for, exactly.

A first pass reads the packets without decoding; a second one decodes only the stretches that lead to the frames
asked for. Nothing is sought in the container, so it does not matter how well a format can seek.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import IO, Any

import av
import numpy as np

from vvlm_ray.data.decoding.failures import CannotDecode, OutOfMemory
from vvlm_ray.data.decoding.image_reader import MAX_PIXELS

# Codecs whose key frames can be relied upon to begin decoding at.
_CLEAN_KEY_FRAMES = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libaom-av1"})
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_OUT_OF_MEMORY = 12  # ENOMEM


class FrameMissing(Exception):
    """A packet that should give a frame does not: only decoding everything tells which frames there are."""


@dataclass(frozen=True)
class Index:
    """`times` (N,): seconds from the first frame, in the order of presentation; `stamps`: the same in the stream's
    ticks; `starts`: the packet (in the order of decoding) at which decoding has to begin for each frame.
    `is_closed`: every frame can be decoded from the last key frame on."""

    times: np.ndarray
    stamps: list[int]
    starts: list[int]
    is_closed: bool


@dataclass(frozen=True)
class FirstFrame:
    """What only a decoded frame tells."""

    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int


def scan(file: IO[bytes], demuxer: str) -> tuple[Index | None, FirstFrame | None]:
    """What packets and the first frame tell; no index where the packets do not tell what will be presented when."""
    stamps: list[int] = []
    keys: list[int] = []
    hidden: set[int] = set()
    first = None
    reliable, last_decoding = True, -math.inf
    with _opened(file, demuxer) as (container, stream):
        context = stream.codec_context
        reliable = context.name in _CLEAN_KEY_FRAMES and demuxer != "avi"  # AVI knows no presentation times
        for packet in _packets(container, stream):
            if first is None and reliable and len(stamps) < 64:
                first = _first_frame(context, packet)
            position = len(stamps)
            if packet.pts is None or (packet.dts is not None and packet.dts < last_decoding):
                reliable = False
            last_decoding = last_decoding if packet.dts is None else packet.dts
            stamps.append(packet.pts if packet.pts is not None else -1)
            if packet.is_keyframe:
                keys.append(position)
            if packet.is_discard or _is_hidden(context.name, packet):
                hidden.add(position)
        base = stream.time_base
    if not stamps:
        raise CannotDecode("holds no pictures")
    shown = sorted((stamp, position) for position, stamp in enumerate(stamps) if position not in hidden)
    if not reliable or not shown or len({stamp for stamp, _ in shown}) < len(shown):
        return None, first
    ticks = [stamp for stamp, _ in shown]
    times = np.array([float((tick - ticks[0]) * base) for tick in ticks])
    starts = [_start(keys, stamps, position) for _, position in shown]
    last_keys = [keys[max(0, bisect_right(keys, position) - 1)] if keys else 0 for _, position in shown]
    return Index(times, ticks, starts, is_closed=starts == last_keys), first


def frames_at(file: IO[bytes], demuxer: str, index: Index, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """The wanted frames (unique, ascending) of an indexed video, uint8 (H, W, 3). Raises FrameMissing."""
    remaining = deque(wanted)
    with _opened(file, demuxer) as (container, stream):
        context = stream.codec_context
        fed, any_decoded = -1, False
        for position, packet in enumerate(_packets(container, stream, flush=True)):
            if packet is not None and position < index.starts[remaining[0]]:
                continue
            if packet is not None and position != fed + 1:
                context.flush_buffers()
            fed = position
            try:
                decoded = context.decode(packet)
            except av.error.FFmpegError as error:
                if any_decoded or index.starts[remaining[0]] > 0:
                    raise _refusal(error) from error
                continue
            for frame in decoded:
                any_decoded = True
                if frame.pts is None or frame.pts > index.stamps[remaining[0]]:
                    raise FrameMissing
                if frame.pts == index.stamps[remaining[0]]:
                    remaining.popleft()
                    yield _rgb(frame)
                    if not remaining:
                        return
    raise FrameMissing


def count_frames(file: IO[bytes], demuxer: str) -> np.ndarray:
    """(N,) seconds from the first frame of everything that can be decoded; 0, 1, 2, ... where no times are told."""
    stamps = [None if frame.pts is None else float(frame.pts * base) for frame, base in _all_frames(file, demuxer)]
    if not stamps:
        raise CannotDecode("none of its pictures can be decoded")
    if None in stamps or any(later <= earlier for earlier, later in pairwise(stamps)):
        return np.arange(len(stamps), dtype=float)
    return np.array(stamps) - stamps[0]


def frames_by_number(file: IO[bytes], demuxer: str, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """The wanted of `count_frames`' frames (unique, ascending), uint8 (H, W, 3)."""
    remaining = deque(wanted)
    for number, (frame, _) in enumerate(_all_frames(file, demuxer)):
        if number == remaining[0]:
            remaining.popleft()
            yield _rgb(frame)
            if not remaining:
                return
    raise CannotDecode("gives fewer pictures the second time it is decoded")


def _all_frames(file: IO[bytes], demuxer: str) -> Iterator[tuple[Any, Fraction]]:
    """Every frame and the unit of its time stamp, in the order of presentation.

    A recording may begin amidst pictures that refer to others: what fails before the first frame is left out.
    """
    with _opened(file, demuxer) as (container, stream):
        any_decoded = False
        for packet in _packets(container, stream, flush=True):
            try:
                decoded = stream.codec_context.decode(packet)
            except av.error.FFmpegError as error:
                if any_decoded:
                    raise _refusal(error) from error
                continue
            for frame in decoded:
                any_decoded = True
                yield frame, stream.time_base


@contextmanager
def _opened(file: IO[bytes], demuxer: str) -> Iterator[tuple[Any, Any]]:
    """Container and its video stream, decoding in this thread alone: other threads would make memory a gamble."""
    file.seek(0)
    try:
        container = av.open(file, format=demuxer, io_open=_refuse, buffer_size=1 << 18)
    except av.error.FFmpegError as error:
        raise _refusal(error) from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise CannotDecode("holds no video stream")
        stream = container.streams.best("video") or streams[0]
        context = stream.codec_context if stream in streams else streams[0].codec_context
        if context is None or not context.codec:
            raise CannotDecode("is in a codec that cannot be decoded here")
        if context.width * context.height > MAX_PIXELS:
            raise CannotDecode(f"is too large: {context.width} x {context.height} pixels (at most {MAX_PIXELS:,})")
        context.thread_type, context.thread_count = "NONE", 1
        context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream if stream in streams else streams[0]


def _refuse(*_: Any) -> None:
    raise PermissionError("videos that refer to other files are not followed")


def _packets(container: Any, stream: Any, *, flush: bool = False) -> Iterator[Any]:
    """The stream's packets in the order of decoding, then None if `flush`."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        raise _refusal(error) from error
    if flush:
        yield None


def _is_hidden(codec: str, packet: Any) -> bool:
    """VP8 keeps reference pictures that are never shown in packets of their own: bit 4 of the first byte."""
    return codec == "vp8" and not bytes(packet)[0] >> 4 & 1


def _start(keys: list[int], stamps: list[int], position: int) -> int:
    """The key frame before a frame; one earlier for pictures that lead a key frame (open GOPs refer across it)."""
    place = bisect_right(keys, position) - 1
    if place >= 0 and stamps[position] < stamps[keys[place]]:
        place -= 1
    return keys[place] if place >= 0 else 0


def _first_frame(context: Any, packet: Any) -> FirstFrame | None:
    try:
        frame = next(iter(context.decode(packet)), None)
    except av.error.FFmpegError:
        return None
    if frame is None:
        return None
    return FirstFrame(context.name, frame.format.name, frame.width, frame.height, frame.rotation)


def _rgb(frame: Any) -> np.ndarray:
    """uint8 (H, W, 3), turned as the container says."""
    pixels = frame.to_ndarray(
        format="rgb24",
        src_colorspace=frame.colorspace,
        dst_colorspace="default",
        src_color_range="JPEG" if frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj") else "MPEG",
    )
    turns = round(frame.rotation / 90) % 4
    return np.rot90(pixels, turns) if turns else pixels


def _refusal(error: Exception) -> CannotDecode:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == _OUT_OF_MEMORY:
        return OutOfMemory("needs more memory than a decoding process may take")
    return CannotDecode(f"cannot be decoded ({getattr(error, 'strerror', None) or error})")
