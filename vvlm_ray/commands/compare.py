"""`vvlm-ray compare`: all scaling laws side by side, judged on runs that they have not seen."""

from functools import partial

import click

from vvlm_ray.commands import options as common
from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.fit import fit_settings
from vvlm_ray.errors import UserError


@click.command(cls=Command)
@common.reads_records
@click.option("--form", default="add-interact", show_default=True, help="The one that --ablations are of.")
@click.option("--resamples", type=click.IntRange(1), default=100, show_default=True, help="Bootstrap resamples.")
@click.option("--starts", default=500, show_default=True, help="Random starts of each fit.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of resamples, starts and folds.")
@click.option("--exponents-from", default=-2.0, show_default=True, help="Least exponent.")
@click.option("--exponents-to", default=2.0, show_default=True, help="Largest exponent.")
@click.option("--ray", "ray_address", is_flag=False, flag_value="", default=None, help="Fit resamples as Ray tasks.")
@common.chooses
@click.option("--ablations", is_flag=True, help="Also losses, starts, bounds, linear space, size and kind of bag.")
@click.option("--folds", default=5, show_default=True, help="Of the cross-validation.")
@click.option("--split-at", type=float, help="Also fit the runs up to this cost and predict the dearer ones (TFLOPs).")
@common.prints
def compare(*, as_json, ablations, resamples, folds, split_at, ray_address, **options):
    """All forms side by side: cross-validation, and extrapolation from the star sweep to the others."""
    from vvlm_ray.results.source import read_runs
    from vvlm_ray.scaling.forms import AUTO, FORM_NAMES
    from vvlm_ray.scaling.validation import below_budget, cross_validate, extrapolate

    with common.opened(options) as source:
        observed = read_runs(source, source.scores()[0])
    runs, notes, map = observed.runs, [observed.read, *observed.notes], common.map_of(ray_address)
    splits = {}
    if runs.sweep is not None and "star" in runs.sweep and (runs.sweep != "star").any():
        splits["star -> rest"] = runs.sweep == "star"
    if split_at is not None:
        unit = runs.space.known_cost().budget_unit
        splits[f"up to {split_at:g} {unit} -> dearer"] = below_budget(runs, split_at)
    tables = {"forms": [(form, fit_settings(options | {"form": form})) for form in (AUTO, *FORM_NAMES)]}
    if ablations:
        from vvlm_ray.results.analysis import Settings
        from vvlm_ray.results.comparison import variants_of

        tables["fits"] = list(
            variants_of(Settings(options["form"], resamples, options["starts"], folds, options["seed"]))
        )
    result = {}
    for title, tries in tables.items():
        rows = result[title] = {}
        for what, settings in _shown_progress(tries, f"comparing {title}"):
            setups = {"cross-validation": partial(cross_validate, runs, settings, folds=folds, seed=settings.seed)}
            setups |= {name: partial(extrapolate, runs, train, settings) for name, train in splits.items()}
            rows[what] = {
                name: _scores(lambda run=run: run(resamples=resamples, map=map)) for name, run in setups.items()
            }
    if ablations and splits:
        result["aggregates"] = _aggregates(runs, splits, fit_settings(options), resamples)
    if as_json:
        common.print_json({**result, "notes": notes})
        return
    for title, rows in result.items():
        print_scores(title, rows)
    common.print_notes(notes)


def _scores(run):
    """[MSE, E%, R^2], or why there are none."""
    try:
        scores = run()
    except UserError as problem:
        return {"impossible": str(problem)}
    return scores_as_json(scores)


def scores_as_json(scores) -> dict[str, float]:
    return {
        "mse": scores.mse,
        "error_percent": scores.error_percent,
        "r2": scores.r2,
        "coverage_of_90_bands": scores.coverage,
    }


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


def print_scores(title, rows) -> None:
    from vvlm_ray.commands.printing import print_table

    setups = list(next(iter(rows.values())))
    columns = [title, *(f"{setup}: MSE  E%  R^2" for setup in setups)]
    table, reasons = [], []
    for what, scores in rows.items():
        cells = [what]
        for setup in setups:
            found = scores[setup]
            if "impossible" in found:
                reasons.append(f"{what}, {setup}: {found['impossible']}")
                cells.append("-")
            else:
                cells.append(f"{found['mse']:8.3g}  {found['error_percent']:6.2f}  {found['r2']:6.3f}")
        table.append(cells)
    print_table("", columns, table)
    common.print_notes(reasons)
