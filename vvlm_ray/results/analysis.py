"""From a study's records to its answer: what predicts, how far to believe it, the frontier and the elasticity.

`analyse` is the one way there for the report, for the answer at the end of a run and for the scripts in analysis/.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vvlm_ray.errors import UserError, did_you_mean
from vvlm_ray.results import cache
from vvlm_ray.results.source import Source, backbone_names, open_source, read_runs
from vvlm_ray.scaling.cost import Cost
from vvlm_ray.scaling.forms import AUTO, FORM_NAMES, make_form
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.problem import PREDICTION_BOUNDS
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.space import Space
from vvlm_ray.study.sections import Answer

if TYPE_CHECKING:
    from vvlm_ray.scaling.bagging import Bag
    from vvlm_ray.scaling.elasticity import Elasticity
    from vvlm_ray.scaling.fitting import FitSettings
    from vvlm_ray.scaling.frontier import Frontier
    from vvlm_ray.scaling.predictor import Predictor
    from vvlm_ray.scaling.validation import Scores
    from vvlm_ray.scaling.verdict import Verdict

BEST = "best"
COMPILING = "compiling the fits, once on this machine (about 15 s of CPU)"
NUM_CURVE_BUDGETS = 240
NUM_TABLE_BUDGETS = 8
Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


@dataclass(frozen=True)
class Settings:
    """How to fit: the form, resamples of the runs, starts of each fit, folds of the cross-validation, the bands.

    The form "auto" is the posterior over many (docs/uncertainty.md); "best" the one form that predicts runs left out
    with the least squared error in cross-validation.
    """

    form: str = AUTO
    resamples: int = 100
    starts: int = 500
    folds: int = 5
    seed: int = 0
    level: float = 0.9
    exponents: tuple[float, float] = PREDICTION_BOUNDS

    def __post_init__(self) -> None:
        if self.form not in {AUTO, BEST, *FORM_NAMES}:
            known = ", ".join((AUTO, BEST, *FORM_NAMES))
            raise UserError(
                f"unknown form {self.form!r}: choose one of {known}{did_you_mean(self.form, known.split(', '))}"
            )
        for name in ("resamples", "starts"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1")
        if self.folds < 2:
            raise UserError("folds must be at least 2")
        if self.seed < 0:
            raise UserError("the seed must not be negative")
        if not self.exponents[0] < self.exponents[1]:
            raise UserError(f"the exponents' bounds {self.exponents} must be numbers, the lower one first")

    @property
    def fit(self) -> "FitSettings":
        from vvlm_ray.scaling.fitting import FitSettings
        from vvlm_ray.scaling.problem import Objective

        objective = Objective(exponent_bounds=self.exponents)
        return FitSettings(self.form, starts=self.starts, seed=self.seed, objective=objective)


@dataclass(frozen=True)
class Analysis:
    """What the records say about one score.

    `predictor` is what answers: the posterior, or `bag` itself where a form was asked for; `bag` is that of the form,
    or add-interact's (or the largest that the runs allow) for comparison, and `compared` its frontier at the same
    budgets. `runs` has the factors that vary; `fixed` {factor: value} those that do not; `targets` (R,) the budget that
    a run's sweep aimed at, or NaN. `frontier` is at the budgets asked for, `curve` at many budgets for drawing;
    both are None where the cost of a configuration is unknown.
    `validation` is None where the runs are too few to be split; `elasticity` where it was not asked for or the
    data size does not vary. `names` {lm_params: backbone}. `read` says in one sentence
    what was read, `notes` are sentences that a reader must know.
    """

    name: str
    score: str
    settings: Settings
    runs: Runs
    targets: np.ndarray
    fixed: Mapping[str, float]
    predictor: "Predictor"
    bag: "Bag"
    verdict: "Verdict"
    validation: "Scores | None"
    num_examples: float | None
    frontier: "Frontier | None"
    curve: "Frontier | None"
    compared: "Frontier | None"
    elasticity: "Elasticity | None"
    names: Mapping[float, str]
    notes: tuple[str, ...]
    read: str = ""

    @property
    def swept_flops(self) -> np.ndarray:
        """c(x) of the runs: (R,)."""
        return self.runs.cost

    @property
    def space(self) -> Space:
        return self.runs.space

    @property
    def cost(self) -> Cost | None:
        return self.runs.space.cost


def analyse(source: Source | str | Path, score: str | None = None, *, settings: Settings | None = None,
            budgets=None, num_examples: float | None = None, with_elasticity: bool = False,
            map: Map | None = None, progress: Progress | None = None) -> Analysis:  # fmt: skip
    """Learn f from the runs of one score, say how well that predicts runs it has not seen, and find x*(c; n).

    Without settings, budgets (B,) in the cost's unit or a data size, those in `answer` of the study's sweep file are
    taken, else the method's, eight budgets over the swept costs, and the largest swept n. The bag and its
    validation are kept in the study's fits/ and reused while runs and settings are the same.

    Raises:
        UserError: the records cannot be read or fitted, or a budget buys nothing.
    """
    source = source if isinstance(source, Source) else open_source(source)
    score = score or source.scores()[0]
    settings = settings or settings_of(source.answer)
    observed = read_runs(source, score)
    runs, fixed, form, said = usable(observed.runs, FORM_NAMES[-1] if settings.form in {AUTO, BEST} else settings.form)
    notes = [*observed.notes, *said]
    answering = AUTO if settings.form == AUTO else form
    if settings.form == BEST:
        r2 = validated_forms(runs, settings, source.fits, score, map=map, progress=progress)
        answering = form = max(r2, key=r2.get, default=form)
        others = ", ".join(f"{name} {value:.2f}" for name, value in r2.items() if name != form)
        if form in r2:
            notes.append(f"of all forms {form} predicts runs left out best: R^2 = {r2[form]:.2f} ({others})")
    bag = bag_of(runs, replace(settings, form=form), source.fits, f"{score}.{form}", map=map, progress=progress)
    predictor: Predictor = bag
    if answering == AUTO:
        from vvlm_ray.scaling.posterior import fit_posterior

        try:
            predictor = fit_posterior(runs, seed=settings.seed)
        except UserError as problem:
            notes.append(f"{problem}; so {form} was fitted")
            answering = form
    settings = replace(settings, form=answering)
    validation, said = validated(runs, settings, source.fits, f"{score}.{answering}", map=map, progress=progress)
    notes += said
    size = None
    if runs.num_examples is not None:
        asked = source.answer.num_examples if source.answer else None
        size = float(num_examples if num_examples is not None else asked or runs.num_examples.max())
        if not (np.isfinite(size) and size >= 1):
            raise UserError(f"num_examples = {size:g}: it must be a number of examples of at least 1")
    elif num_examples is not None:
        notes.append(f"num_examples = {num_examples:g} was asked for and is not used: the fit has no data size")
    line = curve = compared = movement = None
    if runs.space.cost is None:
        notes.append("what a configuration of these factors costs is unknown, so there is no frontier: give its cost")
    else:
        if budgets is None and source.answer:
            budgets = source.answer.tflops
        line, curve = frontiers(predictor, budgets=budgets, num_examples=size, level=settings.level)
        if predictor is not bag:
            from vvlm_ray.scaling.frontier import frontier

            compared = frontier(bag, line.budgets, size, level=settings.level)
        if with_elasticity and size is not None:
            from vvlm_ray.scaling.elasticity import elasticity

            movement = elasticity(predictor, level=settings.level, map=map)
    return Analysis(
        name=source.name,
        score=score,
        settings=settings,
        runs=runs,
        targets=observed.targets,
        fixed=fixed,
        predictor=predictor,
        bag=bag,
        verdict=verdict_on(predictor, validation, line),
        validation=validation,
        num_examples=size,
        frontier=line,
        curve=curve,
        compared=compared,
        elasticity=movement,
        names=backbone_names(source),
        notes=tuple(notes),
        read=observed.read,
    )


def verdict_on(predictor: "Predictor", validation: "Scores | None", line: "Frontier | None") -> "Verdict":
    """How far to believe the answers at these budgets; runs at the very answers have their say."""
    from vvlm_ray.scaling.recommendation import measured_near
    from vvlm_ray.scaling.verdict import judge_fit

    measured = []
    if line is not None:
        for b in range(len(line.budgets)):
            near = measured_near(predictor, {name: float(values[b]) for name, values in line.factors.items()})
            measured += [run for run in near if run not in measured]
    return judge_fit(predictor, validation, lines=[line] if line is not None else [], measured=measured)


def settings_of(answer: Answer | None) -> Settings:
    """The method's settings, with the resamples and starts that the sweep file asks for."""
    return Settings(resamples=max(1, answer.resamples), starts=answer.starts) if answer else Settings()


