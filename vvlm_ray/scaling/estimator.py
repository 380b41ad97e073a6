"""From runs and settings to what answers: the one place that decides between the posterior and the paper's bag."""

from vvlm_ray.scaling.bagging import fit_bag_with
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.forms import AUTO
from vvlm_ray.scaling.parallel import Map
from vvlm_ray.scaling.predictor import Predictor
from vvlm_ray.scaling.runs import Runs


def fit_predictor(runs: Runs, settings: FitSettings, resamples: int = 100, *, map: Map | None = None, progress=None,
                  race: bool = False) -> Predictor:  # fmt: skip
    """The posterior where `settings.form` is "auto", else a bag of that form.

    Raises:
        UserError: runs that cannot be fitted: a column with one level, too few runs.
    """
    if settings.form != AUTO:
        return fit_bag_with(runs, settings, resamples, map=map, progress=progress, race=race)
    from vvlm_ray.scaling.posterior import fit_posterior

    found = fit_posterior(runs, seed=settings.seed)
    if progress:
        progress(resamples)
    return found
