"""Which frames of a video stand for it (Wang et al. 2025, App. B)."""

from __future__ import annotations

import numpy as np

from vvlm_ray.data.decoding.failures import CannotDecode


def sample_indices(num_total: int, num_frames: int) -> np.ndarray:
    """linspace(0, num_total - 1, num_frames) cut to int64: first and last included, repeated when short."""
    return np.linspace(0, num_total - 1, num_frames).astype(np.int64)


def sample_times(
    times: np.ndarray, num_frames: int, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """(T,) indices into the frames' presentation times (N,), ascending, in seconds from the first frame.

    Of the frames shown within [start, end): at a constant frame rate those of `sample_indices`, else the ones shown
    at T moments evenly spaced from the first frame's time to the last one's. Raises CannotDecode when none is.
    """
    first, last = _window(times, start, end)
    within = times[first : last + 1]
    if _is_constant(within):
        return first + sample_indices(len(within), num_frames)
    moments = np.linspace(within[0], within[-1], num_frames)
    return first + np.searchsorted(within, moments + 1e-9, side="right") - 1  # a frame's own moment counts as its


def _is_constant(times: np.ndarray) -> bool:
    """Whether every frame comes within half a frame of its place on an even grid (time stamps are rounded)."""
    even = np.linspace(times[0], times[-1], len(times))
    gap = (times[-1] - times[0]) / max(1, len(times) - 1)
    return bool(np.abs(times - even).max() <= gap / 2)


def _window(times: np.ndarray, start: float | None, end: float | None) -> tuple[int, int]:
    """First and last of the frames shown within [start, end)."""
    start = 0.0 if start is None else max(0.0, start)
    gap = (times[-1] - times[0]) / max(1, len(times) - 1)
    length = float(times[-1] - times[0] + gap)
    if end is not None and end <= start:
        raise CannotDecode(f"the part asked for ends at {end:g} s, not after its start at {start:g} s")
    if start > 0 and start >= length:
        raise CannotDecode(f"the part asked for starts at {start:g} s, but the video is {length:.3g} s long")
    first = int(np.searchsorted(times, start + 1e-9, side="right")) - 1
    last = len(times) - 1 if end is None else int(np.searchsorted(times, end - 1e-9, side="left")) - 1
    return max(0, first), max(0, first, last)
