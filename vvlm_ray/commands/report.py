"""`vvlm-ray report`: every table and figure of a study, as files and on one page."""

import json
from pathlib import Path

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.run import Location


@click.command(cls=Command)
@click.argument("study", type=Location())
@click.option("--metric", help="one score column only; default: the average and every task")
@click.option("--num-examples", type=float, help="data size n of the frontier; default: the study's")
@click.option("--tflops", type=float, multiple=True, help="a budget per video; may be repeated; default: the study's")
@click.option("--resamples", type=click.IntRange(1), help="bootstrap resamples; default: the study's, else 100")
@click.option("--starts", type=click.IntRange(1), help="starts of each fit; default: the study's, else 500")
@click.option("--form", default="auto", show_default=True, help="auto, mult, add, add-interact-s, add-interact, best")
@click.option("--factors", help="factor columns of a table, comma-separated; default: the study's")
@click.option("--data-size", help='column of the data size, or "none"; default: num_examples')
@click.option("--cost", help="FLOPs of a configuration as arithmetic over the factors; default: Eq. 1 of the paper")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="folder to write; default: STUDY/report")
@click.option("--json", "as_json", is_flag=True, help="print what was written as JSON")
def report(study: Path, *, metric: str | None, num_examples: float | None, tflops: tuple[float, ...],
           resamples: int | None, starts: int | None, form: str, factors: str | None, data_size: str | None,
           cost: str | None, out: Path | None, as_json: bool) -> None:  # fmt: skip
    """All tables and figures of the STUDY folder (or of a CSV or parquet file of runs), on one HTML page."""
    from dataclasses import replace

    from vvlm_ray.report.progress import shown
    from vvlm_ray.report.report import write_report
    from vvlm_ray.results.analysis import settings_of
    from vvlm_ray.results.source import open_source
    from vvlm_ray.results.tables import DEFAULT_FACTORS, Columns
    from vvlm_ray.study.snapshot import local_study

    names = tuple(name.strip() for name in factors.split(",")) if factors else DEFAULT_FACTORS
    with local_study(study) as place, shown() as progress:
        source = open_source(place, Columns(factors=names, data_size=data_size, score=metric), cost)
        settings = settings_of(source.answer)
        settings = replace(
            settings, form=form, resamples=resamples or settings.resamples, starts=starts or settings.starts
        )
        default = place / "report" if source.is_folder else place.with_name(f"{place.stem}-report")
        paths = write_report(source, out or default, budgets=list(tflops) or None, num_examples=num_examples,
                             settings=settings, progress=progress)  # fmt: skip
    files = [study / path.relative_to(place) if path.is_relative_to(place) else path for path in paths]
    if as_json:
        click.echo(json.dumps({"page": str(files[0]), "files": list(map(str, files))}, indent=2))
    else:
        click.echo(f"{files[0]} and {len(files) - 1} figures and tables beside it")
