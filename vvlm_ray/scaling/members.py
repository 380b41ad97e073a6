"""One member of the posterior: a mean (a super-form, or a line in the logs) with or without a Gaussian process.

y = f(theta_0) + J (theta - theta_0) + g + noise at the runs, theta ~ N(mean, sd^2), g ~ GP(0, K): with the form
linearised at its optimum everything is Gaussian, and the evidence is N(y; f_0 + J (mean - theta_0), J P J' + K + S).
Hyperparameters (noise, kernel) are at their maximum a posteriori; the evidence integrates over them by Laplace.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from vvlm_ray.scaling.grouping import Grouped
from vvlm_ray.scaling.kernels import Kernel
from vvlm_ray.scaling.superform import SuperForm, fit_form

NUM_FEATURES = 256
MOST_FOR_HYPER = 300  # configurations that hyperparameters and evidence are learnt from: their cost grows with the cube
MOST_FOR_START = 100  # of these, where the search for hyperparameters begins
POLISH = 12  # iterations on all of them
LOG_TWO_PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Line:
    """A straight line in the standardised logs: f = theta_0 + sum_k theta_k z_k."""

    mean: np.ndarray
    sd: np.ndarray

    def value(self, theta, z, *, jacobian=True):
        features = np.concatenate([np.ones((1, z.shape[1])), z])
        return theta @ features, np.broadcast_to(features, (len(theta), *features.shape))


def make_line(data: Grouped) -> Line:
    size = len(data.z)
    mean = np.concatenate([[data.level], np.full(size, -0.4 * data.spread)])
    return Line(mean, np.concatenate([[1.5 * data.spread], np.full(size, 0.8 * data.spread)]))


@dataclass(frozen=True)
class Member:
    """A fitted member: `theta` (P,) is where the trend is linearised, `hyper` the logs of noise and kernel parameters.

    `slope` (P, G) is J at the configurations, `residual` (G,) is y - (f_0 + J (mean - theta)), and `factor` the
    Cholesky factor of its covariance; `noise_variance` (G,) is what of it is not f, `run_variance` that of one run.
    """

    name: str
    trend: SuperForm | Line
    kernel: Kernel | None
    theta: np.ndarray
    hyper: np.ndarray
    log_evidence: float
    data: Grouped
    slope: np.ndarray
    residual: np.ndarray
    factor: tuple
    noise_variance: np.ndarray
    run_variance: float

    def at(self, u: np.ndarray, z: np.ndarray):
        """f(theta_0) (R,) and J (P, R)."""
        value, slope = self.trend.value(self.theta[None], z if isinstance(self.trend, Line) else u)
        return value[0], slope[0]

    def mean(self, u: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The posterior mean of f at points: (P,)."""
        base, slope = self.at(u, z)
        alpha = cho_solve(self.factor, self.residual)
        theta = self.trend.mean + self.trend.sd**2 * (self.slope @ alpha)
        value = base + (theta - self.theta) @ slope
        if self.kernel is not None:
            value = value + self.kernel.cross(self.kernel_params, z, self.data.z) @ alpha
        return value

    def covariance(self, left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Posterior covariance of f between points, each as (u (C, P), z (C, P)): (L, R)."""
        towards = self._prior_covariance(left, (self.data.u, self.data.z), self.slope)
        across = self._prior_covariance((self.data.u, self.data.z), right)
        return self._prior_covariance(left, right) - towards @ cho_solve(self.factor, across)

    def _prior_covariance(self, left, right, right_slope=None):
        slope = self.at(*right)[1] if right_slope is None else right_slope
        value = (self.at(*left)[1].T * self.trend.sd**2) @ slope
        if self.kernel is not None:
            value = value + self.kernel.cross(self.kernel_params, left[1], right[1])
        return value

    @property
    def kernel_params(self) -> np.ndarray:
        return self.hyper[self.data.num_noise :]

    def draw(self, count: int, rng: np.random.Generator) -> "Draws":
        """Joint samples of f by Matheron's rule: draw from the prior, correct by what the runs say."""
        data, trend = self.data, self.trend
        theta = trend.mean + trend.sd * rng.standard_normal((count, len(trend.mean)))
        missing = np.sqrt(self.noise_variance) * rng.standard_normal((count, len(data.y)))
        # residual is y - (f_0 + J (mean - theta_0))
        missing = self.residual - missing - (theta - trend.mean) @ self.slope
        frequency = phase = coefficients = None
        if self.kernel is not None:
            frequency, phase, amplitude = self.kernel.features(self.kernel_params, NUM_FEATURES, rng)
            coefficients = amplitude[:, None] * rng.standard_normal((NUM_FEATURES, count))
            missing = missing - (np.cos(frequency @ data.z + phase[:, None]).T @ coefficients).T
        delta = cho_solve(self.factor, missing.T)
        theta = theta + trend.sd**2 * (self.slope @ delta).T
        return Draws(self, theta, delta, frequency, phase, coefficients)


@dataclass(frozen=True)
class Draws:
    """Samples of a member: theta (S, P), correction (R, S), and for the process random features."""

    member: Member
    theta: np.ndarray
    delta: np.ndarray
    frequency: np.ndarray | None
    phase: np.ndarray | None
    coefficients: np.ndarray | None

    def at(self, u: np.ndarray, z: np.ndarray) -> np.ndarray:
        """f of the samples at points: (S, P)."""
        base, slope = self.member.at(u, z)
        value = base + (self.theta - self.member.theta) @ slope
        if self.frequency is not None:
            process = np.cos(self.frequency @ z + self.phase[:, None]).T @ self.coefficients
            kernel = self.member.kernel
            process += kernel.cross(self.member.kernel_params, z, self.member.data.z) @ self.delta
            value = value + process.T
        return value


class Evidence:
    """log N(residual; 0, J P J' + K + S) + log prior of the hyperparameters, and its gradient."""

    def __init__(self, data: Grouped, kernel: Kernel | None):
        self.data, self.kernel = data, kernel
        noise = np.log(0.13 * data.spread)
        mean, sd = [noise], [0.6]
        if data.freedom:
            mean, sd = [noise - 0.7, noise], [1.0, 1.0]
        self.starts = 1
        if kernel is not None:
            size = kernel.num_columns
            mean += [np.log(0.5) + 2 * np.log(data.spread / 3.1), *[0.7] * size]
            sd += [1.2, *[0.6] * size]
            if kernel.kind == "anova":
                mean += [np.log(0.5)] * size
                sd += [1.0] * size
        self.prior_mean, self.prior_sd = np.array(mean), np.array(sd)
        self.distances = np.abs(data.z[:, :, None] - data.z[:, None, :]) if kernel is not None else None

    def noise_variance(self, hyper: np.ndarray) -> np.ndarray:
        """known + tau^2 + sigma_w^2 / counts with repeated runs, else known + sigma^2 / counts: (G,)."""
        data = self.data
        if data.freedom:
            return data.known + np.exp(2 * hyper[0]) + np.exp(2 * hyper[1]) / data.counts
        return data.known + np.exp(2 * hyper[0]) / data.counts

    def run_variance(self, hyper: np.ndarray) -> float:
        """Of one run about f, on average: what is known of it, tau^2 and sigma_w^2."""
        return float((self.data.known * self.data.counts).mean() + np.exp(2 * hyper[: self.data.num_noise]).sum())

    def covariance(self, hyper: np.ndarray) -> np.ndarray:
        """K + S."""
        total = np.diag(self.noise_variance(hyper))
        if self.kernel is not None:
            total += self.kernel.cross(hyper[self.data.num_noise :], self.data.z, self.data.z)
        return total

    def negative(self, hyper: np.ndarray, trend_covariance: np.ndarray, residual: np.ndarray):
        """-(log likelihood + log prior) and its gradient."""
        data = self.data
        size = len(residual)
        total = trend_covariance + np.diag(self.noise_variance(hyper))
        slopes = None
        if self.kernel is not None:
            value, slopes = self.kernel.gradients(hyper[data.num_noise :], self.distances)
            total += value
        try:
            factor = cho_factor(total, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros(len(hyper))
        alpha = cho_solve(factor, residual, check_finite=False)
        inverse = cho_solve(factor, np.eye(size), check_finite=False)
        result = 0.5 * residual @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * size * LOG_TWO_PI
        middle = inverse - np.outer(alpha, alpha)
        diagonal = np.diag(middle)
        gradient = np.empty(len(hyper))
        gradient[0] = np.exp(2 * hyper[0]) * (diagonal.sum() if data.freedom else (diagonal / data.counts).sum())
        if data.freedom:
            variance = np.exp(2 * hyper[1])
            gradient[1] = variance * (diagonal / data.counts).sum()
            result += data.freedom * (hyper[1] + 0.5 * LOG_TWO_PI) + 0.5 * data.within / variance
            gradient[1] += data.freedom - data.within / variance
        if slopes is not None:
            gradient[data.num_noise :] = 0.5 * np.einsum("ij,kij->k", middle, slopes)
        off = (hyper - self.prior_mean) / self.prior_sd
        result += 0.5 * (off**2).sum() + np.log(self.prior_sd).sum() + 0.5 * len(hyper) * LOG_TWO_PI
        return float(result), gradient + off / self.prior_sd

    def maximise(self, trend_covariance, residual, start, iterations=60):
        """The best hyperparameters from several starts, and the log evidence with Laplace's volume."""
        best = None
        for begin in start:
            found = minimize(
                self.negative, begin, (trend_covariance, residual), jac=True, method="L-BFGS-B",
                bounds=list(zip(self.prior_mean - 5 * self.prior_sd, self.prior_mean + 5 * self.prior_sd, strict=True)),
                options={"maxiter": iterations, "ftol": 1e-7},
            )  # fmt: skip
            if best is None or found.fun < best.fun:
                best = found
        return best.x, best.fun

    def log_evidence(self, hyper, value, trend_covariance, residual) -> float:
        size = len(hyper)
        hessian = np.empty((size, size))
        here = self.negative(hyper, trend_covariance, residual)[1]
        for i in range(size):
            step = np.zeros(size)
            step[i] = 1e-4
            hessian[i] = (self.negative(hyper + step, trend_covariance, residual)[1] - here) / 1e-4
        eigen = np.linalg.eigvalsh(0.5 * (hessian + hessian.T))
        eigen = np.maximum(eigen, 0.25 / np.max(self.prior_sd) ** 2)
        return float(-value + 0.5 * size * LOG_TWO_PI - 0.5 * np.log(eigen).sum())


def fit_member(name: str, data: Grouped, trend: SuperForm | Line, kernel_kind: str | None, theta: np.ndarray) -> Member:
    """Hyperparameters, a refit of the trend under them, and the evidence; `theta` is where the trend is first."""
    kernel = Kernel(kernel_kind, len(data.z)) if kernel_kind else None
    few, some = _thinned(data, MOST_FOR_START), _thinned(data, MOST_FOR_HYPER)
    evidence = Evidence(some, kernel)
    starts = [evidence.prior_mean]
    if kernel is not None:
        second = evidence.prior_mean.copy()
        second[data.num_noise] -= 2.0
        starts.append(second)
    parts = linearise(trend, theta, some)
    if few is some:
        hyper, value = evidence.maximise(*parts[1:], starts)
    else:
        first, _ = Evidence(few, kernel).maximise(*linearise(trend, theta, few)[1:], starts)
        hyper, value = evidence.maximise(*parts[1:], [first], POLISH)
    if isinstance(trend, SuperForm):
        for _ in range(1 if kernel is not None else 2):
            whiten = np.linalg.inv(np.linalg.cholesky(evidence.covariance(hyper)))
            theta, _ = fit_form(trend, some.u, some.y, whiten, theta[None], iterations=20)
            parts = linearise(trend, theta, some)
            hyper, value = evidence.maximise(*parts[1:], [hyper], 60 if few is some else POLISH)
    log_evidence = evidence.log_evidence(hyper, value, *parts[1:])
    if some is not data:
        evidence, parts = Evidence(data, kernel), linearise(trend, theta, data)
        log_evidence *= len(data.y) / len(some.y)
    slope, covariance, residual = parts
    return Member(
        name=name,
        trend=trend,
        kernel=kernel,
        theta=theta,
        hyper=hyper,
        log_evidence=log_evidence,
        data=data,
        slope=slope,
        residual=residual,
        factor=cho_factor(_steady(covariance + evidence.covariance(hyper)), lower=True),
        noise_variance=evidence.noise_variance(hyper),
        run_variance=evidence.run_variance(hyper),
    )


def _steady(matrix: np.ndarray) -> np.ndarray:
    """The matrix with what rounding may take from its least eigenvalues added to the diagonal."""
    return matrix + 1e-12 * np.trace(matrix) * np.eye(len(matrix))


def _thinned(data: Grouped, most: int) -> Grouped:
    """At most so many configurations, always the same ones."""
    if len(data.y) <= most:
        return data
    return data.first(np.sort(np.random.default_rng(31).permutation(len(data.y))[:most]))


def linearise(trend: SuperForm | Line, theta: np.ndarray, data: Grouped):
    """J (P, G), J P J' (G, G) and y - (f_0 + J (mean - theta)) (G,) at the configurations."""
    value, slope = trend.value(theta[None], data.z if isinstance(trend, Line) else data.u)
    residual = data.y - value[0] - (trend.mean - theta) @ slope[0]
    return slope[0], (slope[0].T * trend.sd**2) @ slope[0], residual
