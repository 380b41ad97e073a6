"""Refinement: further runs where the best point of an isoFLOP curve may be its last, until the optimum is interior.

Scores are noisy and discrete: an end of the curve that is as good as its best, to within the noise, is an edge.
Wang et al. 2025 did this by hand after their sweep. A curve is the points of one budget and one data size that share
the level of the first factor (the LM): along it the other factors trade against one another. What is proposed is a
function of the records alone, and is kept in the study's folder, so that a resumed study goes on with the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.cost import training_flops
from vvlm_ray.scaling.frontier import search, sizes_of
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Space
from vvlm_ray.study.config import Study
from vvlm_ray.study.points import Point, choices_of, cost_function, distinct_points, isoflop_candidates, plain_number
from vvlm_ray.study.sections import Isoflop
from vvlm_ray.study.trials import Trial

SWEEP, UNCERTAIN = "refinement", "uncertain"
SMALLEST_STEP = 0.2  # in log x: a proposal nearer to the edge than this would tell nothing new


def propose(
    study: Study,
    scores: Mapping[str, float],
    trials: Sequence[Trial],
    given_up: Iterable[str] = (),
    *,
    noise: float = 0.0,
    said: Callable[[str], None] = lambda _: None,
) -> list[Point]:
    """The points to run next; none when every optimum is interior, at the end of the choices, or the budget is spent.

    Args:
        scores: {trial_id: score} of the finished trials, higher is better.
        trials: all trials so far, those of earlier refinements among them.
        given_up: ids of trials that failed for good; a curve is looked at once all its others have finished.
        noise: standard error of a score: an end this near to the best counts as the best.
        said: is told what is worth running and does not fit the limits, in sentences.
    """
    settings = study.refinement
    if settings is None:
        return []
    made = [t for t in trials if t.sweep == SWEEP]
    room = settings.max_trials - len(made)
    flops_left = _flops_left(study, trials)
    points: list[Point] = []
    cost, levels = cost_function(study), choices_of(study)
    for members in _curves(study, trials):
        finished = [t for t in members if t.trial_id in scores]
        if len(finished) < 2:
            continue
        if any(t.trial_id not in scores and t.trial_id not in set(given_up) for t in members):
            continue
        point = _beyond_the_edge(
            study, members, {t.trial_id: scores[t.trial_id] for t in finished}, levels, cost, noise=noise
        )
        if point is None:
            continue
        flops = float(training_flops(cost(**point.factors), point.num_examples, study.finetune.epochs))
        if len(points) >= room:
            said(f"{_words(point)} is left out: refinement.max_trials = {settings.max_trials} are made")
        elif flops > flops_left:
            left = max(flops_left, 0)
            said(f"{_words(point)} is left out: it takes {flops:.3g} training FLOPs, and {left:.3g} are left")
        else:
            points.append(point)
            flops_left -= flops
    return points


def _words(point: Point) -> str:
    x = ", ".join(f"{name} {value:g}" for name, value in point.factors.items())
    return f"{x} at n = {point.num_examples:,}"


def propose_uncertain(study: Study, runs: Runs, trials: Sequence[Trial], *, resamples: int = 50) -> list[Point]:
    """The point that most members of the bag want and that has not been run, at the budget where they agree least.

    `runs` are the finished ones, errors in points. None where the runs cannot be fitted, or all wanted points are run.
    """
    from vvlm_ray.scaling.bagging import fit_bag

    if study.refinement is None or study.refinement.uncertain_trials <= sum(t.sweep == UNCERTAIN for t in trials):
        return []
    isoflop = [t for t in trials if t.target_flops]
    if not isoflop:
        return []
    try:
        bag = fit_bag(runs, resamples=resamples, starts=100)
    except UserError:
        return []
    n, flops_left = max(t.num_examples for t in isoflop), _flops_left(study, trials)
    budgets = np.unique([t.target_flops for t in isoflop])
    grid = Space(choices_of(study), cost_function(study)).over(runs.factors).grid().up_to(budgets.max())
    _, by_member = search(bag, grid, budgets, sizes_of(bag, n))
    known = {(*sorted(t.factors.items()), t.num_examples) for t in trials}
    votes = []
    for budget, wanted in zip(budgets, by_member[0], strict=True):
        positions, counts = np.unique(wanted, return_counts=True)
        for position, count in zip(positions, counts, strict=True):
            x = {name: plain_number(values[position]) for name, values in grid.points.items()}
            flops = float(training_flops(grid.cost[position], n, study.finetune.epochs))
            if flops <= flops_left and (*sorted(x.items()), n) not in known:
                votes.append((counts.max() / counts.sum(), -count, float(budget), x))
    if not votes:
        return []
    _, _, budget, x = min(votes, key=lambda v: v[:3])
    return [Point(UNCERTAIN, x, n, budget)]


def _flops_left(study: Study, trials: Iterable[Trial]) -> float:
    """What `max_training_flops` still allows, after everything that was proposed before."""
    added = (t for t in trials if t.sweep in {SWEEP, UNCERTAIN})
    spent = sum(float(training_flops(t.inference_flops, t.num_examples, study.finetune.epochs)) for t in added)
    return (study.refinement.max_training_flops or float("inf")) - spent


def _curves(study: Study, trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials by (budget, n, level of the first factor), those that a star asks for too among them."""
    by_x = {(*sorted(t.factors.items()), t.num_examples): t for t in trials}
    on_curve: dict[tuple, dict[str, Trial]] = {}
    own = _isoflop_points(study)
    own += [Point(t.sweep, t.factors, t.num_examples, t.target_flops) for t in trials if t.sweep == SWEEP]
    for p in own:
        trial = by_x.get((*sorted((k, plain_number(v)) for k, v in p.factors.items()), p.num_examples))
        if trial and p.target_flops:
            key = p.target_flops, p.num_examples, p.factors[study.factors[0]]
            on_curve.setdefault(key, {})[trial.trial_id] = trial
    return [list(members.values()) for _, members in sorted(on_curve.items())]


