"""The answer of a study in words: how far the fit can be believed, the frontier, and what to deploy at each budget."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vvlm_ray.report import words
from vvlm_ray.report.figures import style
from vvlm_ray.report.figures.frontier import draw_frontier
from vvlm_ray.report.progress import shown
from vvlm_ray.results.analysis import Analysis, Progress, analyse, validated_forms
from vvlm_ray.scaling.forms import AUTO
from vvlm_ray.scaling.frontier import Frontier
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder

CLEARLY = 0.8  # another form is named when it leaves less than this share of the unexplained variance


def answer(folder: StudyFolder, study: Study) -> str:
    """Analyse the study's records, draw report/frontier.{png,svg,pdf}, and say in words what was found.

    The last lines are one sentence for each budget in `answer.tflops`, and where the pictures are.

    Raises:
        UserError: too few trials have finished for an answer, or a budget buys nothing; it says which.
    """
    asked = study.answer.tflops if study.answer else None
    with shown() as progress:
        analysis = analyse(folder.root, budgets=asked, progress=progress)
        doubts = better_forms(analysis, folder.fits, progress=progress)
    paths = style.save(draw_frontier(analysis), folder.report, "frontier", ("png", "svg", "pdf"))
    return "\n".join([*summary(analysis), *doubts, "", *sentences(analysis), f"Pictures: {paths[0]} (and .svg, .pdf)"])


def summary(analysis: Analysis) -> list[str]:
    """How well the fit predicts, what to mind, and the frontier as a table."""
    lines = ["", f"{analysis.name}: {analysis.verdict.sentence}", fit_sentence(analysis)]
    lines += [f"{analysis.read}."] if analysis.read else []
    lines += [f"Note: {note}." for note in analysis.notes]
    lines += [f"Warning: {warning}." for warning in analysis.predictor.warnings]
    if analysis.frontier is not None:
        size = f" after {words.count(analysis.num_examples)} examples" if analysis.num_examples else ""
        lines += ["", f"The frontier{size}:", *text_table(*frontier_table(analysis)), *comparison_line(analysis)]
    return lines


def comparison_line(analysis: Analysis) -> list[str]:
    """What the bag of one form would choose at the same budgets, in one line; none where it is what answers."""
    line, chosen = analysis.compared, analysis.frontier
    if line is None or chosen is None:
        return []
    same = line.index == chosen.index
    told = []
    for b in np.flatnonzero(~same):
        x = {name: float(values[b]) for name, values in line.factors.items()} | dict(analysis.fixed)
        budget = analysis.cost.text(line.raw_budgets[b])
        told.append(f"{budget}: {words.configuration(x, analysis.names)}, {100 - line.error[b]:.1f}")
    others = f"; otherwise {'; '.join(told)}" if told else ""
    return [f"For comparison, {analysis.bag.label} alone agrees at {same.sum()} of {len(same)} budgets{others}."]


def better_forms(analysis: Analysis, fits: Path | None, *, progress: Progress | None = None) -> list[str]:
    """A warning where another form predicts runs left out clearly better than the one that was fitted."""
    if analysis.validation is None or analysis.settings.form == AUTO:
        return []
    r2 = validated_forms(analysis.runs, analysis.settings, fits, analysis.score, progress=progress)
    form, best = max(r2.items(), key=lambda item: item[1], default=(analysis.settings.form, 0.0))
    unexplained = 1 - analysis.validation.r2
    if 1 - best > CLEARLY * unexplained:
        return []
    return [
        "",
        f"Warning: {form} predicts runs left out better than {analysis.settings.form} (R^2 = {best:.2f} against "
        f"{words.measure(analysis.validation.r2)}); see the frontier that it gives with "
        f"`python analysis/frontier.py {fits.parent if fits else analysis.name} --form {form}`.",
    ]


def fit_sentence(analysis: Analysis) -> str:
    """What was fitted, and how well it predicts runs that it has not seen."""
    text = f"{analysis.settings.form} fitted to {analysis.runs.num_runs} runs"
    if analysis.predictor is analysis.bag:
        text += f", {analysis.bag.num_resamples} resamples"
    scores = analysis.validation
    if scores is None:
        return f"{text}; not cross-validated."
    return (
        f"{text}; on runs left out ({analysis.settings.folds}-fold cross-validation) R^2 = "
        f"{words.measure(scores.r2)}, E% = {words.measure(scores.error_percent)}, root mean square error "
        f"{words.measure(np.sqrt(scores.mse))} points."
    )


def frontier_table(analysis: Analysis) -> tuple[list[str], list[list[str]]]:
    """Header and rows: budget, x* with the band of each factor, its cost, score and band, agreement, and doubts."""
    line = analysis.frontier
    header = ["budget", *(words.label(name) for name in line.factors), "cost", "score", _band(analysis), "agree", ""]
    rows = []
    for b, budget in enumerate(line.raw_budgets):
        cells = [analysis.cost.text(budget)]
        for name, values in line.factors.items():
            low, high = line.factor_low[name][b], line.factor_high[name][b]
            spread = "" if low == high else f" [{words.count(low)}..{words.count(high)}]"
            cells.append(words.level(name, values[b], analysis.names) + spread)
        cells += [
            analysis.cost.text(line.raw_cost[b]),
            f"{100 - line.error[b]:.1f}",
            f"{100 - line.high[b]:.1f}..{100 - line.low[b]:.1f}",
            f"{line.agreement[b]:.0%}",
            "; ".join(words.label_reason(reason) for reason in line.reasons[b]),
        ]
        rows.append(cells)
    return header, rows


def sentences(analysis: Analysis) -> list[str]:
    """For every budget asked for, what to deploy, what to expect of it, and how sure that is."""
    return [] if analysis.frontier is None else sentences_of(analysis, analysis.frontier)


def sentences_of(analysis: Analysis, line: Frontier) -> list[str]:
    """The same for any frontier of the analysis."""
    found = []
    for b, budget in enumerate(line.raw_budgets):
        chosen = {name: float(values[b]) for name, values in line.factors.items()} | dict(analysis.fixed)
        text = (
            f"Up to {analysis.cost.text(budget)} per video: deploy {words.configuration(chosen, analysis.names)} "
            f"({analysis.cost.text(line.raw_cost[b])}); expected score {100 - line.error[b]:.1f}, {_band(analysis)} "
            f"{100 - line.high[b]:.1f} to {100 - line.low[b]:.1f}; {line.agreement[b]:.0%} of the samples choose "
            f"exactly this; with 90 % probability it loses at most {line.gap[b]:.2g} against the best."
        )
        if line.reasons[b]:
            doubts = words.listed(words.label_reason(reason) for reason in line.reasons[b])
            text += f" Beyond what was swept ({doubts}): finetune it before you trust it."
        found.append(text)
    return found


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a plain table, numbers to the right."""
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    last = len(header) - 1
    return [
        "  ".join(
            cell.ljust(width) if k == last else cell.rjust(width) for k, (cell, width) in enumerate(cells)
        ).rstrip()
        for cells in (list(zip(row, widths, strict=True)) for row in [header, *rows])
    ]


def _band(analysis: Analysis) -> str:
    return f"{analysis.settings.level:.0%} band"
