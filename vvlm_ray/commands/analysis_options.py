"""What the analysis commands take, and what becomes of it: runs, settings, a bag, a cost, a grid, budgets."""

import math

import click

from vvlm_ray.errors import UserError


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


def load(options):
    """The source, its runs, and notes on what was left out."""
    from vvlm_ray.results.source import open_source
    from vvlm_ray.results.tables import DEFAULT_FACTORS, Columns, records_in, runs_of

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


def fit_settings(options):
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


def analysis_settings(options, resamples, folds):
    from vvlm_ray.results.analysis import Settings

    return Settings(options["form"], resamples, options["starts"], folds, options["seed"])


def fit_records(runs, settings, resamples, ray_address):
    from vvlm_ray.commands.progress import bar
    from vvlm_ray.scaling.bagging import fit_bag_with

    with bar("fitting resamples", resamples) as update:
        return fit_bag_with(runs, settings, resamples, map=map_of(ray_address), progress=update)


def map_of(ray_address: str | None):
    """Where the work goes: the threads of this process, or Ray tasks."""
    if ray_address is None:
        return None
    from vvlm_ray.orchestration.ray_map import ray_map

    return ray_map(None if ray_address == "auto-or-local" else ray_address)


def with_space(source, runs, options, needed=True):
    """The runs with their space: of the options, else of the study, else of the method."""
    from dataclasses import replace

    from vvlm_ray.scaling.cost import EQ1_CONSTANTS
    from vvlm_ray.scaling.space import Space, usual_cost

    constants = {name: options[name] for name in EQ1_CONSTANTS if options[name] is not None}
    cost = source.cost or usual_cost(tuple(runs.factors))
    if constants:
        if cost is None or not cost.is_eq1:
            raise UserError("--vision-params and --vision-tokens belong to Eq. 1, the cost of the default factors")
        cost = replace(cost, **constants)
    levels = {name: levels for name, levels in (source.grid or {}).items() if name in runs.factors}
    for text in options["grid_texts"]:
        name, _, values = text.partition("=")
        if name not in runs.factors:
            raise UserError(f"--grid {text}: {name!r} is no factor; the factors are {', '.join(runs.factors)}")
        levels[name] = parse_levels(values, text)
    runs = replace(runs, space=Space(levels, cost))
    if needed:
        runs.space.known_cost()
    return runs


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


def data_size_of(runs, num_examples):
    if runs.num_examples is None:
        if num_examples is not None:
            raise UserError("the runs have no data size: leave out --num-examples, or name its column with --data-size")
        return None
    size = float(runs.num_examples.max()) if num_examples is None else num_examples
    if not size > 0:
        raise UserError("--num-examples must be positive")
    return size


def budgets_of(text, runs):
    """Budgets in the cost's unit, comma-separated."""
    import numpy as np

    if text is None:
        scale = runs.space.known_cost().scale
        swept = runs.cost / scale
        low = max(swept.min(), runs.space.grid().cost[0] / scale)
        return np.geomspace(low, max(swept.max(), low), 8)
    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise UserError(f"--budgets {text}: write TFLOPs as 1,2,5") from None
