"""Published scaling data as a standing benchmark: `auto` beside the laws on runs that were left out.

    python benchmarks/public_fits.py ../shared/data [FOLDER ...] [--factors N,T --error loss --data-size n]

Of each table: five-fold cross-validation by configuration, and fitting the smaller 70 % of each column to predict the
larger values. Known tables: finetune-rectified (Lin et al. 2024: loss of models of known size over n) and
llava-token-compression (Li et al. 2024: error over LM size and visual tokens). Other CSV files are read with --factors,
--error (or --score) and --data-size. One JSON line for each table and estimator; nothing is copied.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from real_data_fit import SIZES

from vvlm_ray.errors import UserError
from vvlm_ray.results.tables import Columns, read_table, runs_of
from vvlm_ray.scaling.fitting import FitSettings
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.validation import cross_validate, extrapolate, splits

FORMS = ("auto", "add-interact", "add", "mult")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--factors", help="of tables that are not known, comma-separated")
    parser.add_argument("--error")
    parser.add_argument("--score")
    parser.add_argument("--data-size")
    parser.add_argument("--resamples", type=int, default=40)
    options = parser.parse_args()
    for folder in options.folders:
        for path in sorted(folder.rglob("*.csv")):
            runs = runs_in(path, options)
            if runs is not None:
                judge(path, runs, options.resamples)


def runs_in(path: Path, options) -> Runs | None:
    """The runs of a table, None for one that is neither known nor has the named columns."""
    if path.parent.name == "finetune-rectified":
        return finetuned(path)
    if path.parent.name == "llava-token-compression":
        columns = Columns(("N_billion", "visual_tokens"), "none", error="avg_error")
    elif options.factors and (options.error or options.score):
        columns = Columns(tuple(options.factors.split(",")), options.data_size, options.score, options.error)
    else:
        return None
    try:
        return runs_of(read_table(path), path, columns)[0]
    except UserError as problem:
        print(json.dumps({"table": str(path), "left out": str(problem)}), flush=True)
        return None


def finetuned(path: Path) -> Runs:
    with open(path) as file:
        header, *rows = csv.reader(file)
    sizes = np.array([float(text) for text in header[2:]])  # without n = 0
    lm = np.repeat([SIZES[row[0]] for row in rows], len(sizes))
    loss = np.concatenate([[float(value) for value in row[2:]] for row in rows])
    return Runs({"lm_params": lm}, loss, np.tile(sizes, len(rows)))


def judge(path: Path, runs: Runs, resamples: int) -> None:
    for form in FORMS:
        settings = FitSettings(form)
        row: dict = {"table": path.stem, "form": form, "runs": runs.num_runs}
        row["cross-validation"] = tried(lambda s=settings: cross_validate(runs, s, resamples=resamples))
        for by in (*runs.factors, *(["num_examples"] if runs.num_examples is not None else [])):
            try:
                part = splits(runs, by)[0]
            except UserError:
                continue
            row[part.name] = tried(lambda s=settings, p=part: extrapolate(runs, p.train, s, resamples=resamples))
        print(json.dumps(row), flush=True)


def tried(make) -> dict | str:
    try:
        scores = make()
    except UserError as problem:
        return str(problem)
    return {
        "error_percent": round(scores.error_percent, 2), "r2": round(scores.r2, 3),
        "coverage_of_90_bands": round(scores.coverage, 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
