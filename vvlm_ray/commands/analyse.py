"""fit, compare, frontier, elasticity, recommend: thin commands over vvlm_ray.scaling for any table of results."""

import math
from functools import partial

import click

from vvlm_ray.commands.analysis_options import (
    analysis_settings,
    budgets_of,
    data_size_of,
    fit_records,
    fit_settings,
    fits_a_bag,
    load,
    map_of,
    reads_records,
    searches_a_grid,
    with_space,
)
from vvlm_ray.commands.analysis_printing import (
    alternative_as_json,
    misfit_notes,
    print_fit,
    print_frontier,
    print_json,
    print_notes,
    print_scores,
    recommendation_sentence,
)
from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.printing import print_table
from vvlm_ray.errors import UserError
from vvlm_ray.units import si

NUM_RESAMPLES_OF_FOLDS = 20  # in a cross-validation that only accompanies an answer


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=0, exponents=math.inf)
@click.option("--loss", default="mse", show_default=True, help="mse or huber.")
@click.option("--huber-delta", default=1e-3, show_default=True, help="Of the Huber loss.")
@click.option("--linear", is_flag=True, help="Residuals f - error instead of their logarithms'.")
@click.option("--engine", default="fast", show_default=True, help="fast, or lbfgs (scipy, slow, for reference).")
def fit(*, as_json, resamples, ray_address, **options):
    """Fit one scaling law to RECORDS, a CSV or parquet file or a study's folder."""
    _, runs, notes = load(options)
    settings = fit_settings(options)
    if resamples:
        bag = fit_records(runs, settings, resamples, ray_address)
        result, intervals = bag.fit, bag.intervals()
    else:
        from vvlm_ray.scaling.fitting import fit_with

        result, intervals = fit_with(runs, settings), {}
    if as_json:
        print_json(
            {
                "form": result.form.name,
                "loss": settings.objective.loss,
                "objective": result.objective,
                "params": result.params,
                "num_runs": result.num_runs,
                "num_starts": result.num_starts,
                "share_at_best": result.share_at_best,
                "status": result.status,
                "unidentified": [verdict.param for verdict in result.unidentified],
                "intervals": {name: list(interval) for name, interval in intervals.items()},
                "warnings": [*notes, *result.warnings],
            }
        )
        return
    print_fit(result, intervals, notes)


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=100)
@click.option("--ablations", is_flag=True, help="Also losses, starts, bounds, linear space, size and kind of bag.")
@click.option("--folds", default=5, show_default=True, help="Of the cross-validation.")
@click.option("--tflops", type=float, help="Also fit the runs up to this cost and predict the dearer ones.")
@searches_a_grid
def compare(*, as_json, ablations, resamples, folds, tflops, ray_address, **options):
    """All forms side by side: cross-validation, and extrapolation from the star sweep to the others."""
    from vvlm_ray.scaling.forms import FORM_NAMES
    from vvlm_ray.scaling.validation import below_budget, cross_validate, extrapolate

    if ray_address:
        raise UserError("compare fits in this process; --ray is for fit, frontier, elasticity and recommend")
    source, runs, notes = load(options)
    runs = with_space(source, runs, options, needed=False)
    splits = {}
    if runs.sweep is not None and "star" in runs.sweep and (runs.sweep != "star").any():
        splits["star -> rest"] = runs.sweep == "star"
    if tflops is not None:
        splits[f"up to {tflops:g} TFLOPs -> dearer"] = below_budget(runs, tflops)
    tables = {"forms": [(form, fit_settings(options | {"form": form})) for form in FORM_NAMES]}
    if ablations:
        from vvlm_ray.results.comparison import variants_of

        tables["fits"] = list(variants_of(analysis_settings(options, resamples, folds)))
    result = {}
    for title, tries in tables.items():
        rows = result[title] = {}
        for what, settings in _shown_progress(tries, f"comparing {title}"):
            setups = {"cross-validation": partial(cross_validate, runs, settings, folds=folds, seed=settings.seed)}
            setups |= {name: partial(extrapolate, runs, train, settings) for name, train in splits.items()}
            rows[what] = {name: _scores(lambda run=run: run(resamples=resamples)) for name, run in setups.items()}
    if ablations and splits:
        result["aggregates"] = _aggregates(runs, splits, fit_settings(options), resamples)
    if as_json:
        print_json(result)
        return
    for title, rows in result.items():
        print_scores(title, rows)
    print_notes(notes)


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=100)
@searches_a_grid
@click.option("--num-examples", type=float, help="Data size n [the largest in the records].")
@click.option("--budgets", help="TFLOPs per example, comma-separated [eight over the swept costs].")
def frontier(*, as_json, resamples, num_examples, budgets, ray_address, **options):
    """The best configuration at each budget, x*(c; n), with 90 % bands."""
    from vvlm_ray.scaling.frontier import frontier as find_frontier

    source, runs, notes = load(options)
    runs = with_space(source, runs, options)
    num_examples = data_size_of(runs, num_examples)
    found = budgets_of(budgets, runs)
    bag = fit_records(runs, fit_settings(options), resamples, ray_address)
    line = find_frontier(bag, found, num_examples)
    if as_json:
        points = []
        for b, budget in enumerate(line.budgets):
            point = {"budget_tflops": budget}
            point |= {name: float(values[b]) for name, values in line.factors.items()}
            point |= {"error": line.error[b], "low": line.low[b], "high": line.high[b]}
            points.append(point | {"extrapolates": bool(line.extrapolates[b])})
        print_json({"points": points})
        return
    print_frontier(line, notes + bag.fit.warnings + misfit_notes(_missed_by(runs, bag.fit.settings)))


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=100)
@searches_a_grid
def elasticity(*, as_json, resamples, ray_address, **options):
    """How each factor of the optimum moves with the data size: e_k, with 90 % bands."""
    source, runs, notes = load(options)
    runs = with_space(source, runs, options)
    if runs.num_examples is None:
        raise UserError("elasticity needs a column with the data size: name it with --data-size")
    bag = fit_records(runs, fit_settings(options), resamples, ray_address)
    from vvlm_ray.scaling.elasticity import elasticity as find_elasticity

    result = find_elasticity(bag, map=map_of(ray_address))
    if as_json:
        values = {
            name: {"mean": result.mean[name], "low": result.low[name], "high": result.high[name]}
            for name in result.mean
        }
        print_json({"elasticity": values})
        return

    rows = [
        (name, f"{result.mean[name]:+.2f}", f"{result.low[name]:+.2f} .. {result.high[name]:+.2f}")
        for name in result.mean
    ]
    print_table("Elasticity of the optimum to the data size", ("factor", "e_k", "90 % band"), rows, text=("factor",))
    sizes, budgets = result.sizes, [si(budget, "FLOPs") for budget in result.raw_budgets]
    click.echo(
        f"Averages over {len(budgets)} budgets from {budgets[0]} to {budgets[-1]} and {len(sizes)} data "
        f"sizes from {sizes[0]:,.0f} to {sizes[-1]:,.0f}, step {result.step:,.0f}. {result.share_extrapolated:.0%} of "
        f"these optima lie outside the swept range of a factor or of cost."
    )
    print_notes(notes)


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=100)
@searches_a_grid
@click.option("--tflops", type=float, required=True, help="Inference budget, TFLOPs per example.")
@click.option("--num-examples", type=float, help="Data size n [the largest in the records].")
def recommend(*, as_json, resamples, tflops, num_examples, ray_address, **options):
    """The configuration to deploy for a budget, its expected error, and how sure that is."""
    from vvlm_ray.scaling.recommendation import recommend as find

    source, runs, notes = load(options)
    runs = with_space(source, runs, options)
    num_examples = data_size_of(runs, num_examples)
    bag = fit_records(runs, fit_settings(options), resamples, ray_address)
    answer = find(bag, tflops, num_examples)
    line, missed = answer.line, _missed_by(runs, bag.fit.settings)
    if as_json:
        print_json(
            {
                "budget_tflops": tflops,
                "num_examples": num_examples,
                "factors": {name: float(values[0]) for name, values in line.factors.items()},
                "cost_tflops": line.cost[0],
                "error": line.error[0],
                "low": line.low[0],
                "high": line.high[0],
                "agreement": line.agreement[0],
                "extrapolates": bool(line.extrapolates[0]),
                "reasons": list(line.reasons[0]),
                "alternatives": [alternative_as_json(other) for other in answer.alternatives],
                "cheapest_within_noise": alternative_as_json(answer.cheapest) if answer.cheapest else None,
                "cross_validated_rmse": missed,
            }
        )
        return
    click.echo(recommendation_sentence(answer, tflops, num_examples))
    print_notes(notes + misfit_notes(missed))


