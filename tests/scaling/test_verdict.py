"""Verdicts: good runs are trusted, bad ones are not, and the reason is the one that was planted."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scatter import scattered

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.frontier import frontier
from vvlm_ray.scaling.posterior import fit_posterior
from vvlm_ray.scaling.recommendation import measured_near, recommend
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import observe, plant
from vvlm_ray.scaling.validation import cross_validate, splits, validate
from vvlm_ray.scaling.verdict import DOUBT, REFUSE, TRUST, judge_fit

AUTO = FitSettings("auto")


@pytest.fixture(scope="module")
def good():
    design = scattered(3, 60)
    return observe(plant("add-interact", design, seed=3), design, noise=0.3, seed=3)


@pytest.fixture(scope="module")
def fitted(good):
    return fit_posterior(good)


@pytest.fixture(scope="module")
def held_out(good):
    return cross_validate(good, AUTO)


def kinds(verdict, status):
    return {reason.kind for reason in verdict.reasons if reason.status == status}


def test_good_runs_are_trusted(fitted, held_out):
    verdict = judge_fit(fitted, held_out, lines=[frontier(fitted, [15], 1e6)])
    assert verdict.status == TRUST, verdict.sentence
    assert verdict.sentence.startswith("Trust within the sweep: runs left out are missed by")
    assert 0.75 <= held_out.coverage <= 1 and verdict.r2 == held_out.r2
    assert verdict.to_dict()["status"] == TRUST


def test_noise_is_not_trusted():
    design = scattered(2, 40)
    runs = replace(design, error=50 + np.random.default_rng(0).normal(0, 3, 40))
    verdict = judge_fit(fit_posterior(runs), cross_validate(runs, AUTO))
    assert verdict.status == REFUSE and "held-out error" in kinds(verdict, REFUSE)


def test_extrapolation_two_levels_and_no_validation_are_doubts(good, fitted, held_out):
    far = judge_fit(fitted, held_out, lines=[frontier(fitted, [95], 1e6)])
    assert far.status == DOUBT and kinds(far, DOUBT) == {"extrapolation"}
    further = judge_fit(fitted, held_out, lines=[frontier(fitted, [15], 1e9)])
    assert further.status == REFUSE and "num_examples is more than 10 times" in further.sentence
    assert kinds(judge_fit(fitted, None), DOUBT) == {"unvalidated"}
    two = good.select(np.isin(good.num_examples, [0.25e6, 2e6]))
    assert "two levels" in kinds(judge_fit(fit_posterior(two), None), DOUBT)
    assert any("num_examples has two levels" in text for text in fit_posterior(two).warnings)


def test_columns_that_move_together_are_told():
    rng = np.random.default_rng(1)
    a = rng.uniform(1, 9, 30)
    runs = Runs({"a": a, "b": 3 * a, "c": rng.uniform(1, 9, 30)}, 50 / a + rng.normal(0, 0.1, 30))
    verdict = judge_fit(fit_posterior(runs), None)
    assert verdict.status == REFUSE and "a and b vary together" in verdict.sentence


def test_a_run_at_the_answer_that_contradicts_it(good, fitted, held_out):
    x = {name: float(values[0]) for name, values in good.factors.items()}
    (run, *_) = measured_near(fitted, x)
    assert run.distance == 0 and run.low <= run.predicted <= run.high
    fine = judge_fit(fitted, held_out, measured=[replace(run, error=run.predicted)])
    assert fine.status == TRUST
    off = judge_fit(fitted, held_out, measured=[replace(run, error=run.high + 0.1)])
    assert off.status == DOUBT and "measured this configuration" in off.sentence
    assert judge_fit(fitted, held_out, measured=[replace(run, error=run.high + 20)]).status == REFUSE


def test_a_recommendation_holds_together(fitted):
    found = recommend(fitted, 15, 1e6)
    grid = fitted.runs.space.grid().up_to(15e12)
    samples = fitted.samples(grid.points, 1e6)
    base = samples[:, found.line.index[0]]
    near = (samples - base[:, None] < found.delta).mean(axis=0) >= 0.9
    assert found.num_equivalent == near.sum() >= 1
    assert found.equivalent[0].cost * 1e12 == pytest.approx(grid.cost[np.argmax(near)])
    assert all(option.equivalence >= 0.9 for option in found.equivalent)
    assert found.delta == pytest.approx(0.5 * fitted.noise)
    assert found.if_doubled.worse_by < 0, "more data help on this surface"
    if found.next_budget:
        assert found.next_budget.budget > 15 and found.next_budget.option.worse_by < -found.delta
    strict = recommend(fitted, 15, 1e6, delta=1e-9)
    assert strict.num_equivalent <= found.num_equivalent
    assert all(run.low <= run.predicted <= run.high for run in found.measured)


def test_validation_by_cost_size_factor_and_rolling(good):
    by_cost, *_ = splits(good, "cost")
    assert good.cost[by_cost.train].max() < good.cost[by_cost.test].min()
    assert 0.5 < by_cost.train.mean() < 0.9
    by_n, *_ = splits(good, "num_examples")
    assert good.num_examples[by_n.train].max() < good.num_examples[by_n.test].min()
    rolling = splits(good, "rolling")
    assert len(rolling) == 3 and all((a.test <= b.train).all() for a, b in pairwise(rolling))
    found = validate(good, [by_cost, *splits(good, "num_frames")], AUTO)
    assert all(scores.r2 < 1 and len(scores.low) == len(scores.observed) for scores in found.values())
    with pytest.raises(UserError, match="choose cost, rolling or one of lm_params"):
        splits(good, "depth")
