"""`vvlm-ray report`: every table and figure of a study, as files and on one page."""

from pathlib import Path

import click

from vvlm_ray.commands import options as common
from vvlm_ray.commands.errors import Command


@click.command(cls=Command)
@common.reads_records
@common.fits
@common.chooses
@common.takes_num_examples
@click.option("--budgets", help="In TFLOPs (or the unit of --cost), comma-separated [the study's, else eight].")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Folder to write [RECORDS/report].")
@common.prints
def report(*, as_json, num_examples, budgets, output, **options):
    """All tables and figures of RECORDS, a study's folder or a table of runs, on one HTML page."""
    from vvlm_ray.errors import UserError
    from vvlm_ray.report.progress import shown
    from vvlm_ray.report.report import write_report

    with common.opened(options) as source, shown() as progress:
        place = source.path
        usual = place / "report" if source.is_folder else place.with_name(f"{place.stem}-report")
        try:
            paths = write_report(source, output or usual, budgets=common.budgets_of(budgets),
                                 num_examples=num_examples, settings=common.settings_of(source, options),
                                 map=common.map_of(options["ray_address"]), progress=progress)  # fmt: skip
        except OSError as problem:
            why = problem.strerror or problem
            raise UserError(f"{output or usual}: cannot be written ({why}); choose --output") from None
    files = [options["records"] / path.relative_to(place) if path.is_relative_to(place) else path for path in paths]
    if as_json:
        common.print_json({"page": str(files[0]), "files": [str(path) for path in files]})
    else:
        click.echo(f"{files[0]} and {len(files) - 1} figures and tables beside it")
