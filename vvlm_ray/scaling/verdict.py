"""How far an answer may be believed: one verdict for a score, from what was measured of its fit.

Held-out error against the scatter of a run, coverage of held-out runs, identification, lack of fit, extrapolation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from vvlm_ray.scaling.grouping import lack_of_fit
from vvlm_ray.scaling.predictor import Predictor
from vvlm_ray.scaling.recommendation import Measured
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.validation import Scores

TRUST = "trust within the sweep"
DOUBT = "trust with doubt"
REFUSE = "do not use"
ORDER = (TRUST, DOUBT, REFUSE)

USELESS_R2, WEAK_R2 = 0.5, 0.8  # of runs left out
MUCH_MORE_THAN_NOISE = 2.5  # held-out error, in scatters of one run
FEW_RUNS = 16
NOMINAL = 0.9  # of the predictive bands
LEAST_COVERAGE = 0.5
UNLIKELY = 0.01
SAME_DIRECTION, NEARLY_SAME = 0.9999, 0.98  # correlations of the logs of two columns
FAR_COST, FAR_SIZE = 4.0, 10.0  # times the swept range: beyond, nothing that was measured speaks for the answer


@dataclass(frozen=True)
class Reason:
    """One finding: what it lets the verdict be at best, a key for JSON, and a sentence."""

    status: str
    kind: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """`status` is the worst of the reasons' (TRUST, DOUBT or REFUSE); `r2`, `rmse`, `coverage` of held-out runs."""

    status: str
    reasons: tuple[Reason, ...]
    r2: float | None
    rmse: float | None
    coverage: float | None
    scatter: float

    @property
    def sentence(self) -> str:
        """The verdict in one line, worst reasons first."""
        told = [reason.sentence for reason in self.reasons if reason.status == self.status]
        if self.status == TRUST:
            told = [reason.sentence for reason in self.reasons][:1]
        return f"{self.status[0].upper()}{self.status[1:]}" + (f": {'; '.join(told)}." if told else ".")

    def to_dict(self) -> dict:
        return {
            "status": self.status,
            "reasons": [{"status": r.status, "kind": r.kind, "sentence": r.sentence} for r in self.reasons],
            "held_out_r2": self.r2,
            "held_out_rmse": self.rmse,
            "held_out_coverage": self.coverage,
            "scatter_of_a_run": self.scatter,
        }


def judge_fit(
    predictor: Predictor, held_out: Scores | None = None, *, lines: Iterable = (), measured: Sequence[Measured] = ()
) -> Verdict:
    """The verdict on the answers of a predictor.

    `held_out` are the `Scores` of its cross-validation (None: it was impossible); `lines` the frontiers that are
    answered with; `measured` runs at the answer.
    """
    runs = predictor.runs
    scatter = predictor.noise
    reasons = [*_held_out(held_out, scatter), *_design(runs), *_lack_of_fit(predictor), *_extrapolation(runs, lines)]
    reasons += _measured(measured)
    status = ORDER[max((ORDER.index(reason.status) for reason in reasons), default=0)]
    reasons.sort(key=lambda reason: -ORDER.index(reason.status))
    coverage = None
    if held_out is not None and held_out.low is not None:
        coverage = held_out.coverage
    return Verdict(
        status=status,
        reasons=tuple(reasons),
        r2=held_out.r2 if held_out is not None else None,
        rmse=float(np.sqrt(held_out.mse)) if held_out is not None else None,
        coverage=coverage,
        scatter=scatter,
    )


def _held_out(scores: Scores | None, scatter: float) -> list[Reason]:
    if scores is None:
        return [Reason(DOUBT, "unvalidated", "the runs are too few to be left out in turn, so nothing checks the fit")]
    rmse, r2 = float(np.sqrt(scores.mse)), scores.r2
    missed = f"runs left out are missed by {rmse:.2g} (root mean square), where one run scatters by {scatter:.2g}"
    found = []
    if not np.isfinite(r2) or r2 < USELESS_R2:
        found.append(Reason(REFUSE, "held-out error", f"{missed}; that explains {_percent(r2)} of their variance"))
    elif r2 < WEAK_R2:
        found.append(Reason(DOUBT, "held-out error", f"{missed}; that explains {_percent(r2)} of their variance"))
    elif rmse > MUCH_MORE_THAN_NOISE * scatter:
        found.append(Reason(DOUBT, "held-out error", missed))
    else:
        found.append(Reason(TRUST, "held-out error", f"{missed}; R^2 = {r2:.2f}"))
    if scores.low is not None:
        count, inside = len(scores.observed), round(scores.coverage * len(scores.observed))
        text = f"{inside} of {count} runs left out lie in their {NOMINAL:.0%} bands"
        if scores.coverage < LEAST_COVERAGE and count >= FEW_RUNS:
            found.append(Reason(REFUSE, "held-out coverage", text))
        elif binom.cdf(inside, count, NOMINAL) < UNLIKELY:
            found.append(Reason(DOUBT, "held-out coverage", text))
        else:
            found.append(Reason(TRUST, "held-out coverage", text))
    return found


