"""What the analysis commands print: JSON, tables, and sentences with their doubts."""

import json
import math

import click

from vvlm_ray.commands.printing import print_table
from vvlm_ray.units import si


def recommendation_sentence(answer, tflops: float, num_examples: float | None) -> str:
    """One plain sentence, and one for each doubt."""
    from vvlm_ray.report import words

    line = answer.line
    chosen = {name: float(values[0]) for name, values in line.factors.items()}
    after = f" and {words.count(num_examples)} finetuning examples" if num_examples else ""
    text = (
        f"For {si(tflops * 1e12, 'FLOPs')} per example{after}, deploy {words.configuration(chosen)} "
        f"({si(line.raw_cost[0], 'FLOPs')}): expected error {line.error[0]:.2f} "
        f"(90 % band {line.low[0]:.2f} to {line.high[0]:.2f}); {line.agreement[0]:.0%} of the resamples choose exactly "
        f"this configuration."
    )
    near = [other for other in answer.alternatives if other.worse_low <= 0]
    if near:
        options = "; ".join(f"{words.configuration(o.factors)} ({o.worse_by:+.2f})" for o in near)
        text += f" Within noise of it: {options}."
    if answer.cheapest:
        text += (
            f" The cheapest within noise: {words.configuration(answer.cheapest.factors)}, "
            f"{si(answer.cheapest.cost * 1e12, 'FLOPs')} ({answer.cheapest.worse_by:+.2f})."
        )
    if line.reasons[0]:
        doubts = words.listed(words.label_reason(reason) for reason in line.reasons[0])
        text += f" This extrapolates ({doubts}): finetune and measure it before you trust it."
    return text


def misfit_notes(missed: float | None) -> list[str]:
    """What the bands do not say: they come from resampling the runs, and take the law for granted."""
    if missed is None:
        return ["the runs are too few for cross-validation, so nothing is known of the law's own error"]
    return [
        f"in cross-validation the law misses runs that it has not seen by {missed:.2f} points (root mean square); "
        "the bands are of its coefficients only, and take the law itself for granted"
    ]


def alternative_as_json(other) -> dict:
    return {
        "factors": other.factors,
        "cost_tflops": other.cost,
        "error": other.error,
        "share": other.share,
        "worse_by": other.worse_by,
        "worse_low": other.worse_low,
        "worse_high": other.worse_high,
    }


def print_json(value) -> None:
    """Infinities and NaN, which JSON does not know, become null."""
    click.echo(json.dumps(_finite(value), indent=2))


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def print_fit(result, intervals, notes) -> None:

    doubtful = {verdict.param: verdict.kind for verdict in result.unidentified}
    rows = []
    for name, value in result.params.items():
        interval = f"{intervals[name][0]:.4g} .. {intervals[name][1]:.4g}" if name in intervals else ""
        rows.append((name, f"{value:.5g}", interval, doubtful.get(name, "")))
    title = f"{result.form.name}, {result.settings.objective.loss} loss, {result.num_runs} runs"
    print_table(title, ("parameter", "value", "90 % interval", "not identified"), rows, text=("parameter",))
    click.echo(
        f"Objective {result.objective:.6g}; {result.share_at_best:.0%} of {result.num_starts} starts reached it; "
        f"relative gradient {result.gradient_norm:.1e}; status {result.status}."
    )
    print_notes([*notes, *result.warnings])


def print_scores(title, rows) -> None:

    setups = list(next(iter(rows.values())))
    columns = [title, *(f"{setup}: MSE  E%  R^2" for setup in setups)]
    table, reasons = [], []
    for what, scores in rows.items():
        cells = [what]
        for setup in setups:
            found = scores[setup]
            if "impossible" in found:
                reasons.append(f"{what}, {setup}: {found['impossible']}")
                cells.append("-")
            else:
                cells.append(f"{found['mse']:8.3g}  {found['error_percent']:6.2f}  {found['r2']:6.3f}")
        table.append(cells)
    print_table("", columns, table)
    print_notes(reasons)


def print_frontier(line, notes) -> None:
    from vvlm_ray.report import words

    rows = []
    for b, budget in enumerate(line.raw_budgets):
        cells = [si(budget, "FLOPs")]
        for name, values in line.factors.items():
            low, high = line.factor_low[name][b], line.factor_high[name][b]
            cells.append(f"{words.count(values[b])} [{words.count(low)}..{words.count(high)}]")
        cells += [f"{line.error[b]:.2f}", f"{line.low[b]:.2f} .. {line.high[b]:.2f}", f"{line.agreement[b]:.0%}"]
        rows.append([*cells, "; ".join(line.reasons[b])])
    columns = ["budget", *line.factors, "error", "90 % band", "agree", "extrapolates"]
    print_table("The frontier: x* [90 % of the resamples]", columns, rows, text=("extrapolates",))
    print_notes(notes)


def print_notes(notes) -> None:
    for note in notes:
        click.echo(f"Note: {note}.", err=True)
