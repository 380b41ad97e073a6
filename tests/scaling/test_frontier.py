"""Frontier and elasticity against brute force, one budget at a time."""

import numpy as np
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.cost import (
    cost_from_expression,
    inference_flops,
    inference_flops_parts,
    inference_to_finetuning_ratio,
    training_flops,
)
from vvlm_ray.scaling.elasticity import elasticity
from vvlm_ray.scaling.frontier import frontier
from vvlm_ray.scaling.predictor import Predictor
from vvlm_ray.scaling.recommendation import recommend
from vvlm_ray.scaling.space import Space
from vvlm_ray.scaling.validation import below_budget

GRID = {
    "lm_params": np.array([1e9, 2.8e9, 7.5e9]),
    "num_frames": np.arange(1.0, 41.0),
    "tokens_per_frame": np.arange(1.0, 16.0) ** 2,
}
BUDGETS = np.array([1, 3, 7.7, 12, 40.0])  # TFLOPs


@pytest.fixture(scope="module")
def bag(noisy_bag):
    """Over a small grid, so that brute force is quick."""
    return noisy_bag.over(Space(GRID))


def brute_force(predict, grid, cost, most):
    """argmin over the affordable points; ties go to the cheaper."""
    mesh = np.meshgrid(*grid.values(), indexing="ij")
    points = {name: axis.ravel() for name, axis in zip(grid, mesh, strict=True)}
    flops = cost(**points)
    values = np.where(flops <= most, predict(points), np.inf)
    best = np.flatnonzero(values == values.min())
    best = best[np.argmin(flops[best])]
    return {name: axis[best] for name, axis in points.items()}


def test_median_frontier_is_brute_force(bag):
    line = frontier(bag, BUDGETS, num_examples=1e6)
    for b, budget in enumerate(BUDGETS):
        expected = brute_force(lambda points: bag.predict(points, 1e6), GRID, inference_flops, budget * 1e12)
        assert {name: values[b] for name, values in line.factors.items()} == expected
    assert (line.cost <= BUDGETS).all()
    assert np.allclose(line.error, bag.predict(line.factors, 1e6))
    assert (np.diff(line.error) <= 0).all()


def test_bands_are_those_of_the_members_own_optima(bag):
    line = frontier(bag, BUDGETS[2], num_examples=1e6)
    own = [
        brute_force(lambda points, m=m: bag.samples(points, 1e6)[m], GRID, inference_flops, BUDGETS[2] * 1e12)
        for m in range(bag.num_resamples)
    ]
    frames = np.array([x["num_frames"] for x in own])
    low, high = np.quantile(frames, [0.05, 0.95], method="nearest")
    assert (line.factor_low["num_frames"][0], line.factor_high["num_frames"][0]) == (low, high)
    chosen = {name: values[0] for name, values in line.factors.items()}
    assert line.agreement[0] == np.mean([x == chosen for x in own])


@pytest.mark.parametrize("unit", ["FLOPs", "ms"])
def test_any_cost_and_any_order_of_budgets(noisy_bag, unit):
    cost = cost_from_expression("num_frames * (lm_params + 1e8 * tokens_per_frame ** 1.5) / 2", tuple(GRID), unit)
    budgets = np.array([3e11, 2e10, 9e10])
    line = frontier(noisy_bag.over(Space(GRID, cost)), budgets / cost.scale, 5e5)
    assert line.unit == {"FLOPs": "TFLOPs", "ms": "ms"}[unit]
    for b, budget in enumerate(budgets):
        expected = brute_force(lambda points: noisy_bag.predict(points, 5e5), GRID, cost, budget)
        assert {name: values[b] for name, values in line.factors.items()} == expected
        assert line.cost[b] * cost.scale == pytest.approx(cost(**expected))


def test_any_predictor_is_searched_like_a_bag(bag):
    """The bag without its compiled search gives the same frontier, elasticity and recommendation."""

    class Plain:
        runs, label, warnings, has_data_size, noise = bag.runs, "plain", [], True, bag.noise
        predict, samples = staticmethod(bag.predict), staticmethod(bag.samples)

    assert isinstance(Plain(), Predictor)
    ours, theirs = (frontier(each, BUDGETS, 1e6) for each in (Plain(), bag))
    assert (ours.index == theirs.index).all() and (ours.agreement == theirs.agreement).all()
    assert (ours.gap == theirs.gap).all()
    options = {"budgets": [5, 20], "sizes": [0.5e6, 2e6], "step": 1e6}
    ours, theirs = (elasticity(each, **options) for each in (Plain(), bag))
    assert (ours.mean, ours.low, ours.high) == (theirs.mean, theirs.low, theirs.high)
    ours, theirs = (recommend(each, 12, 1e6) for each in (Plain(), bag))
    assert [o.factors for o in ours.alternatives] == [o.factors for o in theirs.alternatives]
    assert ours.cheapest == theirs.cheapest


