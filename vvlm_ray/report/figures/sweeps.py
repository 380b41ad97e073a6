"""Figures of the runs as they are: every run, and the isoFLOP curves (Wang et al. 2025, Fig. 7, 2 and 9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vvlm_ray.report import words
from vvlm_ray.report.figures import style
from vvlm_ray.report.figures.frontier import budget_axis, colours_of
from vvlm_ray.report.figures.style import FAINT, GREY, INK, NotDrawn
from vvlm_ray.results.analysis import Analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLOSE = 0.03  # of neighbouring costs, as a log ratio
FEWEST_OF_A_CURVE = 4
WIDEST_CURVE = 1.12
NEAR_TARGET = 0.05  # a run of another sweep joins an isoFLOP curve when its cost is this close to the target
MARKERS = "o^sDvP"


@dataclass(frozen=True)
class Curve:
    """The runs (R,) of one target budget at one data size."""

    target_flops: float
    num_examples: float | None
    runs: np.ndarray


def draw_every_run(analyses: Sequence[Analysis]) -> "Figure":
    """Error against cost of every run: one panel for each score, colour for the data size, marker for the sweep."""
    with style.look():
        columns = min(3, len(analyses))
        rows = -(-len(analyses) // columns)
        figure = style.new_figure(10 if columns > 1 else 7, 0.6 + (3.1 if columns > 1 else 4.2) * rows)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes in panels.flat[len(analyses) :]:
            axes.remove()
        for axes, analysis in zip(panels.flat, analyses, strict=False):
            _every_run(axes, analysis)
        for axes in panels[-1, :] if len(analyses) == panels.size else panels.flat[: len(analyses)]:
            axes.set_xlabel("inference FLOPs per video")
        handles, texts = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=min(6, len(handles)))
        return figure


def _every_run(axes, analysis: Analysis) -> None:
    runs, cost = analysis.runs, analysis.swept_flops
    sizes = np.zeros(runs.num_runs) if runs.num_examples is None else runs.num_examples
    sweeps = np.full(runs.num_runs, "runs") if runs.sweep is None else runs.sweep
    axes.set_xscale("log")
    colours = dict(zip(np.unique(sizes), style.shades(len(np.unique(sizes))), strict=True))
    for k, sweep in enumerate(sorted(set(sweeps), key=lambda name: (name != "star", name))):
        for n, colour in colours.items():
            mine = (sweeps == sweep) & (sizes == n)
            if mine.any():
                text = str(sweep) if runs.num_examples is None else f"{sweep}, n = {words.count(n)}"
                axes.scatter(cost[mine], runs.error[mine], s=24, color=colour, marker=MARKERS[k % len(MARKERS)],
                             linewidth=0, label=text, gid=f"runs-{sweep}-{n:g}")  # fmt: skip
    budget_axis(axes)
    axes.set(title=title_of(analysis), ylabel="error")


def isoflop_curves(analysis: Analysis) -> list[Curve]:
    """The runs by target budget and data size; runs of other sweeps join where they cost about the same.

    Raises:
        NotDrawn: no run was made for a target budget.
    """
    runs, targets = analysis.runs, analysis.targets
    sizes = np.zeros(runs.num_runs) if runs.num_examples is None else runs.num_examples
    if not np.isfinite(targets).any():
        targets = inferred_targets(analysis.swept_flops, sizes)
    curves = []
    for target, size in sorted({(t, n) for t, n in zip(targets, sizes, strict=True) if np.isfinite(t)}):
        near = np.abs(analysis.swept_flops / target - 1) <= NEAR_TARGET
        mine = (sizes == size) & ((targets == target) | (np.isnan(targets) & near))
        if mine.sum() > 1:
            curves.append(Curve(target, None if runs.num_examples is None else size, mine))
    if not curves:
        raise NotDrawn(
            "no isoFLOP sweep: the records have no column target_flops, and no four configurations cost about the same"
        )
    return curves


def inferred_targets(cost: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Budgets that runs seem to have aimed at, where their table has none: (R,), NaN for runs that stand alone.

    Costs (R,) at one data size that follow one another closely, four of them or more within 12 %, are one budget: the
    middle of them, to two digits.
    """
    targets = np.full(len(cost), np.nan)
    for size in np.unique(sizes):
        order = np.flatnonzero(sizes == size)
        order = order[np.argsort(cost[order], kind="stable")]
        gaps = np.flatnonzero(np.diff(np.log(cost[order])) > CLOSE) + 1
        for group in np.split(order, gaps):
            costs = cost[group]
            if len(np.unique(costs)) >= FEWEST_OF_A_CURVE and costs.max() <= costs.min() * WIDEST_CURVE:
                targets[group] = float(f"{np.sqrt(costs.max() * costs.min()):.2g}")
    return targets


