"""Study folders with planted records: the quickstart's and other designs, a known error surface, no training."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from vvlm_ray.study.records import Scores, finished_record, row_of
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
# A design of its own, so that tests do not depend on the levels of the day.
SIZES = {"small": 3_424, "medium": 24_736, "large": 98_368}
COST = {"vision_params": 3_140, "vision_tokens": 64}
SWEEPS = [
    {
        "kind": "star",
        "centre": {"lm_params": 98_368, "num_frames": 8, "tokens_per_frame": 16},
        "levels": {"lm_params": list(SIZES.values()), "num_frames": [1, 2, 4, 8], "tokens_per_frame": [1, 4, 9, 16]},
        "num_examples": [150, 400, 1200],
    },
    {
        "kind": "isoflop",
        "num_examples": [1200],
        "curves": [
            {"tflops": 2.4e-6, "points": [[98_368, 2, 4], [24_736, 4, 4], [24_736, 2, 16], [3_424, 5, 9]]},
            {"tflops": 4.8e-6, "points": [[98_368, 4, 4], [98_368, 2, 9], [24_736, 4, 16], [24_736, 8, 4]]},
            {"tflops": 9.5e-6, "points": [[98_368, 8, 4], [98_368, 4, 9], [24_736, 8, 16]]},
        ],
    },
]
GRID = {
    "lm_params": list(SIZES.values()),
    "num_frames": list(range(1, 17)),
    "tokens_per_frame": [1, 4, 9, 16, 25, 36, 49, 64],
}
ANSWER = {"tflops": [2.4e-6, 4.8e-6, 9.5e-6], "resamples": 8, "starts": 24}


def surface(lm_params, num_frames, tokens_per_frame, num_examples):
    """Error in points, 20 to 80 over the quickstart's design."""
    x_n, x_t, x_v, n = lm_params / 1e3, num_frames, tokens_per_frame, num_examples / 1e3
    return 5 + 16 * x_n**-0.35 + 14 * x_t**-0.9 + 26 * x_v**-0.7 + (8 + 3 * x_n**0.15 + 2.5 * x_t**0.3) * n**-0.5


def planted_records(study, tasks=("synthetic",), noise=0.4, seed=0) -> pd.DataFrame:
    """One finished record a trial, as a row; tasks differ by a constant, `avg` is their mean."""
    rng = np.random.default_rng(seed)
    rows = []
    for trial in expand(study):
        error = surface(*trial.factors.values(), trial.num_examples)
        scores = {task: 100 - 4 * k - error + rng.normal(0, noise) for k, task in enumerate(tasks)}
        found = Scores(scores, standard_errors={}, subtasks={})
        rows.append(row_of(finished_record(trial, found, meaning={}, details={"seconds": 9.0, "device": "cpu"})))
    return pd.DataFrame(rows)


def write_study(folder: Path, change=lambda sweep: None, tasks=("synthetic",), edit=lambda frame: frame) -> Path:
    """The quickstart's folder as a run leaves it; `change` edits the sweep file, `edit` the records."""
    folder.mkdir(parents=True)
    sweep = yaml.safe_load(QUICKSTART.read_text())
    for name, size in SIZES.items():
        sweep["backbones"][name]["lm_params"] = size
    sweep |= {"cost": COST, "sweeps": SWEEPS, "grid": GRID, "answer": ANSWER}
    change(sweep)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    edit(planted_records(load_sweep(folder / "sweep.yaml"), tasks)).to_csv(folder / "records.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Path:
    """The quickstart's study, to be read only; its fits/ fill as tests ask for them."""
    return write_study(tmp_path_factory.mktemp("planted") / "quickstart")


@pytest.fixture
def planted_copy(planted, tmp_path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(planted, tmp_path / "quickstart")


@pytest.fixture(scope="session")
def analysis(planted):
    from vvlm_ray.results.analysis import analyse

    return analyse(planted, with_elasticity=True)


@pytest.fixture(scope="session")
def new_study(tmp_path_factory):
    """write_study in a folder of its own."""

    def make(name="study", **options):
        return write_study(tmp_path_factory.mktemp("studies") / name, **options)

    return make
