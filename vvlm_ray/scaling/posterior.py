"""The estimator `auto`: one posterior over surfaces f(x, n), from which mean, bands, gap and optima all come.

Eight members (three forms, each with and without a Gaussian process of what is left; two processes about a straight
line) are fitted to the runs and weighted by their evidence. Samples are whole functions, drawn from the members by
weight and spread about the mean by `INFLATION`. docs/uncertainty.md says how and how well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.answers import Answers
from vvlm_ray.scaling.grouping import Grouped, group_runs
from vvlm_ray.scaling.members import Draws, Member, fit_member, make_line
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Space
from vvlm_ray.scaling.superform import fit_form, make_forms

LABEL = "auto"
NUM_STARTS = 12
NUM_SAMPLES = 256
INFLATION = 1.15  # of samples about the mean: linearising and fixed hyperparameters leave bands too narrow
LEAST_RUNS, LEAST_CONFIGURATIONS = 8, 6
PATIENCE = 16.0  # nats of evidence by which the forms may fall behind before they lose most of their say
NEGLIGIBLE = 1e-4  # a member with less weight is not evaluated


@dataclass(frozen=True)
class Posterior(Answers):
    """f(x, n) as learnt from `runs`; a `Predictor`.

    `weights` (M,) of the members by evidence; `mean_weights` (M,) those of the point estimate, which averages the mean
    of all members with that of the three forms alone, as long as these do not fall far behind; `draws` hold the
    samples.
    """

    runs: Runs
    data: Grouped
    members: tuple[Member, ...]
    weights: np.ndarray
    mean_weights: np.ndarray
    draws: tuple[Draws, ...] = field(repr=False)
    seed: int = 0

    @property
    def label(self) -> str:
        return LABEL

    @property
    def has_data_size(self) -> bool:
        return self.runs.num_examples is not None

    @property
    def inflation(self) -> float:
        """What samples are spread by about their mean; more where fewer than 40 configurations set hyperparameters."""
        return INFLATION * (1 + max(0.0, (8 / len(self.data.y)) ** 2 - 0.04))

    @property
    def num_samples(self) -> int:
        return sum(len(draws.theta) for draws in self.draws)

    @property
    def noise(self) -> float:
        """Standard deviation of one run about f, in points, averaged over the members and the runs."""
        return float(np.sqrt(sum(w * m.run_variance for w, m in zip(self.weights, self.members, strict=True))))

    @property
    def warnings(self) -> list[str]:
        """What a user must know before believing it: sentences."""
        from vvlm_ray.scaling.verdict import design_doubts

        return design_doubts(self.runs)

    def predict(self, factors, num_examples=None) -> np.ndarray:
        """The point estimate by which configurations are chosen: (P,)."""
        means = self._means(self.columns(factors, num_examples))
        return _mix(self.mean_weights, means)

    def samples(self, factors, num_examples=None) -> np.ndarray:
        """Whole functions, the same in every call, centred on `predict`: (S, P)."""
        return self.evaluate(self.columns(factors, num_examples))[1]

    def evaluate(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`predict` (P,) and `samples` (S, P) at columns (C, P)."""
        means = self._means(columns)
        u, z = self.data.logs(columns)
        raw = np.concatenate([draws.at(u, z) for draws in self.draws])
        point = _mix(self.mean_weights, means)
        return point, point + self.inflation * (raw - _mix(self.weights, means))

    def _means(self, columns: np.ndarray) -> list[np.ndarray | None]:
        u, z = self.data.logs(columns)
        used = np.maximum(self.weights, self.mean_weights) > NEGLIGIBLE
        return [member.mean(u, z) if use else None for member, use in zip(self.members, used, strict=True)]

    def columns(self, factors, num_examples=None) -> np.ndarray:
        """Factors {name: (P,)} and the data size (scalar or (P,)) as columns (C, P)."""
        rows = [np.atleast_1d(np.asarray(factors[name], float)) for name in self.runs.factors]
        if self.has_data_size:
            if num_examples is None:
                raise UserError("the runs have a data size: give num_examples")
            rows.append(np.atleast_1d(np.asarray(num_examples, float)))
        columns = np.stack(np.broadcast_arrays(*rows))
        if not (np.isfinite(columns) & (columns > 0)).all():
            raise UserError("factors and num_examples must be positive numbers")
        return columns

    def prepare_search(self, points, sizes: np.ndarray):
        """The search over points {name: (P,)} sorted by cost (see `Predictor`)."""
        from vvlm_ray.scaling.posterior_search import prepare

        return prepare(self, points, sizes)

    def over(self, space: Space) -> "Posterior":
        """The same posterior with another space to choose from."""
        return replace(self, runs=self.runs.over(space))


