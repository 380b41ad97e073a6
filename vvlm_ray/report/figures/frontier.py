"""The picture of an answer: error against cost, and beside it each factor's optimum x*_k(c) with its band.

Orange is predicted; blue dots are finished runs, darker for larger first factors (the LM).
"""

from typing import TYPE_CHECKING

import numpy as np

from vvlm_ray.report import words
from vvlm_ray.report.figures import style
from vvlm_ray.report.figures.style import GREY, PREDICTED
from vvlm_ray.results.analysis import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_frontier(analysis: Analysis) -> "Figure":
    """Error against cost on the left, one panel for each factor on the right, on the same axis of budgets."""
    with style.look():
        factors = list(analysis.runs.factors)
        figure = style.new_figure(10, max(5.0, 0.6 + 1.75 * len(factors)))
        grid = figure.add_gridspec(len(factors), 2, width_ratios=(1.3, 1))
        left = figure.add_subplot(grid[:, 0])
        draw_error(left, analysis)
        for k, factor in enumerate(factors):
            axes = figure.add_subplot(grid[k, 1], sharex=left)
            draw_factor(axes, analysis, factor)
            axes.tick_params(labelbottom=k == len(factors) - 1)
        axes.set_xlabel("budget: inference FLOPs per video")
        handles, texts = left.get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=min(6, len(handles)), handlelength=1.5,
                      columnspacing=1.6, handletextpad=0.5)  # fmt: skip
        return figure


def draw_error(axes: "Axes", analysis: Analysis) -> None:
    """The runs by cost and error, the predicted least error with its band, and the best run up to a cost.

    Of the runs those at the data size asked for are shown, or at the swept one nearest to it.
    """
    runs, line, asked = analysis.runs, analysis.curve, analysis.frontier
    cost = analysis.swept_flops
    here = runs_at(analysis)
    by, colours = colours_of(runs.factors)
    axes.set(xscale="log", yscale="log")
    for value, colour in colours.items():
        mine = runs.factors[by] == value
        axes.scatter(cost[mine & here], runs.error[mine & here], s=30, color=colour, linewidth=0, zorder=3,
                     label=words.level(by, value, analysis.names), gid=f"runs-{value:g}")  # fmt: skip
    order = np.argsort(cost[here], kind="stable")
    best = np.minimum.accumulate(runs.error[here][order])
    axes.step(cost[here][order], best, where="post", color=GREY, linewidth=1, zorder=2, label="best run up to a cost",
              gid="best-run")  # fmt: skip
    _band(axes, line.raw_budgets, line.low, line.high)
    _line(axes, line.raw_budgets, line.error, line.extrapolates, "predicted")
    axes.plot([], [], color=PREDICTED, linewidth=1.8,
              label=f"predicted optimum, {analysis.settings.level:.0%} band (dashed: beyond the runs)")  # fmt: skip
    _ring(axes, asked.raw_budgets, asked.error)
    axes.set_xlim(style.pad_log(np.concatenate([line.raw_budgets, cost]), 0.08))
    # The bands do not set the limits: outside the runs they can reach to anywhere.
    low, high = style.pad_log(np.concatenate([runs.error[here], line.error]), 0.06)
    axes.set_ylim(low / (high / low) ** 0.22, high)
    _label_asked(axes, analysis)
    budget_axis(axes)
    style.log_axis(axes.yaxis, None, lambda value: f"{value:g}")
    axes.set_xlabel("inference FLOPs per video")
    axes.set_ylabel("error = 100 - score")
    size = f" after {words.count(analysis.num_examples)} examples" if analysis.num_examples else ""
    axes.set_title(f"{analysis.name}: least error{size}")
    style.note(axes, _dots(analysis, here), x=0.99, y=0.99, ha="right", va="top")


def draw_factor(axes: "Axes", analysis: Analysis, factor: str) -> None:
    """x*_k(c) as a step line with its band; the runs as dots, larger for a lower error; a rule at every swept level."""
    runs, line, asked = analysis.runs, analysis.curve, analysis.frontier
    here = runs_at(analysis)
    by, colours = colours_of(runs.factors)
    axes.set(xscale="log", yscale="log")
    levels = np.unique(runs.factors[factor])
    style.rules(axes, levels)
    low, high = line.factor_low[factor], line.factor_high[factor]
    _band(axes, line.raw_budgets, low, high, step="post")
    axes.scatter(analysis.swept_flops[here], runs.factors[factor][here], s=sizes_by_error(runs.error[here]),
                 c=[colours[value] for value in runs.factors[by][here]], linewidth=0, alpha=0.9, zorder=3,
                 gid="runs")  # fmt: skip
    best = line.factors[factor]
    beyond = (best < levels[0]) | (best > levels[-1]) | _beyond(line.raw_cost, analysis.swept_flops)
    _line(axes, line.raw_budgets, best, beyond, "frontier", drawstyle="steps-post")
    _ring(axes, asked.raw_budgets, asked.factors[factor])
    limits = style.pad_log(np.concatenate([levels, low, high]), 0.12)
    axes.set_ylim(limits)
    farther = [value for value in (best.min(), best.max()) if not levels[0] <= value <= levels[-1]]
    ticks = style.level_ticks(np.concatenate([levels, farther]), *limits, most=6)
    text = analysis.names if factor == "lm_params" else {}
    style.log_axis(axes.yaxis, ticks, lambda value: text.get(float(value)) or words.count(value))
    budget_axis(axes)
    axes.set_title(f"optimal {words.label(factor)}")
    if factor == next(iter(runs.factors)):
        style.note(axes, "dots: runs, larger for a lower error", x=1, y=1.03, ha="right")


