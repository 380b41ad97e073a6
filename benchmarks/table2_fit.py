"""Time of all of Table 2: four forms, cross-validation and star -> isoFLOP, bagged, for nine metrics.

python benchmarks/table2_fit.py
"""

import argparse
import json
import time

from planted_fit import paper_design

from vvlm_ray.scaling.bagging import fit_bag
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.forms import FORM_NAMES
from vvlm_ray.scaling.parallel import num_cores
from vvlm_ray.scaling.simulation import observe, plant
from vvlm_ray.scaling.validation import cross_validate, extrapolate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metrics", type=int, default=9)
    parser.add_argument("--resamples", type=int, default=100)
    options = parser.parse_args()
    design = paper_design()
    fit_bag(design.select(slice(0, 60)), "mult", resamples=1, starts=2)  # compile
    begun, cpu = time.time(), time.process_time()
    for metric in range(options.metrics):
        runs = observe(plant("add-interact", design, metric), design, 0.4, metric)
        row = {"metric": metric}
        for form in FORM_NAMES:
            known = cross_validate(runs, FitSettings(form), resamples=options.resamples)
            ahead = extrapolate(runs, runs.sweep == "star", FitSettings(form), resamples=options.resamples)
            row[form] = [round(value, 3) for s in (known, ahead) for value in (s.mse, s.error_percent, s.r2)]
        print(json.dumps(row), flush=True)
    print(json.dumps({"wall_s": time.time() - begun, "cpu_s": time.process_time() - cpu, "cores": num_cores()}))


if __name__ == "__main__":
    main()