def test_the_gap_is_what_the_choice_may_lose(bag):
    line = frontier(bag, BUDGETS, num_examples=1e6)
    grid = bag.runs.space.grid()
    samples = bag.samples(grid.points, 1e6)
    for b, budget in enumerate(BUDGETS):
        lost = samples[:, line.index[b]] - samples[:, grid.cost <= budget * 1e12].min(axis=1)
        assert line.gap[b] == pytest.approx(np.quantile(lost, 0.9), abs=1e-9)


def test_extrapolation_is_flagged(bag, noisy_bag):
    line = frontier(noisy_bag, [3, 95], num_examples=1e6)
    assert line.extrapolates[1]
    assert any("above the swept range" in reason for reason in line.reasons[1])
    inside = frontier(bag, [9], num_examples=1e6)
    outside = frontier(bag, [9], num_examples=9e6)
    assert not inside.extrapolates[0]
    assert outside.reasons[0] == ("num_examples above the swept range",)


def test_budget_below_the_cheapest_point_is_refused(bag):
    with pytest.raises(UserError, match=r"buys nothing.*lm_params=1e\+09"):
        frontier(bag, [0.001], num_examples=1e6)


def test_elasticity_is_equation_8(bag):
    budgets, sizes, step = [5, 20], [0.5e6, 1e6, 2e6], 1.5e6
    result = elasticity(bag, budgets, sizes, step=step)
    for s, size in enumerate(sizes):
        now = frontier(bag, budgets, num_examples=size).factors
        then = frontier(bag, budgets, num_examples=size + step).factors
        for name in GRID:
            expected = (then[name] - now[name]) / step * size / now[name]
            assert result.cells[name][s] == pytest.approx(expected)
            assert result.by_size[name][s] == pytest.approx(expected.mean())
    for name in GRID:
        assert result.mean[name] == pytest.approx(result.cells[name].mean())
        assert result.low[name] <= result.high[name]


def test_default_sizes_follow_the_scale_of_the_sweep(bag):
    assert elasticity(bag).sizes[[0, -1]] == pytest.approx([1e6, 10e6])


def test_a_recommendation_is_the_frontier_with_its_doubts(bag):
    answer = recommend(bag, 12, 1e6)
    line = frontier(bag, [12], num_examples=1e6)
    assert {name: values[0] for name, values in answer.line.factors.items()} == {
        name: values[0] for name, values in line.factors.items()
    }
    shares = line.agreement[0] + sum(other.share for other in answer.alternatives)
    assert 0 < shares <= 1 + 1e-12
    if answer.cheapest:
        assert answer.cheapest.cost < line.cost[0] and answer.cheapest.equivalence >= 0.9


def test_costs_of_the_paper():
    # Half of the total is vision at 7B and 50 tokens per frame (Fig. 6); 34M videos a day for 30 days at 1M give 340.
    vision, language = inference_flops_parts(7e9, 8, 50)
    assert vision / (vision + language) == pytest.approx(0.485, abs=0.01)
    assert inference_flops(7.5e9, 32, 196) == pytest.approx(2 * 32 * (0.43e9 * 768 + 7.5e9 * 196))
    assert training_flops(1e12, 1e6) == pytest.approx(3e18)
    assert inference_to_finetuning_ratio(34e6 * 30, 1e6) == pytest.approx(340)


@pytest.mark.parametrize(
    "text", ["__import__('os')", "frames.real", "frames if 1 else 2", "f(frames)", "width * 2", "2 *"]
)
def test_costs_are_arithmetic_only(text):
    with pytest.raises(UserError):
        cost_from_expression(text, ("frames",))


def test_split_by_budget(noisy_runs):
    cost = inference_flops(**noisy_runs.factors)
    assert (below_budget(noisy_runs, 5) == (cost <= 5e12)).all()


def test_elasticity_says_what_lies_beyond_the_sweep(bag):
    """Data sizes beyond the swept ones are extrapolation too."""
    inside = elasticity(bag, [9], [0.5e6], step=0.5e6)
    assert inside.share_extrapolated == inside.share_beyond_space
    assert elasticity(bag, [9], [0.5e6], step=5e6).share_extrapolated == 1
