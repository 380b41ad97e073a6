"""The engines against planted truth, scipy and finite differences."""

from dataclasses import replace

import numpy as np
import pytest
from scatter import scattered
from scipy.optimize import check_grad

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.fitting import fit
from vvlm_ray.scaling.forms import FORM_NAMES, make_form
from vvlm_ray.scaling.problem import Objective, scale
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import observe, plant
from vvlm_ray.scaling.solvers import lbfgs
from vvlm_ray.scaling.solvers import search as engine


@pytest.mark.parametrize("num_factors", [1, 2, 3, 5])
@pytest.mark.parametrize("form", FORM_NAMES)
def test_planted_truth_is_recovered_without_noise(form, num_factors):
    design = scattered(num_factors, 120, seed=num_factors)
    surface = plant(form, design, seed=10 + num_factors)
    runs = observe(surface, design, noise=0.0, seed=0)
    found = fit(runs, form, starts=100)
    anywhere = scattered(num_factors, 50, seed=99)
    error = found.predict(anywhere.factors, anywhere.num_examples) / surface(anywhere.factors, anywhere.num_examples)
    assert np.abs(error - 1).max() < 1e-6


def test_chinchilla_without_a_data_size_is_recovered():
    rng = np.random.default_rng(0)
    sizes, tokens = 10 ** rng.uniform(8, 11, 60), 10 ** rng.uniform(9, 12, 60)
    truth = {"alpha_N": 406.4, "alpha_D": 410.7, "eps": 1.69, "a_N": 0.34, "a_D": 0.28}
    loss = truth["eps"] + truth["alpha_N"] * sizes**-0.34 + truth["alpha_D"] * tokens**-0.28
    assert fit(Runs({"N": sizes, "D": tokens}, loss), "add", starts=50).params == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("objective", [Objective(), Objective("huber", 0.01), Objective(log_space=False)])
def test_gradient_of_the_reference_engine(objective, noisy_runs):
    form = make_form("add-interact", tuple(noisy_runs.factors))
    function = lbfgs.loss_and_gradient(scale(noisy_runs, form, objective), np.ones(noisy_runs.num_runs))
    theta = np.random.default_rng(0).uniform(-0.5, 0.5, form.num_params)
    error = check_grad(lambda t: function(t)[0], lambda t: function(t)[1], theta)
    assert error < 1e-4 * np.linalg.norm(function(theta)[1])  # forward differences are good to some 1e-6


@pytest.mark.parametrize("objective", [Objective(), Objective("huber", 0.01), Objective(log_space=False)])
@pytest.mark.parametrize("exact", [False, True])
def test_derivatives_of_the_kernels(objective, exact, noisy_runs):
    """Gradient against the reference's, Hessian against differences of gradients."""
    kernels = engine.load_kernels()
    form = make_form("add-interact", tuple(noisy_runs.factors))
    scaled = scale(noisy_runs, form, objective)
    weights = np.random.default_rng(1).uniform(0.5, 2, noisy_runs.num_runs)
    function = lbfgs.loss_and_gradient(scaled, weights)
    theta = np.random.default_rng(0).uniform(-0.5, 0.5, form.num_params)
    state = engine.build_state(scaled, weights)
    kernels.powers_and_derivatives(state, theta, exact)
    gradient = state.per_param[kernels.GRADIENT]
    assert gradient == pytest.approx(function(theta)[1], rel=1e-8, abs=1e-9)
    if exact:
        numeric = np.array([
            (function(theta + step)[1] - function(theta - step)[1]) / 2e-6 for step in 1e-6 * np.eye(len(theta))
        ])  # fmt: skip
        hessian = np.tril(state.square[kernels.HESSIAN])
        assert hessian == pytest.approx(np.tril(numeric), rel=1e-4, abs=1e-4 * np.abs(numeric).max())


