"""`vvlm-ray recommend`: what to deploy for one budget."""

import click

from vvlm_ray.commands import options as common
from vvlm_ray.commands.errors import Command


@click.command(cls=Command)
@common.reads_records
@common.fits
@common.chooses
@common.takes_num_examples
@click.option("--budgets", "--budget", "budgets", required=True, help="One, in TFLOPs (or the unit of --cost).")
@click.option("--delta", type=float, help="Loss in points that would not matter [half the scatter of a run].")
@common.prints
def recommend(*, as_json, num_examples, budgets, delta, **options):
    """The configuration to deploy for a budget, what to expect of it, and how sure that is."""
    from vvlm_ray.errors import UserError
    from vvlm_ray.report.recommendation import recommendation_lines
    from vvlm_ray.results import shapes
    from vvlm_ray.scaling.recommendation import recommend as find

    asked = common.budgets_of(budgets)
    if len(asked) != 1:
        raise UserError(f"--budgets {budgets}: recommend answers for one budget; `vvlm-ray frontier` takes several")
    analysis = common.analysis_of(options, budgets=budgets, num_examples=num_examples)
    answer = find(analysis.predictor, asked[0], analysis.num_examples, level=analysis.settings.level, delta=delta,
                  map=common.map_of(options["ray_address"]))  # fmt: skip
    if as_json:
        common.print_json(shapes.recommendation(analysis, answer))
        return
    click.echo("\n".join(recommendation_lines(analysis, answer)))
    common.print_notes([analysis.read, *analysis.notes, *analysis.predictor.warnings])
