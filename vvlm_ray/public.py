"""The public names of `vvlm_ray`, gathered from the rooms; `import vvlm_ray as vr` imports this when it is needed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vvlm_ray.results.analysis import Analysis, Settings, settings_of
from vvlm_ray.results.analysis import analyse as analyse_source
from vvlm_ray.results.columns import DEFAULT_FACTORS, Columns
from vvlm_ray.results.source import Choice, open_source, read_runs
from vvlm_ray.scaling import runs as scaling_runs
from vvlm_ray.scaling import validation
from vvlm_ray.scaling.bagging import Bag, fit_bag
from vvlm_ray.scaling.cost import Cost, cost
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.forms import AUTO
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.posterior import Posterior, fit_posterior
from vvlm_ray.scaling.space import Space

if TYPE_CHECKING:
    from vvlm_ray.orchestration.run import Outcome
    from vvlm_ray.planning.plan import Plan

__all__ = ["Bag", "Posterior", "Runs", "Space", "Study", "analyse", "cost", "cross_validate", "fit", "ray_map"]


class Runs(scaling_runs.Runs):
    __doc__ = scaling_runs.Runs.__doc__

    @classmethod
    def read(cls, records: str | Path, *, space: Space | None = None, score: str | None = None,
             error: str | None = None, factors: Sequence[str] | None = None, data_size: str | None = None,
             names: Mapping[str, str] | None = None,
             units: Mapping[str, float] | None = None) -> scaling_runs.Runs:  # fmt: skip
        """The finished runs of a study's folder or a table of results; `notes` say what was left out.

        `score` is a column on 0..100 (the error is 100 - score), `error` one that is taken as it is; `data_size` is
        the column of n, or "none"; `names` {ours: theirs} and `units` {ours: what one is} are --map and --unit.
        `space` replaces what the study says of levels and cost.

        Raises:
            UserError: no such file or column, or a row that cannot be used: it names row and column.
        """
        columns = Columns(tuple(factors or DEFAULT_FACTORS), data_size, score, error,
                          names=names or {}, units=units or {})  # fmt: skip
        source = open_source(records, columns)
        observed = read_runs(source, score or error or source.scores()[0])
        found = observed.runs if space is None else observed.runs.over(space)
        parts = {name: getattr(found, name) for name in found.__dataclass_fields__}
        return cls(**parts | {"notes": (observed.read, *observed.notes, *found.notes), "targets": observed.targets})


def fit(runs: scaling_runs.Runs, form: str = AUTO, *, resamples: int = 100, starts: int = 500, seed: int = 0,
        map: Map | None = None, progress: Callable[[int], None] | None = None,
        **options) -> Posterior | Bag:  # fmt: skip
    """What answers: the posterior over many forms ("auto"), or a bag of one form (Wang et al. 2025, App. D.4).

    `map` says where resamples are fitted: threads of this process by default, `ray_map()` for Ray tasks; the numbers
    are the same. `options` of a bag: engine, loss, huber_delta, log_space, exponent_bounds, init.

    Raises:
        UserError: runs that cannot be fitted: a column with one level, fewer configurations than parameters.
    """
    if form == AUTO:
        return fit_posterior(runs, seed=seed, **options)
    return fit_bag(runs, form, resamples=resamples, starts=starts, seed=seed, map=map, progress=progress, **options)


def cross_validate(runs: scaling_runs.Runs, form: str = AUTO, *, resamples: int = 100, starts: int = 500,
                   folds: int = 5, seed: int = 0, map: Map | None = None) -> validation.Scores:  # fmt: skip
    """How well runs that were left out are predicted: MSE, E% and R^2 over `folds` folds of configurations."""
    settings = FitSettings(form, starts=starts, seed=seed)
    return validation.cross_validate(runs, settings, resamples=resamples, folds=folds, seed=seed, map=map)


def analyse(records: str | Path, *, score: str | None = None, error: str | None = None,
            factors: Sequence[str] | None = None, data_size: str | None = None, form: str = AUTO,
            budgets: Sequence[float] | None = None, num_examples: float | None = None,
            grid: Mapping[str, Sequence[float]] | None = None, cost: Cost | None = None,
            resamples: int | None = None, starts: int | None = None, seed: int = 0, elasticity: bool = False,
            map: Map | None = None) -> "Answer":  # fmt: skip
    """What the records of a study (or a table) say about one score: the answer of `vvlm-ray frontier`, as an object.

    Budgets are in the cost's unit (TFLOPs for Eq. 1). What is not given is the study's own, else the method's.

    Raises:
        UserError: the records cannot be read or fitted, or a budget buys nothing.
    """
    from dataclasses import replace

    source = open_source(records, Columns(tuple(factors or DEFAULT_FACTORS), data_size, score, error),
                         Choice(levels=dict(grid or {})))  # fmt: skip
    if cost is not None:
        cost.check(source.columns.factors)
        source = replace(source, cost=cost)
    usual: Settings = settings_of(source.answer)
    settings = replace(usual, form=form, seed=seed, resamples=usual.resamples if resamples is None else resamples,
                       starts=usual.starts if starts is None else starts)  # fmt: skip
    found = analyse_source(source, settings=settings, budgets=budgets, num_examples=num_examples,
                           with_elasticity=elasticity, map=map)  # fmt: skip
    return Answer(**{name: getattr(found, name) for name in found.__dataclass_fields__})


class Answer(Analysis):
    """An `Analysis` that shows itself: as text, as JSON values, as a picture."""

    def text(self) -> str:
        """What `vvlm-ray frontier` prints."""
        from vvlm_ray.report.answer import sentences, summary

        return "\n".join([*summary(self), "", *sentences(self)])

    def to_json(self) -> dict:
        """What `vvlm-ray frontier --json` prints."""
        from vvlm_ray.results import shapes

        return shapes.plain(shapes.frontier(self))

    def draw(self, folder: str | Path) -> list[Path]:
        """frontier.png and .svg in the folder."""
        from vvlm_ray.report.figures import style
        from vvlm_ray.report.figures.frontier import draw_frontier

        return style.save(draw_frontier(self), Path(folder), "frontier")


class Study:
    """A sweep file: `Study.read("sweep.yaml")`, `.plan().problems`, `.run(storage="studies")`."""

    def __init__(self, sweep_file: str | Path):
        from vvlm_ray.study.sweep_file import load_sweep

        self.sweep_file = Path(sweep_file)
        self.config = load_sweep(self.sweep_file)

    @classmethod
    def read(cls, sweep_file: str | Path) -> "Study":
        """Raises UserError for an unknown key or a wrong value, with its line."""
        return cls(sweep_file)

    @property
    def name(self) -> str:
        return self.config.name

    def plan(self, storage: str | Path = "studies", slots: float | None = None) -> "Plan":
        """Trials, cost, schedule and problems; spends and writes nothing."""
        from vvlm_ray.data.fingerprints import fingerprinted
        from vvlm_ray.planning.plan import make_plan
        from vvlm_ray.study.folder import StudyFolder

        folder = StudyFolder(Path(storage) / self.name)
        study, _ = fingerprinted(self.config, self.sweep_file, folder, thorough=False)
        return make_plan(study, self.sweep_file, folder, slots)

    def run(
        self, storage: str | Path = "studies", *, address: str | None = None, slots: float | None = None
    ) -> "Outcome":
        """Start or resume the study on Ray. Raises UserError before anything is spent where the plan has problems."""
        from vvlm_ray.orchestration.run import run_study

        return run_study(self.sweep_file, Path(storage), address=address, num_slots=slots)


def ray_map(address: str | None = None) -> Map:
    """An executor over Ray for `map=`: on the cluster at `address`, a running one, or this machine."""
    from vvlm_ray.orchestration.ray_map import ray_map as over_ray

    return over_ray(address)
