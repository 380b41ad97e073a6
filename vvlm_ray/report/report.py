"""The report of a study: every table and figure of Wang et al. 2025 for its records, as files and on one page.

What the records do not hold is said on the page in the place where it would stand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vvlm_ray.errors import UserError
from vvlm_ray.report import tables, words
from vvlm_ray.report.answer import fit_sentence, sentences
from vvlm_ray.report.figures import contours, fits, movement, style, sweeps
from vvlm_ray.report.figures.frontier import draw_frontier
from vvlm_ray.report.figures.style import NotDrawn
from vvlm_ray.report.page import Picture, Section, page
from vvlm_ray.report.tables import Table
from vvlm_ray.results.analysis import Analysis, Progress, Settings, analyse
from vvlm_ray.results.comparison import Comparison, compare, extrapolated, split_of
from vvlm_ray.results.source import Source
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.study.folder import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vvlm_ray.scaling.validation import Scores

MOST_STAR_ROWS = 10  # tasks in one figure


@dataclass(frozen=True)
class Findings:
    """All that was computed: one analysis for each score, the first the average; what could not be is in `missing`."""

    source: Source
    analyses: Sequence[Analysis]
    split: str | None
    ahead: Mapping[str, "Scores"]
    comparison: Comparison | None
    missing: Sequence[str]


def write_report(source: Source, out: Path, *, budgets=None, num_examples: float | None = None,
                 settings: Settings | None = None, map: Map | None = None,
                 progress: Progress | None = None) -> list[Path]:  # fmt: skip
    """Analyse every score, write out/*.{png,svg,csv,json} and out/report.html, and return what was written.

    Raises:
        UserError: the records cannot be read, or the first score cannot be analysed.
    """
    found = compute(source, budgets=budgets, num_examples=num_examples, settings=settings, map=map, progress=progress)
    writer = _Writer(out, progress, _num_figures(found))
    sections = [
        _answer(writer, found),
        _trust(writer, found),
        *_compared(writer, found),
        _star(writer, found),
        _isoflop(writer, found),
        _by_size(writer, found),
        _overhead(writer, found),
        _runs(writer, found),
    ]
    lead = (
        f"{len(found.analyses[0].runs.error)} finished runs; scores: "
        f"{words.listed(sweeps.title_of(analysis) for analysis in found.analyses)}. Errors are 100 - score. "
        "Method: Wang et al., Inference Compute-Optimal Video Vision Language Models, ACL 2025."
    )
    path = out / "report.html"
    write_atomically(path, page(f"Study {source.name}", lead, sections))
    return [path, *writer.written]


def _num_figures(found: Findings) -> int:
    """Eight for the first score, one for each task, and two that show all tasks."""
    tasks = len(found.analyses) - 1
    return 8 + tasks + (2 if tasks else 0)


def compute(source: Source, *, budgets=None, num_examples=None, settings=None, map=None, progress=None) -> Findings:
    """Everything that the report shows."""
    options = {
        "budgets": budgets, "num_examples": num_examples, "settings": settings, "map": map, "progress": progress,
        "with_elasticity": True,
    }  # fmt: skip
    names = source.scores()
    analyses, missing = [], []
    for k, name in enumerate(names):
        try:
            analyses.append(analyse(source, name, **options))
        except UserError as problem:
            # The page stands or falls with the first score; a task that cannot be analysed is left out and named.
            if k == 0:
                raise
            missing.append(f"{name}: {problem}")
    split, ahead, found = None, {}, None
    try:
        split = split_of(analyses[0]).name
        for analysis in analyses:
            try:
                ahead[analysis.score] = extrapolated(analysis, source.fits, progress=progress)
            except UserError as problem:
                missing.append(f"extrapolation of {analysis.score}: {problem}")
        found = compare(analyses[0], source.fits, progress=progress)
    except UserError as problem:
        missing.append(f"comparison of forms: {problem}")
    return Findings(source, analyses, split, ahead, found, missing)


class _Writer:
    """Writes figures and tables beside the page and remembers their paths."""

    def __init__(self, out: Path, progress: Progress | None, total: int):
        self.out, self.progress, self.written, self.total, self.tried = out, progress, [], total, 0

    def picture(self, name: str, draw: "Callable[[], Figure]", caption: str, alternative: str):
        """(picture, none) or (none, why it is not drawn)."""
        try:
            paths = style.save(draw(), self.out, name)
        except NotDrawn as problem:
            paths, reason = [], str(problem)
        self.tried += 1
        if self.progress:
            self.progress("draw", min(self.tried, self.total), self.total)
        if not paths:
            return [], [f"Not drawn ({caption.partition('.')[0]}): {reason}."]
        self.written += paths
        return [Picture(paths[0], caption, alternative)], []

    def table(self, caption: str, table: Table) -> tuple[str, Table]:
        self.written += table.write(self.out)
        return caption, table


def _answer(writer: _Writer, found: Findings) -> Section:
    first = found.analyses[0]
    notes = [f"{note[0].upper()}{note[1:]}." for note in first.notes]
    if first.frontier is None:
        return Section("What to deploy", paragraphs=notes)
    level = f"{first.settings.level:.0%}"
    pictures, missing = writer.picture(
        "frontier",
        lambda: draw_frontier(first),
        f"Least error against cost, and the configuration that reaches it. Orange: predicted, with the {level} band of "
        "the resamples; rings: the budgets asked for; dots: finished runs, darker for larger LMs; dashed where the "
        "optimum lies beyond what was swept.",
        "Error against inference cost, and the optimal value of each factor against the budget.",
    )
    table = writer.table(
        f"x*(c; n): for each budget the configuration of least predicted error, in brackets the {level} band of the "
        "resamples' own choices; agree: the share of resamples that choose the same.",
        tables.frontier(first),
    )
    return Section("What to deploy", notes + missing, sentences(first), pictures, [table], kind="answer")


def _trust(writer: _Writer, found: Findings) -> Section:
    first = found.analyses[0]
    by_score = {name: scores.error_percent for name, scores in found.ahead.items()}
    pictures, missing = writer.picture(
        "fit",
        lambda: fits.draw_fit(first, found.ahead.get(first.score), found.split or "", by_score),
        "How well the runs determine the fit (as Fig. 3 of the paper). Above: parameters over the resamples, whiskers "
        "over the band. Below: runs that were left out of the fit, predicted and observed.",
        "Box plots of the fitted parameters; predicted against observed error.",
    )
    parts = [
        writer.table(
            "How well each score is predicted, on runs left out of the fit.",
            tables.scores(found.analyses, found.ahead, found.split),
        ),
        writer.table(f"{first.bag.form.name}, fitted to all runs.", tables.parameters(first)),
    ]
    said = []
    if first.bag.fit.status == "unidentified":
        said.append("The runs do not determine every parameter (see the table); that alone says nothing against the "
                    "predictions, which the runs left out below judge.")  # fmt: skip
    elif first.bag.fit.status != "ok":
        said += [f"{text[0].upper()}{text[1:]}." for text in first.bag.fit.warnings]
    return Section(
        "How far to believe it", [first.verdict.sentence, fit_sentence(first), *said, *missing], (), pictures, parts
    )


def _compared(writer: _Writer, found: Findings) -> list[Section]:
    if found.comparison is None:
        return []
    captions = {
        "forms": "Parametric forms (as Table 2 of the paper).",
        "fits": "Ways of fitting the chosen form (as Table 8 of the paper).",
        "aggregates": "Ways of aggregating the resamples (as Table 9 of the paper; known ground: the runs of the fit).",
    }
    parts = [writer.table(caption, tables.comparison(found.comparison, key)) for key, caption in captions.items()]
    text = f"Each was asked for runs it had not seen: in cross-validation, and {found.comparison.split.name}."
    return [Section("Other ways to fit", [text], tables=parts)]


def _star(writer: _Writer, found: Findings) -> Section:
    caption = (
        "Error over one factor and the number of examples, the others at the centre of the star (as Fig. {} of the "
        "paper). Blue: measured at the dots and interpolated; orange: predicted."
    )
    alternative = "Contours of the error over each factor and the number of finetuning examples."
    return _for_scores(
        writer,
        found,
        "One factor at a time",
        name="star",
        draw=contours.draw_star,
        caption=caption,
        alternative=alternative,
        numbers=("1", "8"),
    )


def _isoflop(writer: _Writer, found: Findings) -> Section:
    caption = (
        "Runs of about equal cost (as Fig. {} of the paper). Colours are budgets, markers LMs; lines join runs of one "
        "budget and one LM, and the dashed line the best run of each budget, the empirical frontier."
    )
    alternative = "Error against each factor, one curve for each budget."
    if found.analyses[0].cost is None:
        return Section("Equal cost", ["Not drawn: what a configuration costs is unknown."])
    return _for_scores(
        writer,
        found,
        "Equal cost",
        name="isoflop",
        draw=sweeps.draw_isoflop,
        caption=caption,
        alternative=alternative,
        numbers=("2", "9"),
    )


def _for_scores(writer, found, title, *, name, draw, caption, alternative, numbers) -> Section:
    """One figure for the first score, and one for the tasks where there are some."""
    pictures, missing = writer.picture(name, lambda: draw(found.analyses[:1]), caption.format(numbers[0]), alternative)
    tasks = [a for a in found.analyses[1:] if set(a.runs.factors) == set(found.analyses[0].runs.factors)]
    if tasks and pictures:
        more, reason = writer.picture(
            f"{name}-tasks", lambda: draw(tasks[:MOST_STAR_ROWS]), caption.format(numbers[1]), f"{alternative} By task."
        )
        pictures, missing = pictures + more, missing + reason
    return Section(title, missing, pictures=pictures)


def _by_size(writer: _Writer, found: Findings) -> Section:
    if found.analyses[0].elasticity is None:
        reason = "Not computed: the number of examples does not vary over the runs, or the cost is unknown."
        return Section("More finetuning data", [reason])
    pictures, missing = [], []
    for k, analysis in enumerate(found.analyses):
        if analysis.elasticity is None:
            continue
        new, reason = writer.picture(
            "by-size" if k == 0 else f"by-size-{analysis.score.replace('/', '_')}",
            lambda analysis=analysis: movement.draw_by_size(analysis),
            f"{sweeps.title_of(analysis)}: the frontier for several numbers of examples n, and how its optimum moves "
            f"with n (as Fig. {'4' if k == 0 else '10'} of the paper); bands over the resamples.",
            "The optimal value of each factor against the budget for several data sizes, and its elasticity.",
        )
        # On the page the average alone: a page of all tasks says less. Their figures lie beside it.
        pictures, missing = pictures + (new if k == 0 else []), missing + reason
    table = tables.elasticity(found.analyses)
    new, reason = writer.picture(
        "elasticity",
        lambda: movement.draw_elasticity(found.analyses),
        "Elasticity by score (as Fig. 5 of the paper), with the band of the resamples.",
        "Elasticity of each factor for each score.",
    )
    first = found.analyses[0].elasticity
    text = (
        "Elasticity e_k: by how many per cent the optimum of factor k grows when there is one per cent more "
        f"finetuning data, averaged over budgets from {words.flops(first.raw_budgets.min())} to "
        f"{words.flops(first.raw_budgets.max())} and n from {words.count(first.sizes.min())} to "
        f"{words.count(first.sizes.max())}. {first.share_extrapolated:.0%} of these lie beyond what was swept."
    )
    tail = [f"The same figures for the tasks: {', '.join(names)}."] if (names := _task_files(writer)) else []
    return Section("More finetuning data", [text, *missing, *reason, *tail], pictures=pictures + new,
                   tables=[writer.table("Elasticity, with the band of the resamples.", table)])  # fmt: skip


def _task_files(writer: _Writer) -> list[str]:
    return [p.name for p in writer.written if p.name.startswith("by-size-") and p.suffix == ".png"]


def _overhead(writer: _Writer, found: Findings) -> Section:
    pictures, missing = writer.picture(
        "overhead",
        lambda: contours.draw_overhead(found.analyses[0]),
        "FLOPs of the vision model for each FLOP of the LM, x_M x_W / (x_N x_V) (as Fig. 6 of the paper).",
        "Contours of the vision model's share of the cost.",
    )
    return Section("The vision model's share", missing, pictures=pictures)


def _runs(writer: _Writer, found: Findings) -> Section:
    counted = [f"{found.analyses[0].runs.num_runs} runs are in the analysis of the first score."]
    counted += [f"{analysis.score}: {analysis.read}." for analysis in found.analyses]
    waste = tables.unfinished(found.source)
    if waste.rows:
        counted.append(f"{len(waste.rows)} trials did not finish and were left out:")
    for analysis in found.analyses[1:]:
        counted += [f"{analysis.score}: {note}." for note in analysis.notes if note not in found.analyses[0].notes]
    counted += [f"Left out: {text}." for text in found.missing]
    parts = [writer.table("Trials that did not finish.", waste)] if waste.rows else []
    pictures, missing = [], ["Not drawn: what a configuration costs is unknown."]
    if found.analyses[0].cost is not None:
        pictures, missing = writer.picture(
            "runs",
            lambda: sweeps.draw_every_run(found.analyses),
            "Every finished run (as Fig. 7 of the paper).",
            "Error against inference cost of every run, by score.",
        )
    return Section("Every run", missing, counted, pictures, parts)
