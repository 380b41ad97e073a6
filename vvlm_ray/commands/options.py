"""The options of the analysis commands, the same under the same names in each, and what becomes of them."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vvlm_ray.commands.run import Location
from vvlm_ray.commands.table_options import columns_of, reads_a_table
from vvlm_ray.errors import UserError
from vvlm_ray.orchestration.wandb_table import is_project

if TYPE_CHECKING:
    from vvlm_ray.results.analysis import Analysis
    from vvlm_ray.results.source import Source

LARGEST_LEVELS = 1_000_000  # of one factor on the command line


class Records(Location):
    """A study's folder or a table by its path or URL, or a W&B project."""

    name = "path, URL or wandb://entity/project"

    def convert(self, value, param, ctx):
        return str(value) if is_project(value) else super().convert(value, param, ctx)


def reads_records(command: Callable) -> Callable:
    """RECORDS and what names its columns."""
    return click.argument("records", type=Records())(reads_a_table(command))


def fits(command: Callable) -> Callable:
    """What answers, and how it is fitted."""
    return _with(
        command,
        click.option("--form", help="auto, mult, add, add-interact-s, add-interact, best (cross-validated) [auto]."),
        click.option("--resamples", type=int, help="Bootstrap resamples of the bag [the study's, else 100]."),
        click.option("--starts", type=int, help="Random starts of each fit [the study's, else 500]."),
        click.option("--seed", default=0, show_default=True, help="Of resamples, starts and folds."),
        click.option("--exponents-from", default=-2.0, show_default=True, help="Least exponent of a bag."),
        click.option("--exponents-to", default=2.0, show_default=True, help="Largest exponent of a bag."),
        click.option("--ray", "ray_address", is_flag=False, flag_value="", default=None,
                     help="Work as Ray tasks: on the cluster at ADDRESS, or on this machine."),
    )  # fmt: skip


def chooses(command: Callable) -> Callable:
    """Which configurations there are and what they cost."""
    return _with(
        command,
        click.option("--grid", "grid_texts", multiple=True, metavar="FACTOR=LEVELS",
                     help="Levels of a factor: 1,2,4 or 1..128 or 1^2..27^2; repeat for each factor."),
        click.option("--cost", help='Cost of a configuration, e.g. "2 * params * tokens" [Eq. 1, budgets in TFLOPs].'),
        click.option("--cost-unit", help="Unit of --cost, e.g. ms; FLOPs: budgets are TFLOPs [that of the numbers]."),
        click.option("--limit", "limits", multiple=True, metavar="'EXPR <= NUMBER'",
                     help="Beside the budget: 'num_frames <= 64', '2 * lm_params <= 24e9'; repeat for more."),
        click.option("--vision-params", type=float, help="Parameters of the vision model [0.43e9]."),
        click.option("--vision-tokens", type=float, help="Vision features per frame [768]."),
    )  # fmt: skip


def prints(command: Callable) -> Callable:
    return _with(command, click.option("--json", "as_json", is_flag=True, help="Print JSON."))


def takes_num_examples(command: Callable) -> Callable:
    return _with(command, click.option("--num-examples", type=float, help="Data size n [the largest in the records]."))


def _with(command: Callable, *options: Callable) -> Callable:
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def opened(options: dict[str, Any]) -> "Iterator[Source]":
    """The records that these options name, with what may be chosen from; results go back to a study in a bucket."""
    from vvlm_ray.results.source import Choice, open_source
    from vvlm_ray.study.snapshot import local_study

    columns = columns_of(options)
    choice = Choice(
        levels=dict(levels_of(text) for text in options.get("grid_texts", ())),
        expression=options.get("cost"),
        unit=options.get("cost_unit"),
        vision_params=options.get("vision_params"),
        vision_tokens=options.get("vision_tokens"),
        limits=tuple(options.get("limits") or ()),
    )
    if is_project(options["records"]):
        from vvlm_ray.orchestration.wandb_table import read_project
        from vvlm_ray.results.tables import table_of

        project = options["records"]
        table = table_of(read_project(project), project, columns, "W&B")
        yield open_source(Path(project.rstrip("/").rpartition("/")[2]), columns, choice, table=table)
        return
    with local_study(options["records"]) as place:
        yield open_source(place, columns, choice)


