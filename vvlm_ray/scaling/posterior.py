"""`auto`: one posterior over surfaces, from which every answer comes. See docs/uncertainty.md."""

from dataclasses import dataclass

import numpy as np

from vvlm_ray.scaling.members import Draws, Grouped, Member, fit_member, make_line
from vvlm_ray.scaling.superform import fit_form, make_forms

NUM_STARTS = 12
NUM_SAMPLES = 256
INFLATION = 1.2


@dataclass(frozen=True)
class Surfaces:
    """The fitted members over plain arrays: inputs (C, P) are positive, in the order of the columns of the runs."""

    centre: np.ndarray
    scale: np.ndarray
    members: tuple[Member, ...]
    weights: np.ndarray
    mean_weights: np.ndarray
    draws: tuple[Draws, ...]
    inflation: float

    def _logs(self, inputs):
        u = np.log(inputs) - self.centre[:, None]
        return u, u / self.scale[:, None]

    def mean(self, inputs: np.ndarray) -> np.ndarray:
        u, z = self._logs(inputs)
        return sum(w * m.mean(u, z) for w, m in zip(self.mean_weights, self.members, strict=True) if w > 1e-4)

    def samples(self, inputs: np.ndarray) -> np.ndarray:
        """(S, P), inflated about the mean of all members."""
        u, z = self._logs(inputs)
        found = np.concatenate([draws.at(u, z) for draws in self.draws])
        return self.inflate(found, u, z)

    def inflate(self, found, u, z):
        centre = sum(w * m.mean(u, z) for w, m in zip(self.weights, self.members, strict=True) if w > 1e-4)
        return centre + self.inflation * (found - centre)


def group_runs(inputs: np.ndarray, error: np.ndarray, standard_error: np.ndarray | None = None) -> tuple:
    """Runs (C, R) by configuration."""
    _, inverse = np.unique(np.round(np.log(inputs), 9), axis=1, return_inverse=True)
    inverse = inverse.ravel()
    counts = np.bincount(inverse).astype(float)
    first = np.array([np.flatnonzero(inverse == g)[0] for g in range(len(counts))])
    y = np.bincount(inverse, error) / counts
    within = float(((error - y[inverse]) ** 2).sum())
    freedom = int(len(error) - len(counts))
    known = np.zeros(len(counts))
    if standard_error is not None:
        known = np.bincount(inverse, np.asarray(standard_error, float) ** 2) / counts**2
    logs = np.log(inputs[:, first])
    centre, scale = logs.mean(axis=1), logs.std(axis=1)
    u = logs - centre[:, None]
    data = Grouped(u, u / scale[:, None], y, counts, within, freedom, known, float(y.mean()), float(y.std()))
    return data, centre, scale


def fit_surfaces(inputs, error, *, data_size: bool, standard_error=None, seed=0, num_samples=NUM_SAMPLES,
                 inflation=INFLATION) -> Surfaces:  # fmt: skip
    data, centre, scale = group_runs(inputs, error, standard_error)
    rng = np.random.default_rng([seed, 29])
    forms = make_forms(len(inputs) - data_size, data_size, data.level, data.spread)
    members = []
    whiten = 1 / np.sqrt(data.known + (0.13 * data.spread) ** 2)
    for form in forms:
        starts = form.mean + form.sd * rng.standard_normal((NUM_STARTS, form.num_params))
        starts[0] = form.mean
        theta, _ = fit_form(form, data.u, data.y, whiten, starts)
        members += [fit_member(form.name, data, form, None, theta), fit_member(f"{form.name} + process", data, form, "matern", theta)]
    line = make_line(data)
    members.append(fit_member("line + process", data, line, "matern", np.zeros(len(line.mean))))
    members.append(fit_member("line + anova", data, line, "anova", np.zeros(len(line.mean))))
    log_evidence = np.array([m.log_evidence for m in members])
    weights = _normalised(log_evidence)
    plain = np.array([m.kernel is None for m in members])
    mean_weights = 0.5 * weights + 0.5 * _normalised(np.where(plain, log_evidence, -np.inf))
    counts = rng.multinomial(num_samples, weights)
    draws = tuple(m.draw(c, rng) for m, c in zip(members, counts, strict=True) if c)
    return Surfaces(centre, scale, tuple(members), weights, mean_weights, draws, inflation)


def _normalised(log_weights):
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()
