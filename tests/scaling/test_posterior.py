"""The posterior: its parts against finite differences and exact algebra, its answers against planted truth."""

from dataclasses import replace

import numpy as np
import pytest
from scatter import scattered

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.elasticity import elasticity
from vvlm_ray.scaling.frontier import frontier
from vvlm_ray.scaling.grouping import group_runs, lack_of_fit
from vvlm_ray.scaling.kernels import Kernel
from vvlm_ray.scaling.members import Evidence, fit_member, linearise, make_line
from vvlm_ray.scaling.posterior import fit_posterior
from vvlm_ray.scaling.predictor import Predictor, _BySamples
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import judge, observe, plant, plant_misfit
from vvlm_ray.scaling.superform import fit_form, make_forms


@pytest.fixture(scope="module")
def posterior(noisy_runs):
    return fit_posterior(noisy_runs)


@pytest.mark.parametrize(("num_factors", "data_size"), [(3, True), (1, True), (2, False), (4, True)])
def test_derivatives_of_the_forms(num_factors, data_size):
    rng = np.random.default_rng(0)
    u = rng.normal(size=(num_factors + data_size, 20))
    for form in make_forms(num_factors, data_size, 47.0, 3.1):
        theta = form.mean + 0.5 * form.sd * rng.normal(size=(2, form.num_params))
        _, slope = form.value(theta, u)
        for i in range(form.num_params):
            step = np.zeros(form.num_params)
            step[i] = 1e-5
            numeric = (form.value(theta + step, u)[0] - form.value(theta - step, u)[0]) / 2e-5
            np.testing.assert_allclose(slope[:, i], numeric, rtol=1e-4, atol=1e-5, err_msg=form.param_names[i])


def test_the_super_form_holds_add_interact(noisy_runs):
    """Without shifts and pairs, and p = 1, it is the paper's form with the same number of parameters."""
    form = make_forms(3, True, 47.0, 3.1)[0]
    assert form.num_params == 15
    data = group_runs(noisy_runs)
    theta, _ = fit_form(form, data.u, data.y, np.full(len(data.y), 1e4), form.mean[None], iterations=5)
    columns = dict(zip(form.param_names, theta, strict=True))
    x = np.exp(data.u)
    by_hand = np.exp(columns["eps"]) + np.exp(columns["xi"]) * x[3] ** -columns["d"]
    for k in range(3):
        by_hand += np.exp(columns[f"c_{k}"]) * x[k] ** -columns[f"a_{k}"]
        by_hand += np.exp(columns[f"cn_{k}"]) * x[k] ** columns[f"b_{k}"] * x[3] ** -columns["d"]
    np.testing.assert_allclose(form.value(theta[None], data.u)[0][0], by_hand, rtol=1e-10)


@pytest.mark.parametrize("kind", ["matern", "anova"])
def test_kernels_gradients_and_features(kind):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(3, 12))
    kernel = Kernel(kind, 3)
    params = rng.normal(0, 0.4, kernel.num_params)
    distances = np.abs(z[:, :, None] - z[:, None, :])
    value, slopes = kernel.gradients(params, distances)
    np.testing.assert_allclose(value, kernel.cross(params, z, z), atol=1e-9)
    assert value[0, 0] == pytest.approx(kernel.prior_variance(params))
    for i in range(kernel.num_params):
        step = np.zeros(kernel.num_params)
        step[i] = 1e-6
        numeric = (kernel.gradients(params + step, distances)[0] - kernel.gradients(params - step, distances)[0]) / 2e-6
        np.testing.assert_allclose(slopes[i], numeric, atol=1e-7)
    frequency, phase, amplitude = kernel.features(params, 40_000, rng)
    features = amplitude[:, None] * np.cos(frequency @ z + phase[:, None])
    # 40,000 features: the standard error of a covariance is about its size over 200.
    np.testing.assert_allclose(features.T @ features, value, atol=0.03 * value[0, 0])


@pytest.mark.parametrize("repeats", [1, 3])
def test_gradient_of_the_evidence(repeats):
    runs = observe(plant("add", scattered(2, 15), seed=1), scattered(2, 15), noise=0.5, seed=1)
    runs = runs.select(np.repeat(np.arange(15), repeats))
    runs = replace(runs, error=runs.error + np.random.default_rng(2).normal(0, 0.3, runs.num_runs))
    data = group_runs(runs)
    assert (data.freedom > 0) == (repeats > 1) or data.freedom > 0  # scattered draws may repeat by themselves
    evidence = Evidence(data, Kernel("matern", 3))
    _, covariance, residual = linearise(make_line(data), np.zeros(4), data)
    hyper = evidence.prior_mean + 0.3
    value, gradient = evidence.negative(hyper, covariance, residual)
    for i in range(len(hyper)):
        step = np.zeros(len(hyper))
        step[i] = 1e-5
        up, down = (evidence.negative(hyper + s * step, covariance, residual)[0] for s in (1, -1))
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-5)
    assert np.isfinite(value)


