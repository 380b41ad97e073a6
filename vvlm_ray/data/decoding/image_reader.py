"""Images and animations through Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import numpy as np
from PIL import Image

from vvlm_ray.data.decoding.failures import CannotDecode

MAX_PIXELS = 8192 * 8192  # of one frame, images and videos alike


def image_times(file: IO[bytes], format_name: str) -> np.ndarray:
    """(N,) seconds at which frames appear; evenly spaced when the file does not tell all durations."""
    with _opened(file, format_name) as image:
        durations = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            durations.append(float(image.info.get("duration") or 0))
    if min(durations) <= 0:
        return np.arange(len(durations), dtype=float)
    return np.concatenate([[0.0], np.cumsum(durations[:-1])]) / 1000


def image_frames(file: IO[bytes], format_name: str, wanted: Sequence[int]) -> Iterator[np.ndarray]:
    """The wanted frames (ascending), uint8 (H, W, 3); transparency is dropped."""
    with _opened(file, format_name) as image:
        for index in wanted:
            image.seek(int(index))
            yield np.asarray(image.convert("RGB"))


@contextmanager
def _opened(file: IO[bytes], format_name: str) -> Iterator[Image.Image]:
    file.seek(0)
    Image.MAX_IMAGE_PIXELS = None  # asked below, before anything is decoded
    with Image.open(file, formats=[format_name]) as image:
        if image.width * image.height > MAX_PIXELS:
            raise CannotDecode(f"is too large: {image.width} x {image.height} pixels (at most {MAX_PIXELS:,})")
        yield image
