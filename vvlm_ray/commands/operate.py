"""Commands that make records: quickstart, run, status."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.printing import print_table
from vvlm_ray.units import duration

storage_option = click.option(
    "--storage",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("studies"),
    show_default=True,
    envvar="VVLM_RAY_STORAGE",
    help="folder that holds the studies' folders",
)
sweep_argument = click.argument("sweep", type=click.Path(path_type=Path, dir_okay=False))
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")


@click.command(cls=Command)
@sweep_argument
@storage_option
@click.option("--address", help="address of a Ray cluster; default: RAY_ADDRESS, else Ray on this machine")
@click.option("--slots", type=float, help="GPUs (or CPUs, without GPUs) to use at once; default: all that Ray has")
@click.option("--dry-run", is_flag=True, help="print the plan and stop")
def run(sweep: Path, storage: Path, address: str | None, slots: float | None, dry_run: bool) -> None:
    """Start the study of the SWEEP file, or resume it: what is finished is not repeated."""
    if dry_run:
        from vvlm_ray.commands.plan import print_plan

        print_plan(sweep, storage, slots, as_json=False)
        return
    run_and_answer(sweep, storage, address, slots)


@click.command(cls=Command)
@storage_option
def quickstart(storage: Path) -> None:
    """The whole pipeline, small and real, on this machine: 42 finetuning runs and the frontier they give."""
    run_and_answer(Path(__file__).parents[2] / "sweeps" / "quickstart.yaml", storage, None, None)


@click.command(cls=Command)
@click.argument("study", type=click.Path(path_type=Path, file_okay=False))
@json_option
def status(study: Path, as_json: bool) -> None:
    """What is done, waiting (and how far it had come) and failed (and why) in the STUDY folder."""
    from vvlm_ray.planning.sizing import trial_seconds
    from vvlm_ray.study.additions import all_trials
    from vvlm_ray.study.folder import open_study
    from vvlm_ray.study.records import read_record
    from vvlm_ray.study.stages import read_stage

    folder, settings = open_study(study)
    trials, rows = all_trials(settings, folder), []
    for trial in trials:
        record = read_record(folder, trial.trial_id)
        stage = read_stage(folder.trial(trial.trial_id))
        rows.append(
            {
                **trial.to_dict(),
                "status": record["status"] if record else "waiting",
                "avg": record.get("avg") if record else None,
                "seconds": record.get("details", {}).get("seconds") if record else None,
                "expected_seconds": trial_seconds(settings, trial),
                "reason": record.get("reason") if record else None,
                "stage": asdict(stage) if stage and not record else None,
            }
        )
    if as_json:
        click.echo(json.dumps({"study": settings.name, "trials": rows}, indent=2))
        return
    print_table(
        f"study {settings.name}",
        ("trial", "sweep", "configuration", "status", "score", "time", "remark"),
        [
            (
                row["trial_id"],
                row["sweep"],
                trial.label,
                row["status"],
                "" if row["avg"] is None else f"{row['avg']:.1f}",
                duration(row["seconds"]) if row["seconds"] else f"~{duration(row['expected_seconds'])}",
                _remark(row),
            )
            for trial, row in zip(trials, rows, strict=True)
        ],
        text=("trial", "sweep", "configuration", "status", "remark"),
    )
    counts = {s: sum(r["status"] == s for r in rows) for s in ("finished", "failed", "waiting")}
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


def _remark(row: dict[str, Any]) -> str:
    """Why a trial failed, or how far one has come that has no record yet."""
    from vvlm_ray.study.stages import Stage

    if row["reason"]:
        return row["reason"].splitlines()[0]
    if row["stage"]:
        stage = Stage(**row["stage"])
        return f"{stage.text}, {duration(time.time() - stage.time)} ago"
    return ""


def run_and_answer(sweep: Path, storage: Path, address: str | None, slots: float | None) -> None:
    """Run a study; then, if its file asks a question, answer it in words and pictures."""
    from vvlm_ray.orchestration.run import run_study
    from vvlm_ray.study.folder import open_study

    try:
        outcome = run_study(sweep, storage, address=address, num_slots=slots)
    except KeyboardInterrupt:
        click.echo("\nStopped. Nothing finished is lost; the same command goes on from here.", err=True)
        raise SystemExit(130) from None
    click.echo(f"{outcome.num_finished}/{outcome.num_trials} trials finished, in {outcome.seconds:.0f} s this time.")
    for trial_id, reason in outcome.failed.items():
        click.echo(f"failed: {trial_id}: {reason.splitlines()[0] if reason else 'no reason given'}", err=True)
    if outcome.num_finished == 0:
        raise SystemExit(1)
    from vvlm_ray.study.sweep_file import load_sweep

    folder, study = open_study(storage / load_sweep(sweep).name)
    if study.answer:
        from vvlm_ray.report.answer import answer

        click.echo(answer(folder, study))
    if outcome.failed:
        raise SystemExit(1)
