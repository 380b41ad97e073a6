"""What a run is worth: against brute force over the samples, and that buying it helps."""

import numpy as np
import pytest

from vvlm_ray.designs.next import candidates, next_runs
from vvlm_ray.scaling.posterior import fit_posterior
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import observe, plant
from vvlm_ray.scaling.value import Question, Values, expected_regret

QUESTION = Question(np.array([2.0, 8.0, 30.0]), np.array([1e6]))


@pytest.fixture(scope="module")
def posterior():
    rng = np.random.default_rng(0)
    factors = {
        "lm_params": rng.choice([1e9, 2.8e9, 7.5e9], 30),
        "num_frames": rng.choice([2.0, 4, 8, 16, 32], 30),
        "tokens_per_frame": rng.choice([4.0, 16, 49, 100, 196], 30),
    }
    design = Runs(factors, np.full(30, 50.0), rng.choice([0.25e6, 0.5e6, 1e6], 30))
    return fit_posterior(observe(plant("add-interact", design, 1), design, 0.4, 1), num_samples=2000)


def prices(factors, n):
    return n * factors["num_frames"] / 1e6


def test_worth_is_the_fall_of_the_regret_in_simulation(posterior):
    """A run at c, its value drawn and the mean moved by the covariance of samples: the same fall, to sampling error."""
    factors, n = candidates(posterior, QUESTION)
    columns = posterior.columns(factors, n)
    values = Values(posterior, QUESTION, columns)
    worth = values.worth()
    best = int(np.argmax(worth))
    grid = posterior.runs.space.grid().up_to(30e12)
    ends = grid.count(QUESTION.budgets * 1e12)
    samples = posterior.samples(grid.points, 1e6)
    at = posterior.samples({k: v[[best]] for k, v in factors.items()}, n[[best]])[:, 0]
    mean = posterior.predict(grid.points, 1e6)
    beta = (samples - samples.mean(axis=0)).T @ (at - at.mean()) / len(at) / np.sqrt(at.var() + posterior.noise**2)
    z = np.random.default_rng(1).normal(size=400)
    after = np.minimum.accumulate(mean[:, None] + beta[:, None] * z, axis=0)[ends - 1].mean(axis=1)
    fall = (np.minimum.accumulate(mean)[ends - 1] - after).mean()
    # 2,000 samples leave spurious covariances of 2 %, over thousands of points: they add to the brute-force value.
    assert worth[best] == pytest.approx(fall, rel=0.6)
    assert (worth >= 0).all() and worth[best] < expected_regret(posterior, QUESTION)


def test_a_run_once_made_is_worth_less(posterior):
    factors, n = candidates(posterior, QUESTION)
    values = Values(posterior, QUESTION, posterior.columns(factors, n))
    before = values.worth()
    best = int(np.argmax(before))
    values.make(best)
    assert values.worth()[best] < 0.8 * before[best]


def test_runs_stay_within_the_budget_and_on_known_levels(posterior):
    found = next_runs(posterior, QUESTION, prices, budget=20.0, most=4)
    assert 1 <= len(found) <= 4 and sum(run.price for run in found) <= 20
    levels = posterior.runs.space.levels
    for run in found:
        assert all(value in levels[name] for name, value in run.factors.items())
        assert run.num_examples in {250_000, 500_000, 1_000_000}
    dear = next_runs(posterior, QUESTION, lambda x, n: 1e6 * np.ones(len(n)), budget=20.0)
    assert dear == []
