"""The next runs to buy: those that promise the largest fall of the expected regret for their price.

Candidates are configurations that may turn out best at a budget that matters, and others spread over the space, each
at the data sizes that were used so far. `scaling.value` says what a run is worth; prices come from outside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vvlm_ray.scaling.frontier import search, sizes_of
from vvlm_ray.scaling.posterior import Posterior
from vvlm_ray.scaling.value import Question, choose_runs
from vvlm_ray.study.points import plain_number, well_spaced

NUM_SPREAD = 150  # candidates spread over the affordable space, for each data size
NUM_LIKELY = 150  # candidates that samples hold for best, for each data size
MOST_SIZES = 4
Prices = Callable[[Mapping[str, np.ndarray], np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class NextRun:
    """A run to make: `worth` in points of expected regret, given those before it; `price` in GPU-hours, say."""

    factors: dict[str, float]
    num_examples: int | None
    worth: float
    price: float


def next_runs(posterior: Posterior, question: Question, prices: Prices, *, sizes: Sequence[float] | None = None,
              budget: float | None = None, most: int | None = None) -> list[NextRun]:  # fmt: skip
    """Runs worth making, in the order to buy them; none where no run is expected to change an answer.

    `prices(factors {name: (C,)}, num_examples (C,) or None)` gives a price for each candidate, in the unit of `budget`.

    Raises:
        UserError: a budget of the question buys nothing, or a price is not a positive number.
    """
    factors, n = candidates(posterior, question, sizes)
    columns = posterior.columns(factors, n)
    price = np.asarray(prices(factors, n), float)
    bought = choose_runs(posterior, question, columns, price, budget=budget, most=most)
    return [
        NextRun(
            {name: plain_number(values[item.index]) for name, values in factors.items()},
            None if n is None else round(float(n[item.index])),
            item.value,
            item.price,
        )
        for item in bought
    ]


def candidates(posterior: Posterior, question: Question, sizes: Sequence[float] | None = None):
    """Factors {name: (C,)} and data sizes (C,), None without one, of the runs that could be made."""
    space = posterior.runs.space
    raw = np.atleast_1d(np.asarray(question.budgets, float)) * space.known_cost().scale
    grid = space.grid().up_to(raw.max())
    _, by_sample = search(posterior, grid, raw, sizes_of(posterior, question.sizes))
    positions, counts = np.unique(by_sample, return_counts=True)
    likely = positions[np.argsort(-counts, kind="stable")[:NUM_LIKELY]]
    some = np.unique(np.linspace(0, len(grid.cost) - 1, 20 * NUM_SPREAD).astype(int))
    spread = some[well_spaced([values[some] for values in grid.points.values()], NUM_SPREAD)]
    chosen = np.union1d(likely, spread)
    factors = {name: values[chosen] for name, values in grid.points.items()}
    if not posterior.has_data_size:
        return factors, None
    sizes = _usual_sizes(posterior.runs.num_examples) if sizes is None else np.asarray(sizes, float)
    n = np.repeat(sizes, len(chosen))
    return {name: np.tile(values, len(sizes)) for name, values in factors.items()}, n


def _usual_sizes(n: np.ndarray) -> np.ndarray:
    """The data sizes of the runs; where there are many, a few of them evenly spaced in logs, the largest among them."""
    levels = np.unique(n)
    if len(levels) <= MOST_SIZES:
        return levels
    wanted = np.geomspace(levels[0], levels[-1], MOST_SIZES)
    return np.unique([levels[np.argmin(np.abs(np.log(levels / size)))] for size in wanted])