def runs_at(analysis: Analysis) -> np.ndarray:
    """The runs at the data size asked for, or at the swept one nearest to it: (R,)."""
    sizes = analysis.runs.num_examples
    if sizes is None:
        return np.ones(analysis.runs.num_runs, bool)
    distance = np.abs(np.log(sizes / analysis.num_examples))
    return distance <= distance.min() + 1e-9


def colours_of(factors) -> tuple[str, dict[float, str]]:
    """The factor that the runs' colours show (the LM where there is one), and a colour for each of its levels."""
    by = "lm_params" if "lm_params" in factors else min(factors, key=lambda name: len(np.unique(factors[name])))
    levels = np.unique(factors[by])
    return by, dict(zip(levels.tolist(), style.shades(len(levels)), strict=True))


def sizes_by_error(error: np.ndarray) -> np.ndarray:
    """Marker areas from 8 (the highest error) to 46 (the lowest)."""
    spread = np.ptp(error)
    return 8 + 38 * ((error.max() - error) / spread if spread > 0 else np.full(len(error), 0.5))


def _dots(analysis: Analysis, here: np.ndarray) -> str:
    sizes = analysis.runs.num_examples
    if sizes is None:
        return f"dots: the {here.sum()} runs"
    shown = float(sizes[here][0])
    text = f"dots: the {here.sum()} runs after {words.count(shown)} examples"
    return text if shown == analysis.num_examples else f"{text}, the nearest that was swept"


def budget_axis(axes: "Axes") -> None:
    """FLOPs on the x axis as '5 M', '20 T'."""
    style.log_axis(axes.xaxis, None, lambda value: words.flops(value).removesuffix("FLOPs").strip())


def _beyond(values: np.ndarray, swept: np.ndarray) -> np.ndarray:
    return (values < swept.min() * (1 - 1e-9)) | (values > swept.max() * (1 + 1e-9))


def _band(axes, x, low, high, **options) -> None:
    axes.fill_between(x, low, high, color=PREDICTED, alpha=0.18, linewidth=0, gid="band", **options)


def _line(axes, x, y, beyond, gid: str, **options) -> None:
    """Solid within what was swept, dashed beyond it."""
    for first, last, dashed in style.stretches(beyond):
        axes.plot(x[first:last], y[first:last], color=PREDICTED, linewidth=1.8, zorder=4, gid=gid,
                  linestyle=(0, (2.5, 1.2)) if dashed else "-", **options)  # fmt: skip


def _ring(axes, x, y) -> None:
    """Marks the budgets asked for, without hiding the runs there."""
    axes.scatter(x, y, s=64, facecolor="none", edgecolor=PREDICTED, linewidth=1.5, zorder=5, gid="asked")


def _label_asked(axes, analysis: Analysis) -> None:
    """Under each of a few budgets asked for, what to deploy there."""
    asked = analysis.frontier
    if len(asked.raw_budgets) > 5:
        return
    units = {"num_frames": "frames", "tokens_per_frame": "tokens"}
    for b in range(len(asked.raw_budgets)):
        parts = [
            analysis.names.get(float(values[b]), words.count(values[b]) + " LM") if name == "lm_params"
            else f"{words.count(values[b])} {units.get(name, words.label(name))}"
            for name, values in asked.factors.items()
        ]  # fmt: skip
        place = (asked.raw_budgets[b], asked.error[b])
        leader = {"arrowstyle": "-", "color": PREDICTED, "linewidth": 0.7, "shrinkB": 5, "shrinkA": 0}
        text = axes.annotate("\n".join(parts), place, xytext=(0, -26), textcoords="offset points", arrowprops=leader,
                             ha="center", va="top", fontsize=8.5, color=PREDICTED, linespacing=1.1,
                             zorder=6)  # fmt: skip
        text.set_path_effects(style.halo())
