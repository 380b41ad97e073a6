"""How every figure looks: one palette, direct labels, and saving in all formats at once.

The palette is safe for colour-blind readers: one orange for what is predicted, blues from light to dark for ordered
levels, greys for the rest. Figures are made without pyplot: no global state, no display.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREDICTED = "#c8500a"
INK, GREY, FAINT = "#222222", "#7a7a7a", "#dddddd"
LIGHT_BLUE, DARK_BLUE = "#8fc1e3", "#0b2f5b"
FORMATS = ("png", "svg")
DPI = 200

RC = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "vvlm_ray",
}


class NotDrawn(Exception):
    """The records do not hold what a figure or table shows; the message says what is missing."""


@contextmanager
def look() -> Iterator[None]:
    """The style, for the block only."""
    import matplotlib as mpl

    with mpl.rc_context(RC):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of the given size in inches; 10 fill the width of a README."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: "Figure", folder: Path, name: str, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write folder/name.<format> for every format."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in formats]
    with look():
        for path in paths:
            # Without a date the same records give the same file.
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
            figure.savefig(path, dpi=DPI, facecolor="white", metadata=metadata)
    return paths


def shades(number: int) -> list[str]:
    """Blues from light to dark, one for each of an ordered set of levels."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    if number == 1:
        return ["#2b6ca8"]
    blues = LinearSegmentedColormap.from_list("blues", [LIGHT_BLUE, "#2b6ca8", DARK_BLUE])
    return [to_hex(blues(position)) for position in np.linspace(0, 1, number)]


def error_colours():
    """A colour map for errors: dark where the error is low."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("errors", ["#1f5a96", "#6aa5d4", "#b9d8ee", "#f3f8fc"])


def log_axis(axis, ticks: Sequence[float] | None, text: Callable[[float], str]) -> None:
    """A log axis (`axes.xaxis` or `axes.yaxis`, already in log scale) with plain numbers at these ticks, no others."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if ticks is None:
        low, high = sorted(axis.get_view_interval())
        ticks = round_ticks(low, high)
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """1-2-3-... steps (or fewer) between low and high; within a factor of three evenly spaced round numbers."""
    if high < 3 * low:
        from matplotlib.ticker import MaxNLocator

        return [
            tick for tick in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low < tick < high
        ]
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in (range(1, 10), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) <= most:
            return ticks
    return ticks[:: int(np.ceil(len(ticks) / most))]


def level_ticks(levels: np.ndarray, low: float, high: float, most: int = 7) -> list[float]:
    """The levels themselves; where they are many, a subset that is spread out in log space."""
    levels = np.unique(levels[(levels >= low) & (levels <= high)])
    if len(levels) <= most:
        return apart(levels)
    wanted = np.geomspace(levels[0], levels[-1], most)
    return apart(np.unique([levels[np.abs(np.log(levels / value)).argmin()] for value in wanted]))


def apart(ticks: Sequence[float], share: float = 0.08) -> list[float]:
    """The ticks without those that would print over each other."""
    kept: list[float] = []
    span = np.log(max(ticks) / min(ticks)) if len(ticks) > 1 else 1.0
    for tick in ticks:
        if not kept or np.log(tick / kept[-1]) >= share * span:
            kept.append(float(tick))
    return kept


def stretches(flags: np.ndarray) -> list[tuple[int, int, bool]]:
    """Runs of equal flags as (first, last + 1, flag); neighbours share a point, so that lines have no gaps."""
    edges = [0, *(np.flatnonzero(np.diff(flags.astype(int))) + 1), len(flags)]
    return [(a, min(b + 1, len(flags)), bool(flags[a])) for a, b in pairwise(edges)]


def pad_log(values: np.ndarray, share: float = 0.06) -> tuple[float, float]:
    """Limits of a log axis around the values."""
    low, high = float(np.min(values)), float(np.max(values))
    margin = (high / low) ** share if high > low else 1.3
    return low / margin, high * margin


def halo() -> list:
    """A white rim for words that stand on colours or lines."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]


def rules(axes: "Axes", levels: np.ndarray, most: int = 8) -> None:
    """A faint line at every swept level; where there are many they would be a hatching, and are left out."""
    for value in levels if len(levels) <= most else []:
        axes.axhline(value, color=FAINT, linewidth=0.7, zorder=0)


def note(axes: "Axes", text: str, **options) -> None:
    """Small grey words in a corner of the axes."""
    place = {"x": 0.01, "y": 0.02, "ha": "left", "va": "bottom"} | options
    axes.text(place.pop("x"), place.pop("y"), text, transform=axes.transAxes, fontsize=8, color=GREY, **place)
