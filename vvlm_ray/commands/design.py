"""The command design: runs for a training budget, and a sweep file of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.printing import print_table
from vvlm_ray.units import si

if TYPE_CHECKING:
    from vvlm_ray.designs.candidates import Verdict
    from vvlm_ray.study.config import Study
    from vvlm_ray.study.points import Point


@click.command(cls=Command)
@click.argument("sweep", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--training-flops", type=click.FloatRange(min=0, min_open=True), help="budget: training FLOPs of all runs"
)
@click.option(
    "--gpu-hours",
    type=click.FloatRange(min=0, min_open=True),
    help="budget: GPU-hours of all runs, with evaluation and start-up, at the file's planning and first GPU type",
)
@click.option(
    "--records", type=click.Path(path_type=Path), help="what has been measured: a study's folder, CSV or parquet"
)
@click.option(
    "--tflops",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    help="inference budgets that matter (the least and the greatest count); default: the file's answer, else its runs",
)
@click.option(
    "--num-examples", type=click.IntRange(min=1), help="data size that matters most; default: the file's largest"
)
@click.option(
    "--surfaces", type=click.IntRange(min=4), default=24, show_default=True, help="planted surfaces to judge by"
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="sweep file to write; default: SWEEP-design.yaml"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def design(
    *,
    sweep: Path,
    training_flops: float | None,
    gpu_hours: float | None,
    records: Path | None,
    tflops: tuple[float, ...],
    num_examples: int | None,
    surfaces: int,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Choose runs for a training budget and write them as a sweep file with all other settings of SWEEP.

    Candidates (isoFLOP curves at ladders of data sizes) are judged by simulation: the expected regret of the frontier
    over surfaces inside and outside the fitted family, beside that of SWEEP's own sweeps.
    """
    import numpy as np

    from vvlm_ray.designs import candidates as optimal_design
    from vvlm_ray.designs.surfaces import make_question
    from vvlm_ray.errors import UserError
    from vvlm_ray.study.points import choices_of, cost_function, distinct_points
    from vvlm_ray.study.sweep_file import load_sweep

    if (training_flops is None) == (gpu_hours is None):
        raise UserError("give the budget as --training-flops or as --gpu-hours")
    output = output or sweep.with_name(f"{sweep.stem}-design.yaml")
    _check_output(output, sweep)
    study = load_sweep(sweep)
    cost, own = cost_function(study), distinct_points(study)
    levels = choices_of(study)
    largest = num_examples or study.max_num_examples
    budgets = _budgets(study, own, tflops)
    question = make_question(levels, cost, budgets, [largest / 4, largest / 2, largest])
    spend = _training_flops_of(study, cost) if training_flops else _gpu_hours_of(study, sweep, cost)
    candidates = optimal_design.make_candidates(
        levels,
        cost,
        budgets_flops=budgets,
        largest_n=largest,
        budget=training_flops or gpu_hours,
        spend=spend,
    )
    known = _read_known(records, study.factors) if records else None
    reference = optimal_design.runs_of(own, study.factors)
    battery = optimal_design.battery_for(reference, surfaces, seed, known)
    say = (lambda text: None) if as_json else (lambda text: click.echo(f"  {text}", err=True))
    verdicts = optimal_design.judge_candidates(
        candidates, battery, question, factors=study.factors, known=known, progress=say
    )
    say("the file's own sweeps")
    mine = optimal_design.judge_one(
        optimal_design.planned_runs(study, own), battery, question, factors=study.factors, known=known
    )
    _write(output, sweep, study, verdicts[0])
    flops = _training_flops_of(study, cost)
    hours = _gpu_hours_of(study, sweep, cost)
    rows = [_row(v, flops, hours) for v in (*verdicts, mine)]
    if as_json:
        click.echo(
            json.dumps({"chosen": rows[0], "others": rows[1:-1], "own": rows[-1], "file": str(output)}, indent=2)
        )
        return
    print_table(
        f"designs for {study.name}, regret in points over {np.size(budgets)} budgets from "
        f"{si(budgets.min(), 'FLOPs')} to {si(budgets.max(), 'FLOPs')}",
        ("design", "runs", "training FLOPs", "GPU-hours", "regret inside", "outside the family"),
        [
            (
                r["name"],
                str(r["runs"]),
                si(r["training_flops"]),
                f"{r['gpu_hours']:,.0f}",
                f"{r['regret_inside']:.3f} +- {r['spread_inside']:.3f}",
                f"{r['regret_outside']:.3f} +- {r['spread_outside']:.3f}",
            )
            for r in rows
        ],
        text=("design",),
    )
    click.echo(f"The first is written to {output}; `vvlm-ray plan {output}` shows what it takes.")


