"""Planted truth over the paper's 88 runs: regret of the frontier, coverage of its bands; surfaces that fit and do not.

    python benchmarks/planted_fit.py

Noise 0.4 points; frontier at n = 2M over 2 to 30 TFLOPs (the swept budgets); bag of 100 resamples x 500 starts.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from vvlm_ray.scaling.bagging import fit_bag
from vvlm_ray.scaling.frontier import frontier
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import judge, observe, plant, plant_misfit
from vvlm_ray.study.points import distinct_points
from vvlm_ray.study.sweep_file import load_sweep

PAPER = Path(__file__).parents[1] / "sweeps" / "paper.yaml"
BUDGETS = np.linspace(2, 30, 57)  # TFLOPs


def paper_design() -> Runs:
    """The 88 runs of Table 6, with an error of 50 that is to be replaced."""
    points = distinct_points(load_sweep(PAPER))
    names = ("lm_params", "num_frames", "tokens_per_frame")
    factors = {name: np.array([dict(point.factors)[name] for point in points]) for name in names}
    sweep = np.array([point.sweep for point in points])
    return Runs(factors, np.full(len(points), 50.0), np.array([point.num_examples for point in points]), sweep=sweep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--surfaces", type=int, default=80)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.4)
    parser.add_argument("--num-examples", type=float, default=2e6)
    parser.add_argument("--forms", default="add-interact", help="fitted forms, comma-separated")
    options = parser.parse_args()
    design = paper_design()
    for form in options.forms.split(","):
        for kind in ("representable", "misfit"):
            regrets, covered, widths, fit_error = [], [], [], []
            for seed in range(options.surfaces):
                surface = plant("add-interact", design, seed) if kind == "representable" else plant_misfit(design, seed)
                runs = observe(surface, design, options.noise, seed)
                bag = fit_bag(runs, form, resamples=options.resamples)
                line = frontier(bag, BUDGETS, num_examples=options.num_examples)
                verdict = judge(surface, line)
                regrets.append(verdict.regret.mean())
                covered.append(verdict.covered.mean())
                widths.append(np.median(line.high - line.low))
                fit_error.append(np.sqrt(np.mean((bag.fit.predict(runs.factors, runs.num_examples) - runs.error) ** 2)))
            result = {
                "fitted": form,
                "surfaces": kind,
                "count": options.surfaces,
                "mean_regret_points": float(np.mean(regrets)),
                "worst_surface_regret": float(np.max(regrets)),
                "coverage_of_90_band": float(np.mean(covered)),
                "worst_surface_coverage": float(np.min(covered)),
                "median_band_width_points": float(np.median(widths)),
                "rms_residual_points": float(np.mean(fit_error)),
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
