"""Contours: error over a factor and the data size (Wang et al. 2025, Fig. 1, 8), and the vision overhead (Fig. 6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vvlm_ray.report import words
from vvlm_ray.report.figures import style
from vvlm_ray.report.figures.style import GREY, INK, PREDICTED, NotDrawn
from vvlm_ray.report.figures.sweeps import title_of
from vvlm_ray.results.analysis import Analysis
from vvlm_ray.scaling.cost import EQ1_CONSTANTS, inference_flops_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_LEVELS = 7
FINE = 40  # points a side of the predicted contours


@dataclass(frozen=True)
class Plane:
    """The runs (R,) that share all factors but one, and the values of those they share."""

    factor: str
    runs: np.ndarray
    others: dict[str, float]


def star_plane(analysis: Analysis, factor: str) -> Plane:
    """The largest set of runs in which only `factor` and the data size vary: an arm of the star.

    Raises:
        NotDrawn: no such set spans two levels and two data sizes.
    """
    runs = analysis.runs
    if runs.num_examples is None:
        raise NotDrawn("the data size does not vary")
    others = {name: values for name, values in runs.factors.items() if name != factor}
    keys = np.stack([*others.values(), np.zeros(runs.num_runs)]).T
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.ravel()
    best, most = None, 0
    for g in range(group.max() + 1):
        mine = group == g
        x, n = runs.factors[factor][mine], runs.num_examples[mine]
        size = len(np.unique(np.stack([x, n]), axis=1).T)
        if size > most and np.ptp(x) > 0 and np.ptp(n) > 0:
            best, most = mine, size
    if best is None or most < 4:
        raise NotDrawn(f"no runs in which only {words.label(factor)} and the number of examples vary")
    return Plane(factor, best, {name: float(values[best][0]) for name, values in others.items()})


def draw_star(analyses: Sequence[Analysis]) -> "Figure":
    """Filled contours of the measured error and, in orange, of the predicted one; one row a score, one column a factor.

    Raises:
        NotDrawn: no factor has runs for it.
    """
    planes, reasons = [], []
    for factor in analyses[0].runs.factors:
        try:
            planes.append(star_plane(analyses[0], factor).factor)
        except NotDrawn as reason:
            reasons.append(str(reason))
    if not planes:
        raise NotDrawn("; ".join(dict.fromkeys(reasons)))
    with style.look():
        single = len(analyses) == 1
        figure = style.new_figure(3.4 * len(planes) if single else 10, 0.4 + (3.0 if single else 2.3) * len(analyses))
        panels = figure.subplots(len(analyses), len(planes), squeeze=False)
        for row, analysis in zip(panels, analyses, strict=True):
            for axes, factor in zip(row, planes, strict=True):
                _star(axes, analysis, star_plane(analysis, factor))
            title = f"{title_of(analysis)}: error" if not single else "error measured (blue), predicted (orange)"
            row[0].set_title(title)
            row[0].set_ylabel(words.label("num_examples"))
        return figure


def _star(axes: "Axes", analysis: Analysis, plane: Plane) -> None:
    runs = analysis.runs.select(plane.runs)
    steps, sizes = np.unique(runs.factors[plane.factor]), np.unique(runs.num_examples)
    x, n = np.log(runs.factors[plane.factor]), np.log(runs.num_examples)
    levels = np.unique(np.linspace(runs.error.min(), runs.error.max(), NUM_LEVELS + 1).round(1))
    if len(levels) < 2:
        levels = runs.error.min() + np.array([-0.5, 0.5])
    columns, rows = np.log(steps), np.log(sizes)
    table = _table(x, n, runs.error, columns, rows)
    options = {"levels": levels, "cmap": style.error_colours(), "extend": "neither"}
    if np.isfinite(table).all():
        axes.contourf(columns, rows, table, **options)
    elif len(x) > 3:
        axes.tricontourf(x, n, runs.error, **options)
    across, up = np.linspace(columns[0], columns[-1], FINE), np.linspace(rows[0], rows[-1], FINE)
    grid_x, grid_n = np.meshgrid(across, up)
    points = {name: np.full(grid_x.size, value) for name, value in plane.others.items()}
    points = {name: np.exp(grid_x.ravel()) if name == plane.factor else points[name] for name in runs.factors}
    predicted = analysis.predictor.predict(points, np.exp(grid_n.ravel())).reshape(grid_x.shape)
    lines = axes.contour(across, up, predicted, levels=levels[1:-1], colors=PREDICTED, linewidths=1)
    _label(axes, lines, "%.3g")
    axes.scatter(x, n, s=10, facecolor="white", edgecolor=INK, linewidth=0.6, zorder=3, clip_on=False, gid="runs")
    names = analysis.names if plane.factor == "lm_params" else {}
    ticks = style.level_ticks(steps, 0, np.inf, most=6)
    axes.set_xticks(np.log(ticks), [names.get(value) or words.count(value) for value in ticks])
    ticks = style.level_ticks(sizes, 0, np.inf, most=6)
    axes.set_yticks(np.log(ticks), [words.count(value) for value in ticks])
    axes.set_xlabel(words.label(plane.factor))


def _label(axes: "Axes", lines, form) -> None:
    """Numbers on contour lines, readable on any blue."""
    for text in axes.clabel(lines, fontsize=8, fmt=form, inline_spacing=2):
        text.set(color=INK, path_effects=style.halo())


def _table(x, n, error, columns, rows) -> np.ndarray:
    """Mean error by (n, x), NaN where there is no run."""
    table = np.full((len(rows), len(columns)), np.nan)
    for i, size in enumerate(rows):
        for j, level in enumerate(columns):
            mine = (n == size) & (x == level)
            if mine.any():
                table[i, j] = error[mine].mean()
    return table


def draw_overhead(analysis: Analysis) -> "Figure":
    """c_vision / c_LM = x_M x_W / (x_N x_V) over LM size and tokens per frame.

    Raises:
        NotDrawn: the cost is not that of Eq. 1, or one of the two does not vary.
    """
    if analysis.cost is None or not analysis.cost.is_eq1:
        raise NotDrawn("the cost of this study is not Eq. 1, which has a vision part")
    runs = analysis.runs
    if not {"lm_params", "tokens_per_frame"} <= set(runs.factors):
        raise NotDrawn("LM size or tokens per frame does not vary")
    constants = {name: analysis.cost.fixed.get(name, getattr(analysis.cost, name)) for name in EQ1_CONSTANTS}
    sizes, tokens = runs.factors["lm_params"], runs.factors["tokens_per_frame"]
    x = np.linspace(*np.log([sizes.min(), sizes.max()]), 60)
    y = np.linspace(*np.log([tokens.min(), tokens.max()]), 60)
    grid_x, grid_y = np.meshgrid(np.exp(x), np.exp(y))
    vision, language = inference_flops_parts(grid_x, 1, grid_y, **constants)
    ratio = np.log10(vision / language)
    with style.look():
        figure = style.new_figure(6, 4.2)
        axes = figure.subplots()
        steps = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000])
        drawn = np.log10(steps)[(np.log10(steps) >= ratio.min()) & (np.log10(steps) <= ratio.max())]
        axes.contourf(x, y, ratio, levels=40, cmap=style.error_colours().reversed())
        if len(drawn):
            lines = axes.contour(x, y, ratio, levels=drawn, colors="white", linewidths=1.1, linestyles="solid")
            _label(axes, lines, lambda value: f"{10**value:g}")
        axes.scatter(np.log(sizes), np.log(tokens), s=14, color=PREDICTED, linewidth=0, zorder=3, clip_on=False)
        ticks = style.level_ticks(sizes, 0, np.inf, most=6)
        axes.set_xticks(np.log(ticks), [analysis.names.get(v) or words.count(v) for v in ticks])
        ticks = style.level_ticks(tokens, 0, np.inf, most=7)
        axes.set_yticks(np.log(ticks), [words.count(v) for v in ticks])
        axes.set(xlabel="LM size", ylabel="tokens per frame", title="vision FLOPs / LM FLOPs (dots: runs)")
        axes.tick_params(color=GREY)
        return figure