def _design(runs: Runs) -> list[Reason]:
    """What no estimator can tell from these runs, whatever it prints."""
    found = []
    distinct = int(runs.configurations.max()) + 1
    if distinct < FEW_RUNS:
        found.append(Reason(DOUBT, "few runs", f"{distinct} configurations are few: much of the answer is prior"))
    columns = runs.columns()
    del columns["error"]
    for name, values in columns.items():
        levels = len(np.unique(values))
        if levels == 2:
            what = (
                "its power law has three parameters" if name == "num_examples" else "a power law has three parameters"
            )
            found.append(
                Reason(
                    DOUBT,
                    "two levels",
                    f"{name} has two levels, and {what}: between and beyond them its effect is assumed",
                )
            )
    names = list(columns)
    logs = np.log(np.array([columns[name] for name in names]))
    correlation = np.corrcoef(logs) if len(names) > 1 and distinct > 2 else np.eye(len(names))
    for i in range(len(names)):
        for j in range(i):
            size = abs(correlation[i, j])
            if size > NEARLY_SAME:
                status = REFUSE if size > SAME_DIRECTION else DOUBT
                text = (
                    f"{names[j]} and {names[i]} vary together (correlation {correlation[i, j]:.3f}): their effects "
                    "cannot be told apart"
                )
                found.append(Reason(status, "collinear", text))
    return found


def design_doubts(runs: Runs) -> list[str]:
    """Sentences on what the design of the runs leaves undetermined."""
    return [reason.sentence for reason in _design(runs)]


def _lack_of_fit(predictor: Predictor) -> list[Reason]:
    runs = predictor.runs
    predicted = predictor.predict(runs.factors, runs.num_examples)
    num_params = getattr(getattr(predictor, "form", None), "num_params", None)
    if num_params is None:
        num_params = getattr(predictor, "effective_params", 0.0)
    test = lack_of_fit(runs, predicted, num_params)
    if test is None or test[1] >= UNLIKELY:
        return []
    text = (
        f"configurations deviate from the fit by {np.sqrt(test[0]):.1f} times what repeated runs scatter "
        f"(F test, p = {test[1]:.1g})"
    )
    return [Reason(DOUBT, "lack of fit", text)]


def _extrapolation(runs: Runs, lines: Iterable) -> list[Reason]:
    found: dict[str, Reason] = {}
    for line in lines:
        outside = np.flatnonzero(line.extrapolates)
        if not len(outside):
            continue
        what = sorted({text for b in outside for text in line.reasons[b]})
        every = len(outside) == len(line.extrapolates)
        told = (
            "the answer lies"
            if every and len(outside) == 1
            else f"{len(outside)} of {len(line.extrapolates)} answers lie"
        )
        found["some"] = Reason(DOUBT, "extrapolation", f"{told} outside what was swept ({', '.join(what)})")
        swept = runs.cost.max()
        if (line.raw_cost > FAR_COST * swept).all():
            found["far"] = Reason(
                REFUSE, "extrapolation", f"every answer costs more than {FAR_COST:g} times the dearest run"
            )
        sizes = runs.num_examples
        if sizes is not None and not sizes.min() / FAR_SIZE <= line.num_examples <= sizes.max() * FAR_SIZE:
            found["size"] = Reason(
                REFUSE, "extrapolation", f"num_examples is more than {FAR_SIZE:g} times outside the swept sizes"
            )
    return list(found.values())


def _measured(measured: Sequence[Measured]) -> list[Reason]:
    """A run at the very answer that lies far outside its predictive band contradicts the answer."""
    found = []
    for run in measured:
        if run.distance > 1e-9 or run.low <= run.error <= run.high:
            continue
        off = max(run.low - run.error, run.error - run.high)
        far = off > run.high - run.low
        text = (
            f"{run.label} measured this configuration at {run.error:.4g}, outside its band {run.low:.4g} to "
            f"{run.high:.4g}"
        )
        found.append(Reason(REFUSE if far else DOUBT, "measured", text))
    return found


def _percent(r2: float) -> str:
    return f"{max(r2, 0):.0%}" if np.isfinite(r2) else "none"
