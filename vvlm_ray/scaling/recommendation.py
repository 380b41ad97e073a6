"""What to deploy for one budget: x*(c; n), how sure that is, what would do as well, and what more would buy.

Differences between two configurations are taken sample by sample, so that errors they share cancel.
"""

from dataclasses import dataclass, replace

import numpy as np

from vvlm_ray.scaling.frontier import Frontier, frontier, outside, search, sizes_of
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.predictor import Predictor, predictive_band
from vvlm_ray.scaling.space import Grid

NUM_ALTERNATIVES = 3
NUM_EQUIVALENT = 5
CHUNK = 4096  # points whose samples are held at a time
SURE = 0.9  # of an equivalence, and that more money buys more


@dataclass(frozen=True)
class Option:
    """A configuration beside x*, its cost in the cost's unit.

    `low`, `high`: the band of f; `share`: of the samples that prefer it to all others; `worse_by` and its band: of f
    minus f(x*), sample by sample; `equivalence`: the probability that it is worse by less than delta.
    """

    factors: dict[str, float]
    cost: float
    error: float
    low: float
    high: float
    share: float
    worse_by: float
    worse_low: float
    worse_high: float
    equivalence: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """A run at the recommended x or near it: `distance` is the root of the mean squared log ratio of the factors."""

    label: str
    factors: dict[str, float]
    num_examples: float | None
    error: float
    predicted: float
    low: float
    high: float
    distance: float


@dataclass(frozen=True)
class NextBudget:
    """The least budget (in the cost's unit) that buys more than delta with 90 % probability, and what it buys."""

    budget: float
    option: Option


@dataclass(frozen=True)
class Recommendation:
    """x* in `line` (a frontier of one budget), and what stands around it.

    `delta` is the loss that is tolerated, in points. `alternatives`: what most other samples prefer. `equivalent`: the
    cheapest of the `num_equivalent` configurations that are worse by less than delta with 90 % probability;
    `cheapest` is the first of them, None where x* itself is. `next_budget` is None where no affordable grid point up to
    four times the budget, or the largest swept cost, buys more than delta. `if_doubled` is x* at 2 n, compared with x*
    at n; None without a data size. `measured`: runs at x* and next to it, nearest first.
    """

    line: Frontier
    delta: float
    alternatives: tuple[Option, ...]
    equivalent: tuple[Option, ...]
    num_equivalent: int
    cheapest: Option | None
    next_budget: NextBudget | None
    if_doubled: Option | None
    measured: tuple[Measured, ...]


def recommend(predictor: Predictor, budget: float, num_examples: float | None = None, *, level: float = 0.9,
              delta: float | None = None, map: Map | None = None) -> Recommendation:  # fmt: skip
    """The configuration to deploy for a budget in the cost's unit, with its doubts.

    `delta` is the loss that would not matter, in points: by default half the standard error of the scores where it is
    known, else half the scatter of one run.

    Raises:
        UserError: the budget buys nothing, or the data size is not given.
    """
    line = frontier(predictor, [budget], num_examples, level=level, map=map)
    space = predictor.runs.space
    scale = space.known_cost().scale
    grid = space.grid()
    affordable = grid.up_to(budget * scale)
    delta = default_delta(predictor) if delta is None else delta
    chosen = int(line.index[0])
    _, by_sample = search(predictor, affordable, line.budgets * scale, sizes_of(predictor, num_examples), map=map)
    shares = np.bincount(by_sample[0, 0], minlength=len(affordable.cost)) / by_sample.shape[2]
    compare = _Comparison(predictor, num_examples, level, delta, _at(affordable, [chosen]), num_examples)
    popular = [int(index) for index in np.argsort(-shares, kind="stable") if shares[index] > 0 and index != chosen]
    equivalent = compare.equivalent(affordable)
    cheapest = compare.options(affordable, equivalent[:NUM_EQUIVALENT], shares)
    return Recommendation(
        line=line,
        delta=delta,
        alternatives=tuple(compare.options(affordable, popular[:NUM_ALTERNATIVES], shares)),
        equivalent=tuple(cheapest),
        num_equivalent=len(equivalent),
        cheapest=cheapest[0] if len(equivalent) and equivalent[0] < chosen else None,
        next_budget=_next_budget(predictor, grid, compare, budget),
        if_doubled=_if_doubled(predictor, affordable, line, delta, map),
        measured=tuple(measured_near(predictor, {k: float(v[0]) for k, v in line.factors.items()}, level=level)),
    )


def default_delta(predictor: Predictor) -> float:
    """Half the standard error of the scores; half the scatter of one run where that is unknown."""
    known = predictor.runs.error_se
    if known is not None and (known > 0).any():
        return 0.5 * float(np.median(known[known > 0]))
    return 0.5 * predictor.noise


