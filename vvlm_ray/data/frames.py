"""Frames from a video file: exactly T of them, uniformly over the video (Wang et al. 2025, App. B)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class UnreadableVideo(Exception):
    """A video that cannot be read: missing, empty, cut off, no video stream, or no video at all."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(str(path), reason)  # both as arguments, so that it survives pickling
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def sample_indices(num_total: int, num_frames: int) -> np.ndarray:
    """linspace(0, num_total - 1, num_frames) cut to int64: first and last included, repeated when short."""
    return np.linspace(0, num_total - 1, num_frames).astype(np.int64)


def read_frames(path: str | Path, num_frames: int) -> np.ndarray:
    """Sampled frames of a video as uint8 (T, H, W, 3); an image counts as a video of one frame.

    Raises UnreadableVideo for anything that is wrong with the file. The reader is closed before returning: decord
    keeps a decoder's memory for as long as its reader lives.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableVideo(path, "no such file")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return np.repeat(_read_image(path)[None], num_frames, axis=0)
    return _read_video(path, num_frames)


def _read_video(path: Path, num_frames: int) -> np.ndarray:
    import decord

    decord.logging.set_level(decord.logging.FATAL)  # ffmpeg's remarks on single files; errors are raised anyway
    reader = None
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        frames = reader.get_batch(sample_indices(len(reader), num_frames))
        return frames.asnumpy()
    except Exception as error:  # decord raises its own, RuntimeError, AssertionError and IndexError
        raise UnreadableVideo(path, _first_line(error)) from error
    finally:
        del reader


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # a damaged file may raise nearly anything (OSError, SyntaxError, ValueError)
        raise UnreadableVideo(path, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