def test_samples_have_the_mean_and_covariance_of_the_member(noisy_runs):
    """Matheron's rule against the exact posterior, over points between and beyond the runs."""
    data = group_runs(noisy_runs)
    member = fit_member("line", data, make_line(data), "matern", np.zeros(5))
    rng = np.random.default_rng(3)
    z = rng.normal(0, 1.2, (4, 8))
    u = z * data.scale[:, None]
    found = np.concatenate([member.draw(200, np.random.default_rng(s)).at(u, z) for s in range(30)])
    exact = member.covariance((u, z), (u, z))
    spread = np.sqrt(np.diag(exact))
    # 6,000 draws, in batches of 200 that share features: means to 5 %, covariances to 10 % of their scale.
    assert (np.abs(found.mean(axis=0) - member.mean(u, z)) < 0.05 * spread + 1e-3).all()
    assert (np.abs(np.cov(found.T) - exact) < 0.12 * np.outer(spread, spread)).all()


def test_it_is_a_predictor_and_its_seed_decides(noisy_runs, posterior):
    assert isinstance(posterior, Predictor)
    again, other = fit_posterior(noisy_runs), fit_posterior(noisy_runs, seed=1)
    points = noisy_runs.factors
    np.testing.assert_array_equal(again.samples(points, 1e6), posterior.samples(points, 1e6))
    assert not np.allclose(other.samples(points, 1e6)[:5], posterior.samples(points, 1e6)[:5])
    assert posterior.weights.sum() == pytest.approx(1)
    with pytest.raises(UserError, match="give num_examples"):
        posterior.predict(points)
    with pytest.raises(UserError, match="positive"):
        posterior.predict(points, -1)


def test_the_search_is_direct_evaluation(posterior):
    """The spline over data sizes changes hardly an optimum; for a few sizes nothing is interpolated at all."""
    grid = posterior.runs.space.grid().up_to(30e12)
    ends = grid.count(np.array([2e12, 7e12, 30e12]))
    few = np.array([1e6, 2e6])
    chosen, own = posterior.prepare_search(grid.points, few)(ends, few)
    want_chosen, want_own = _BySamples(posterior, grid.points)(ends, few)
    np.testing.assert_array_equal(chosen, want_chosen)
    assert (own == want_own).mean() > 0.995, "single precision may break a near tie"
    many = np.linspace(1e6, 15e6, 40)
    chosen, own = posterior.prepare_search(grid.points, many)(ends, many[::13])
    _, want_own = _BySamples(posterior, grid.points)(ends, many[::13])
    for s, size in enumerate(many[::13]):
        values = posterior.samples(grid.points, size)
        lost = np.take_along_axis(values, own[s].T, axis=1) - np.take_along_axis(values, want_own[s].T, axis=1)
        assert lost.max() < 0.01, "points lost by interpolating"


def test_planted_surfaces_are_covered_inside_and_outside():
    """Few surfaces, so loose limits; benchmarks/misfit.py has the numbers that count."""
    design = scattered(3, 88, seed=5)
    regrets, covered = [], []
    for seed in range(2):
        for surface in (plant("add-interact", design, seed), plant_misfit(design, seed)):
            line = frontier(fit_posterior(observe(surface, design, 0.4, seed)), [2, 5, 15, 30], 2e6)
            found = judge(surface, line)
            regrets.append(found.regret.mean())
            covered.append(found.covered.mean())
            assert (line.low <= line.error).all() and (line.error <= line.high).all()
            for name, values in line.factors.items():
                assert (line.factor_low[name] <= values).all() and (values <= line.factor_high[name]).all()
    assert np.mean(regrets) < 0.15 and np.mean(covered) > 0.75


def test_elasticities_lie_within_their_own_bands(posterior):
    found = elasticity(posterior, [2, 5, 15, 30], np.linspace(1e6, 4e6, 5))
    for name in found.mean:
        assert found.low[name] <= found.mean[name] <= found.high[name]
        assert (found.by_size_low[name] <= found.by_size[name]).all()
        assert (found.by_size[name] <= found.by_size_high[name]).all()