def _isoflop_points(study: Study) -> list[Point]:
    sweeps = [s for s in study.sweeps if isinstance(s, Isoflop)]
    return distinct_points(study.model_copy(update={"sweeps": sweeps})) if sweeps else []


def _in_order(study: Study, members: Sequence[Trial]) -> list[Trial]:
    """Along the curve: by the last factor, which grows as the others shrink."""
    return sorted(members, key=lambda t: tuple(t.factors[name] for name in reversed(study.factors)))


def _beyond_the_edge(
    study: Study,
    members: Sequence[Trial],
    scores: Mapping[str, float],
    levels: Mapping[str, Sequence[float]],
    cost: Callable[..., np.ndarray],
    *,
    noise: float,
) -> Point | None:
    """The next point outwards of an end that may be the best, one spacing of the curve away; None if interior.

    Of two such ends the better goes first; where nothing lies beyond it, the other.
    """
    ordered = _in_order(study, [t for t in members if t.trial_id in scores])
    values = np.array([scores[t.trial_id] for t in ordered])
    ends = sorted({0, len(ordered) - 1}, key=lambda end: -values[end])
    for position in ends:
        if values[position] >= values.max() - noise:
            point = _outwards(study, members, ordered, position, levels=levels, cost=cost)
            if point is not None:
                return point
    return None


def _outwards(study, members, ordered, position: int, *, levels, cost) -> Point | None:
    """The point one spacing beyond an end of the curve; None where no configuration of that cost lies there."""
    inner = ordered[1] if position == 0 else ordered[-2]
    edge, along, first = ordered[position], study.factors[-1], study.factors[0]
    outwards = -1 if position == 0 else 1
    step = max(abs(np.log(edge.factors[along] / inner.factors[along])), SMALLEST_STEP)
    target = next(t.target_flops for t in members if t.target_flops)
    mine = {**levels, first: [edge.factors[first]]}
    try:
        found = isoflop_candidates(mine, cost, target, study.refinement.tolerance)
    except UserError:
        return None  # nothing else costs as much: the curve ends here
    run = {tuple(t.factors[name] for name in study.factors) for t in members}
    rows = [dict(zip(found, map(plain_number, row), strict=True)) for row in zip(*found.values(), strict=True)]
    distance = [outwards * np.log(x[along] / edge.factors[along]) for x in rows]
    beyond = [
        (abs(d - step), i)
        for i, d in enumerate(distance)
        if d > 1e-9 and tuple(rows[i][name] for name in study.factors) not in run
    ]
    if not beyond:
        return None
    x = rows[min(beyond)[1]]
    return Point(SWEEP, {name: x[name] for name in study.factors}, edge.num_examples, target)
