"""`vvlm-ray score`: make the scores of a study again from the answers that its trials have kept."""

import json
from pathlib import Path

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.printing import print_table
from vvlm_ray.errors import UserError


@click.command(cls=Command)
@click.argument("study", type=click.Path(path_type=Path, file_okay=False))
@click.option("--trial", "trial_ids", multiple=True, metavar="ID", help="only this trial (may be given several times)")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def score(study: Path, trial_ids: tuple[str, ...], as_json: bool) -> None:
    """Score the answers of the STUDY folder's trials again, without a GPU, and write their records.

    The judge is asked only what it has not answered before.
    """
    from vvlm_ray.orchestration.scoring import rescore
    from vvlm_ray.study.additions import all_trials
    from vvlm_ray.study.folder import open_study
    from vvlm_ray.study.records import collect_records, write_tables

    folder, settings = open_study(study)
    trials = all_trials(settings, folder)
    known = {trial.trial_id for trial in trials}
    if unknown := [trial_id for trial_id in trial_ids if trial_id not in known]:
        raise UserError(f"{study}: no trial {', '.join(unknown)}; `vvlm-ray status {study}` lists them")
    wanted = [trial for trial in trials if trial.trial_id in (trial_ids or known)]
    answered = [trial for trial in wanted if folder.answered(trial.trial_id).exists()]
    if not answered:
        raise UserError(f"{study}: none of its {len(wanted)} trials has its answers yet; `vvlm-ray run` makes them")
    rows, failed = [], {}
    for trial in answered:
        scored = rescore(str(folder.root), None, trial.to_dict())
        rows.append({"trial_id": trial.trial_id, "scores": dict(scored.scores), "failed_tasks": dict(scored.failed)})
        failed |= {f"{trial.label}: {task}": reason for task, reason in scored.failed.items()}
    write_tables(folder, collect_records(folder, trials))
    if as_json:
        click.echo(json.dumps({"trials": rows, "without_answers": len(wanted) - len(answered)}, indent=2))
    else:
        tasks = settings.evaluation.tasks
        print_table(
            f"Scores of {settings.name}",
            ["trial", *tasks],
            [[row["trial_id"], *(_points(row["scores"].get(task)) for task in tasks)] for row in rows],
        )
        if len(answered) < len(wanted):
            click.echo(f"{len(wanted) - len(answered)} trials have no answers yet")
        for where, reason in failed.items():
            click.echo(f"not scored: {where}: {reason}", err=True)
    if failed:
        raise SystemExit(1)


def _points(score: float | None) -> str:
    return "-" if score is None else f"{score:.2f}"
