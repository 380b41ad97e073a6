"""Time of the full elasticity of one metric: 300 budgets x 100 data sizes, bag of 100, 3 x 128 x 27 grid.

python benchmarks/elasticity.py
"""

import json
import time

import numpy as np
from planted_fit import paper_design

from vvlm_ray.scaling.bagging import fit_bag
from vvlm_ray.scaling.elasticity import elasticity
from vvlm_ray.scaling.parallel import num_cores
from vvlm_ray.scaling.simulation import observe, plant

# Table 10: what each ablation varies; the rest stays at 300 budgets, 100 sizes up to 10M, a step of 5M
ABLATIONS = {
    "num_budgets": (1, 10, 50, 100, 200, 300),
    "num_sizes": (1, 10, 20, 50, 100),
    "largest_size": (1e6, 2e6, 4e6, 6e6, 8e6, 10e6),
    "step": (0.1e6, 0.5e6, *np.arange(1e6, 10.5e6, 1e6)),
}


def main() -> None:
    design = paper_design()
    runs = observe(plant("add-interact", design, 0), design, 0.4, 0)
    bag = fit_bag(runs, resamples=100)
    elasticity(bag, sizes=[1e6], budgets=[5])  # compile
    wall, cpu = time.time(), time.process_time()
    found = elasticity(bag)
    print(json.dumps({
        "wall_s": time.time() - wall, "cpu_s": time.process_time() - cpu, "cores": num_cores(),
        "mean": found.mean, "low": found.low, "high": found.high, "share_extrapolated": found.share_extrapolated,
    }), flush=True)  # fmt: skip
    for what, values in ABLATIONS.items():
        for value in values:
            settings = {"num_budgets": 300, "num_sizes": 100, "largest_size": 10e6, "step": 5e6} | {what: value}
            sizes = np.linspace(1e6, settings["largest_size"], settings["num_sizes"])
            budgets = np.linspace(1, 100, settings["num_budgets"])
            found = elasticity(bag, budgets=budgets, sizes=sizes, step=settings["step"])
            print(json.dumps({what: float(value)} | {name: round(e, 3) for name, e in found.mean.items()}), flush=True)


if __name__ == "__main__":
    main()
