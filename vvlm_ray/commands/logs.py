"""`vvlm-ray logs`: what a trial's attempts printed."""

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.errors import UserError


@click.command(cls=Command)
@click.argument("study")
@click.argument("trial")
@click.option("--attempt", type=int, help="which attempt; default: the last")
@click.option("--rank", type=int, default=0, help="which worker")
def logs(study: str, trial: str, attempt: int | None, rank: int) -> None:
    """What TRIAL (its id, or the beginning of it; or another job's name) printed, in the STUDY folder."""
    from vvlm_ray.study.folder import open_study
    from vvlm_ray.study.ledger import read_history

    folder, _ = open_study(study)
    attempts = read_history(folder).attempts
    found = [job_id for job_id in attempts if job_id.startswith(trial)]
    if trial in attempts:
        found = [trial]
    if len(found) != 1:
        known = ", ".join(sorted(found or attempts)) or "none yet"
        raise UserError(f"{trial}: {'several jobs begin so' if found else 'no job of the study'}; there are {known}")
    for one in reversed(attempts[found[0]]):
        if attempt in (None, one.number):
            break
    else:
        raise UserError(f"{found[0]} has no attempt {attempt}; there are {[a.number for a in attempts[found[0]]]}")
    path = folder.root / str(one.log)
    if rank:
        path = path.with_name(f"{path.stem}-rank-{rank}.log")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); it may have printed nothing") from None
    if one.cause:
        click.echo(f"attempt {one.number} {one.outcome}: {one.cause}", err=True)
    click.echo(data.decode("utf-8", errors="replace"), nl=False)
