"""What the quickstart must show, read from its records: do the scores depend on the factors, and do two runs agree?

    python benchmarks/quickstart.py studies/quickstart [another run's studies/quickstart]

For each arm of the star: the mean error (100 - score) at each level over all data sizes, and the rank correlation of
level and mean error. Then the lowest score of any trial beside chance, the cross-validated R^2 of the fit, and, with a
second study, the largest difference between the two runs' scores, trial by trial.
"""

import sys
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from vvlm_ray.results.analysis import analyse

CHANCE = 12.5
ARMS = ("lm_params", "num_frames", "tokens_per_frame")


def main(first: Path, second: Path | None) -> None:
    records = pd.read_csv(first / "records.csv")
    records["error"] = 100 - records["avg"]
    star = records[records["sweep"] == "star"]
    centre = star[list(ARMS)].mode().iloc[0]
    arms = {
        factor: star[(star[[f for f in ARMS if f != factor]] == centre.drop(factor)).all(axis=1)] for factor in ARMS
    }
    arms["num_examples"] = star
    for factor, runs in arms.items():
        means = runs.groupby(factor)["error"].mean()
        levels = ", ".join(f"{level:g}: {error:.1f}" for level, error in means.items())
        print(f"{factor:17} rank correlation {spearmanr(means.index, means).statistic:+.2f}   mean error at {levels}")
    print(f"lowest score of {len(records)} trials: {records['avg'].min():.1f} (chance {CHANCE})")
    print(f"cross-validated R^2 of add-interact: {analyse(first).validation.r2:.2f}")
    if second:
        other = pd.read_csv(second / "records.csv").set_index("trial_id")
        difference = (records.set_index("trial_id")["avg"] - other["avg"]).abs().dropna()
        print(f"two runs: {len(difference)} trials, largest difference of a score {difference.max():.2g} points")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
