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
from vvlm_ray.scaling.frontier import default_grid, frontier, make_grid
from vvlm_ray.scaling.recommendation import recommend
from vvlm_ray.scaling.validation import below_budget

GRID = {
    "lm_params": np.array([1e9, 2.8e9, 7.5e9]),
    "num_frames": np.arange(1.0, 41.0),
    "tokens_per_frame": np.arange(1.0, 16.0) ** 2,
}
BUDGETS = np.array([1e12, 3e12, 7.7e12, 12e12, 40e12])


def brute_force(predict, grid, cost, budget):
    """argmin over the affordable points; ties go to the cheaper."""
    mesh = np.meshgrid(*grid.values(), indexing="ij")
    points = {name: axis.ravel() for name, axis in zip(grid, mesh, strict=True)}
    flops = cost(**points)
    values = np.where(flops <= budget, predict(points), np.inf)
    best = np.flatnonzero(values == values.min())
    best = best[np.argmin(flops[best])]
    return {name: axis[best] for name, axis in points.items()}


def test_median_frontier_is_brute_force(noisy_bag):
    line = frontier(noisy_bag, GRID, budgets_flops=BUDGETS, num_examples=1e6)
    for b, budget in enumerate(BUDGETS):
        expected = brute_force(lambda points: noisy_bag.predict(points, 1e6), GRID, inference_flops, budget)
        assert {name: values[b] for name, values in line.factors.items()} == expected
    assert (line.cost_flops <= BUDGETS).all()
    assert np.allclose(line.error, noisy_bag.predict(line.factors, 1e6))
    assert (np.diff(line.error) <= 0).all()


def test_bands_are_those_of_the_members_own_optima(noisy_bag):
    line = frontier(noisy_bag, GRID, budgets_flops=BUDGETS[2], num_examples=1e6)
    own = [
        brute_force(lambda points, m=m: noisy_bag.predict_members(points, 1e6)[m], GRID, inference_flops, BUDGETS[2])
        for m in range(noisy_bag.num_resamples)
    ]
    frames = np.array([x["num_frames"] for x in own])
    low, high = np.quantile(frames, [0.05, 0.95], method="nearest")
    assert (line.factor_low["num_frames"][0], line.factor_high["num_frames"][0]) == (low, high)
    chosen = {name: values[0] for name, values in line.factors.items()}
    assert line.agreement[0] == np.mean([x == chosen for x in own])


def test_any_cost_and_any_order_of_budgets(noisy_bag):
    cost = cost_from_expression("num_frames * (lm_params + 1e8 * tokens_per_frame ** 1.5) / 2", tuple(GRID))
    budgets = [3e11, 2e10, 9e10]
    line = frontier(noisy_bag, GRID, cost, budgets, 5e5)
    for b, budget in enumerate(budgets):
        expected = brute_force(lambda points: noisy_bag.predict(points, 5e5), GRID, cost, budget)
        assert {name: values[b] for name, values in line.factors.items()} == expected


def test_extrapolation_is_flagged(noisy_bag):
    line = frontier(noisy_bag, None, budgets_flops=[3e12, 95e12], num_examples=1e6)
    assert line.extrapolates[1]
    assert any("above the swept range" in reason for reason in line.reasons[1])
    inside = frontier(noisy_bag, GRID, budgets_flops=[9e12], num_examples=1e6)
    outside = frontier(noisy_bag, GRID, budgets_flops=[9e12], num_examples=9e6)
    assert not inside.extrapolates[0]
    assert outside.reasons[0] == ("num_examples above the swept range",)


def test_budget_below_the_cheapest_point_is_refused(noisy_bag):
    with pytest.raises(UserError, match=r"buys nothing.*lm_params=1e\+09"):
        frontier(noisy_bag, GRID, budgets_flops=[1e9], num_examples=1e6)


def test_elasticity_is_equation_8(noisy_bag):
    budgets, sizes, step = [5e12, 20e12], [0.5e6, 1e6, 2e6], 1.5e6
    result = elasticity(noisy_bag, GRID, budgets_flops=budgets, sizes=sizes, step=step)
    for s, size in enumerate(sizes):
        now = frontier(noisy_bag, GRID, budgets_flops=budgets, num_examples=size).factors
        then = frontier(noisy_bag, GRID, budgets_flops=budgets, num_examples=size + step).factors
        for name in GRID:
            expected = (then[name] - now[name]) / step * size / now[name]
            assert result.cells[name][s] == pytest.approx(expected)
            assert result.by_size[name][s] == pytest.approx(expected.mean())
    for name in GRID:
        assert result.mean[name] == pytest.approx(result.cells[name].mean())
        assert result.low[name] <= result.high[name]


def test_default_sizes_follow_the_scale_of_the_sweep(noisy_bag):
    assert elasticity(noisy_bag, GRID).sizes[[0, -1]] == pytest.approx([1e6, 10e6])


def test_a_recommendation_is_the_frontier_with_its_doubts(noisy_bag):
    answer = recommend(noisy_bag, 12e12, 1e6, grid=GRID)
    line = frontier(noisy_bag, GRID, budgets_flops=[12e12], num_examples=1e6)
    assert {name: values[0] for name, values in answer.line.factors.items()} == {
        name: values[0] for name, values in line.factors.items()
    }
    shares = line.agreement[0] + sum(other.share for other in answer.alternatives)
    assert 0 < shares <= 1 + 1e-12
    if answer.cheapest:
        assert answer.cheapest.cost_flops < line.cost_flops[0] and answer.cheapest.worse_low <= 0


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
    assert (below_budget(noisy_runs, 5e12) == (cost <= 5e12)).all()


def test_a_grid_is_sorted_by_cost(noisy_runs):
    grid = make_grid(default_grid(noisy_runs))
    assert len(grid.cost) == 3 * 128 * 27
    assert (np.diff(grid.cost) >= 0).all()
