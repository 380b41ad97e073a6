"""The points of a study's sweeps: star and isoFLOP (Wang et al. 2025, Table 6), generated or listed; and its choices.

IsoFLOP points can be found instead of listed: exhaustive search for x with c(x) within a tolerance of the budget,
then a well-spaced subset.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.cost import Cost, cost_from_expression
from vvlm_ray.scaling.space import DEFAULT_FRAMES, DEFAULT_TOKENS
from vvlm_ray.study.config import Study
from vvlm_ray.study.sections import CostExpression, Generate, Isoflop, Points, Star


@dataclass(frozen=True)
class Point:
    """One run: factor values x, a data size n, and the sweep that asks for it (with its target, if it has one)."""

    sweep: str
    factors: dict[str, float]
    num_examples: int
    target_flops: float | None = None


def cost_function(study: Study) -> Cost:
    """c(x) of the study: Eq. 1 with its constants, or its own expression."""
    if isinstance(study.cost, CostExpression):
        return cost_from_expression(study.cost.expression, study.factors)
    return Cost(**study.cost.model_dump())


def distinct_points(study: Study) -> list[Point]:
    """All points of all sweeps; a point that several sweeps ask for stands once, under the first of them.

    Raises:
        UserError: an isoFLOP sweep that generates its points finds none for a budget.
    """
    points: dict[tuple, Point] = {}
    for i, sweep in enumerate(study.sweeps):
        if isinstance(sweep, Star):
            found = star_points(sweep)
        elif isinstance(sweep, Points):
            found = listed_points(sweep, study.row_factors(sweep))
        else:
            found = isoflop_points(sweep, study, f"sweeps[{i}]")
        for point in found:
            points.setdefault((*sorted(point.factors.items()), point.num_examples), point)
    return list(points.values())


def star_points(star: Star) -> Iterator[Point]:
    """The centre, then each factor's levels with the others at the centre, at every data size."""
    for n in star.num_examples:
        yield Point("star", dict(star.centre), n)
        for factor, levels in star.levels.items():
            for level in levels:
                yield Point("star", {**star.centre, factor: level}, n)


def listed_points(sweep: Points, factors: Sequence[str]) -> Iterator[Point]:
    for row in sweep.points:
        yield Point(sweep.name, dict(zip(factors, row[:-1], strict=True)), int(row[-1]))


def isoflop_points(isoflop: Isoflop, study: Study, where: str = "isoflop") -> Iterator[Point]:
    """Every listed point of every budget, then the generated ones, at every data size."""
    curves = [(curve.tflops * 1e12, curve.points) for curve in isoflop.curves]
    names = study.row_factors(isoflop)
    if isoflop.generate:
        generated = generate_isoflop(isoflop.generate, cost_function(study), study.factors, where)
        curves += [(target, [[x[name] for name in names] for x in points]) for target, points in generated.items()]
    for n in isoflop.num_examples:
        for target, points in curves:
            for row in points:
                yield Point("isoflop", dict(zip(names, row, strict=True)), n, target)


def generate_isoflop(
    generate: Generate, cost: Cost, factors: Sequence[str], where: str = "generate"
) -> dict[float, list[dict[str, float]]]:
    """{budget in FLOPs: its points}: for each level of `generate.per` a well-spaced subset of the candidates.

    Raises:
        UserError: a budget below the cheapest x, or with no x within the tolerance.
    """
    per = generate.per or factors[0]
    curves: dict[float, list[dict[str, float]]] = {}
    for tflops in generate.tflops:
        budget = tflops * 1e12
        candidates = isoflop_candidates(generate.levels, cost, budget, generate.tolerance, where)
        curves[budget] = []
        for level in np.unique(candidates[per]):
            mine = {name: values[candidates[per] == level] for name, values in candidates.items()}
            chosen = well_spaced([values for name, values in mine.items() if name != per], generate.points)
            curves[budget] += [{name: plain_number(values[i]) for name, values in mine.items()} for i in chosen]
    return curves


def isoflop_candidates(
    levels: Mapping[str, Sequence[float]], cost: Cost, budget: float, tolerance: float, where: str = "generate"
) -> dict[str, np.ndarray]:
    """All combinations of the levels with |c(x) - budget| <= tolerance * budget, as columns, cheapest first.

    Raises:
        UserError: there are none; it says which cost comes nearest.
    """
    mesh = np.meshgrid(*[np.asarray(values, float) for values in levels.values()], indexing="ij")
    grid = {name: axis.ravel() for name, axis in zip(levels, mesh, strict=True)}
    flops = np.asarray(cost(**grid), float)
    if not (np.isfinite(flops) & (flops > 0)).all():
        raise UserError(f"{where}: the cost of a combination of levels is not a positive number; check cost and levels")
    if budget < flops.min() * (1 - tolerance):
        cheapest = ", ".join(f"{name} = {values[np.argmin(flops)]:g}" for name, values in grid.items())
        raise UserError(
            f"{where}: a budget of {budget / 1e12:g} TFLOPs is below the cheapest configuration ({cheapest}), "
            f"which costs {flops.min() / 1e12:.3g}; raise the budget or add cheaper levels"
        )
    near = np.flatnonzero(np.abs(flops - budget) <= tolerance * budget)
    if not len(near):
        best = flops[np.argmin(np.abs(flops - budget))]
        raise UserError(
            f"{where}: no configuration costs {budget / 1e12:g} TFLOPs within {tolerance:.2%}; the nearest costs "
            f"{best / 1e12:.4g}; raise the tolerance to at least {abs(best / budget - 1):.2%} or add levels"
        )
    near = near[np.argsort(flops[near], kind="stable")]
    return {name: values[near] for name, values in grid.items()}


def well_spaced(columns: Sequence[np.ndarray], count: int) -> list[int]:
    """Positions of `count` rows that are far from one another in the logs of their columns, in a fixed order.

    Begins with the two ends (the rows that are farthest apart) and goes on with the row that is farthest from those
    chosen (Gonzalez 1985); distances are in units of each column's range, so that no factor outweighs another.
    """
    logs = np.log(np.stack(columns, axis=1))
    spread = np.ptp(logs, axis=0)
    x = logs[:, spread > 0] / spread[spread > 0]
    if len(x) <= count or not x.shape[1]:
        return list(range(min(count, len(x))))
    start = int(np.lexsort(x.T[::-1])[0])
    chosen = [int(np.argmax(np.linalg.norm(x - x[start], axis=1)))]
    distance = np.linalg.norm(x - x[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(x - x[chosen[-1]], axis=1))
    return sorted(chosen)


def plain_number(value: float) -> float:
    """A whole number as int, so that sweep files and ids read as people write them."""
    return int(value) if float(value).is_integer() else float(value)


def choices_of(study: Study) -> dict[str, list[float]]:
    """The values that each factor may take: the study's grid, else its backbones and the method's grid.

    Raises:
        UserError: a factor without known values.
    """
    grid = dict(study.grid or {})
    grid.setdefault("lm_params", [b.lm_params for b in study.backbones.values()])
    grid.setdefault("num_frames", DEFAULT_FRAMES.tolist())
    grid.setdefault("tokens_per_frame", DEFAULT_TOKENS.tolist())
    for factor in study.factors:
        if not grid.get(factor):
            raise UserError(f"grid.{factor}: missing; a design needs the values that the factor may take")
    return {factor: [float(v) for v in grid[factor]] for factor in study.factors}
