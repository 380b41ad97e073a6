"""Frames from a video file: exactly T of them, uniformly over the video (Wang et al. 2025, App. B)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vvlm_ray.data.decoding.failures import CannotDecode
from vvlm_ray.data.decoding.pool import Request, decode
from vvlm_ray.data.decoding.sampling import sample_indices, sample_times
from vvlm_ray.data.frame_folders import list_frames

__all__ = ["UnreadableVideo", "read_frames", "sample_indices"]

_MAX_FULL_SIZE_BYTES = 1 << 30  # of all frames together where none are resized


class UnreadableVideo(Exception):
    """A video that cannot be read: missing, empty, cut off, no video stream, or no video at all."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(str(path), reason)  # both as arguments, so that it survives pickling
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_frames(
    path: str | Path,
    num_frames: int,
    *,
    start: float | None = None,
    end: float | None = None,
    size: int | None = None,
    fps: float | None = None,
    root: str | Path | None = None,
) -> np.ndarray:
    """Sampled frames of a video as uint8 (T, H, W, 3), or (T, size, size, 3) resized one by one as they are decoded.

    `path`: a video, an animation, an image (a video of one frame), or a folder of images in the natural order of
    their names, `fps` of them a second. Of what is shown within [start, end) seconds from the first frame, T frames
    evenly spaced: by number where the frame rate is constant (`sample_indices`), by time where it varies. The result
    may be a read-only view. With `root`, nothing outside that folder is opened, whatever links or ".." say.

    Raises UnreadableVideo for anything that is wrong with the file. The file is decoded in a process of its own: it
    cannot end this one, open other files, or take more than a gigabyte.
    """
    path = Path(path)
    output = _Output(num_frames, size)
    try:
        if os.path.isdir(path):  # False too for names that no file can have
            _read_folder(path, output, start=start, end=end, fps=fps, root=root)
        else:
            with _opened(path, root) as file:
                decode(file, Request(num_frames, start, end), restart=output.restart, add=output.add)
        return output.frames()
    except CannotDecode as error:
        raise UnreadableVideo(path, str(error)) from None


def _read_folder(
    folder: Path,
    output: _Output,
    *,
    start: float | None,
    end: float | None,
    fps: float | None,
    root: str | Path | None,
) -> None:
    names = list_frames(folder)
    if fps is None and (start is not None or end is not None):
        raise CannotDecode("a folder of frames has no times: give its fps, or no start and end")
    chosen = sample_times(np.arange(len(names)) / (fps or 1.0), output.num_frames, start, end)
    for index, repeats in zip(*np.unique(chosen, return_counts=True), strict=True):
        only: list[np.ndarray] = []
        with _opened(folder / names[index], root) as file:
            try:
                decode(file, Request(1), restart=only.clear, add=lambda frame, _, only=only: only.append(frame))
            except CannotDecode as error:
                raise CannotDecode(f"{names[index]} {error}") from None
        output.add(only[0], int(repeats))


@contextmanager
def _opened(path: Path, root: str | Path | None) -> Iterator[int]:
    """Descriptor of a regular file below `root`; CannotDecode for what is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))  # a pipe must not block
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error})"
        raise CannotDecode(reason) from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise CannotDecode("is no regular file")
        if root is not None and not _real_path(path, file).is_relative_to(Path(root).resolve()):
            raise CannotDecode(f"lies outside {root}; set allow_outside_root for its source if that is meant")
        yield file
    finally:
        os.close(file)


def _real_path(path: Path, file: int) -> Path:
    """Where an open file lies; asked of the kernel where it tells, as links may change meanwhile."""
    opened = Path(f"/proc/self/fd/{file}")
    return Path(os.readlink(opened)) if opened.is_symlink() else path.resolve()


class _Output:
    """T frames, filled in order; each is resized at once."""

    def __init__(self, num_frames: int, size: int | None) -> None:
        self.num_frames = num_frames
        self._size = size
        self._frames: np.ndarray | None = None
        self._filled = 0

    def restart(self) -> None:
        """Forget what was added."""
        self._frames, self._filled = None, 0

    def add(self, frame: np.ndarray, repeats: int) -> None:
        """Take the next frame, (H, W, 3), for so many of the T."""
        if self._size is not None or (self._frames is not None and frame.shape != self._frames.shape[1:]):
            from vvlm_ray.model.preprocess import resize  # torch

            height, width = self._frames.shape[1:3] if self._size is None else (self._size, self._size)
            frame = resize(frame[None], height, width)[0]
        if self._frames is None:
            if repeats == self.num_frames:
                self._frames, self._filled = np.broadcast_to(frame, (repeats, *frame.shape)), repeats
                return
            if self.num_frames * frame.size > _MAX_FULL_SIZE_BYTES:
                raise CannotDecode(
                    f"{self.num_frames} frames of {frame.shape[1]} x {frame.shape[0]} pixels are too much"
                )
            self._frames = np.empty((self.num_frames, *frame.shape), np.uint8)
        self._frames[self._filled : self._filled + repeats] = frame
        self._filled += repeats

    def frames(self) -> np.ndarray:
        """(T, H, W, 3)."""
        if self._frames is None or self._filled != self.num_frames:
            raise CannotDecode(f"gives {self._filled} of {self.num_frames} frames")
        return self._frames
