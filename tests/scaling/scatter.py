"""Small designs and surfaces shared by the scaling tests."""

import numpy as np

from vvlm_ray.scaling.runs import Runs

NAMES = ("lm_params", "num_frames", "tokens_per_frame", "resolution", "layers")
LEVELS = ((1e9, 2.8e9, 7.5e9), (2, 4, 8, 16, 32), (4, 16, 49, 100, 196), (224, 336, 448), (2, 3, 5, 8))


def scattered(num_factors: int, num_runs: int, *, data_size: bool = True, seed: int = 0) -> Runs:
    """Runs at random levels, with an error of 50 that is to be replaced."""
    rng = np.random.default_rng(seed)
    factors = {name: rng.choice(levels, num_runs) for name, levels in zip(NAMES, LEVELS, strict=True)}
    factors = {name: factors[name] for name in NAMES[:num_factors]}
    sizes = rng.choice([0.25e6, 0.5e6, 1e6, 2e6], num_runs) if data_size else None
    return Runs(factors, np.full(num_runs, 50.0), sizes)
