"""How far the fit can be believed: bootstrapped parameters, predicted against observed, extrapolation by task.

Wang et al. 2025, Fig. 3.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vvlm_ray.report import words
from vvlm_ray.report.figures import style
from vvlm_ray.report.figures.style import DARK_BLUE, FAINT, GREY, LIGHT_BLUE, PREDICTED
from vvlm_ray.results.analysis import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vvlm_ray.scaling.validation import Scores

GREEK = {"alpha": r"\alpha", "beta": r"\beta", "xi": r"\xi", "eps": r"\varepsilon"}
WIDEST_EXPONENT = 4.0  # beyond it a whisker would squeeze the others; it is cut there and that is said
WIDEST_BAR = 4.0  # medians
WIDEST_DECADES = 5.0  # the same for coefficients, beyond their medians


def draw_fit(analysis: Analysis, extrapolated: "Scores | None", split: str, by_score: Mapping[str, float]) -> "Figure":
    """Parameters above; below predicted against observed and, for several scores, `by_score` {score: E%}."""
    with style.look():
        figure = style.new_figure(10, 7)
        panels = figure.subplots(2, 2, height_ratios=(1, 1.15))
        draw_exponents(panels[0, 0], analysis)
        draw_coefficients(panels[0, 1], analysis)
        draw_predictions(panels[1, 0], analysis, extrapolated, split)
        if len(by_score) > 1:
            draw_by_score(panels[1, 1], by_score, split)
        else:
            panels[1, 1].remove()
        return figure


def draw_exponents(axes: "Axes", analysis: Analysis) -> None:
    """Box plots over the resamples (whiskers: the band); members whose term is zero have no exponent."""
    bag = analysis.bag
    form = bag.form
    columns = []
    for e in range(len(form.exponents)):
        users = [j for j, term in enumerate(form.terms) if any(form.atoms[a].exponent == e for a in term)]
        there = np.isfinite(bag.log_coefficients[:, users]).any(axis=1)
        columns.append(bag.exponents[there, e])
    _boxes(axes, columns, [symbol_of(name) for name in form.exponents], analysis.settings.level)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -WIDEST_EXPONENT), min(high, WIDEST_EXPONENT))
    if low < -WIDEST_EXPONENT or high > WIDEST_EXPONENT:
        style.note(axes, f"cut at {WIDEST_EXPONENT:g}", x=0.99, ha="right")
    axes.set_title("exponents over the resamples")


def draw_coefficients(axes: "Axes", analysis: Analysis) -> None:
    """Box plots of log10 of the coefficients that are not zero; the share of zeros is said."""
    bag = analysis.bag
    logs = bag.log_coefficients / np.log(10)
    columns = [logs[np.isfinite(logs[:, j]), j] for j in range(logs.shape[1])]
    _boxes(axes, columns, [symbol_of(name) for name in bag.form.coefficients], analysis.settings.level)
    for j, column in enumerate(columns):
        zeros = 1 - len(column) / len(logs)
        if zeros > 0:
            axes.annotate(f"zero in {zeros:.0%}", (1.01, j), xycoords=("axes fraction", "data"), fontsize=8,
                          color=GREY, va="center", annotation_clip=False)  # fmt: skip
    medians = [np.median(column) for column in columns if len(column)]
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, min(medians) - WIDEST_DECADES), min(high, max(medians) + WIDEST_DECADES))
    axes.set_title("coefficients over the resamples, log10")


def _boxes(axes, columns, names, level: float) -> None:
    tails = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    axes.boxplot([column if len(column) else [np.nan] for column in columns], positions=range(len(columns)),
                 orientation="horizontal", whis=tails, showfliers=False, widths=0.6, patch_artist=True,
                 boxprops={"facecolor": LIGHT_BLUE, "edgecolor": DARK_BLUE, "linewidth": 0.8},
                 medianprops={"color": PREDICTED, "linewidth": 1.6},
                 whiskerprops={"color": DARK_BLUE, "linewidth": 0.8},
                 capprops={"color": DARK_BLUE, "linewidth": 0.8})  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", color=FAINT, linewidth=0.6)


def draw_predictions(axes: "Axes", analysis: Analysis, extrapolated: "Scores | None", split: str) -> None:
    """Predicted against observed error of held-out runs: cross-validation, and the split's extrapolation."""
    drawn = []
    if analysis.validation is not None:
        drawn.append((analysis.validation, f"{analysis.settings.folds}-fold cross-validation", LIGHT_BLUE, "o"))
    if extrapolated is not None:
        drawn.append((extrapolated, split.replace("->", "\N{RIGHTWARDS ARROW}"), PREDICTED, "^"))
    # A prediction that went wild would squeeze the others into a dot.
    low, high = style.pad_log(analysis.runs.error, 0.08)
    for scores, what, colour, marker in drawn:
        text = f"{what}: $R^2$ = {words.measure(scores.r2)}, E% = {words.measure(scores.error_percent)}"
        here = (scores.predicted >= low) & (scores.predicted <= high)
        axes.scatter(scores.observed[here], scores.predicted[here], s=24, color=colour, marker=marker, linewidth=0,
                     alpha=0.9, label=text, gid=f"predictions-{marker}", clip_on=False)  # fmt: skip
        for x, y in zip(scores.observed[~here], scores.predicted[~here], strict=True):
            up = y > high
            axes.annotate(words.measure(y), (x, high if up else low), xytext=(6, 0), ha="left", va="center",
                          textcoords="offset points", fontsize=7.5, color=colour,
                          annotation_clip=False)  # fmt: skip
            axes.plot(x, high if up else low, marker="^" if up else "v", color=colour, markersize=6,
                      markerfacecolor="white", clip_on=False, gid="wild")  # fmt: skip
    axes.plot([low, high], [low, high], color=GREY, linewidth=0.9, zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="observed error", ylabel="predicted error")
    axes.set_title("runs left out of the fit")
    if drawn:
        axes.legend(loc="upper left", handletextpad=0.3)


def draw_by_score(axes: "Axes", by_score: Mapping[str, float], split: str) -> None:
    """E% in extrapolation of each score, worst last."""
    names = sorted(by_score, key=by_score.get)
    values = np.array([by_score[name] for name in names])
    widest = WIDEST_BAR * np.median(values)  # a prediction that went wild would leave nothing to see of the others
    colours = [PREDICTED if name == "avg" else LIGHT_BLUE for name in names]
    axes.barh(range(len(names)), np.minimum(values, widest), color=colours, height=0.62, gid="extrapolation")
    for k, value in enumerate(values):
        text = f"{value:.1f}" if value <= widest else f"{words.measure(value)} (bar cut)"
        axes.annotate(text, (min(value, widest), k), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=8.5)  # fmt: skip
    axes.set_yticks(range(len(names)), ["average" if name == "avg" else name for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="E% = mean relative error of the prediction, %")
    axes.set_title(f"extrapolation {split.replace('->', chr(0x2192))}")


def symbol_of(parameter: str) -> str:
    """alpha_lm_params as $\\alpha_N$."""
    head, _, factor = parameter.partition("_")
    head = GREEK.get(head, head)
    if not factor:
        return f"${head}$"
    short = words.SYMBOLS.get(factor)
    return f"${head}_{short}$" if short else f"${head}$ {words.label(factor)}"
