"""Choosing runs for a training budget: the candidate with the least expected regret of the frontier.

A candidate is a set of isoFLOP curves (up to which budget, how many points on each), every point trained at two data
sizes, which may be larger on cheap curves than on dear ones. Regret is f(x_hat*) - f(x*), where x_hat* is on the
frontier that would be fitted to the candidate's runs; it is averaged over a battery of planted surfaces inside and
outside the fitted family, because a design that is best under its own model may be bad where the model is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vvlm_ray.designs.surfaces import INSIDE, Fitting, Question, Surface, frontier_regret, plant_battery
from vvlm_ray.errors import UserError
from vvlm_ray.scaling.cost import Cost
from vvlm_ray.scaling.forms import AUTO
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.study.config import Study
from vvlm_ray.study.points import Point, generate_isoflop
from vvlm_ray.study.sections import Generate
from vvlm_ray.units import si

NUM_CURVES = 6
POINTS_PER_CURVE = (4, 6)  # for each level of the first factor
DEAREST_CURVES = (1.0, 0.5)  # by the largest inference budget asked about
SLOPES = (0.0, 0.5, 1.0)  # n ~ budget^-slope along the curves: 0 is one n for all, 1 spends as much on each curve
LADDER = (1.0, 0.25)  # data sizes of each point, by its largest
TOLERANCE = 0.05
SHORTLIST = 4
SMALLEST_SHARE = 1 / 200  # of the largest data size: fewer examples are another regime than the one asked about


@dataclass(frozen=True)
class Candidate:
    """Points to run, what they are in words, and what they spend (in the units of the budget)."""

    name: str
    points: tuple[Point, ...]
    spent: float


@dataclass(frozen=True)
class Verdict:
    """A candidate's regret in points, by surface (F,), mean over budgets and data sizes; `inside` (F,) says which
    surfaces the fitted form can represent."""

    candidate: Candidate
    regret: np.ndarray
    inside: np.ndarray

    @property
    def mean_inside(self) -> float:
        return float(self.regret[self.inside].mean())

    @property
    def mean_outside(self) -> float:
        return float(self.regret[~self.inside].mean())

    @property
    def score(self) -> float:
        """The geometric mean of both halves: a gain in one must not be paid for by a like loss in the other."""
        return float(np.sqrt(max(self.mean_inside, 1e-6) * max(self.mean_outside, 1e-6)))


def make_candidates(
    levels: Mapping[str, Sequence[float]],
    cost: Cost,
    *,
    budgets_flops: np.ndarray,
    largest_n: int,
    budget: float,
    spend: Callable[[Sequence[Point]], float],
) -> list[Candidate]:
    """All candidates that fit the budget: curves over the budgets asked about, at data sizes as large as it allows.

    Raises:
        UserError: the budget does not even allow the smallest data sizes.
    """
    found: list[Candidate] = []
    least = float("inf")
    for num_points in POINTS_PER_CURVE:
        for dearest in DEAREST_CURVES:
            curves = _curves(levels, cost, budgets_flops, num_points=num_points, dearest=dearest)
            for slope in SLOPES:
                least = min(least, spend(_sized(curves, slope, largest_n * SMALLEST_SHARE / min(LADDER), largest_n)))
                top = _largest_affordable(curves, slope, largest_n, budget, spend)
                if top:
                    points = _sized(curves, slope, top, largest_n)
                    sizes = [p.num_examples for p in points]
                    name = f"{NUM_CURVES} curves to {si(max(curves), 'FLOPs')} x {num_points} points, "
                    name += f"n = {min(sizes):,} to {max(sizes):,}"
                    found.append(Candidate(name, tuple(points), spend(points)))
    if not found:
        raise UserError(f"the budget of {budget:.3g} is too small for any design; the smallest needs about {least:.3g}")
    return found


def _curves(levels, cost: Cost, budgets_flops: np.ndarray, *, num_points: int, dearest: float):
    """{target: its points}, evenly spaced in logs; targets that no combination of levels meets are left out."""
    low, high = budgets_flops.min() * 0.8, max(budgets_flops.max() * dearest, budgets_flops.min())
    curves: dict[float, list[dict[str, float]]] = {}
    problem = None
    for tflops in np.geomspace(low, high, NUM_CURVES) / 1e12:
        generate = Generate(
            tflops=[float(tflops)],
            levels={name: list(values) for name, values in levels.items()},
            points=num_points,
            tolerance=TOLERANCE,
        )
        try:
            curves |= generate_isoflop(generate, cost, list(levels), "design")
        except UserError as err:
            problem = err
    if len(curves) < 2:
        raise problem or UserError("design: the inference budgets leave no room for two isoFLOP curves")
    return curves


def _largest_affordable(curves, slope: float, largest_n: int, budget: float, spend) -> float | None:
    """The data size of the dearest curve's points that uses up the budget; None where even the smallest is too dear."""
    low, high = largest_n * SMALLEST_SHARE / min(LADDER), float(largest_n)
    if low > high or spend(_sized(curves, slope, low, largest_n)) > budget:
        return None
    if spend(_sized(curves, slope, high, largest_n)) <= budget:
        return high
    for _ in range(30):
        middle = np.sqrt(low * high)
        affordable = spend(_sized(curves, slope, middle, largest_n)) <= budget
        low, high = (middle, high) if affordable else (low, middle)
    return low