@pytest.mark.parametrize(("num_factors", "data_size", "num_runs"), [(1, True, 12), (2, False, 8), (5, True, 40)])
def test_any_factors_with_or_without_a_data_size_and_losses(num_factors, data_size, num_runs):
    """Errors of 2 to 3 with a spread of 0.2 (losses): priors scale with the data."""
    design = scattered(num_factors, num_runs, data_size=data_size, seed=7)
    u = np.log(design.inputs())
    truth = 2 + 0.2 * np.exp(-0.4 * (u - u.mean(axis=1, keepdims=True))).mean(axis=0)
    runs = replace(design, error=truth + 0.004 * np.random.default_rng(8).normal(size=num_runs))
    found = fit_posterior(runs)
    miss = found.predict(runs.factors, runs.num_examples) - truth
    assert np.sqrt(np.mean(miss**2)) < 0.35 * truth.std()
    scaled = fit_posterior(replace(runs, error=1000 * runs.error))
    np.testing.assert_allclose(
        scaled.predict(runs.factors, runs.num_examples),
        1000 * found.predict(runs.factors, runs.num_examples),
        rtol=2e-3,
    )


def test_too_few_runs_and_one_level_are_refused(noisy_runs):
    with pytest.raises(UserError, match="too few: auto needs at least 8 runs"):
        fit_posterior(noisy_runs.select(np.arange(6)))
    flat = Runs({"a": np.full(9, 2.0), "b": np.arange(1.0, 10)}, np.arange(1.0, 10))
    with pytest.raises(UserError, match="'a' has one level only"):
        fit_posterior(flat)
    with pytest.raises(UserError):
        fit_posterior(replace(noisy_runs, weights=np.zeros(noisy_runs.num_runs)))


def test_scores_that_are_all_the_same_give_a_flat_answer():
    design = scattered(2, 20)
    found = fit_posterior(replace(design, error=np.full(20, 40.0)))
    assert np.abs(found.predict(design.factors, design.num_examples) - 40).max() < 0.01


def test_replicates_count_once():
    """30 configurations x 4 seeds with a deviation common to a configuration: bands as wide as from the means alone."""
    design = scattered(2, 30, seed=9)
    design = design.select(np.unique(design.inputs(), axis=1, return_index=True)[1])
    surface = plant("add-interact", design, 2)
    rng = np.random.default_rng(4)
    truth = surface(design.factors, design.num_examples)
    means = truth + rng.normal(0, 0.8, design.num_runs)
    repeated = design.select(np.repeat(np.arange(design.num_runs), 4))
    scatter = rng.normal(0, 0.05, repeated.num_runs)
    scatter -= np.repeat(scatter.reshape(-1, 4).mean(axis=1), 4)
    many = fit_posterior(replace(repeated, error=np.repeat(means, 4) + scatter))
    once = fit_posterior(replace(design, error=means))
    at = {name: values[:10] for name, values in design.factors.items()}
    widths = [np.ptp(np.quantile(p.samples(at, 1e6), [0.05, 0.95], axis=0), axis=0).mean() for p in (many, once)]
    assert widths[0] == pytest.approx(widths[1], rel=0.25)
    assert many.noise == pytest.approx(0.8, rel=0.5)
    runs = many.runs
    ratio, p = lack_of_fit(runs, many.predict(runs.factors, runs.num_examples), 8)
    assert ratio > 10 and p < 1e-6
    fine = replace(runs, error=np.repeat(truth, 4) + rng.normal(0, 0.5, runs.num_runs))
    assert lack_of_fit(fine, np.repeat(truth, 4), 0)[1] > 0.001


def test_known_standard_errors_are_a_floor_of_the_noise(noisy_runs):
    told = fit_posterior(replace(noisy_runs, error_se=np.full(noisy_runs.num_runs, 1.5)))
    assert told.noise >= 1.5


def test_runs_of_no_weight_do_not_count(noisy_runs):
    weights = np.ones(noisy_runs.num_runs)
    weights[:5] = 0
    spoilt = replace(noisy_runs, error=np.where(weights > 0, noisy_runs.error, 90.0), weights=weights)
    clean = noisy_runs.select(weights > 0)
    np.testing.assert_allclose(
        fit_posterior(spoilt).predict(clean.factors, 1e6), fit_posterior(clean).predict(clean.factors, 1e6), rtol=1e-9
    )
