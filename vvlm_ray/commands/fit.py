"""`vvlm-ray fit`: the parameters of one scaling law."""

import math

import click

from vvlm_ray.commands import options as common
from vvlm_ray.commands.errors import Command


@click.command(cls=Command)
@common.reads_records
@click.option("--form", default="add-interact", show_default=True, help="mult, add, add-interact-s or add-interact.")
@click.option("--resamples", type=click.IntRange(0), default=0, show_default=True, help="For intervals.")
@click.option("--starts", default=500, show_default=True, help="Random starts of each fit.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of resamples and starts.")
@click.option("--exponents-from", default=-math.inf, show_default=True, help="Least exponent.")
@click.option("--exponents-to", default=math.inf, show_default=True, help="Largest exponent.")
@click.option("--loss", default="mse", show_default=True, help="mse or huber.")
@click.option("--huber-delta", default=1e-3, show_default=True, help="Of the Huber loss.")
@click.option("--linear", is_flag=True, help="Residuals f - error instead of their logarithms'.")
@click.option("--engine", default="fast", show_default=True, help="fast, or lbfgs (scipy, slow, for reference).")
@click.option("--ray", "ray_address", is_flag=False, flag_value="", default=None, help="Fit resamples as Ray tasks.")
@common.prints
def fit(*, as_json, resamples, ray_address, **options):
    """Fit one scaling law to RECORDS: its parameters, and which of them mean anything."""
    from vvlm_ray.results.source import read_runs
    from vvlm_ray.scaling.bagging import fit_bag_with
    from vvlm_ray.scaling.fitting import fit_with

    with common.opened(options) as source:
        observed = read_runs(source, source.scores()[0])
    settings, notes = fit_settings(options), [observed.read, *observed.notes]
    intervals = {}
    if resamples:
        from vvlm_ray.commands.progress import bar

        with bar("fitting resamples", resamples) as update:
            bag = fit_bag_with(observed.runs, settings, resamples, map=common.map_of(ray_address), progress=update)
        result, intervals = bag.fit, bag.intervals()
    else:
        result = fit_with(observed.runs, settings)
    if as_json:
        common.print_json(
            {
                "form": result.form.name,
                "loss": settings.objective.loss,
                "objective": result.objective,
                "params": result.params,
                "num_runs": result.num_runs,
                "num_starts": result.num_starts,
                "share_at_best": result.share_at_best,
                "status": result.status,
                "unidentified": [doubt.param for doubt in result.unidentified],
                "intervals": {name: list(interval) for name, interval in intervals.items()},
                "warnings": result.warnings,
                "notes": notes,
            }
        )
        return
    print_fit(result, intervals)
    common.print_notes([*notes, *result.warnings])


def fit_settings(options):
    """What minimises what: of `fit` and `compare`."""
    from vvlm_ray.errors import UserError
    from vvlm_ray.scaling.fitting import FitSettings
    from vvlm_ray.scaling.problem import Objective

    low, high = options["exponents_from"], options["exponents_to"]
    if not low < high:
        raise UserError(f"--exponents-from {low} --exponents-to {high}: they must be numbers, the lower one first")
    if options["seed"] < 0:
        raise UserError(f"--seed {options['seed']}: it must not be negative")
    objective = Objective(
        loss=options.get("loss", "mse"),
        huber_delta=options.get("huber_delta", 1e-3),
        log_space=not options.get("linear", False),
        exponent_bounds=None if (low, high) == (-math.inf, math.inf) else (low, high),
    )
    return FitSettings(options["form"], options.get("engine", "fast"), options["starts"], options["seed"], objective)


def print_fit(result, intervals) -> None:
    from vvlm_ray.commands.printing import print_table

    doubtful = {doubt.param: doubt.kind for doubt in result.unidentified}
    rows = []
    for name, value in result.params.items():
        interval = f"{intervals[name][0]:.4g} .. {intervals[name][1]:.4g}" if name in intervals else ""
        rows.append((name, f"{value:.5g}", interval, doubtful.get(name, "")))
    title = f"{result.form.name}, {result.settings.objective.loss} loss, {result.num_runs} runs"
    print_table(title, ("parameter", "value", "90 % interval", "not identified"), rows, text=("parameter",))
    click.echo(
        f"Objective {result.objective:.6g}; {result.share_at_best:.0%} of {result.num_starts} starts reached it; "
        f"relative gradient {result.gradient_norm:.1e}; status {result.status}."
    )
