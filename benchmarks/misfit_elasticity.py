"""Elasticities where no law fits: bias and coverage of `auto` on planted surfaces outside add-interact.

    python benchmarks/misfit_elasticity.py [--surfaces 5]

The paper's 88 runs, noise of 0.4 points; e_k with dn = 5M, over 15 budgets of 2-30 TFLOPs and 4 data sizes of 1-2M;
true values by brute force over the grid. `within`: share of point estimates inside their own bands.
"""

import argparse

import numpy as np
from misfit_surfaces import BATTERY, SHAPES, make_case
from planted_fit import paper_design

from vvlm_ray.scaling.elasticity import elasticity
from vvlm_ray.scaling.posterior import fit_posterior
from vvlm_ray.scaling.predictor import first_minimum

BUDGETS, SIZES, STEP = np.linspace(2, 30, 15), np.linspace(1e6, 2e6, 4), 5e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=int, default=5, help="of each kind")
    options = parser.parse_args()
    design = paper_design()
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in design.factors}
    for seed in range(options.surfaces):
        for kind in (*BATTERY, *SHAPES):
            case = make_case(kind, design, seed)
            result = elasticity(fit_posterior(case.runs), BUDGETS, SIZES, step=STEP)
            for name, true in truth(case.surface, design).items():
                found[name].append((true, result.mean[name], result.low[name], result.high[name]))
    for name, rows in found.items():
        true, point, low, high = np.array(rows).T
        print(
            f"e of {name}: {len(rows)} surfaces, bias {np.mean(point - true):+.3f}, coverage "
            f"{np.mean((low <= true) & (true <= high)):.0%}, within {np.mean((low <= point) & (point <= high)):.0%}"
        )


def truth(surface, design) -> dict[str, float]:
    """e_k of the surface itself."""
    grid = design.space.grid().up_to(BUDGETS.max() * 1e12)
    ends = grid.count(BUDGETS * 1e12)
    best = {n: first_minimum(surface(grid.points, n)[None], ends)[0] for n in (*SIZES, *(SIZES + STEP))}
    return {
        name: float(np.mean([((values[best[n + STEP]] / values[best[n]]).mean() - 1) / STEP * n for n in SIZES]))
        for name, values in grid.points.items()
    }


if __name__ == "__main__":
    main()
