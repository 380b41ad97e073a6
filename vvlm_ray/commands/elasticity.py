"""`vvlm-ray elasticity`: how the optimum moves with the data size."""

import click

from vvlm_ray.commands import options as common
from vvlm_ray.commands.errors import Command


@click.command(cls=Command)
@common.reads_records
@common.fits
@common.chooses
@common.prints
def elasticity(*, as_json, **options):
    """How each factor of the optimum moves with the data size: e_k, with 90 % bands."""
    from vvlm_ray.commands.printing import print_table
    from vvlm_ray.errors import UserError
    from vvlm_ray.results import shapes

    analysis = common.analysis_of(options, with_elasticity=True)
    moved = analysis.elasticity
    if moved is None:
        raise UserError("elasticity needs a column with the data size that varies: name it with --data-size")
    if as_json:
        common.print_json(shapes.elasticity(analysis))
        return
    click.echo(analysis.verdict.sentence)
    rows = [
        (name, f"{moved.mean[name]:+.2f}", f"{moved.low[name]:+.2f} .. {moved.high[name]:+.2f}") for name in moved.mean
    ]
    print_table("Elasticity of the optimum to the data size", ("factor", "e_k", "90 % band"), rows, text=("factor",))
    budgets = [analysis.cost.text(budget) for budget in moved.raw_budgets[[0, -1]]]
    click.echo(
        f"Averages over {len(moved.budgets)} budgets from {budgets[0]} to {budgets[1]} and {len(moved.sizes)} data "
        f"sizes from {moved.sizes[0]:,.0f} to {moved.sizes[-1]:,.0f}, step {moved.step:,.0f}. "
        f"{moved.share_extrapolated:.0%} of them lie beyond what was swept; {moved.share_beyond_space:.0%} in a factor "
        f"or in cost."
    )
    common.print_notes([analysis.read, *analysis.notes, *analysis.predictor.warnings])
