"""A bag's numbers depend on the seed alone."""

import subprocess
import sys

import numpy as np
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.bagging import fit_bag, fit_resamples
from vvlm_ray.scaling.parallel import threads


@pytest.fixture(scope="module")
def small_bag(noisy_runs):
    return fit_bag(noisy_runs, "add", resamples=10, starts=20, map=threads(1))


def test_the_same_for_any_number_of_threads(noisy_runs, small_bag):
    again = fit_bag(noisy_runs, "add", resamples=10, starts=20, map=threads(3))
    assert np.array_equal(small_bag.log_coefficients, again.log_coefficients)
    assert np.array_equal(small_bag.exponents, again.exponents)


def test_the_same_resample_in_any_company(noisy_runs, small_bag):
    alone = fit_resamples(noisy_runs, small_bag.fit.settings, [7], small_bag.fit.basins)
    assert np.array_equal(alone[0][0], small_bag.log_coefficients[7])


def test_the_same_in_another_process(noisy_runs, small_bag, tmp_path):
    np.savez(tmp_path / "runs.npz", error=noisy_runs.error, n=noisy_runs.num_examples, **noisy_runs.factors)
    code = (
        "import sys, numpy as np\n"
        "from vvlm_ray.scaling.runs import Runs\n"
        "from vvlm_ray.scaling.bagging import fit_bag\n"
        "from vvlm_ray.scaling.parallel import threads\n"
        "d = dict(np.load(sys.argv[1])); error, n = d.pop('error'), d.pop('n')\n"
        "np.save(sys.argv[2], fit_bag(Runs(d, error, n), 'add', resamples=10, starts=20, map=threads(2)).exponents)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "runs.npz", tmp_path / "e.npy"], check=True)
    assert np.array_equal(np.load(tmp_path / "e.npy"), small_bag.exponents)


def test_a_resample_reaches_what_many_starts_without_dropping_reach(noisy_bag, noisy_runs):
    """The race, the scans and the shared basins lose nothing against 300 starts that are all carried to the end."""
    from vvlm_ray.scaling.problem import scale
    from vvlm_ray.scaling.solvers import search as engine

    scaled = scale(noisy_runs, noisy_bag.form, noisy_bag.fit.settings.objective)
    for index in range(3):
        rng = np.random.default_rng([0, 1 + index])
        groups = noisy_runs.configurations
        count = groups.max() + 1
        counts = np.bincount(rng.integers(0, count, count), minlength=count)[groups].astype(float)
        starts = np.random.default_rng(5).uniform(-1, 1, (300, len(noisy_bag.form.exponents)))
        none = np.empty((0, noisy_bag.form.num_params))
        _, losses = engine.solve(scaled, counts, starts, none, engine.FULL)
        assert noisy_bag.objectives[index] <= scaled.report(losses[0]) * (1 + 1e-6)


def test_median_mean_band_and_intervals(small_bag, noisy_runs):
    members = small_bag.samples(noisy_runs.factors, 1e6)
    assert members.shape == (10, 60)
    assert np.allclose(small_bag.predict(noisy_runs.factors, 1e6), np.median(members, axis=0))
    assert np.allclose(small_bag.predict(noisy_runs.factors, 1e6, "mean"), members.mean(axis=0))
    low, high = small_bag.band(noisy_runs.factors, 1e6)
    assert (low <= np.median(members, axis=0)).all() and (np.median(members, axis=0) <= high).all()
    intervals = small_bag.intervals()
    assert set(intervals) == set(small_bag.form.param_names)
    assert all(low <= high for low, high in intervals.values())


def test_a_smaller_bag_is_its_beginning(small_bag):
    assert np.array_equal(small_bag.take(4).exponents, small_bag.exponents[:4])
    assert small_bag.take(4).num_resamples == 4


def test_an_empty_bag_is_refused(noisy_runs):
    with pytest.raises(UserError, match="at least one"):
        fit_bag(noisy_runs, "add", resamples=0)
