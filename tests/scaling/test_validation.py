"""Scores by hand; held-out runs are held out; planted forms win."""

import numpy as np
import pytest
from scatter import scattered

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.frontier import frontier
from vvlm_ray.scaling.simulation import judge, observe, plant, plant_misfit
from vvlm_ray.scaling.space import Space
from vvlm_ray.scaling.validation import cross_validate, extrapolate, fold_masks, score


def test_scores_by_hand():
    scores = score(np.array([11.0, 18.0, 30.0]), np.array([10.0, 20.0, 30.0]))
    assert scores.mse == pytest.approx(5 / 3)
    assert scores.error_percent == pytest.approx(100 * (0.1 + 0.1 + 0) / 3)
    assert scores.r2 == pytest.approx(1 - 5 / 200)


def test_folds_are_a_partition():
    design = scattered(4, 23)
    assert len(np.unique(design.configurations)) == 23
    masks = np.array(fold_masks(design, 5, seed=0))
    assert (masks.sum(axis=0) == 1).all()
    assert sorted(masks.sum(axis=1)) == [4, 4, 5, 5, 5]
    with pytest.raises(UserError, match="folds"):
        fold_masks(design.select(np.arange(3)), 5, seed=0)


def test_the_planted_form_predicts_better_than_a_smaller_one():
    design = scattered(3, 80)
    runs = observe(plant("add", design, seed=1), design, noise=0.2, seed=1)
    scores = {name: cross_validate(runs, FitSettings(name, starts=50), resamples=10) for name in ("mult", "add")}
    assert scores["add"].mse < scores["mult"].mse
    assert scores["add"].r2 > 0.95


def test_extrapolation_uses_the_training_runs_only():
    design = scattered(2, 60)
    runs = observe(plant("mult", design, seed=1), design, noise=0.0, seed=1)
    train = runs.num_examples < 2e6
    spoiled = runs.error.copy()
    spoiled[~train] *= 2
    from dataclasses import replace

    scores = extrapolate(replace(runs, error=spoiled), train, FitSettings("mult", starts=20), resamples=3)
    assert scores.predicted == pytest.approx(runs.error[~train], rel=1e-5)
    with pytest.raises(UserError, match="both sides"):
        extrapolate(runs, np.ones(60, bool))


def test_regret_is_zero_where_the_truth_is_known_and_positive_elsewhere(noisy_bag, noisy_runs):
    grid = {"lm_params": [1e9, 7.5e9], "num_frames": np.arange(1, 30), "tokens_per_frame": [4, 16, 64]}
    line = frontier(noisy_bag.over(Space(grid)), [2, 9], num_examples=1e6)

    def believed(factors, num_examples):
        return noisy_bag.predict(factors, num_examples)

    assert judge(believed, line).regret == pytest.approx(np.zeros(2), abs=1e-12)
    assert judge(believed, line).covered.all()
    other = plant_misfit(noisy_runs, seed=0)
    assert (judge(other, line).regret >= 0).all()


def test_planted_surfaces_are_on_the_scale_of_the_paper():
    design = scattered(3, 88)
    for seed in range(5):
        for surface in (plant("add-interact", design, seed), plant_misfit(design, seed)):
            error = surface(design.factors, design.num_examples)
            assert 2.5 < error.std() < 4
            assert 25 < error.mean() < 70
