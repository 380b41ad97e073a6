"""Fits and elasticities as Ray tasks: the numbers of the in-process functions, on every core of a cluster.

A task fits a few resamples from all their starts. What it computes depends on (runs, settings, index) alone, so tasks
may run anywhere, in any order, and again after a worker was lost (Ray retries them).
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager

from vvlm_ray.scaling.bagging import Bag, assemble, fit_resamples
from vvlm_ray.scaling.elasticity import Elasticity, elasticity_from, gather_cells, plan_elasticity
from vvlm_ray.scaling.fitting import FitSettings, fit_with
from vvlm_ray.scaling.runs import Runs

RESAMPLES_PER_TASK = 5
SIZES_PER_TASK = 10
RETRIES = 10  # of a task whose worker was lost


def fit_bag_on_ray(runs: Runs, settings: FitSettings, resamples: int, *, address: str | None = None,
                   show_progress: bool = True) -> Bag:  # fmt: skip
    """`fit_bag_with` on Ray: the same bag, to the last digit."""
    parent = fit_with(runs, settings)
    chunks = [range(i, min(i + RESAMPLES_PER_TASK, resamples)) for i in range(0, resamples, RESAMPLES_PER_TASK)]
    calls = [(runs, settings, chunk, parent.basins) for chunk in chunks]
    pieces = _map_on_ray(fit_resamples, calls, "fitting resamples", address, show_progress)
    return assemble(runs, parent, pieces)


def elasticity_on_ray(bag: Bag, grid=None, cost=None, *, budgets_flops=None, sizes=None, step=None, level=0.9,
                      address: str | None = None, show_progress: bool = True) -> Elasticity:  # fmt: skip
    """`elasticity` on Ray, a task for a few data sizes each: the same numbers."""
    plan = plan_elasticity(bag, grid, cost, budgets_flops=budgets_flops, sizes=sizes, step=step)
    chunks = [plan.sizes[i : i + SIZES_PER_TASK] for i in range(0, len(plan.sizes), SIZES_PER_TASK)]
    calls = [(bag, plan.grid, plan.budgets_flops, chunk, plan.step) for chunk in chunks]
    pieces = _map_on_ray(gather_cells, calls, "searching frontiers", address, show_progress)
    return elasticity_from(plan, pieces, level)


def _map_on_ray(function: Callable, calls: Sequence[tuple], title: str, address: str | None, show: bool) -> list:
    """[function(*call) for call in calls], in order, as Ray tasks; large arguments that repeat are stored once."""
    import ray

    with _connected(ray, address):
        stored: dict[int, object] = {}
        for argument in (value for call in calls for value in call):
            if isinstance(argument, Runs | Bag) and id(argument) not in stored:
                stored[id(argument)] = ray.put(argument)
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_run_on_one_core)
        pending = {
            task.remote(function, *[stored.get(id(value), value) for value in call]): position
            for position, call in enumerate(calls)
        }
        results: list = [None] * len(calls)
        with _progress(title, len(calls), show) as advance:
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1)
                results[pending.pop(done[0])] = ray.get(done[0])
                advance()
    return results


def _run_on_one_core(function, *arguments):
    return function(*arguments)


@contextmanager
def _connected(ray, address: str | None):
    """Ray, started here if it is not running; only what was started here is ended."""
    if ray.is_initialized():
        yield
        return
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _progress(title: str, total: int, show: bool):
    """A bar on stderr; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
