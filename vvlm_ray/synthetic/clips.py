"""The clips of the synthetic benchmark, in memory: one coloured square on still grey noise.

B clips, T moments of each; a frame has GRID x GRID cells of CELL x CELL pixels, and a square covers whole cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COLOURS = ("red", "orange", "lime", "green", "cyan", "blue", "violet", "pink")
GRID = 8  # cells per side of a frame
CELL = 4  # pixels per side of a cell
IMAGE_SIZE = GRID * CELL
SIZES = (1, 2, 3, 4)  # side of the square, in cells
# How long the square is there, as a share of the clip: 4 clip lengths cover most clips as a whole. The mix makes
# every doubling of the number of frames show more squares, but fewer more than the one before.
DURATIONS = (1 / 16, 1 / 4, 1 / 2, 4.0, 4.0)


@dataclass(frozen=True)
class Camera:
    """How colours reach the frame: hues turned about the grey axis, contrast scaled about middle grey."""

    hue_degrees: float = 0.0
    contrast: float = 1.0


@dataclass(frozen=True)
class Clips:
    """B clips: the square's colour, side and corner (cells), when it is there, and the background."""

    colour: np.ndarray  # (B,) index into COLOURS
    size: np.ndarray  # (B,) cells
    row: np.ndarray  # (B,)
    column: np.ndarray  # (B,)
    start: np.ndarray  # (B,) 0 is the first frame and 1 the last; may lie before the first
    duration: np.ndarray  # (B,) share of the clip
    background: np.ndarray  # (B, GRID, GRID, 3) grey levels


def draw_clips(
    rng: np.random.Generator,
    count: int,
    sizes: Sequence[int] = SIZES,
    durations: Sequence[float] = DURATIONS,
) -> Clips:
    """Draw `count` clips; every moment, the first and last frame included, is equally likely covered."""
    size = rng.choice(sizes, count)
    duration = rng.choice(durations, count)
    return Clips(
        colour=rng.integers(len(COLOURS), size=count),
        size=size,
        row=rng.integers(GRID + 1 - size),
        column=rng.integers(GRID + 1 - size),
        # From -duration, not from 0, or else the first frame would rarely show a square.
        start=rng.uniform(-duration, 1.0),
        duration=duration,
        background=120 + rng.uniform(-30, 30, (count, GRID, GRID, 3)),
    )


def take(clips: Clips, index: np.ndarray) -> Clips:
    """The clips at `index`."""
    return Clips(**{name: values[index] for name, values in vars(clips).items()})


def render(clips: Clips, times: np.ndarray, camera: Camera) -> np.ndarray:
    """uint8 frames (B, T, IMAGE_SIZE, IMAGE_SIZE, 3) of B clips at the moments `times` (T,) in 0..1."""
    B, T = len(clips.colour), len(times)
    cells = np.arange(GRID)
    in_rows = (cells >= clips.row[:, None]) & (cells < (clips.row + clips.size)[:, None])  # (B, GRID)
    in_columns = (cells >= clips.column[:, None]) & (cells < (clips.column + clips.size)[:, None])
    elapsed = times - clips.start[:, None]  # (B, T)
    visible = (elapsed >= 0) & (elapsed <= clips.duration[:, None])
    square = visible[:, :, None, None] & in_rows[:, None, :, None] & in_columns[:, None, None, :]
    paint = _palette()[clips.colour][:, None, None, None]
    image = np.where(square[..., None], paint, clips.background[:, None])  # (B, T, GRID, GRID, 3)
    image = 128 + camera.contrast * (image - 128) @ _hue_rotation(camera.hue_degrees).T
    image = np.clip(image + 0.5, 0, 255).astype(np.uint8).reshape(B, T, GRID, 1, GRID, 1, 3)
    pixels = np.broadcast_to(image, (B, T, GRID, CELL, GRID, CELL, 3))
    return pixels.reshape(B, T, IMAGE_SIZE, IMAGE_SIZE, 3)


def _palette() -> np.ndarray:
    """Eight equally bright colours, 45 degrees of hue apart: (8, 3)."""
    angle = np.arange(len(COLOURS)) * 2 * np.pi / len(COLOURS)
    return 128 + 120 * np.cos(angle[:, None] - np.array([0, 2, 4]) * np.pi / 3)


def _hue_rotation(degrees: float) -> np.ndarray:
    """Rotation of RGB space about the grey axis, (3, 3), by Rodrigues' formula."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return cos * np.eye(3) + (1 - cos) / 3 + sin * cross
