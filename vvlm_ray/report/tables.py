"""Tables of the report: what stands on the page, in the CSV and in the JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vvlm_ray.report import words
from vvlm_ray.report.answer import frontier_table
from vvlm_ray.report.figures.sweeps import title_of
from vvlm_ray.results import shapes
from vvlm_ray.results.analysis import Analysis
from vvlm_ray.results.comparison import Comparison, Row
from vvlm_ray.results.source import Source
from vvlm_ray.study.folder import write_atomically, write_json

if TYPE_CHECKING:
    from vvlm_ray.scaling.validation import Scores


@dataclass(frozen=True)
class Table:
    """`header` and `cells` are text for the page; `rows` are the same with plain numbers, for CSV and JSON."""

    name: str
    header: Sequence[str]
    cells: Sequence[Sequence[str]]
    rows: Sequence[Mapping[str, Any]]

    def write(self, folder: Path) -> list[Path]:
        """folder/<name>.csv and .json."""
        paths = [folder / f"{self.name}.csv", folder / f"{self.name}.json"]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]) if self.rows else list(self.header), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(paths[0], text.getvalue())
        write_json(paths[1], list(self.rows))
        return paths


def frontier(analysis: Analysis) -> Table:
    """x*(c; n) at the budgets asked for."""
    line = analysis.frontier
    header, cells = frontier_table(analysis)
    rows = []
    for b, point in enumerate(shapes.points(analysis, line)):
        row = {key: value for key, value in point.items() if key not in {"reasons", "measured"}}
        row["num_examples"] = analysis.num_examples
        for name in line.factors:
            row[f"{name}_low"], row[f"{name}_high"] = float(line.factor_low[name][b]), float(line.factor_high[name][b])
        rows.append({**row, "reasons": "; ".join(point["reasons"])})
    return Table("frontier", header, cells, rows)


def parameters(analysis: Analysis) -> Table:
    """The fit to all runs, with the bootstrap interval of each parameter and what the data do not determine."""
    fit, intervals = analysis.bag.fit, analysis.bag.intervals(analysis.settings.level)
    doubts = {verdict.param: verdict.sentence for verdict in fit.unidentified}
    rows = [
        {"parameter": name, "value": value, "low": intervals[name][0], "high": intervals[name][1],
         "note": doubts.get(name, "")}
        for name, value in fit.params.items()
    ]  # fmt: skip
    band = f"{analysis.settings.level:.0%} interval"
    cells = [[r["parameter"], f"{r['value']:.3g}", f"{r['low']:.3g} to {r['high']:.3g}", r["note"]] for r in rows]
    return Table("parameters", ["parameter", "all runs", band, ""], cells, rows)


def scores(analyses: Sequence[Analysis], ahead: Mapping[str, "Scores"], split: str | None) -> Table:
    """How well each score is predicted: MSE, E% and R^2 in cross-validation and in extrapolation."""
    rows, cells = [], []
    for analysis in analyses:
        known, beyond = analysis.validation, ahead.get(analysis.score)
        triples = [(s.mse, s.error_percent, s.r2) if s else None for s in (known, beyond)]
        rows.append({"score": analysis.score, "runs": analysis.runs.num_runs, **_measures(*triples)})
        cells.append([title_of(analysis), str(analysis.runs.num_runs), *_six(*triples)])
    return Table("scores", ["score", "runs", *_headers("cross-validation", split or "extrapolation")], cells, rows)


def comparison(found: Comparison, key: str) -> Table:
    """Table 2 (`forms`), 8 (`fits`) or 9 (`aggregates`) of the paper."""
    name, known = {
        "forms": ("table-2-forms", "cross-validation"),
        "fits": ("table-8-fits", "cross-validation"),
        "aggregates": ("table-9-aggregates", "runs of the fit"),
    }[key]
    lines: Sequence[Row] = getattr(found, key)
    rows = [
        {"what": line.what, **_measures(line.known, line.extrapolated, known.replace(" ", "_").replace("-", "_")),
         "note": line.reason}
        for line in lines
    ]  # fmt: skip
    cells = [[line.what, *_six(line.known, line.extrapolated), line.reason] for line in lines]
    return Table(name, ["", *_headers(known, found.split.name), ""], cells, rows)


def elasticity(analyses: Sequence[Analysis]) -> Table:
    """e_k of each score, with its band."""
    shown = [analysis for analysis in analyses if analysis.elasticity is not None]
    factors = list(dict.fromkeys(name for analysis in shown for name in analysis.elasticity.mean))
    rows, cells = [], []
    for analysis in shown:
        moved = analysis.elasticity
        row, line = {"score": analysis.score}, [title_of(analysis)]
        for name in factors:
            triple = [bound.get(name) for bound in (moved.mean, moved.low, moved.high)]
            row |= {name: triple[0], f"{name}_low": triple[1], f"{name}_high": triple[2]}
            known = triple[0] is not None
            text = [words.signed(value) for value in triple] if known else []
            line.append(f"{text[0]} [{text[1]}, {text[2]}]" if known else "")
        row["share_extrapolated"] = moved.share_extrapolated
        rows.append(row)
        cells.append([*line, f"{moved.share_extrapolated:.0%}"])
    return Table("elasticity", ["score", *map(words.label, factors), "beyond the runs"], cells, rows)


def unfinished(source: Source) -> Table:
    """Trials without a result, and why."""
    frame = source.frame[~source.done] if "status" in source.frame.columns else source.frame.iloc[:0]
    columns = [name for name in ("trial_id", "backbone", *source.columns.factors, "num_examples", "status", "reason")
               if name in frame.columns]  # fmt: skip
    rows = [
        {name: None if _missing(value) else value for name, value in zip(columns, values, strict=True)}
        for values in frame[columns].astype(object).itertuples(index=False)
    ]
    cells = [[_cell(name, value) for name, value in row.items()] for row in rows]
    return Table("unfinished", [words.label(name) for name in columns], cells, rows)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float | np.number):
        return words.count(float(value))
    return str(value).splitlines()[0] if str(value) else ""


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _headers(known: str, ahead: str) -> list[str]:
    ahead = ahead.replace("->", "\N{RIGHTWARDS ARROW}")
    return [f"{where}: {what}" for where in (known, ahead) for what in ("MSE", "E%", "R\N{SUPERSCRIPT TWO}")]


def _measures(known, ahead, first: str = "cross_validation") -> dict[str, float | None]:
    return {
        f"{where}_{what}": None if triple is None or not np.isfinite(triple[k]) else float(triple[k])
        for where, triple in ((first, known), ("extrapolation", ahead))
        for k, what in enumerate(("mse", "error_percent", "r2"))
    }


def _six(known, ahead) -> list[str]:
    return [words.measure(value) if triple else "" for triple in (known, ahead) for value in (triple or (0, 0, 0))]
