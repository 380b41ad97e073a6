"""`vvlm-ray frontier`: the best configuration at each budget."""

import click

from vvlm_ray.commands import options as common
from vvlm_ray.commands.errors import Command


@click.command(cls=Command)
@common.reads_records
@common.fits
@common.chooses
@common.takes_num_examples
@click.option("--budgets", help="In TFLOPs (or the unit of --cost), comma-separated [the study's, else eight].")
@common.prints
def frontier(*, as_json, num_examples, budgets, **options):
    """The best configuration at each budget, x*(c; n), with 90 % bands."""
    from vvlm_ray.report.answer import sentences, summary
    from vvlm_ray.results import shapes

    analysis = common.analysis_of(options, budgets=budgets, num_examples=num_examples)
    if as_json:
        common.print_json(shapes.frontier(analysis))
        return
    click.echo("\n".join([*summary(analysis), "", *sentences(analysis)]))
