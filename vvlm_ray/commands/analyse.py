"""fit, compare, frontier, elasticity, recommend: thin commands over vvlm_ray.scaling for any table of results."""

import json
import math
from functools import partial

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.errors import UserError
from vvlm_ray.units import si

TERA = 1e12
NUM_RESAMPLES_OF_FOLDS = 20  # in a cross-validation that only accompanies an answer


def reads_records(command):
    """RECORDS and what names its columns."""
    for option in reversed(
        (
            click.argument("records", type=click.Path()),
            click.option("--factors", help="Factor columns, comma-separated [lm_params,num_frames,tokens_per_frame]."),
            click.option("--data-size", help='Column of the data size, or "none" [num_examples].'),
            click.option("--score", help="Column with the score on 0..100; the error is 100 - score [avg]."),
            click.option("--error", "error_column", help="Column taken as the error itself."),
            click.option("--keep-duplicates", is_flag=True, help="Accept rows that repeat another one."),
        )
    ):
        command = option(command)
    return command


def fits_a_bag(resamples: int, exponents: float = 2.0):
    """How to fit; exponents lie within +-`exponents` by default."""

    def decorate(command):
        for option in reversed(
            (
                click.option("--form", default="add-interact", show_default=True,
                             help="mult, add, add-interact-s or add-interact."),
                click.option("--resamples", default=resamples, show_default=True, help="Bootstrap resamples."),
                click.option("--starts", default=500, show_default=True, help="Random starts of each fit."),
                click.option("--seed", default=0, show_default=True, help="Of resamples, starts and folds."),
                click.option("--exponents-from", default=-exponents, show_default=True, help="Least exponent."),
                click.option("--exponents-to", default=exponents, show_default=True, help="Largest exponent."),
                click.option("--ray", "ray_address", is_flag=False, flag_value="auto-or-local", default=None,
                             help="Fit the resamples as Ray tasks: on the cluster at ADDRESS, or on this machine."),
                click.option("--json", "as_json", is_flag=True, help="Print JSON."),
            )
        ):  # fmt: skip
            command = option(command)
        return command

    return decorate


