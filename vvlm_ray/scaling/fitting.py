"""Fitting one form to runs: `fit` for all runs, `solve_weighted` for the resamples and folds built on it.

min over theta of sum_i (log f(x_i, n_i; theta) - log f_i)^2  (Wang et al. 2025, Eq. 7), or its variants.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.forms import Form, make_form
from vvlm_ray.scaling.identify import Verdict, find_unidentified
from vvlm_ray.scaling.problem import PREDICTION_BOUNDS, Objective, Scaled, scale
from vvlm_ray.scaling.runs import Runs, check_identifiable
from vvlm_ray.scaling.solvers import lbfgs

ENGINES = ("fast", "lbfgs")
SAME_OBJECTIVE = 1e-4  # relative distance below which two starts count as having reached the same objective
NUM_BASINS = 8


@dataclass(frozen=True)
class FitSettings:
    """How to fit what is to predict: exponents within +-2 unless `objective` says otherwise.

    `init="zeros"` is the ablation of Wang et al. 2025, Table 8: one start, all zeros.
    """

    form: str = "add-interact"
    engine: str = "fast"
    starts: int = 500
    seed: int = 0
    objective: Objective = field(default_factory=lambda: Objective(exponent_bounds=PREDICTION_BOUNDS))
    init: str = "random"

    def __post_init__(self):
        if self.engine not in ENGINES:
            raise UserError(f"unknown engine {self.engine!r}: choose one of {', '.join(ENGINES)}")
        if self.objective.loss not in {"mse", "huber"}:
            raise UserError(f"unknown loss {self.objective.loss!r}: choose mse or huber")
        if not self.objective.huber_delta > 0:
            raise UserError("huber_delta must be positive")
        if self.init not in {"random", "zeros"}:
            raise UserError(f"unknown init {self.init!r}: choose random or zeros")
        if self.starts < 1:
            raise UserError("starts must be at least 1")


@dataclass(frozen=True)
class Fit:
    """A fitted form, in the units of the runs.

    `objective` is the sum over runs (no mean) of the squared residual, or of Huber's function;
    `share_at_best` the share of the starts that were carried to the end and reached it (relative 1e-4);
    `gradient_norm` the largest derivative of the objective, relative to it, by a log coefficient or an exponent
    (times its log-range) that is free to move; `status` is "ok", "unidentified" or "not-converged".
    """

    form: Form
    settings: FitSettings
    log_coefficients: np.ndarray
    exponents: np.ndarray
    objective: float
    num_runs: int
    num_starts: int
    share_at_best: float
    gradient_norm: float
    status: str
    unidentified: tuple[Verdict, ...]
    basins: np.ndarray = field(repr=False)

    @property
    def params(self) -> dict[str, float]:
        """Coefficients and exponents by name, in the units of the runs."""
        with np.errstate(over="ignore"):
            values = np.concatenate([np.exp(self.log_coefficients), self.exponents])
        values = np.minimum(values, np.finfo(float).max)
        return dict(zip(self.form.param_names, values.tolist(), strict=True))

    def predict(self, factors, num_examples=None) -> np.ndarray:
        """f at points: factors {name: (P,)}, num_examples scalar or (P,); (P,)."""
        return self.form.predict(self.log_coefficients[None], self.exponents[None], factors, num_examples)[0]

    @property
    def warnings(self) -> list[str]:
        """What a user must know before believing the parameters."""
        sentences = [verdict.sentence for verdict in self.unidentified]
        if self.status == "not-converged":
            sentences.append(
                f"the best start has not converged (relative gradient {self.gradient_norm:.1e}): raise the starts"
            )
        return sentences


def fit(runs: Runs, form: str = "add-interact", *, engine="fast", starts=500, seed=0, loss="mse", huber_delta=1e-3,
        log_space=True, exponent_bounds=None, init="random") -> Fit:  # fmt: skip
    """Fit `form` to all runs from `starts` starts, none dropped; free exponents (Wang et al. 2025, Eq. 7, App. D.3).

    Raises UserError for runs that cannot be fitted: a factor with one level, fewer runs than parameters.
    """
    objective = Objective(loss, huber_delta, log_space, exponent_bounds)
    return fit_with(runs, FitSettings(form, engine, starts, seed, objective, init))


def fit_with(runs: Runs, settings: FitSettings, *, race: bool = False) -> Fit:
    """`fit` with its options in one object; `race` drops starts that cannot win."""
    form = form_of(runs, settings)
    check_identifiable(runs, form)
    weights = np.ones(runs.num_runs) if runs.weights is None else runs.weights
    scaled = scale(runs, form, settings.objective)
    rng = np.random.default_rng([settings.seed, 0])
    thetas, losses = solve_weighted(scaled, weights, rng, settings, race=race)
    best = thetas[0]
    gradient_norm, unidentified = find_unidentified(scaled, weights, best, losses[0])
    converged = gradient_norm < (1e-3 if settings.engine == "fast" else 1e-1)
    status = "not-converged" if not converged else "unidentified" if unidentified else "ok"
    logs, exponents = scaled.to_user(best[None])
    return Fit(
        form=form,
        settings=settings,
        log_coefficients=logs[0],
        exponents=exponents[0],
        objective=scaled.report(losses[0]),
        num_runs=runs.num_runs,
        num_starts=settings.starts if settings.init == "random" else 1,
        share_at_best=float(np.mean(losses <= losses[0] * (1 + SAME_OBJECTIVE) + 1e-20)),
        gradient_norm=gradient_norm,
        status=status,
        unidentified=unidentified,
        basins=_distinct(thetas, losses),
    )


def form_of(runs: Runs, settings: FitSettings) -> Form:
    return make_form(settings.form, tuple(runs.factors), runs.num_examples is not None)


def solve_weighted(scaled: Scaled, weights, rng, settings: FitSettings, *, race: bool, basins=None):
    """Thetas (left, P), best first, in the centred units of `scaled`, and their losses.

    `race` lets the fast engine drop starts that cannot win; `basins` are further starts (a parent fit's).
    """
    if settings.engine == "lbfgs":
        return _solve_lbfgs(scaled, weights, rng, settings)
    from vvlm_ray.scaling.solvers import search as engine

    if settings.init == "zeros":
        start = scaled.from_user(*paper_units(scaled).to_user(np.zeros((1, scaled.form.num_params))))
        return engine.solve(scaled, weights, np.empty((0, len(scaled.form.exponents))), start, engine.ONE)
    starts = rng.uniform(*lbfgs.EXPONENT_RANGE, (settings.starts, len(scaled.form.exponents)))
    extra = np.empty((0, scaled.form.num_params)) if basins is None else basins
    return engine.solve(scaled, weights, starts, extra, engine.RACE if race else engine.FULL)


def paper_units(scaled: Scaled) -> Scaled:
    """The same problem in billions of parameters, millions of examples and points: the units starts are drawn in.

    Other columns go by thousands until their middle is of order one to a few hundred.
    """
    units = 1000.0 ** np.floor(np.log10(np.exp(scaled.centre)) / 3 + 0.2)
    level = np.exp(scaled.log_scale)
    unit = 1.0 if 5 <= level <= 100 else level / 50
    return replace(
        scaled,
        log_columns=scaled.log_columns + (scaled.centre - np.log(units))[:, None],
        centre=np.log(units),
        log_error=scaled.log_error + scaled.log_scale - np.log(unit),
        log_scale=float(np.log(unit)),
    )


def _solve_lbfgs(scaled: Scaled, weights, rng, settings: FitSettings):
    paper = paper_units(scaled)
    if settings.init == "zeros":
        starts = np.zeros((1, scaled.form.num_params))
    else:
        starts = lbfgs.random_starts(rng, paper, settings.starts)
    thetas, losses = lbfgs.solve(paper, weights, starts)
    back = 1.0 if settings.objective.log_space else np.exp(2 * (paper.log_scale - scaled.log_scale))
    return scaled.from_user(*paper.to_user(thetas)), losses * back


def _distinct(thetas, losses) -> np.ndarray:
    """The best basins: thetas whose losses differ, best first; starts for the resamples."""
    chosen = [0]
    for index in range(1, len(losses)):
        if losses[index] > losses[chosen[-1]] * (1 + 1e-3) and len(chosen) < NUM_BASINS:
            chosen.append(index)
    return thetas[chosen]
