"""`vvlm-ray status`: how a study stands, from its folder alone."""

import json
import time
from typing import TYPE_CHECKING

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.printing import print_table
from vvlm_ray.commands.run import json_option
from vvlm_ray.units import duration

if TYPE_CHECKING:
    from vvlm_ray.planning.overview import Overview, TrialState

COLUMNS = ("trial", "sweep", "configuration", "status", "attempts", "score", "time", "remark")


@click.command(cls=Command)
@click.argument("study")
@json_option
@click.option("--watch", type=float, is_flag=False, flag_value=5.0, help="again every so many seconds (5)")
def status(study: str, as_json: bool, watch: float | None) -> None:
    """What is done, running (how far, how fast), waiting and failed (and why) in the STUDY folder."""
    from vvlm_ray.planning.overview import overview
    from vvlm_ray.study.folder import open_study

    while True:
        seen = overview(*open_study(study))
        if watch and not as_json:
            click.clear()
        if as_json:
            click.echo(json.dumps(seen.to_dict(), indent=None if watch else 2))
        else:
            _show(seen)
        if not watch:
            return
        time.sleep(watch)


def _show(seen: "Overview") -> None:
    print_table(
        f"study {seen.name}",
        COLUMNS,
        [_row(state) for state in seen.trials],
        text=("trial", "sweep", "configuration", "status", "remark"),
    )
    counts = {name: seen.counts.get(name, 0) for name in ("finished", "failed", "running", "waiting")}
    counts |= {name: count for name, count in seen.counts.items() if name not in counts}
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    if seen.seconds_left:
        told += f"; about {duration(seen.seconds_left)} left"
    click.echo(told)
    click.echo(f"run by {seen.holder}" if seen.holder else "nobody runs it now")
    if seen.num_damaged_lines:
        click.echo(f"{seen.num_damaged_lines} lines of the ledger are damaged and were left out")


def _row(state: "TrialState") -> tuple[str, ...]:
    is_whole = state.record and not state.record.get("partial")
    score = state.record.get("avg") if is_whole else None
    return (
        state.trial.trial_id,
        state.trial.sweep,
        state.trial.label,
        state.status,
        str(len(state.attempts) or ""),
        "" if score is None else f"{score:.1f}",
        f"~{duration(state.expected_seconds)}" if state.seconds is None else duration(state.seconds),
        _remark(state),
    )


def _remark(state: "TrialState") -> str:
    """How far a trial has come, why it failed, why its last attempt ended."""
    stage, told = state.stage, []
    if stage:
        told.append(stage.text + (f" at {stage.per_second:.3g} a second" if stage.per_second else ""))
        if state.status == "running":
            told.append(f"about {duration(state.seconds_left)} left")
        else:
            told.append(f"{duration(time.time() - stage.time)} ago")
    if state.reason:
        told.append(state.reason.splitlines()[0])
    return ", ".join(told)