def _sized(curves: Mapping[float, Sequence[dict[str, float]]], slope: float, top: float, largest_n: int) -> list[Point]:
    """The points at both data sizes: on the dearest curve `top`, on cheaper ones more, never more than the largest."""
    dearest = max(curves)
    points = []
    for share in LADDER:
        for target, xs in curves.items():
            n = share * min(largest_n, top * (dearest / target) ** slope)
            points += [Point("design", dict(x), int(float(f"{n:.2g}")), target) for x in xs]
    return points


def runs_of(points: Sequence[Point], factors: Sequence[str], known: Runs | None = None) -> Runs:
    """Points as runs without results (error 1), after the runs that are known."""
    columns = {name: np.array([p.factors[name] for p in points], float) for name in factors}
    sizes = np.array([p.num_examples for p in points], float)
    if known is not None:
        columns = {name: np.concatenate([known.factors[name], values]) for name, values in columns.items()}
        sizes = np.concatenate([known.num_examples, sizes])
    return Runs(columns, np.ones(len(sizes)), num_examples=sizes)


def judge_candidates(
    candidates: Sequence[Candidate],
    battery: Sequence[tuple[str, Surface]],
    question: Question,
    *,
    factors: Sequence[str],
    known: Runs | None = None,
    fitting: Fitting | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Verdict]:
    """The shortlist with its regret over the whole battery, best first.

    The others fall after a third of it, judged by small bags; the shortlist is judged by the posterior that will answer
    (or by `fitting` throughout).
    """
    third = [*range(0, len(battery), 3)]
    regrets: dict[int, np.ndarray] = {}
    for i, candidate in enumerate(candidates):
        progress(f"{i + 1}/{len(candidates)} candidates: {candidate.name}")
        regrets[i] = _regrets(candidate, [battery[j] for j in third], third, question, factors, known, fitting)
    inside = np.array([kind in INSIDE for kind, _ in battery])
    first = {i: Verdict(candidates[i], r, inside[third]).score for i, r in regrets.items()}
    verdicts = []
    for i in sorted(first, key=first.get)[:SHORTLIST]:
        progress(f"shortlist: {candidates[i].name}")
        verdicts.append(judge_one(candidates[i], battery, question, factors=factors, known=known, fitting=fitting))
    return sorted(verdicts, key=lambda v: v.score)


def judge_one(
    candidate: Candidate,
    battery: Sequence[tuple[str, Surface]],
    question: Question,
    *,
    factors: Sequence[str],
    known: Runs | None = None,
    fitting: Fitting | None = None,
) -> Verdict:
    """One candidate's regret over the whole battery, fitted by the posterior unless `fitting` says otherwise."""
    regret = _regrets(candidate, battery, range(len(battery)), question, factors, known, fitting or Fitting(AUTO))
    return Verdict(candidate, regret, np.array([kind in INSIDE for kind, _ in battery]))


def _regrets(candidate, battery, seeds, question, factors, known, fitting) -> np.ndarray:  # noqa: PLR0917
    """Seeds (of noise and fit) go with surfaces, so that candidates meet the same ones."""
    runs = runs_of(candidate.points, factors, known)
    return np.array(
        [
            frontier_regret(surface, runs, question, seed, fitting=fitting).mean()
            for seed, (_, surface) in zip(seeds, battery, strict=True)
        ]
    )


def battery_for(reference: Runs, count: int, seed: int, known: Runs | None = None) -> list[tuple[str, Surface]]:
    """Surfaces over the reference runs; with results in `known`, those most like them, at their level and scale.

    Of four times as many surfaces the quarter of each half with the least residual is kept, after the best affine map
    (of positive slope) of the surface to the results.
    """
    if known is None:
        return plant_battery(reference, count, seed)
    wide = plant_battery(reference, 4 * count, seed)
    fitted = [(kind, *_matched(surface, known)) for kind, surface in wide]
    inside = sorted((f for f in fitted if f[0] in INSIDE), key=lambda f: f[2])[: (count + 1) // 2]
    outside = sorted((f for f in fitted if f[0] not in INSIDE), key=lambda f: f[2])[: count // 2]
    return [(kind, surface) for kind, surface, _ in inside + outside]


def _matched(surface: Surface, known: Runs) -> tuple[Surface, float]:
    """level + scale surface that is nearest to the results, and its root-mean-square residual."""
    shape = surface(known.factors, known.num_examples)
    centred = shape - shape.mean()
    slope = float(centred @ (known.error - known.error.mean()) / max(centred @ centred, 1e-12))
    slope = max(slope, 0.05)
    level = float(known.error.mean() - slope * shape.mean())
    residual = float(np.sqrt(np.mean((level + slope * shape - known.error) ** 2)))
    return (lambda factors, num_examples: level + slope * surface(factors, num_examples)), residual


def planned_runs(study: Study, points: Sequence[Point]) -> Candidate:
    """The runs that a sweep file already asks for, as a candidate to compare with."""
    return Candidate("the file's own sweeps", tuple(replace(p, sweep="own") for p in points), float("nan"))
