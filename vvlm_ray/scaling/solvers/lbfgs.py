"""The reference engine: scipy's L-BFGS-B from every start, one at a time, as Wang et al. 2025, App. D.3.

Coefficients start at U(0, 30) and exponents at U(-1, 1), in billions of parameters and millions of examples.
"""

import numpy as np
from scipy.optimize import minimize

from vvlm_ray.scaling.problem import Scaled

COEFFICIENT_RANGE = (0.0, 30.0)
EXPONENT_RANGE = (-1.0, 1.0)
# scipy's defaults. Both are absolute for objectives below 1, so they stop the earlier the smaller the objective's unit:
# docs/benchmarks-scaling.md has how far above the optimum.
SCIPY_FTOL, SCIPY_GTOL = 2.220446049250313e-09, 1e-5


def random_starts(rng: np.random.Generator, scaled: Scaled, count: int) -> np.ndarray:
    """Starts as in the paper: (count, P)."""
    terms, exponents = len(scaled.form.terms), len(scaled.form.exponents)
    coefficients = np.log(rng.uniform(*COEFFICIENT_RANGE, (count, terms)))
    return np.concatenate([coefficients, rng.uniform(*EXPONENT_RANGE, (count, exponents))], axis=1)


def solve(scaled: Scaled, weights: np.ndarray, starts: np.ndarray, *, ftol=SCIPY_FTOL, gtol=SCIPY_GTOL):
    """Minimise from each of starts (S, P): thetas (S, P) best first, losses (S,)."""
    function = loss_and_gradient(scaled, weights)
    terms = len(scaled.form.terms)
    bounds = [(None, None)] * terms + list(zip(scaled.lower, scaled.upper, strict=True))
    options = {"maxiter": 15_000, "maxfun": 10**6, "ftol": ftol, "gtol": gtol}
    thetas, losses = np.empty_like(starts), np.empty(len(starts))
    starts = np.concatenate([starts[:, :terms], np.clip(starts[:, terms:], scaled.lower, scaled.upper)], axis=1)
    for s, start in enumerate(starts):
        result = minimize(function, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        thetas[s], losses[s] = result.x, result.fun
    order = np.argsort(losses, kind="stable")
    return thetas[order], losses[order]


def loss_and_gradient(scaled: Scaled, weights: np.ndarray):
    """theta -> (half the weighted sum of squares or Huber's sum, its gradient)."""
    rows = np.flatnonzero(weights > 0)
    design = scaled.form.design(np.exp(scaled.log_columns[:, rows]))
    num_runs, num_terms, _ = design.shape
    flat = np.ascontiguousarray(design.reshape(num_runs * num_terms, -1))
    target, weight, delta = scaled.target[rows], weights[rows], scaled.huber_delta
    log_space = scaled.objective.log_space

    def function(theta):
        exponent = (flat @ theta).reshape(num_runs, num_terms)
        top = exponent.max(axis=1)
        share = np.exp(exponent - top[:, None])
        total = share.sum(axis=1)
        log_value = top + np.log(total)
        share /= total[:, None]
        value = log_value if log_space else np.exp(np.minimum(log_value, 300.0))
        residual = value - target
        size = np.abs(residual)
        inside = size <= delta
        loss = np.where(inside, 0.5 * residual**2, delta * size - 0.5 * delta**2 if np.isfinite(delta) else 0.0)
        force = weight * np.clip(residual, -delta, delta)
        if not log_space:
            force = force * value
        return float(weight @ loss), (force[:, None] * share).ravel() @ flat

    return function
