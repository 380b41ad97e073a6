"""Which form predicts runs that it has not seen: cross-validated MSE, E% and R^2 (Wang et al. 2025, Table 2).

python analysis/forms.py RECORDS
"""

import argparse

import vvlm_ray as vr

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("records", help="a study's folder, or a table with one row per run")
parser.add_argument("--resamples", type=int, default=20)
options = parser.parse_args()

runs = vr.Runs.read(options.records)
print(*runs.notes, sep="\n")
print(f"{'form':>16}  {'MSE':>8}  {'E%':>6}  {'R^2':>6}")
for form in ("auto", "mult", "add", "add-interact-s", "add-interact"):
    try:
        scores = vr.cross_validate(runs, form, resamples=options.resamples)
        print(f"{form:>16}  {scores.mse:8.3g}  {scores.error_percent:6.2f}  {scores.r2:6.2f}")
    except ValueError as problem:
        print(f"{form:>16}  {problem}")
