"""Folders of images that stand for a video, as LLaVA-Hound and others ship them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vvlm_ray.data.decoding.failures import CannotDecode

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def list_frames(folder: Path) -> list[str]:
    """Names of a folder's images in their natural order (2 before 10). Raises CannotDecode when there are none."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise CannotDecode(f"cannot be listed ({error.strerror})") from None
    frames = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
    if not frames:
        raise CannotDecode("is a folder without images (frames are .jpg, .png, .webp or .bmp files)")
    return sorted(frames, key=_natural)


def _natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part)) if part.isdigit() else (0, part) for part in parts if part], name
