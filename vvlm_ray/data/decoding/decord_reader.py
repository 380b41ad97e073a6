"""The plainest of files, which are most of them, through decord."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from vvlm_ray.data.decoding.pyav_reader import FirstFrame, Index

_MAX_BYTES = 64 << 20  # read as a whole: a decoding process may not open files, and decord takes no descriptors
_MIN_SIDE = 64  # decord fails on some narrower pictures


class DecordDisagrees(Exception):
    """decord counts or times the frames otherwise than the container does."""


def is_plain(file: IO[bytes], demuxer: str, index: Index, first: FirstFrame | None) -> bool:
    """Whether a file is of the kind on which decord gives what PyAV gives: mp4, H.264, 4:2:0, not rotated, closed GOPs.

    On open GOPs it gives other frames than the ones asked for.
    """
    return (
        first is not None
        and index.is_closed
        and demuxer == "mov"
        and (first.codec, first.pixel_format, first.rotation) == ("h264", "yuv420p", 0)
        and min(first.width, first.height) >= _MIN_SIDE
        and os.fstat(file.fileno()).st_size <= _MAX_BYTES
    )


def read_with_decord(file: IO[bytes], wanted: Sequence[int], times: np.ndarray) -> Iterator[np.ndarray]:
    """The wanted frames (unique, ascending) of those presented at `times` (N,), uint8 (H, W, 3).

    Raises DecordDisagrees, or what decord raises: it now and then fails on a sound file, so nothing that is wrong
    here says anything about the file.
    """
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    file.seek(0)
    # fault_tol: by default a frame that cannot be decoded is silently replaced by a neighbour.
    reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
    if len(reader) != len(times):
        raise DecordDisagrees
    own = reader.get_frame_timestamp(np.arange(len(times)))[:, 0]
    gap = (times[-1] - times[0]) / max(1, len(times) - 1)
    if np.abs(own - own[0] - times).max() > gap / 4:
        raise DecordDisagrees
    for index in wanted:
        yield reader[int(index)].asnumpy()