def measured_near(
    predictor: Predictor, factors: dict[str, float], *, count: int = 3, level: float = 0.9
) -> list[Measured]:
    """Runs of exactly this x (all of them), else the `count` nearest, with predictive bands for a run."""
    runs = predictor.runs
    ratios = np.array([np.log(runs.factors[name] / value) for name, value in factors.items()])
    distance = np.sqrt((ratios**2).mean(axis=0))
    order = np.argsort(distance, kind="stable")
    exact = int((distance < 1e-9).sum())
    near = order[: exact or count]
    low, high = predictive_band(predictor, runs.select(near), level)
    predicted = predictor.predict(
        runs.select(near).factors, None if runs.num_examples is None else runs.num_examples[near]
    )
    return [
        Measured(
            label=runs.labels[i],
            factors={name: float(values[i]) for name, values in runs.factors.items()},
            num_examples=None if runs.num_examples is None else float(runs.num_examples[i]),
            error=float(runs.error[i]),
            predicted=float(predicted[position]),
            low=float(low[position]),
            high=float(high[position]),
            distance=float(distance[i]),
        )
        for position, i in enumerate(near)
    ]


class _Comparison:
    """Everything compared with the f of one configuration, sample by sample."""

    def __init__(self, predictor, num_examples, level, delta, base, base_num_examples):  # noqa: PLR0917
        self.predictor, self.num_examples, self.level, self.delta = predictor, num_examples, level, delta
        self.base = predictor.samples(base, base_num_examples)[:, 0]

    def equivalent(self, grid: Grid) -> np.ndarray:
        """Points that are worse by less than delta with 90 % probability, cheapest first."""
        found = []
        for start in range(0, len(grid.cost), CHUNK):
            samples = self.predictor.samples(_at(grid, slice(start, start + CHUNK)), self.num_examples)
            near = (samples - self.base[:, None] < self.delta).mean(axis=0) >= SURE
            found.append(start + np.flatnonzero(near))
        return np.concatenate(found)

    def options(self, grid: Grid, index, shares=None) -> list[Option]:
        index = np.asarray(index, int)
        if not len(index):
            return []
        points, scale = _at(grid, index), self.predictor.runs.space.known_cost().scale
        samples = self.predictor.samples(points, self.num_examples)
        error = self.predictor.predict(points, self.num_examples)
        tails = [(1 - self.level) / 2, 0.5, (1 + self.level) / 2]
        worse = samples - self.base[:, None]
        low, _, high = np.quantile(samples, tails, axis=0)
        worse_low, middle, worse_high = np.quantile(worse, tails, axis=0)
        reasons = outside(self.predictor.runs, points, grid.cost[index], self.num_examples)
        return [
            Option(
                factors={name: float(values[i]) for name, values in points.items()},
                cost=float(grid.cost[position] / scale),
                error=float(error[i]),
                low=float(low[i]),
                high=float(high[i]),
                share=float(shares[position]) if shares is not None else 0.0,
                worse_by=float(middle[i]),
                worse_low=float(worse_low[i]),
                worse_high=float(worse_high[i]),
                equivalence=float((worse[:, i] < self.delta).mean()),
                reasons=reasons[i],
            )
            for i, position in enumerate(index)
        ]


def _next_budget(predictor: Predictor, grid: Grid, compare: _Comparison, budget: float) -> NextBudget | None:
    """Along the running best of the point estimate, the first that beats x* by delta in 90 % of samples."""
    scale = predictor.runs.space.known_cost().scale
    reach = grid.first(grid.count(max(4 * budget * scale, predictor.runs.cost.max())))
    error = np.concatenate(
        [
            predictor.predict(_at(reach, slice(start, start + CHUNK)), compare.num_examples)
            for start in range(0, len(reach.cost), CHUNK)
        ]
    )
    best = np.minimum.accumulate(error)
    records = np.flatnonzero(error <= best)
    records = records[reach.cost[records] > budget * scale]
    for start in range(0, len(records), 256):
        part = records[start : start + 256]
        samples = predictor.samples(_at(reach, part), compare.num_examples)
        better = (compare.base[:, None] - samples > compare.delta).mean(axis=0) >= SURE
        if better.any():
            first = int(part[np.argmax(better)])
            return NextBudget(float(reach.cost[first] / scale), compare.options(reach, [first])[0])
    return None


def _if_doubled(predictor: Predictor, affordable: Grid, line: Frontier, delta: float, map) -> Option | None:
    """x* of the same budget at 2 n, compared with x* at n."""
    if not predictor.has_data_size:
        return None
    doubled = 2 * float(line.num_examples)
    scale = predictor.runs.space.known_cost().scale
    chosen, by_sample = search(predictor, affordable, line.budgets * scale, np.array([doubled]), map=map)
    compare = _Comparison(
        predictor, doubled, line.level, delta, {k: v[:1] for k, v in line.factors.items()}, line.num_examples
    )
    option = compare.options(affordable, [int(chosen[0, 0])])[0]
    return replace(option, share=float((by_sample[0, 0] == chosen[0, 0]).mean()))


def _at(grid: Grid, index) -> dict[str, np.ndarray]:
    return {name: values[index] for name, values in grid.points.items()}
