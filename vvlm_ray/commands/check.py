"""The command check: a study held against reality before a GPU is taken."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.run import json_option, storage_option, sweep_argument


@click.command(cls=Command)
@sweep_argument
@storage_option
@click.option("--all", "every_video", is_flag=True, help="decode every video, as Ray tasks; default: a sample")
@click.option("--address", help="address of a Ray cluster for --all; default: Ray on this machine")
@json_option
def check(sweep: Path, storage: str, every_video: bool, address: str | None, as_json: bool) -> None:
    """Every problem of the SWEEP file that can be found without a GPU: exit code 2 if there is one, 0 if not.

    Weights are compared with their configurations and not read; every row is parsed; videos are looked for and a
    sample is decoded. Digests and tables of rows are kept in the study's folder, so that a second time is quick.
    """
    from vvlm_ray.orchestration.preflight import check_study
    from vvlm_ray.study.storage import open_storage

    decode_all = None
    if every_video:
        from vvlm_ray.orchestration.preflight_data import decode_with
        from vvlm_ray.orchestration.ray_map import ray_map

        decode_all = decode_with(ray_map(address))
    checked = check_study(sweep, open_storage(storage), decode_all=decode_all)
    if as_json:
        result = {"problems": [asdict(problem) for problem in checked.problems], "notes": checked.notes}
        click.echo(json.dumps(result, indent=2))
    else:
        for note in checked.notes:
            click.echo(f"note: {note}")
        for problem in checked.problems:
            click.echo(f"problem: {problem}", err=True)
        count = len(checked.problems)
        click.echo(f"{count} problem{'s' if count != 1 else ''}." if count else "No problems: the study can run.")
    if checked.problems:
        raise SystemExit(2)
