"""`vvlm-ray predict`: the error of any configuration, with bands for f and for a run of it."""

import click

from vvlm_ray.commands import options as common
from vvlm_ray.commands.errors import Command


@click.command(cls=Command)
@common.reads_records
@common.fits
@common.chooses
@common.takes_num_examples
@click.option("--at", "texts", multiple=True, required=True, metavar="FACTOR=VALUE,...",
              help="A configuration: lm_params=7.5e9,num_frames=16,tokens_per_frame=100; repeat for more.")  # fmt: skip
@common.prints
def predict(*, as_json, num_examples, texts, **options):
    """What to expect of configurations that you name, whether they were measured or not."""
    import numpy as np

    from vvlm_ray.commands.printing import print_table
    from vvlm_ray.report import words
    from vvlm_ray.results import shapes
    from vvlm_ray.scaling.frontier import outside_of_each
    from vvlm_ray.scaling.predictor import predictive_band
    from vvlm_ray.scaling.runs import Runs
    from vvlm_ray.scaling.verdict import judge_fit

    analysis = common.analysis_of(options, num_examples=num_examples, needs_cost=False)
    runs, n = analysis.runs, analysis.num_examples
    points = [_configuration(text, tuple(runs.factors), analysis.fixed) for text in texts]
    factors = {name: np.array([point[name] for point in points]) for name in runs.factors}
    sizes = None if n is None else np.full(len(points), n)
    error = analysis.predictor.predict(factors, n)
    tails = [(1 - analysis.settings.level) / 2, (1 + analysis.settings.level) / 2]
    low, high = np.quantile(analysis.predictor.samples(factors, n), tails, axis=0)
    at = Runs(factors, np.ones(len(points)), sizes, space=runs.space)
    run_low, run_high = predictive_band(analysis.predictor, at, analysis.settings.level)
    reasons = outside_of_each(runs, factors, n)
    rows = [
        dict(analysis.fixed) | point | {"error": float(error[i]), "low": float(low[i]), "high": float(high[i]),
        "run_low": float(run_low[i]), "run_high": float(run_high[i]), "extrapolates": bool(reasons[i]),
        "reasons": list(reasons[i])}
        for i, point in enumerate(points)
    ]  # fmt: skip
    verdict = judge_fit(analysis.predictor, analysis.validation)
    if as_json:
        doubts = shapes.doubts(analysis) | {"verdict": verdict.to_dict()}
        common.print_json({"points": rows} | doubts)
        return
    click.echo(verdict.sentence)
    cells = [
        [*(words.count(row[name]) for name in factors), f"{row['error']:.2f}", f"{row['low']:.2f} .. {row['high']:.2f}",
         f"{row['run_low']:.2f} .. {row['run_high']:.2f}", "; ".join(row["reasons"])]
        for row in rows
    ]  # fmt: skip
    after = f" after {words.count(n)} examples" if n else ""
    columns = [*factors, "error", "90 % band of f", "90 % band of a run", "extrapolates"]
    print_table(f"Predicted{after}", columns, cells, text=("extrapolates",))
    common.print_notes([*analysis.notes, *analysis.predictor.warnings])


def _configuration(text: str, names: tuple[str, ...], fixed) -> dict[str, float]:
    """A value for each factor that varies. Raises UserError for what is missing, unknown or not a positive number."""
    from vvlm_ray.errors import UserError

    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            raise UserError(f"--at {text}: write factors as name=number, comma-separated") from None
        if name in fixed and number == fixed[name]:
            continue
        if name not in names:
            held = f" ({name} is {fixed[name]:g} in every run)" if name in fixed else ""
            raise UserError(f"--at {text}: {name!r} is no factor that varies{held}; these are {', '.join(names)}")
        if not 0 < number < float("inf"):
            raise UserError(f"--at {text}: {name} must be a positive number")
        found[name] = number
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"--at {text}: {', '.join(missing)} is missing")
    return {name: found[name] for name in names}
