"""From runs and a form to the arrays an engine works on, and back to parameters in the user's units.

Inside, columns are centred logs and the error is divided by its geometric mean, so that exponents and
coefficients are of order one whatever the units of the file were.
"""

from dataclasses import dataclass

import numpy as np

from vvlm_ray.scaling.forms import Form
from vvlm_ray.scaling.runs import Runs

# For predictions. Free exponents let a term become a step between two levels, which fits the noise at hand and wrecks
# extrapolation (docs/benchmarks-scaling.md). The bound was chosen on planted surfaces.
PREDICTION_BOUNDS = (-2.0, 2.0)
LARGEST_EXPONENT = 50.0  # beyond it a power of neighbouring levels is a step, and only overflow is left to gain
LARGEST_LOG_POWER = 300.0  # keeps x^e within double precision over any range of x


@dataclass(frozen=True)
class Objective:
    """What is minimised: the sum over runs of the squared residual, or of Huber's function of it.

    Residuals are log f - log error (log_space) or f - error; Huber: r^2/2 within delta, delta (|r| - delta/2)
    beyond. `exponent_bounds` limits every exponent.
    """

    loss: str = "mse"
    huber_delta: float = 1e-3
    log_space: bool = True
    exponent_bounds: tuple[float, float] | None = None

    @property
    def factor(self) -> float:
        """Engines minimise half the sum of squares."""
        return 2.0 if self.loss == "mse" else 1.0


@dataclass(frozen=True)
class Scaled:
    """Centred logs (C, R), target (R,), and what undoes the scaling."""

    form: Form
    log_columns: np.ndarray
    centre: np.ndarray
    log_error: np.ndarray
    log_scale: float
    lower: np.ndarray
    upper: np.ndarray
    objective: Objective

    @property
    def target(self) -> np.ndarray:
        return self.log_error if self.objective.log_space else np.exp(self.log_error)

    @property
    def huber_delta(self) -> float:
        """Delta in the units of the scaled residual."""
        if self.objective.loss == "mse":
            return np.inf
        return self.objective.huber_delta / (1.0 if self.objective.log_space else np.exp(self.log_scale))

    def report(self, loss: float) -> float:
        """The objective in the user's units."""
        scale = 1.0 if self.objective.log_space else np.exp(2 * self.log_scale)
        return float(loss * self.objective.factor * scale)

    def shift(self, exponents: np.ndarray) -> np.ndarray:
        """What centring adds to each log coefficient: (M, J) from exponents (M, E)."""
        form = self.form
        moved = np.zeros((len(exponents), len(form.terms)))
        for j, term in enumerate(form.terms):
            for index in term:
                atom = form.atoms[index]
                moved[:, j] += atom.sign * exponents[:, atom.exponent] * self.centre[atom.column]
        return moved - self.log_scale

    def to_user(self, thetas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log coefficients (-inf where switched off) and exponents in the user's units from thetas (M, P)."""
        terms = len(self.form.terms)
        logs, exponents = thetas[:, :terms], thetas[:, terms:]
        user = np.where(logs <= -1e299, -np.inf, logs - self.shift(exponents))
        return user, exponents.copy()

    def from_user(self, logs: np.ndarray, exponents: np.ndarray) -> np.ndarray:
        inside = np.where(np.isneginf(logs), -1e300, logs + self.shift(exponents))
        return np.concatenate([inside, exponents], axis=1)


def scale(runs: Runs, form: Form, objective: Objective) -> Scaled:
    """Centre the logs of the columns on the middle of their range and the log error on its mean."""
    logs = np.log(runs.inputs())
    centre = 0.5 * (logs.max(axis=1) + logs.min(axis=1))
    logs = logs - centre[:, None]
    log_scale = float(np.log(runs.error).mean())
    reach = np.full(len(form.exponents), 1e-12)
    for atom in form.atoms:
        reach[atom.exponent] = max(reach[atom.exponent], np.abs(logs[atom.column]).max())
    cap = np.minimum(LARGEST_EXPONENT, LARGEST_LOG_POWER / reach)
    low, high = objective.exponent_bounds or (-np.inf, np.inf)
    return Scaled(
        form, logs, centre, np.log(runs.error) - log_scale, log_scale,
        np.maximum(-cap, low), np.minimum(cap, high), objective,
    )  # fmt: skip