def usable(runs: Runs, form: str) -> tuple[Runs, dict[str, float], str, list[str]]:
    """The part of the runs that can be fitted: factors and data size that vary, and the largest form they allow.

    Returns runs, {factor: its one value}, the form, and a sentence for each thing given up.
    """
    fixed = {name: float(values[0]) for name, values in runs.factors.items() if np.ptp(values) == 0}
    if len(fixed) == len(runs.factors):
        raise UserError("no factor varies over the finished runs: there is nothing to fit yet")
    notes = [f"{name} is {value:g} in every run, so its effect is unknown" for name, value in fixed.items()]
    sizes = runs.num_examples
    if sizes is not None and np.ptp(sizes) == 0:
        notes.append(f"num_examples is {sizes[0]:g} in every run, so everything here holds for that data size")
        sizes = None
    runs = runs.hold([*fixed, *(["num_examples"] if sizes is None else [])])
    distinct = len(np.unique(runs.inputs(), axis=1).T)
    fitting = [name for name in FORM_NAMES if _num_params(name, runs) <= distinct]
    if not fitting:
        raise UserError(
            f"{distinct} distinct runs have finished, and the smallest form has {_num_params('mult', runs)} "
            f"parameters: there is nothing to fit yet"
        )
    if form not in fitting:
        notes.append(
            f"{distinct} distinct runs are too few for the {_num_params(form, runs)} parameters of {form}, "
            f"so {fitting[-1]} was fitted"
        )
        form = fitting[-1]
    return runs, fixed, form, notes


