"""The space of configurations: what is filled in, what it costs, and what is refused."""

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
from scatter import scattered

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.bagging import fit_resamples
from vvlm_ray.scaling.cost import Cost, cost, inference_flops
from vvlm_ray.scaling.fitting import FitSettings, fit
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Space
from vvlm_ray.scaling.validation import fold_masks


def test_runs_fill_in_the_space_of_the_method():
    runs = scattered(3, 40)
    space = runs.space
    assert space.factors == tuple(runs.factors) and space.num_points == 3 * 128 * 27
    grid = space.grid()
    assert len(grid.cost) == 3 * 128 * 27 and (np.diff(grid.cost) >= 0).all()
    assert grid.cost == pytest.approx(inference_flops(**grid.points))
    assert runs.cost == pytest.approx(inference_flops(**runs.factors))


def test_what_is_given_of_a_space_is_kept_and_the_order_is_that_of_the_runs():
    levels = {"tokens_per_frame": [4, 16], "num_frames": range(1, 5)}
    runs = scattered(3, 40).over(Space(levels, cost(vision_params=1e6, vision_tokens=64)))
    assert runs.space.factors == ("lm_params", "num_frames", "tokens_per_frame")
    assert runs.space.num_points == 3 * 4 * 2
    assert runs.space.cost(lm_params=1e9, num_frames=2, tokens_per_frame=4) == 2 * 2 * (1e6 * 64 + 1e9 * 4)
    assert runs.select(np.arange(5)).space.num_points == 24, "a part of the runs has the space of all"


def test_a_factor_that_does_not_vary_is_held_in_the_cost():
    runs = scattered(3, 40)
    runs = replace(runs, factors={**runs.factors, "lm_params": np.full(40, 7.5e9)})
    held = runs.hold(["lm_params"])
    assert held.space.factors == ("num_frames", "tokens_per_frame")
    assert held.cost == pytest.approx(runs.cost)
    assert held.hold(["num_examples"]).num_examples is None


def test_the_vision_model_may_be_a_factor():
    factors = {**scattered(3, 20).factors, "vision_params": np.repeat([0.1e9, 0.43e9], 10)}
    runs = Runs(factors, np.full(20, 50.0))
    assert runs.cost == pytest.approx(inference_flops(**factors))


def test_spaces_survive_json_and_pickle():
    space = scattered(3, 20).over(Space(cost=cost("lm_params * num_frames", unit="ms"))).space.fix(num_frames=4)
    for again in (Space.from_dict(space.to_dict()), pickle.loads(pickle.dumps(space))):
        assert again.to_dict() == space.to_dict()
        assert again.grid().cost == pytest.approx(space.grid().cost)
    assert space.cost.budget_unit == "ms" and space.cost.scale == 1 and space.cost.text(41.5) == "41.5 ms"
    assert Cost().budget_unit == "TFLOPs" and Cost().text(1.23e13) == "12.3 TFLOPs"


@pytest.mark.parametrize(("levels", "expression", "message"), [
    ({"height": [1]}, None, "'height', which is no factor"),
    ({"num_frames": [0, 1]}, None, "positive"),
    ({"num_frames": ["few"]}, None, "not numbers"),
    ({"num_frames": np.arange(1, 3_000_000)}, None, "at most"),
    ({}, "num_frames / 0", "not a positive number"),
    ({}, "num_frames - 5", "not a positive number"),
    ({}, "(0 - num_frames) ** 0.5", "not a positive number"),
    ({}, "9**9**9**9", "not a positive number"),
    ({}, "height * 2", "names 'height', which is no factor"),
    ({}, "num_frames.real", "numbers, factors"),
    ({}, "__import__('os')", "numbers, factors"),
    ({}, "num_frames * 1j", "numbers, factors"),
    ({}, "True", "numbers, factors"),
    ({}, "num_frames < 4", "numbers, factors"),
    ({}, "2 *", "not an arithmetic"),
    ({}, "-" * 900 + "1", "nested too deeply"),
    ({}, "1" * 999, "too large"),
    ({}, "num_frames + " * 100 + "1", "longer than"),
])  # fmt: skip
def test_what_cannot_be_is_refused_at_once(levels, expression, message):
    begun = time.process_time()
    with pytest.raises(UserError, match=message):
        scattered(3, 20).over(Space(levels, cost(expression) if expression else None)).space.grid()
    assert time.process_time() - begun < 2


def test_a_sum_of_many_terms_is_no_deep_nesting():
    assert cost("num_frames" + " + 1" * 200)(num_frames=4) == 204


@pytest.mark.parametrize("sizes", [[7.5, 2.8], [70, 405]])
def test_sizes_that_cannot_be_counts_are_refused(sizes):
    runs = scattered(3, 20)
    runs = replace(runs, factors={**runs.factors, "lm_params": np.resize(sizes, 20)}, space=None)
    with pytest.raises(UserError, match=r"cannot be a count in Eq. 1.*--unit lm_params=1e9"):
        _ = runs.cost


def test_an_unknown_cost_is_asked_for():
    runs = Runs({"width": np.array([1.0, 2]), "depth": np.array([1.0, 3])}, np.array([3.0, 4]))
    with pytest.raises(UserError, match=r'--cost "2 \* width \* depth"'):
        runs.space.grid()


def test_runs_of_one_configuration_are_drawn_and_left_out_together():
    few = scattered(2, 12, seed=3)
    runs = few.select(np.repeat(np.arange(12), 4))
    groups = runs.configurations
    assert len(np.unique(groups)) == len(np.unique(few.inputs(), axis=1).T)
    for mask in fold_masks(runs, 4, seed=0):
        assert not set(groups[mask]) & set(groups[~mask])
    assert (few.configurations[:3] == [0, 1, 2]).all(), "counted as they come, so that runs alone keep their numbers"
    settings = FitSettings("mult", starts=5)
    runs = replace(runs, error=runs.error + np.linspace(0, 5, 48))
    parent = fit(runs, "mult", starts=5)
    again = fit_resamples(runs, settings, [0, 1], parent.basins)
    assert np.isfinite(again[2]).all()


def test_limits_beside_the_budget_keep_configurations_out(noisy_bag):
    from vvlm_ray.scaling.frontier import frontier
    from vvlm_ray.scaling.space import Limit

    space = noisy_bag.runs.space
    tight = space.within(Limit.parse("num_frames <= 6"), Limit.parse("2 * lm_params <= 6e9"))
    grid, every = tight.grid(), space.grid()
    kept = (every.points["num_frames"] <= 6) & (every.points["lm_params"] <= 3e9)
    np.testing.assert_array_equal(grid.cost, every.cost[kept])
    line = frontier(noisy_bag.over(tight), [5, 20], 1e6)
    assert line.factors["num_frames"].max() <= 6 and line.factors["lm_params"].max() <= 3e9
    assert Space.from_dict(tight.to_dict()).grid().cost.tolist() == grid.cost.tolist()
    assert pickle.loads(pickle.dumps(tight)).limits == tight.limits
    held = tight.fix(lm_params=2.8e9)
    assert held.grid().points["num_frames"].max() == 6
    with pytest.raises(UserError, match=r"no configuration of the grid keeps num_frames <= 0\.5"):
        space.within(Limit.parse("num_frames <= 0.5")).grid()
    with pytest.raises(UserError, match="write arithmetic"):
        Limit.parse("num_frames < 3")
    with pytest.raises(UserError, match="'memory', which is no factor"):
        space.within(Limit.parse("memory <= 3")).over(noisy_bag.runs.factors)