def _check_output(output: Path, sweep: Path) -> None:
    from vvlm_ray.errors import UserError

    if output.exists():
        raise UserError(f"{output} exists; choose another --output or move it away. Nothing was changed.")
    if output.resolve().parent != sweep.resolve().parent:
        raise UserError(f"--output {output} must lie beside {sweep}, since its paths are relative to the sweep file")


def _budgets(study: "Study", own: Sequence["Point"], tflops: Sequence[float]) -> Any:
    """Ten inference budgets, evenly spaced in logs."""
    import numpy as np

    from vvlm_ray.study.points import cost_function

    values = list(tflops) or (study.answer.tflops if study.answer else [])
    if not values:
        costs = cost_function(study)(**{f: np.array([p.factors[f] for p in own], float) for f in study.factors})
        values = [costs.min() / 1e12, costs.max() / 1e12]
    return np.geomspace(min(values) * 1e12, max(values) * 1e12, 10)


def _columns(study: "Study", points: Sequence["Point"]) -> tuple[dict[str, Any], Any]:
    import numpy as np

    x = {f: np.array([p.factors[f] for p in points], float) for f in study.factors}
    return x, np.array([p.num_examples for p in points], float)


def _training_flops_of(study: "Study", cost: Callable[..., Any]) -> Callable[[Sequence["Point"]], float]:
    from vvlm_ray.scaling.cost import training_flops

    def spend(points: Sequence["Point"]) -> float:
        x, n = _columns(study, points)
        return float(training_flops(cost(**x), n, study.finetune.epochs).sum())

    return spend


def _gpu_hours_of(study: "Study", sweep: Path, cost: Callable[..., Any]) -> Callable[[Sequence["Point"]], float]:
    """Overhead, training, text and evaluation of all runs, as `plan` counts them for one GPU each."""
    from vvlm_ray.planning.estimates import Estimator
    from vvlm_ray.study.folder import StudyFolder

    estimator = Estimator(study, sweep, StudyFolder(sweep.parent / study.name))
    speed = estimator.throughput(estimator.pool_gpu() if study.resources.gpus_per_worker else None)
    per_run = study.planning.overhead_seconds + estimator.num_questions / study.planning.questions_per_second

    def spend(points: Sequence["Point"]) -> float:
        x, n = _columns(study, points)
        flops = cost(**x) * (3 * n * study.finetune.epochs + estimator.num_questions)
        if "lm_params" in x:
            flops = flops + 6 * x["lm_params"] * study.planning.text_tokens * n * study.finetune.epochs
        return float((flops / speed + per_run).sum() / 3600)

    return spend


def _read_known(records: Path, factors: Sequence[str]) -> Any:
    from vvlm_ray.errors import UserError
    from vvlm_ray.results.columns import Columns
    from vvlm_ray.results.source import open_source, read_runs

    source = open_source(records, Columns(factors=tuple(factors)))
    known = read_runs(source, source.scores()[0]).runs
    if known.num_examples is None:
        raise UserError(f"{records}: no num_examples column; a design needs the data size of each run")
    return known


def _row(verdict: "Verdict", flops: Callable[..., float], hours: Callable[..., float]) -> dict[str, Any]:
    points, inside = verdict.candidate.points, verdict.inside
    return {
        "name": verdict.candidate.name,
        "runs": len(points),
        "training_flops": flops(points),
        "gpu_hours": hours(points),
        "regret_inside": verdict.mean_inside,
        "spread_inside": float(verdict.regret[inside].std()),
        "regret_outside": verdict.mean_outside,
        "spread_outside": float(verdict.regret[~inside].std()),
    }


def _write(output: Path, sweep: Path, study: "Study", verdict: "Verdict") -> None:
    """SWEEP with its sweeps replaced by the runs of the design; everything else as it is."""
    import yaml

    from vvlm_ray.study.folder import write_atomically
    from vvlm_ray.study.sweep_file import load_sweep

    raw = yaml.safe_load(sweep.read_text())
    rows = [[*(p.factors[f] for f in study.factors), p.num_examples] for p in verdict.candidate.points]
    raw["name"] = f"{study.name}-design"
    raw["sweeps"] = [{"kind": "points", "name": "design", "factors": list(study.factors), "points": rows}]
    head = (
        f"# Runs chosen by `vvlm-ray design` from {sweep.name}: {verdict.candidate.name}.\n"
        f"# Simulated regret of the frontier: {verdict.mean_inside:.3f} points inside the fitted family, "
        f"{verdict.mean_outside:.3f} outside.\n"
    )
    write_atomically(output, head + yaml.safe_dump(raw, sort_keys=False, default_flow_style=None, width=120))
    load_sweep(output)