def settings_of(source, options: dict[str, Any]):
    """How to fit: what the options say, else what the study says, else the method."""
    from dataclasses import replace

    from vvlm_ray.results.analysis import settings_of as said_by_the_study

    given = {name: options[name] for name in ("form", "resamples", "starts") if options.get(name) is not None}
    bounds = (options["exponents_from"], options["exponents_to"])
    return replace(said_by_the_study(source.answer), **given, seed=options["seed"], exponents=bounds)


def fit_of(settings, form: str):
    """The fit settings of one form."""
    from dataclasses import replace

    return replace(settings, form=form).fit


def analysis_of(options: dict[str, Any], *, budgets: str | None = None, num_examples: float | None = None,
                with_elasticity: bool = False, needs_cost: bool = True) -> "Analysis":  # fmt: skip
    """The one way to an answer, for every command."""
    from vvlm_ray.report.progress import shown
    from vvlm_ray.results.analysis import analyse

    with opened(options) as source, shown() as progress:
        if source.cost is None and needs_cost:
            from vvlm_ray.scaling.space import Space

            Space({name: [1] for name in source.columns.factors}).known_cost()
        if num_examples is not None and not has_data_size(source):
            raise UserError("the runs have no data size: leave out --num-examples, or name its column with --data-size")
        return analyse(source, settings=settings_of(source, options), budgets=budgets_of(budgets),
                       num_examples=num_examples, with_elasticity=with_elasticity, map=map_of(options["ray_address"]),
                       progress=progress)  # fmt: skip


def has_data_size(source: "Source") -> bool:
    from vvlm_ray.results.columns import DEFAULT_DATA_SIZE

    name = source.columns.data_size or DEFAULT_DATA_SIZE
    return name != "none" and name in source.frame.columns


def map_of(ray_address: str | None):
    """Where the work goes: the threads of this process, or Ray tasks."""
    if ray_address is None:
        return None
    from vvlm_ray.orchestration.ray_map import ray_map

    return ray_map(ray_address or None)


def budgets_of(text: str | None) -> list[float] | None:
    """Budgets in the cost's unit, comma-separated."""
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or not all(math.isfinite(value) and value > 0 for value in found):
        raise UserError(f"--budgets {text}: write positive numbers as 2,5,15, in TFLOPs (or in the unit of --cost)")
    return found


def levels_of(text: str):
    """num_frames=1,2,4 or =1..128 or =1^2..27^2 (or a mixture, comma-separated): the factor, and sorted levels."""
    name, equals, levels = text.partition("=")
    if not equals:
        raise UserError(f"--grid {text}: write it as --grid num_frames=1..64")
    return name.strip(), parse_levels(levels, text)


def parse_levels(levels: str, whole: str):
    import numpy as np

    found: list[float] = []
    try:
        for part in levels.split(","):
            first, dots, last = part.partition("..")
            squares = "^2" in first or "^2" in last
            if not dots:
                found.append(_number(first))
                continue
            start, stop = int(first.removesuffix("^2")), int(last.removesuffix("^2"))
            if stop - start >= LARGEST_LEVELS:
                raise UserError(f"--grid {whole}: more than {LARGEST_LEVELS:,} levels; give fewer")
            found.extend(float(value**2 if squares else value) for value in range(start, stop + 1))
    except (ValueError, OverflowError) as problem:
        if isinstance(problem, UserError):
            raise
        found = []
    values = np.unique(np.array(found, float))
    if not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise UserError(f"--grid {whole}: write positive levels as 1,2,4 or 1..128 or 1^2..27^2")
    return values


def _number(text: str) -> float:
    return float(text.removesuffix("^2")) ** 2 if text.endswith("^2") else float(text)


def print_json(value: Any) -> None:
    from vvlm_ray.results.shapes import plain

    click.echo(json.dumps(plain(value), indent=2))


def print_notes(notes) -> None:
    for note in notes:
        click.echo(f"Note: {note}.", err=True)
