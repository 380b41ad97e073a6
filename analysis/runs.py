"""Every finished run beside what is predicted for it, worst miss first.

python analysis/runs.py RECORDS
"""

import argparse

import numpy as np

import vvlm_ray as vr

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("records", help="a study's folder, or a table with one row per run")
options = parser.parse_args()

runs = vr.Runs.read(options.records)
print(*runs.notes, sep="\n")
predictor = vr.fit(runs)
predicted = predictor.predict(runs.factors, runs.num_examples)
for i in np.argsort(-np.abs(predicted - runs.error)):
    x = ", ".join(f"{name}={values[i]:g}" for name, values in runs.columns().items() if name != "error")
    print(f"{runs.labels[i]:>20}  {x}  measured {runs.error[i]:.2f}  predicted {predicted[i]:.2f}")
