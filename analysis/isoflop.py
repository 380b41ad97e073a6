"""The best run and the best prediction at each target budget of the isoFLOP runs (Wang et al. 2025, Fig. 2).

python analysis/isoflop.py RECORDS
"""

import argparse

import numpy as np

import vvlm_ray as vr

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("records", help="a study's folder, or a table with one row per run")
options = parser.parse_args()

runs = vr.Runs.read(options.records)
predictor, scale = vr.fit(runs), runs.space.known_cost().scale
targets = runs.targets if np.isfinite(runs.targets).any() else 10 ** np.round(np.log10(runs.cost), 1)
for target in np.unique(targets[np.isfinite(targets)]):
    here = np.flatnonzero(targets == target)
    best = here[np.argmin(runs.error[here])]
    measured = ", ".join(f"{name}={values[best]:g}" for name, values in runs.factors.items())
    size = float(runs.num_examples[best]) if predictor.has_data_size else None
    line = predictor.frontier([max(target, runs.cost[best]) / scale], size)
    predicted = ", ".join(f"{name}={values[0]:g}" for name, values in line.factors.items())
    print(f"{runs.space.cost.text(target)}: measured best {measured} ({runs.error[best]:.2f}); "
          f"predicted {predicted} ({line.error[0]:.2f})")  # fmt: skip
