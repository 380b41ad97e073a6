"""Which parameters the data identify: zeros, exponents without effect, flat directions.

The judgement is local: with J the derivatives of the residuals by theta = (log coefficients, exponents) at the
optimum and s^2 the residual variance, the covariance is s^2 (J'J)^-1.
"""

from dataclasses import dataclass

import numpy as np

from vvlm_ray.scaling.problem import Scaled
from vvlm_ray.scaling.solvers import lbfgs

NEGLIGIBLE_SHARE = 1e-6  # a term that nowhere makes up more of f than this is not there
LOG_TEN = np.log(10.0)
NORMAL_90 = 1.645


@dataclass(frozen=True)
class Verdict:
    """A parameter that the data do not determine: kind is "zero", "no-effect", "bound" or "flat"."""

    param: str
    kind: str
    sentence: str


def find_unidentified(scaled: Scaled, weights, theta, loss) -> tuple[float, tuple[Verdict, ...]]:
    """The relative gradient norm over free parameters, and the verdicts."""
    form = scaled.form
    terms = len(form.terms)
    live, share = _shares(scaled, weights, theta)
    reach = _reach(scaled, weights)
    verdicts, fixed = [], np.zeros(form.num_params, bool)
    for j, name in enumerate(form.coefficients):
        if not live[j]:
            fixed[j] = True
            verdicts.append(
                Verdict(name, "zero", f"{name} is zero: the data show no such term, or would want it negative")
            )
    for e, name in enumerate(form.exponents):
        users = [j for j, term in enumerate(form.terms) if any(form.atoms[a].exponent == e for a in term)]
        k = terms + e
        if not any(live[j] for j in users):
            fixed[k] = True
            names = ", ".join(form.coefficients[j] for j in users)
            verdicts.append(Verdict(name, "no-effect", f"{name} has no effect, because {names} is zero"))
        elif not scaled.lower[e] < theta[k] < scaled.upper[e]:
            fixed[k] = True
            verdicts.append(
                Verdict(name, "bound", f"{name} ran into its bound {theta[k]:g}: the data set no limit to it")
            )
    point = (scaled, weights, theta, loss)
    gradient_norm = _gradient_norm(point, fixed, reach)
    verdicts += _flat(point, share, fixed, reach)
    return gradient_norm, tuple(verdicts)


def _shares(scaled, weights, theta):
    """Which terms are live, and p_ij (N, J) at theta."""
    rows = np.flatnonzero(weights > 0)
    design = scaled.form.design(np.exp(scaled.log_columns[:, rows]))
    exponent = design @ np.maximum(theta, -1e290)
    share = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return share.max(axis=0) > NEGLIGIBLE_SHARE, share


def _reach(scaled, weights):
    """Half the log-range an exponent multiplies; 1 for log coefficients."""
    logs = scaled.log_columns[:, np.flatnonzero(weights > 0)]
    reach = np.ones(scaled.form.num_params)
    for atom in scaled.form.atoms:
        reach[len(scaled.form.terms) + atom.exponent] = max(0.5 * np.ptp(logs[atom.column]), 1e-12)
    return reach


def _gradient_norm(point, fixed, reach):
    scaled, weights, theta, loss = point
    _, gradient = lbfgs.loss_and_gradient(scaled, weights)(np.maximum(theta, -1e290))
    gradient = np.where(fixed, 0.0, gradient / reach)
    return float(np.abs(gradient).max() / max(loss, 1e-20))


def _flat(point, share, fixed, reach):
    """Parameters whose 90 % interval spans more than a factor ten either way in the term they govern."""
    scaled, weights, _, loss = point
    form = scaled.form
    rows = np.flatnonzero(weights > 0)
    design = form.design(np.exp(scaled.log_columns[:, rows]))
    slope = np.einsum("ij,ijk->ik", share, design)
    if not scaled.objective.log_space:
        slope *= scaled.target[rows, None]
    free = np.flatnonzero(~fixed)
    jacobian = slope[:, free] / reach[free] * np.sqrt(weights[rows])[:, None]
    freedom = max(1.0, len(rows) - len(free))
    noise = np.sqrt(2.0 * loss / freedom)
    _, singular, basis = np.linalg.svd(jacobian, full_matrices=False)
    singular = np.maximum(singular, singular[0] * 1e-13)
    spread = NORMAL_90 * noise * np.sqrt(((basis.T / singular) ** 2).sum(axis=1))
    rank_loss = ((basis.T**2)[:, singular < singular[0] * 1e-9] > 1e-3).any(axis=1)
    verdicts = []
    for position, k in enumerate(free):
        if spread[position] <= LOG_TEN and not rank_loss[position]:
            continue
        name = form.param_names[k]
        if k < len(form.terms):
            text = f"{name} is flat: its 90 % interval reaches over a factor {_factor(spread[position])} either way"
        else:
            text = (
                f"{name} is flat: its 90 % interval is wider than +-{spread[position] / reach[k]:.2g}, so its power "
                f"is unknown by a factor of {_factor(spread[position])} across half the swept range"
            )
        verdicts.append(Verdict(name, "flat", text + "; other parameters make up for it"))
    return verdicts


def _factor(log_spread: float) -> str:
    return f"{np.exp(log_spread):.0f}" if log_spread < np.log(1000) else "1000 or more"