def searches_a_grid(command):
    """Which configurations there are and what they cost."""
    for option in reversed(
        (
            click.option("--grid", "grid_texts", multiple=True, metavar="FACTOR=LEVELS",
                         help="Levels of a factor: 1,2,4 or 1..128 or 1^2..27^2; repeat for each factor."),
            click.option("--cost", "cost_text", help='FLOPs of a configuration, e.g. "2 * params * tokens" [Eq. 1].'),
            click.option("--vision-params", type=float, help="Parameters of the vision model [0.43e9]."),
            click.option("--vision-tokens", type=float, help="Vision features per frame [768]."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=0, exponents=math.inf)
@click.option("--loss", default="mse", show_default=True, help="mse or huber.")
@click.option("--huber-delta", default=1e-3, show_default=True, help="Of the Huber loss.")
@click.option("--linear", is_flag=True, help="Residuals f - error instead of their logarithms'.")
@click.option("--engine", default="fast", show_default=True, help="fast, or lbfgs (scipy, slow, for reference).")
def fit(*, as_json, resamples, ray_address, **options):
    """Fit one scaling law to RECORDS, a CSV or parquet file or a study's folder."""
    _, runs, notes = _load(options)
    settings = _settings(options)
    if resamples:
        bag = _bag(runs, settings, resamples, ray_address)
        result, intervals = bag.fit, bag.intervals()
    else:
        from vvlm_ray.scaling.fitting import fit_with

        result, intervals = fit_with(runs, settings), {}
    if as_json:
        _print_json(
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
    _print_fit(result, intervals, notes)


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
    source, runs, notes = _load(options)
    cost, _ = _cost_and_grid(source, runs, options, needed=False)
    splits = {}
    if runs.sweep is not None and "star" in runs.sweep and (runs.sweep != "star").any():
        splits["star -> rest"] = runs.sweep == "star"
    if tflops is not None:
        if cost is None:
            raise UserError("say what a configuration costs with --cost, so that runs can be split by it")
        splits[f"up to {tflops:g} TFLOPs -> dearer"] = below_budget(runs, tflops * TERA, cost)
    tables = {"forms": [(form, _settings(options | {"form": form})) for form in FORM_NAMES]}
    if ablations:
        from vvlm_ray.study.comparison import variants_of

        tables["fits"] = list(variants_of(_analysis_settings(options, resamples, folds)))
    result = {}
    for title, tries in tables.items():
        rows = result[title] = {}
        for what, settings in _shown_progress(tries, f"comparing {title}"):
            setups = {"cross-validation": partial(cross_validate, runs, settings, folds=folds, seed=settings.seed)}
            setups |= {name: partial(extrapolate, runs, train, settings) for name, train in splits.items()}
            rows[what] = {name: _scores(lambda run=run: run(resamples=resamples)) for name, run in setups.items()}
    if ablations and splits:
        result["aggregates"] = _aggregates(runs, splits, _settings(options), resamples)
    if as_json:
        _print_json(result)
        return
    for title, rows in result.items():
        _print_scores(title, rows)
    _print_notes(notes)


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=100)
@searches_a_grid
@click.option("--num-examples", type=float, help="Data size n [the largest in the records].")
@click.option("--budgets", help="TFLOPs per example, comma-separated [eight over the swept costs].")
def frontier(*, as_json, resamples, num_examples, budgets, ray_address, **options):
    """The best configuration at each budget, x*(c; n), with 90 % bands."""
    from vvlm_ray.scaling.frontier import frontier as find_frontier

    source, runs, notes = _load(options)
    cost, grid = _cost_and_grid(source, runs, options)
    num_examples = _data_size(runs, num_examples)
    flops = _budgets(budgets, runs, cost, grid)
    bag = _bag(runs, _settings(options), resamples, ray_address)
    line = find_frontier(bag, grid, cost, flops, num_examples)
    if as_json:
        points = []
        for b, budget in enumerate(line.budgets_flops):
            point = {"budget_tflops": budget / TERA}
            point |= {name: float(values[b]) for name, values in line.factors.items()}
            point |= {"error": line.error[b], "low": line.low[b], "high": line.high[b]}
            points.append(point | {"extrapolates": bool(line.extrapolates[b])})
        _print_json({"points": points})
        return
    _print_frontier(line, notes + bag.fit.warnings + _misfit(_missed_by(runs, bag.fit.settings)))


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=100)
@searches_a_grid
def elasticity(*, as_json, resamples, ray_address, **options):
    """How each factor of the optimum moves with the data size: e_k, with 90 % bands."""
    source, runs, notes = _load(options)
    cost, grid = _cost_and_grid(source, runs, options)
    if runs.num_examples is None:
        raise UserError("elasticity needs a column with the data size: name it with --data-size")
    bag = _bag(runs, _settings(options), resamples, ray_address)
    if ray_address:
        from vvlm_ray.orchestration.fits import elasticity_on_ray

        result = elasticity_on_ray(bag, grid, cost, address=_address(ray_address))
    else:
        from vvlm_ray.scaling.elasticity import elasticity as find_elasticity

        result = find_elasticity(bag, grid, cost)
    if as_json:
        values = {
            name: {"mean": result.mean[name], "low": result.low[name], "high": result.high[name]}
            for name in result.mean
        }
        _print_json({"elasticity": values})
        return
    from vvlm_ray.commands.printing import print_table

    rows = [
        (name, f"{result.mean[name]:+.2f}", f"{result.low[name]:+.2f} .. {result.high[name]:+.2f}")
        for name in result.mean
    ]
    print_table("Elasticity of the optimum to the data size", ("factor", "e_k", "90 % band"), rows, text=("factor",))
    sizes, budgets = result.sizes, [si(budget, "FLOPs") for budget in result.budgets_flops]
    click.echo(
        f"Averages over {len(budgets)} budgets from {budgets[0]} to {budgets[-1]} and {len(sizes)} data "
        f"sizes from {sizes[0]:,.0f} to {sizes[-1]:,.0f}, step {result.step:,.0f}. {result.share_extrapolated:.0%} of "
        f"these optima lie outside the swept range of a factor or of cost."
    )
    _print_notes(notes)


@click.command(cls=Command)
@reads_records
@fits_a_bag(resamples=100)
@searches_a_grid
@click.option("--tflops", type=float, required=True, help="Inference budget, TFLOPs per example.")
@click.option("--num-examples", type=float, help="Data size n [the largest in the records].")
def recommend(*, as_json, resamples, tflops, num_examples, ray_address, **options):
    """The configuration to deploy for a budget, its expected error, and how sure that is."""
    from vvlm_ray.scaling.recommendation import recommend as find

    source, runs, notes = _load(options)
    cost, grid = _cost_and_grid(source, runs, options)
    num_examples = _data_size(runs, num_examples)
    bag = _bag(runs, _settings(options), resamples, ray_address)
    answer = find(bag, tflops * TERA, num_examples, grid=grid, cost=cost)
    line, missed = answer.line, _missed_by(runs, bag.fit.settings)
    if as_json:
        _print_json(
            {
                "budget_tflops": tflops,
                "num_examples": num_examples,
                "factors": {name: float(values[0]) for name, values in line.factors.items()},
                "cost_tflops": line.cost_flops[0] / TERA,
                "error": line.error[0],
                "low": line.low[0],
                "high": line.high[0],
                "agreement": line.agreement[0],
                "extrapolates": bool(line.extrapolates[0]),
                "reasons": list(line.reasons[0]),
                "alternatives": [_alternative(other) for other in answer.alternatives],
                "cheapest_within_noise": _alternative(answer.cheapest) if answer.cheapest else None,
                "cross_validated_rmse": missed,
            }
        )
        return
    click.echo(recommendation_sentence(answer, tflops, num_examples))
    _print_notes(notes + _misfit(missed))


def recommendation_sentence(answer, tflops: float, num_examples: float | None) -> str:
    """One plain sentence, and one for each doubt."""
    from vvlm_ray.report import words

    line = answer.line
    chosen = {name: float(values[0]) for name, values in line.factors.items()}
    after = f" and {words.count(num_examples)} finetuning examples" if num_examples else ""
    text = (
        f"For {si(tflops * TERA, 'FLOPs')} per example{after}, deploy {words.configuration(chosen)} "
        f"({si(line.cost_flops[0], 'FLOPs')}): expected error {line.error[0]:.2f} "
        f"(90 % band {line.low[0]:.2f} to {line.high[0]:.2f}); {line.agreement[0]:.0%} of the resamples choose exactly "
        f"this configuration."
    )
    near = [other for other in answer.alternatives if other.worse_low <= 0]
    if near:
        options = "; ".join(f"{words.configuration(o.factors)} ({o.worse_by:+.2f})" for o in near)
        text += f" Within noise of it: {options}."
    if answer.cheapest:
        text += (
            f" The cheapest within noise: {words.configuration(answer.cheapest.factors)}, "
            f"{si(answer.cheapest.cost_flops, 'FLOPs')} ({answer.cheapest.worse_by:+.2f})."
        )
    if line.reasons[0]:
        doubts = words.listed(words.label_reason(reason) for reason in line.reasons[0])
        text += f" This extrapolates ({doubts}): finetune and measure it before you trust it."
    return text


def _missed_by(runs, settings) -> float | None:
    """Root mean square error, in points, of predictions for runs left out; None where the runs are too few for it."""
    from vvlm_ray.scaling.validation import cross_validate

    try:
        scores = cross_validate(runs, settings, resamples=NUM_RESAMPLES_OF_FOLDS, seed=settings.seed)
    except UserError:
        return None
    return math.sqrt(scores.mse)


def _misfit(missed: float | None) -> list[str]:
    """What the bands do not say: they come from resampling the runs, and take the law for granted."""
    if missed is None:
        return ["the runs are too few for cross-validation, so nothing is known of the law's own error"]
    return [
        f"in cross-validation the law misses runs that it has not seen by {missed:.2f} points (root mean square); "
        "the bands are of its coefficients only, and take the law itself for granted"
    ]


def _alternative(other) -> dict:
    return {
        "factors": other.factors,
        "cost_tflops": other.cost_flops / TERA,
        "error": other.error,
        "share": other.share,
        "worse_by": other.worse_by,
        "worse_low": other.worse_low,
        "worse_high": other.worse_high,
    }


# Reading


def _load(options):
    """The source, its runs, and notes on what was left out."""
    from vvlm_ray.study.source import open_source
    from vvlm_ray.study.tables import DEFAULT_FACTORS, Columns, records_in, runs_of

    factors = options["factors"]
    names = tuple(name.strip() for name in factors.split(",") if name.strip()) if factors else DEFAULT_FACTORS
    columns = Columns(
        factors=names,
        data_size=options["data_size"],
        score=options["score"],
        error=options["error_column"],
        keep_duplicates=options["keep_duplicates"],
    )
    source = open_source(options["records"], columns, options.get("cost_text"))
    runs, notes = runs_of(source.frame, records_in(source.path) if source.is_folder else source.path, source.columns)
    return source, runs, list(notes)


def _settings(options):
    from vvlm_ray.scaling.fitting import FitSettings
    from vvlm_ray.scaling.problem import Objective

    bounds = (options["exponents_from"], options["exponents_to"])
    objective = Objective(
        loss=options.get("loss", "mse"),
        huber_delta=options.get("huber_delta", 1e-3),
        log_space=not options.get("linear", False),
        exponent_bounds=None if bounds == (-math.inf, math.inf) else bounds,
    )
    return FitSettings(
        form=options["form"],
        engine=options.get("engine", "fast"),
        starts=options["starts"],
        seed=options["seed"],
        objective=objective,
    )


def _analysis_settings(options, resamples, folds):
    from vvlm_ray.study.analysis import Settings

    return Settings(options["form"], resamples, options["starts"], folds, options["seed"])


def _bag(runs, settings, resamples, ray_address):
    if ray_address:
        from vvlm_ray.orchestration.fits import fit_bag_on_ray

        return fit_bag_on_ray(runs, settings, resamples, address=_address(ray_address))
    from vvlm_ray.commands.progress import bar
    from vvlm_ray.scaling.bagging import fit_bag_with

    with bar("fitting resamples", resamples) as update:
        return fit_bag_with(runs, settings, resamples, progress=update)


def _address(ray_address: str) -> str | None:
    return None if ray_address == "auto-or-local" else ray_address


def _cost_and_grid(source, runs, options, needed=True):
    """The cost function and the grid: of the options, else of the study, else of the method."""
    from vvlm_ray.scaling.cost import inference_flops
    from vvlm_ray.scaling.frontier import default_grid
    from vvlm_ray.study.tables import DEFAULT_FACTORS

    constants = {name: options[name] for name in ("vision_params", "vision_tokens") if options[name] is not None}
    cost = source.cost
    if constants:
        if options["cost_text"] or set(runs.factors) != set(DEFAULT_FACTORS):
            raise UserError("--vision-params and --vision-tokens belong to Eq. 1, the cost of the default factors")
        known = cost.keywords if isinstance(cost, partial) else {}
        cost = partial(inference_flops, **(known | constants))
    if cost is None and needed:
        raise UserError(
            f"what a configuration of {', '.join(runs.factors)} costs is unknown: say it with --cost, "
            f'e.g. --cost "2 * {" * ".join(runs.factors)}"'
        )
    grid = default_grid(runs) | {name: levels for name, levels in (source.grid or {}).items() if name in runs.factors}
    for text in options["grid_texts"]:
        name, _, levels = text.partition("=")
        if name not in runs.factors:
            raise UserError(f"--grid {text}: {name!r} is no factor; the factors are {', '.join(runs.factors)}")
        grid[name] = parse_levels(levels, text)
    return cost, grid


def parse_levels(levels: str, whole: str):
    """1,2,4 or 1..128 or 1^2..27^2 (or a mixture, comma-separated) as sorted distinct numbers."""
    import numpy as np

    found: list[float] = []
    try:
        for part in levels.split(","):
            first, dots, last = part.partition("..")
            if not dots:
                found.append(_number(first))
            elif "^2" in first or "^2" in last:
                roots = range(int(first.removesuffix("^2")), int(last.removesuffix("^2")) + 1)
                found.extend(float(root**2) for root in roots)
            else:
                found.extend(float(value) for value in range(int(first), int(last) + 1))
    except ValueError:
        found = []
    values = np.unique(np.array(found, float))
    if not len(values) or not (values > 0).all():
        raise UserError(f"--grid {whole}: write positive levels as 1,2,4 or 1..128 or 1^2..27^2")
    return values


def _number(text: str) -> float:
    return float(text.removesuffix("^2")) ** 2 if text.endswith("^2") else float(text)


def _data_size(runs, num_examples):
    if runs.num_examples is None:
        if num_examples is not None:
            raise UserError("the runs have no data size: leave out --num-examples, or name its column with --data-size")
        return None
    size = float(runs.num_examples.max()) if num_examples is None else num_examples
    if not size > 0:
        raise UserError("--num-examples must be positive")
    return size


def _budgets(text, runs, cost, grid):
    """Budgets in FLOPs from TFLOPs, comma-separated."""
    import numpy as np

    from vvlm_ray.scaling.frontier import make_grid

    if text is None:
        swept = np.asarray(cost(**runs.factors), float)
        low = max(swept.min(), make_grid(grid, cost).cost[0])
        return np.geomspace(low, max(swept.max(), low), 8)
    try:
        return np.array([float(part) for part in text.split(",")]) * TERA
    except ValueError:
        raise UserError(f"--budgets {text}: write TFLOPs as 1,2,5") from None


# Scores


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


# Printing


def _print_json(value) -> None:
    """Infinities and NaN, which JSON does not know, become null."""
    click.echo(json.dumps(_finite(value), indent=2))


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _print_fit(result, intervals, notes) -> None:
    from vvlm_ray.commands.printing import print_table

    doubtful = {verdict.param: verdict.kind for verdict in result.unidentified}
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
    _print_notes([*notes, *result.warnings])


def _print_scores(title, rows) -> None:
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
    _print_notes(reasons)


def _print_frontier(line, notes) -> None:
    from vvlm_ray.commands.printing import print_table
    from vvlm_ray.report import words

    rows = []
    for b, budget in enumerate(line.budgets_flops):
        cells = [si(budget, "FLOPs")]
        for name, values in line.factors.items():
            low, high = line.factor_low[name][b], line.factor_high[name][b]
            cells.append(f"{words.count(values[b])} [{words.count(low)}..{words.count(high)}]")
        cells += [f"{line.error[b]:.2f}", f"{line.low[b]:.2f} .. {line.high[b]:.2f}", f"{line.agreement[b]:.0%}"]
        rows.append([*cells, "; ".join(line.reasons[b])])
    columns = ["budget", *line.factors, "error", "90 % band", "agree", "extrapolates"]
    print_table("The frontier: x* [90 % of the resamples]", columns, rows, text=("extrapolates",))
    _print_notes(notes)


def _print_notes(notes) -> None:
    for note in notes:
        click.echo(f"Note: {note}.", err=True)


def _shown_progress(items, title):
    from vvlm_ray.commands.progress import bar

    with bar(title, len(items)) as update:
        for position, item in enumerate(items):
            update(position)
            yield item