def draw_isoflop(analyses: Sequence[Analysis]) -> "Figure":
    """One row for each score, one column for each factor; colours are budgets, markers levels of the LM.

    Lines join runs of one budget and one LM (in the LM's own panel the best runs of each level); the dashed line joins
    the best runs of all budgets: the empirical frontier.
    """
    factors = list(analyses[0].runs.factors)
    curves = {analysis.score: isoflop_curves(analysis) for analysis in analyses}
    with style.look():
        single = len(analyses) == 1
        figure = style.new_figure(10, 0.7 + (3.4 if single else 2.3) * len(analyses))
        panels = figure.subplots(len(analyses), len(factors), squeeze=False, sharey="row")
        for row, analysis in zip(panels, analyses, strict=True):
            for axes, factor in zip(row, factors, strict=True):
                _isoflop(axes, analysis, curves[analysis.score], factor)
            row[0].set_ylabel("error" if single else f"{title_of(analysis)}: error")
        handles, texts = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=min(5, len(handles)), columnspacing=1.2)
        return figure


def _isoflop(axes, analysis: Analysis, curves: Sequence[Curve], factor: str) -> None:
    values, error = analysis.runs.factors[factor], analysis.runs.error
    by, _ = colours_of(analysis.runs.factors)
    groups = analysis.runs.factors[by]
    markers = dict(zip(np.unique(groups), MARKERS * 9, strict=False))
    axes.set_xscale("log")
    best = []
    for curve, colour in zip(curves, style.shades(len(curves)), strict=True):
        size = "" if len({c.num_examples for c in curves}) == 1 else f", n = {words.count(curve.num_examples)}"
        axes.plot([], [], color=colour, linewidth=1.5, label=words.flops(curve.target_flops) + size)
        for level in np.unique(groups[curve.runs]):
            mine = curve.runs & (groups == level)
            x, least = _least(values[mine], error[mine])
            axes.scatter(values[mine], error[mine], s=15, color=colour, marker=markers[level], linewidth=0, gid="runs")
            axes.plot(x, least, color=colour, linewidth=1.1, alpha=0.8, gid="curve")
        x, least = _least(values[curve.runs], error[curve.runs])
        if factor == by:
            axes.plot(x, least, color=colour, linewidth=1.1, alpha=0.8, gid="curve")
        best.append((x[least.argmin()], least.min()))
    if len(markers) <= 4:
        for level, marker in markers.items():
            text = words.level(by, level, analysis.names)
            axes.plot([], [], color=GREY, linestyle="none", marker=marker, markersize=4, label=text)
    for size in dict.fromkeys(curve.num_examples for curve in curves):  # budgets compare at one data size only
        here = [point for point, curve in zip(best, curves, strict=True) if curve.num_examples == size]
        x, y = np.array(here).T
        label = "best of each budget" if size == curves[0].num_examples else None
        axes.plot(x, y, color=INK, linewidth=1, linestyle=(0, (3, 2)), marker="o", markersize=6.5,
                  markerfacecolor="none", label=label, zorder=5, gid="empirical-frontier")  # fmt: skip
    limits = style.pad_log(values, 0.06)
    axes.set_xlim(limits)
    names = analysis.names if factor == "lm_params" else {}
    style.log_axis(axes.xaxis, style.level_ticks(np.unique(values), *limits, most=6),
                   lambda value: names.get(float(value)) or words.count(value))  # fmt: skip
    axes.set_xlabel(words.label(factor))
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.tick_params(axis="y", color=GREY)


def _least(values: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The levels, and the least error at each."""
    levels = np.unique(values)
    return levels, np.array([error[values == level].min() for level in levels])


def title_of(analysis: Analysis) -> str:
    """What a score is called: "average" for the mean of all tasks."""
    return "average" if analysis.score == "avg" else analysis.score
