"""How the optimum moves with the data size: frontiers at several n with e_k(n), and elasticity by task.

Wang et al. 2025, Fig. 4, 10 and 5.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vvlm_ray.report import words
from vvlm_ray.report.figures import style
from vvlm_ray.report.figures.frontier import budget_axis
from vvlm_ray.report.figures.style import DARK_BLUE, FAINT, GREY, PREDICTED, NotDrawn
from vvlm_ray.report.figures.sweeps import title_of
from vvlm_ray.results.analysis import Analysis, frontiers_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FARTHEST = 5  # the last frontier is at this multiple of the largest swept data size


def sizes_to_draw(analysis: Analysis) -> np.ndarray:
    """Up to three swept data sizes, and one well beyond them."""
    swept = np.unique(analysis.runs.num_examples)
    if len(swept) > 3:
        swept = swept[[0, len(swept) // 2, -1]]
    return np.append(swept, FARTHEST * swept[-1])


def draw_by_size(analysis: Analysis) -> "Figure":
    """x*_k(c) for several n above, e_k(n) with its band below; one column for each factor.

    Raises:
        NotDrawn: the data size does not vary, or the cost is unknown.
    """
    if analysis.elasticity is None:
        raise NotDrawn("the number of examples does not vary over the runs, or the cost is unknown")
    sizes = sizes_to_draw(analysis)
    lines = frontiers_at(analysis, sizes)
    factors = list(analysis.runs.factors)
    with style.look():
        figure = style.new_figure(10, 5.6)
        panels = figure.subplots(2, len(factors), squeeze=False, height_ratios=(1.25, 1))
        for k, factor in enumerate(factors):
            _frontiers(panels[0, k], analysis, factor, sizes, lines)
            _elasticity(panels[1, k], analysis, factor)
        panels[1, 0].set_ylabel("elasticity $e_k(n)$")
        handles, texts = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=len(handles), title=None)
        return figure


def _frontiers(axes: "Axes", analysis: Analysis, factor: str, sizes, lines) -> None:
    levels = np.unique(analysis.runs.factors[factor])
    axes.set(xscale="log", yscale="log")
    style.rules(axes, levels)
    colours = [*style.shades(len(sizes) - 1), PREDICTED]
    # Equal optima would hide each other: wide lines below, narrow ones on top.
    widths = np.linspace(4.2, 1.3, len(sizes))
    for n, line, colour, width in zip(sizes, lines, colours, widths, strict=True):
        beyond = " (beyond the runs)" if n > analysis.runs.num_examples.max() else ""
        axes.plot(line.raw_budgets, line.factors[factor], color=colour, linewidth=width, drawstyle="steps-post",
                  solid_capstyle="butt", label=f"n = {words.count(n)}{beyond}", gid=f"frontier-{n:g}")  # fmt: skip
    every = np.concatenate([levels, *(line.factors[factor] for line in lines)])
    limits = style.pad_log(every, 0.1)
    axes.set_ylim(limits)
    ticks = style.level_ticks(np.append(levels, [every.min(), every.max()]), *limits, most=6)
    names = analysis.names if factor == "lm_params" else {}
    style.log_axis(axes.yaxis, ticks, lambda value: names.get(float(value)) or words.count(value))
    budget_axis(axes)
    axes.set(title=f"optimal {words.label(factor)}", xlabel="budget: FLOPs per video")


def _elasticity(axes: "Axes", analysis: Analysis, factor: str) -> None:
    moved = analysis.elasticity
    axes.set_xscale("log")
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    axes.fill_between(moved.sizes, moved.by_size_low[factor], moved.by_size_high[factor], color=DARK_BLUE, alpha=0.15,
                      linewidth=0, gid="band")  # fmt: skip
    axes.plot(moved.sizes, moved.by_size[factor], color=DARK_BLUE, linewidth=1.6, gid="elasticity")
    style.log_axis(axes.xaxis, style.round_ticks(moved.sizes.min(), moved.sizes.max(), most=4), words.count)
    mean, low, high = (words.signed(bound[factor]) for bound in (moved.mean, moved.low, moved.high))
    axes.set(title=f"mean {mean}  [{low}, {high}]", xlabel="examples n")


def draw_elasticity(analyses: Sequence[Analysis]) -> "Figure":
    """e_k of every score with its band; one panel for each factor.

    Raises:
        NotDrawn: no score has an elasticity.
    """
    shown = [analysis for analysis in analyses if analysis.elasticity is not None]
    if not shown:
        raise NotDrawn("the number of examples does not vary over the runs, or the cost is unknown")
    factors = list(dict.fromkeys(name for analysis in shown for name in analysis.runs.factors))
    with style.look():
        figure = style.new_figure(10, 1.3 + 0.3 * len(shown))
        panels = figure.subplots(1, len(factors), squeeze=False, sharey=True)[0]
        for axes, factor in zip(panels, factors, strict=True):
            axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)
            for k, analysis in enumerate(shown):
                moved = analysis.elasticity
                if factor not in moved.mean:
                    continue
                colour = PREDICTED if analysis.score == "avg" else DARK_BLUE
                axes.plot([moved.low[factor], moved.high[factor]], [k, k], color=colour, linewidth=1.6, gid="band")
                axes.plot(moved.mean[factor], k, "o", color=colour, markersize=5.5, gid=f"elasticity-{analysis.score}")
            axes.grid(axis="x", color=FAINT, linewidth=0.6)
            axes.set_title(words.label(factor))
        panels[0].set_yticks(range(len(shown)), [title_of(analysis) for analysis in shown])
        panels[0].set_ylim(len(shown) - 0.5, -0.5)
        figure.supxlabel("elasticity $e_k$: per cent that the optimum grows for one per cent more examples", fontsize=9)
        return figure
