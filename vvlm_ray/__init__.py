"""Compute-optimal video vision language models: from runs to what to deploy.

import vvlm_ray as vr
space = vr.Space(cost=vr.cost(vision_params=0.43e9, vision_tokens=729))
runs = vr.Runs.read("records.csv", space=space)      # runs.notes says what was left out
bag = vr.fit(runs, "add-interact", resamples=100)    # or vr.fit(runs): the posterior over many forms
line = bag.frontier(budgets=[2, 5, 15], num_examples=1e6)
line.to_frame()
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vvlm_ray.public import (
        Bag as Bag,
    )
    from vvlm_ray.public import (
        Posterior as Posterior,
    )
    from vvlm_ray.public import (
        Runs as Runs,
    )
    from vvlm_ray.public import (
        Space as Space,
    )
    from vvlm_ray.public import (
        Study as Study,
    )
    from vvlm_ray.public import (
        analyse as analyse,
    )
    from vvlm_ray.public import (
        cost as cost,
    )
    from vvlm_ray.public import (
        cross_validate as cross_validate,
    )
    from vvlm_ray.public import (
        fit as fit,
    )
    from vvlm_ray.public import (
        ray_map as ray_map,
    )

__all__ = ["Bag", "Posterior", "Runs", "Space", "Study", "analyse", "cost", "cross_validate", "fit", "ray_map"]


def __getattr__(name: str):
    """The public names, imported when they are first used: `import vvlm_ray` itself costs nothing."""
    if name in __all__:
        return getattr(importlib.import_module("vvlm_ray.public"), name)
    raise AttributeError(f"module 'vvlm_ray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