def bag_of(runs: Runs, settings: Settings, fits: Path | None, name: str, *, map=None, progress=None) -> "Bag":
    """The bag of these runs, from fits/<name>.bag.json where it is there."""

    def make():
        from vvlm_ray.scaling.bagging import fit_bag_with
        from vvlm_ray.scaling.saved import bag_to_json

        def done(count):
            if progress:
                progress(f"fit {name}", count, settings.resamples)

        if progress and is_first_fit():
            progress(COMPILING, 0, 1)
        done(0)
        bag = fit_bag_with(runs, settings.fit, settings.resamples, map=map, progress=done)
        return bag_to_json(bag)

    meaning = cache.meaning_of(runs) | {
        "form": settings.form,
        "resamples": settings.resamples,
        "starts": settings.starts,
        "seed": settings.seed,
        "exponents": settings.exponents,
    }
    from vvlm_ray.scaling.saved import bag_from_json

    return bag_from_json(cache.remember(fits, f"{name}.bag", meaning, make), runs, settings.fit)


def is_first_fit() -> bool:
    """Whether the compiled code of the fits is still to be made on this machine."""
    from vvlm_ray.scaling.solvers import fast

    compiled = [value.stats.cache_path for value in vars(fast).values() if hasattr(value, "stats")]
    return not any(list(Path(path).glob("fast.*.nbi")) for path in compiled if path)


def validated(runs: Runs, settings: Settings, fits: Path | None, name: str, *, map=None, progress=None):
    """Cross-validated scores, or None and why; from fits/<name>.validation.json where they are there."""

    def make():
        from vvlm_ray.scaling.validation import cross_validate

        if progress:
            progress(f"cross-validate {name}", 0, 1)
        folds = min(settings.folds, runs.num_runs)
        try:
            scores = cross_validate(
                runs, settings.fit, resamples=settings.resamples, folds=folds, seed=settings.seed, map=map
            )
        except UserError as problem:
            return {"impossible": str(problem)}
        if progress:
            progress(f"cross-validate {name}", 1, 1)
        return cache.scores_to_json(scores)

    meaning = cache.meaning_of(runs) | asdict(settings)
    value = cache.remember(fits, f"{name}.validation", meaning, make)
    if "impossible" in value:
        return None, [f"the runs cannot be cross-validated: {value['impossible']}"]
    return cache.scores_from_json(value), []


def validated_forms(runs: Runs, settings: Settings, fits: Path | None, name: str, *, map=None, progress=None):
    """{form: cross-validated R^2} of the forms that these runs can validate; from fits/ where it is there."""
    found = {}
    for form in FORM_NAMES:
        scores, _ = validated(runs, replace(settings, form=form), fits, f"{name}.{form}", map=map,
                              progress=progress)  # fmt: skip
        if scores is not None:
            found[form] = scores.r2
    return found


def frontiers(predictor: "Predictor", *, budgets, num_examples: float | None, level: float):
    """The frontier at the budgets, and at many over these and all swept costs."""
    from vvlm_ray.scaling.frontier import frontier

    space = predictor.runs.space
    scale = space.known_cost().scale
    swept = predictor.runs.cost / scale
    low = max(swept.min(), space.grid().cost[0] / scale)
    if budgets is None:
        budgets = _round_up(np.geomspace(low, swept.max(), NUM_TABLE_BUDGETS))
    budgets = np.atleast_1d(np.asarray(budgets, float))
    line = frontier(predictor, budgets, num_examples, level=level)
    every = np.geomspace(min(low, budgets.min()), max(swept.max(), budgets.max()), NUM_CURVE_BUDGETS)
    every = np.unique(np.concatenate([every[1:], budgets, [min(low, budgets.min())]]))
    return line, frontier(predictor, every, num_examples, level=level)


def frontiers_at(analysis: Analysis, sizes) -> "list[Frontier]":
    """The frontier at the budgets of `curve`, for other data sizes."""
    from vvlm_ray.scaling.frontier import frontier

    budgets, level = analysis.curve.budgets, analysis.settings.level
    return [frontier(analysis.predictor, budgets, float(n), level=level) for n in sizes]


def _round_up(values: np.ndarray) -> np.ndarray:
    """To two digits, upwards, so that the first still buys what it was made for."""
    unit = 10.0 ** (np.floor(np.log10(values)) - 1)
    return np.unique(np.ceil(values / unit) * unit)


def _num_params(form: str, runs: Runs) -> int:
    return make_form(form, tuple(runs.factors), runs.num_examples is not None).num_params