def _missed_by(runs, settings) -> float | None:
    """Root mean square error, in points, of predictions for runs left out; None where the runs are too few for it."""
    from vvlm_ray.scaling.validation import cross_validate

    try:
        scores = cross_validate(runs, settings, resamples=NUM_RESAMPLES_OF_FOLDS, seed=settings.seed)
    except UserError:
        return None
    return math.sqrt(scores.mse)


def _scores(run):
    """[MSE, E%, R^2], or why there are none."""
    try:
        scores = run()
    except UserError as problem:
        return {"impossible": str(problem)}
    return {"mse": scores.mse, "error_percent": scores.error_percent, "r2": scores.r2}


def _aggregates(runs, splits, settings, resamples):
    """Size and kind of the bag: on the runs it was fitted to, and in extrapolation."""
    from vvlm_ray.scaling.bagging import fit_bag_with
    from vvlm_ray.scaling.validation import predict_runs, score

    bags = {"train": (fit_bag_with(runs, settings, resamples, race=True), runs)}
    for name, train in splits.items():
        bags[name] = (fit_bag_with(runs.select(train), settings, resamples, race=True), runs.select(~train))
    kinds = [("mean", resamples), *(("median", count) for count in sorted({1, max(1, resamples // 2), resamples}))]
    return {
        f"{kind} of {count}": {
            name: _scores(
                lambda bag=bag, held_out=held_out, kind=kind, count=count: score(
                    predict_runs(bag.take(count), held_out, kind), held_out.error
                )
            )
            for name, (bag, held_out) in bags.items()
        }
        for kind, count in kinds
    }


def _shown_progress(items, title):
    from vvlm_ray.commands.progress import bar

    with bar(title, len(items)) as update:
        for position, item in enumerate(items):
            update(position)
            yield item
