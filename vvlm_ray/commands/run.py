"""`vvlm-ray run`: start or resume a study."""

import signal
from pathlib import Path
from types import FrameType

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.errors import UserError


class Location(click.ParamType):
    """A folder or file by its path or URL."""

    name = "path or URL"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from vvlm_ray.study.storage import open_storage

        return value if isinstance(value, Path) else open_storage(str(value))


storage_option = click.option(
    "--storage",
    type=Location(),
    default="studies",
    show_default=True,
    envvar="VVLM_RAY_STORAGE",
    help="folder that holds the studies' folders: a path, s3://..., gs://...",
)
sweep_argument = click.argument("sweep", type=click.Path(path_type=Path, dir_okay=False))
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")


@click.command(cls=Command)
@sweep_argument
@storage_option
@click.option("--address", help="address of a Ray cluster; default: RAY_ADDRESS, else Ray on this machine")
@click.option("--slots", type=float, help="GPUs (or CPUs, without GPUs) to use at once; default: all that Ray has")
@click.option("--take-over", is_flag=True, help="go on although another run holds the study, if that one seems dead")
@click.option("--dry-run", is_flag=True, help="print the plan and stop")
@click.option(
    "--smoke", is_flag=True, help="the whole chain on 4 examples, 2 steps and 5 questions a backbone; thrown away"
)
def run(
    *,
    sweep: Path,
    storage: Path,
    address: str | None,
    slots: float | None,
    take_over: bool,
    dry_run: bool,
    smoke: bool,
) -> None:
    """Start the study of the SWEEP file, or resume it: what is finished is not repeated.

    Ends with 0 when all trials have finished, 1 when some failed, 2 for bad input or when another run holds the study.
    """
    if dry_run:
        from vvlm_ray.commands.plan import print_plan

        print_plan(sweep, storage, slots, as_json=False)
        return
    if smoke:
        _smoke(sweep, storage, address, slots)
        return
    run_and_answer(sweep, storage, address, slots, take_over=take_over)


def _smoke(sweep: Path, storage: Path, address: str | None, slots: float | None) -> None:
    from vvlm_ray.orchestration.progress import first_line
    from vvlm_ray.orchestration.smoke import smoke

    ended = smoke(sweep, storage, address=address, num_slots=slots)
    for trial_id, reason in ended.failed.items():
        click.echo(f"failed: {trial_id}: {first_line(reason)}", err=True)
    ran = f"{ended.num_finished} of {ended.num_trials} backbones ran from end to end, in {ended.seconds:.0f} s"
    click.echo(f"{ran}; nothing was kept.")
    if ended.num_finished < ended.num_trials:
        raise SystemExit(1)


def run_and_answer(
    sweep: Path, storage: Path, address: str | None, slots: float | None, *, take_over: bool = False
) -> None:
    """Run a study; then, if its file asks a question, answer it in words and pictures."""
    from vvlm_ray.orchestration.progress import first_line
    from vvlm_ray.orchestration.run import run_study
    from vvlm_ray.study.folder import open_study
    from vvlm_ray.study.snapshot import local_study
    from vvlm_ray.study.sweep_file import load_sweep

    signal.signal(signal.SIGTERM, _terminated)
    try:
        ended = run_study(sweep, storage, address=address, num_slots=slots, take_over=take_over)
    except KeyboardInterrupt as stop:
        click.echo("\nStopped. Nothing finished is lost; the same command goes on from here.", err=True)
        raise SystemExit(143 if isinstance(stop, Terminated) else 130) from None
    click.echo(f"{ended.num_finished}/{ended.num_trials} trials finished, in {ended.seconds:.0f} s this time.")
    for trial_id, reason in ended.failed.items():
        click.echo(f"failed: {trial_id}: {first_line(reason)}", err=True)
    if ended.num_finished == 0:
        raise SystemExit(1)
    root = storage / load_sweep(sweep).name
    with local_study(root) as place:
        folder, study = open_study(place)
        if study.answer:
            from vvlm_ray.report.answer import answer

            try:
                click.echo(answer(folder, study))
            except UserError as problem:  # the trials have run: nothing to fit yet is no failure of theirs
                click.echo(f"no answer yet: {problem}", err=True)
    if ended.failed:
        raise SystemExit(1)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


def _terminated(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