def fit_posterior(runs: Runs, *, seed: int = 0, num_samples: int = NUM_SAMPLES) -> Posterior:
    """The posterior of f given the runs. Numbers depend on the runs and the seed only.

    Raises:
        UserError: fewer than 8 runs or too few configurations, or a column with one level.
    """
    _check(runs if runs.weights is None else runs.select(runs.weights > 0))
    data = group_runs(runs)
    rng = np.random.default_rng([seed, 29])
    members = fit_members(data, runs.num_examples is not None, rng)
    log_evidence = np.array([member.log_evidence for member in members])
    plain = np.array([member.kernel is None for member in members])
    weights = _normalised(log_evidence)
    share = 0.5 * np.exp((log_evidence[plain].max() - log_evidence.max()) / PATIENCE)
    mean_weights = (1 - share) * weights + share * _normalised(np.where(plain, log_evidence, -np.inf))
    counts = rng.multinomial(num_samples, weights)
    draws = tuple(member.draw(count, rng) for member, count in zip(members, counts, strict=True) if count)
    return Posterior(runs, data, tuple(members), weights, mean_weights, draws, seed)


def fit_members(data: Grouped, data_size: bool, rng: np.random.Generator) -> list[Member]:
    """The eight members."""
    members = []
    whiten = 1 / np.sqrt(data.known + (0.13 * data.spread) ** 2 / data.counts)
    for form in make_forms(len(data.u) - data_size, data_size, data.level, data.spread):
        starts = form.mean + form.sd * rng.standard_normal((NUM_STARTS, form.num_params))
        starts[0] = form.mean
        theta, _ = fit_form(form, data.u, data.y, whiten, starts)
        members.append(fit_member(form.name, data, form, None, theta))
        members.append(fit_member(f"{form.name} + process", data, form, "matern", theta))
    line = make_line(data)
    flat = np.zeros(len(line.mean))
    members.append(fit_member("line + process", data, line, "matern", flat))
    members.append(fit_member("line + anova", data, line, "anova", flat))
    return members


def _check(runs: Runs) -> None:
    for name, values in runs.columns().items():
        if name != "error" and len(values) and np.ptp(values) == 0:
            remedy = "leave out the data size" if name == "num_examples" else "leave it out of the factors"
            raise UserError(
                f"column {name!r} has one level only ({values[0]:g} in all {len(values)} runs): "
                f"its effect cannot be fitted; {remedy}, or add runs that vary it"
            )
    distinct = len(np.unique(runs.inputs(), axis=1).T)
    least = max(LEAST_CONFIGURATIONS, len(runs.inputs()) + 2)
    if runs.num_runs < LEAST_RUNS or distinct < least:
        raise UserError(
            f"{runs.num_runs} runs of {distinct} configurations are too few: auto needs at least {LEAST_RUNS} runs of "
            f"{least} configurations; add runs, or choose a small form (--form mult)"
        )


def _mix(weights: np.ndarray, values: Sequence[np.ndarray | None]) -> np.ndarray:
    return sum(weight * value for weight, value in zip(weights, values, strict=True) if value is not None)


def _normalised(log_weights: np.ndarray) -> np.ndarray:
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()
