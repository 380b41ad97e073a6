"""The command plan: trials, cost, schedule and problems of a sweep file, before anything is spent."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.printing import print_table
from vvlm_ray.commands.run import Location
from vvlm_ray.units import duration, si

if TYPE_CHECKING:
    from vvlm_ray.planning.plan import Plan
    from vvlm_ray.study.config import Study


@click.command(cls=Command)
@click.argument("sweep", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--storage",
    type=Location(),
    default=Path("studies"),
    show_default=True,
    envvar="VVLM_RAY_STORAGE",
    help="folder that holds the studies' folders; finished trials are not planned again",
)
@click.option("--cluster", help="machines x GPUs x type, such as 8x8xA100-80GB,4x4xL40S; default: the file's cluster")
@click.option("--slots", type=click.FloatRange(min=0, min_open=True), help="one pool of so many GPUs (or CPUs) instead")
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    help="share of the GPUs' peak FLOP/s that training reaches; default: the file's planning.utilisation",
)
@click.option("--price", type=click.FloatRange(min=0), help="money per GPU-hour, for every GPU type")
@click.option("--gantt", type=click.Path(path_type=Path, dir_okay=False), help="draw the schedule (.png, .svg or .pdf)")
@click.option("--check", is_flag=True, help="look for problems as `vvlm-ray check` does; exit code 2 if there are any")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def plan(
    *,
    sweep: Path,
    storage: Path,
    cluster: str | None,
    slots: float | None,
    utilisation: float | None,
    price: float | None,
    gantt: Path | None,
    check: bool,
    as_json: bool,
) -> None:
    """Trials, cost, schedule and problems of the SWEEP file. Nothing is started, and without --check nothing written.

    Problems (missing paths, too little memory or data) are listed and the plan is printed all the same, with exit
    code 0; --check makes it 2. A sweep file that cannot be read or makes no sense ends with exit code 2.
    """
    made = print_plan(
        sweep,
        storage,
        slots,
        as_json,
        cluster=cluster,
        utilisation=utilisation,
        price=price,
        gantt=gantt,
        check=check,
    )
    if check and made.problems:
        raise SystemExit(2)


def print_plan(
    sweep: Path,
    storage: Path,
    slots: float | None,
    as_json: bool,
    *,
    cluster: str | None = None,
    utilisation: float | None = None,
    price: float | None = None,
    gantt: Path | None = None,
    check: bool = False,
) -> "Plan":
    """Print the plan of a sweep file, draw it if asked to, and return it."""
    from vvlm_ray.data.fingerprints import fingerprinted
    from vvlm_ray.errors import UserError
    from vvlm_ray.planning.gpus import parse_cluster
    from vvlm_ray.planning.listing import plan_table, plan_totals
    from vvlm_ray.planning.plan import make_plan
    from vvlm_ray.study.folder import StudyFolder
    from vvlm_ray.study.sweep_file import load_sweep

    if cluster and slots:
        raise UserError("give --cluster or --slots, not both")
    study = _with_options(load_sweep(sweep), utilisation, price)
    kinds = parse_cluster(cluster) if cluster else None
    folder = StudyFolder(storage / study.name)
    study, taken = fingerprinted(study, sweep, folder, thorough=False)
    made = make_plan(study, sweep, folder, slots, cluster=kinds)
    made.notes.extend(taken.notes())
    if check:
        from vvlm_ray.orchestration.preflight import check_study

        found = [str(problem) for problem in check_study(sweep, storage, num_slots=slots).problems]
        made.problems.extend(line for line in found if line not in made.problems)
    rows = plan_table(study, made)
    totals = plan_totals(study, made, rows)
    if gantt:
        from vvlm_ray.report.figures.gantt import draw_gantt

        draw_gantt(study, made, gantt)
    if as_json:
        result = {"trials": rows, "totals": totals, "problems": made.problems, "notes": made.notes}
        result["provisional"] = list(taken.unread)
        click.echo(json.dumps(result, indent=2))
        return made
    _print_trials(study, rows)
    _print_totals(made, totals)
    if gantt:
        click.echo(f"The schedule is drawn in {gantt}.")
    for problem in made.problems:
        click.echo(f"problem: {problem}", err=True)
    return made


def _with_options(study: "Study", utilisation: float | None, price: float | None) -> "Study":
    changes: dict[str, Any] = {}
    if utilisation is not None:
        changes |= {"utilisation": utilisation, "tflops_per_slot": None}
    if price is not None:
        changes["price_per_gpu_hour"] = price
        kinds = [kind.model_copy(update={"price_per_gpu_hour": None}) for kind in study.cluster]
        study = study.model_copy(update={"cluster": kinds})
    return study.model_copy(update={"planning": study.planning.model_copy(update=changes)})


def _print_trials(study: "Study", rows: list[dict[str, Any]]) -> None:
    uses_gpus = any(row["gpus"] for row in rows)
    names = {"lm_params": "LM", "num_frames": "frames", "tokens_per_frame": "tokens/frame"}
    columns = ["trial", "sweep", *[names.get(f, f) for f in study.factors], "n", "inference FLOPs", "training FLOPs"]
    columns += ["vision"] if rows and rows[0]["vision_flops"] is not None else []
    columns += ["GPUs", "GB each", "GPU-hours"] if uses_gpus else []
    columns += ["time", ""]
    table = []
    for r in rows:
        line = [r["trial_id"], r["sweep"]]
        line += [si(r[f]) if r[f] >= 1e4 else f"{r[f]:g}" for f in study.factors]
        line += [f"{r['num_examples']:,}", si(r["inference_flops"]), si(r["training_flops"])]
        line += [f"{r['vision_flops'] / r['inference_flops']:.0%}"] if "vision" in columns else []
        if uses_gpus:
            memory = "" if r["memory_gb"] is None else f"{r['memory_gb']:.0f}"
            line += [f"{r['gpus']:g} {r['gpu_type']}", memory, f"{r['gpu_hours']:,.0f}"]
        table.append([*line, duration(r["seconds"]), "finished" if r["finished"] else ""])
    print_table(f"plan of {study.name}", columns, table, text=("trial", "sweep", ""))


def _print_totals(plan: "Plan", totals: dict[str, Any]) -> None:
    uses_gpus = bool(plan.gpus)
    unit = "GPU" if uses_gpus else "CPU"
    projectors = f" and {si(totals['stage1_flops'], 'FLOPs')} of stage 1" if totals["stage1_flops"] else ""
    line = f"{totals['trials']} trials ({totals['finished']} finished): "
    line += f"{si(totals['training_flops'], 'FLOPs')} of training{projectors}, {totals['gpu_hours']:,.1f} {unit}-hours"
    if totals["money"] is not None:
        line += f", {totals['money']:,.0f} in money"
    click.echo(line)
    if totals["makespan_seconds"]:
        click.echo(
            f"About {duration(totals['makespan_seconds'])} on {totals['slots']:g} {unit}s, which are busy "
            f"{totals['schedule_utilisation']:.0%} of it; no schedule ends before "
            f"{duration(totals['lower_bound_seconds'])}."
        )
    if uses_gpus:
        checkpoints, data = si(totals["checkpoint_bytes"], "B"), si(totals["data_bytes"], "B")
        click.echo(f"Checkpoints up to {checkpoints} if all are kept; videos about {data}.")
    for note in plan.notes:
        click.echo(f"note: {note}")