@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize("log_space", [True, False])
def test_never_worse_than_scipy(loss, log_space, noisy_runs):
    options = {"loss": loss, "huber_delta": 0.005 if log_space else 0.2, "log_space": log_space}
    ours, scipys = (fit(noisy_runs, "add", starts=20, engine=name, **options) for name in ("fast", "lbfgs"))
    assert ours.objective <= scipys.objective * (1 + 1e-6)


def test_objective_is_the_sum_over_runs(noisy_runs):
    found = fit(noisy_runs, "add", starts=20)
    residual = np.log(found.predict(noisy_runs.factors, noisy_runs.num_examples) / noisy_runs.error)
    assert found.objective == pytest.approx(np.sum(residual**2))
    huber = fit(noisy_runs, "add", starts=20, loss="huber", huber_delta=1e-3)
    size = np.abs(np.log(huber.predict(noisy_runs.factors, noisy_runs.num_examples) / noisy_runs.error))
    assert huber.objective == pytest.approx(np.where(size < 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)).sum())


def test_units_in_are_units_out(noisy_runs):
    """The same runs with sizes in billions: the same objective, coefficients in the other units."""
    first = fit(noisy_runs, "add", starts=20)
    billions = {**noisy_runs.factors, "lm_params": noisy_runs.factors["lm_params"] / 1e9}
    second = fit(replace(noisy_runs, factors=billions), "add", starts=20)
    assert second.objective == pytest.approx(first.objective, rel=1e-9)
    expected = first.params["alpha_lm_params"] * 1e9 ** -first.params["a_lm_params"]
    assert second.params["alpha_lm_params"] == pytest.approx(expected, rel=1e-4)


def test_weights_are_repetitions(noisy_runs):
    repeated = noisy_runs.select(np.r_[np.arange(noisy_runs.num_runs), np.arange(10)])
    weighted = replace(noisy_runs, weights=np.r_[np.full(10, 2.0), np.ones(noisy_runs.num_runs - 10)])
    assert fit(weighted, "add", starts=20).objective == pytest.approx(fit(repeated, "add", starts=20).objective)


def test_bounded_exponents_stay_in_their_bounds(noisy_runs):
    found = fit(noisy_runs, "add-interact", starts=50, exponent_bounds=(0.0, 1.0))
    assert (found.exponents >= 0).all() and (found.exponents <= 1).all()
    assert found.objective >= fit(noisy_runs, "add-interact", starts=50).objective


def test_a_fit_tells_how_it_went(noisy_runs):
    found = fit(noisy_runs, "add", starts=40)
    assert found.num_runs == noisy_runs.num_runs and found.num_starts == 40
    assert 0.2 < found.share_at_best <= 1
    assert found.gradient_norm < 1e-3
    assert found.status == "ok" and not found.unidentified and not found.warnings


def test_what_is_not_there_is_not_identified():
    design = scattered(2, 60)
    flat = replace(design, error=30 + 10 * (design.factors["lm_params"] / 1e9) ** -0.5)
    noisy = replace(flat, error=flat.error + 0.2 * np.random.default_rng(0).normal(size=60))
    verdicts = {verdict.param: verdict for verdict in fit(noisy, "add", starts=50).unidentified}
    # Nothing depends on the frames: their term is either switched off, or its exponent cannot be told from zero.
    assert {"a_num_frames", "alpha_num_frames"} & set(verdicts)
    assert not {"a_lm_params", "alpha_lm_params"} & set(verdicts)


@pytest.mark.parametrize(("change", "message"), [
    (lambda runs: replace(runs, factors={**runs.factors, "num_frames": np.full(60, 8.0)}), "num_frames.*one level"),
    (lambda runs: runs.select(np.arange(14)), "15 parameters.*14"),
    (lambda runs: replace(runs, error=np.r_[0.0, runs.error[1:]]), "run 1: error is 0"),
    (lambda runs: replace(runs, num_examples=np.r_[runs.num_examples[:-1], np.nan]), "run 60: num_examples is nan"),
])  # fmt: skip
def test_what_cannot_be_fitted_is_refused(change, message, noisy_runs):
    with pytest.raises(UserError, match=message):
        fit(change(noisy_runs), starts=2)
