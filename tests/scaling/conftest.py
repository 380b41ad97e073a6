"""Fits shared by several tests: they are the slow part."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # designs.py

from scatter import scattered

from vvlm_ray.scaling.bagging import fit_bag
from vvlm_ray.scaling.simulation import observe, plant


@pytest.fixture(scope="session")
def noisy_runs():
    design = scattered(3, 60)
    return observe(plant("add-interact", design, seed=3), design, noise=0.4, seed=3)


@pytest.fixture(scope="session")
def noisy_bag(noisy_runs):
    return fit_bag(noisy_runs, "add-interact", resamples=20, starts=100)
