"""predict, validate, next and limits on a plain table: numbers that agree with the maths, doubts, plain refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from vvlm_ray.cli import main
from vvlm_ray.scaling.posterior import fit_posterior
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import observe, plant


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    factors = {
        "lm_params": rng.choice([1e9, 2.8e9, 7.5e9], 40),
        "num_frames": rng.choice([2.0, 4, 8, 16, 32], 40),
        "tokens_per_frame": rng.choice([4.0, 16, 49, 100, 196], 40),
    }
    design = Runs(factors, np.full(40, 50.0), rng.choice([0.25e6, 0.5e6, 1e6], 40))
    design = design.select(np.unique(design.inputs(), axis=1, return_index=True)[1])
    return observe(plant("add-interact", design, 1), design, 0.3, 1)


@pytest.fixture(scope="module")
def table(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "records.csv"
    frame = pd.DataFrame(dict(runs.factors) | {"num_examples": runs.num_examples, "avg": 100 - runs.error})
    frame.to_csv(path, index=False)
    return str(path)


def called(*arguments):
    done = CliRunner().invoke(main, list(arguments))
    return done, json.loads(done.stdout) if done.exit_code == 0 else None


def test_predict_is_the_posterior_and_tells_its_doubts(runs, table):
    where = "lm_params=7.5e9,num_frames=100,tokens_per_frame=100"
    done, found = called("predict", table, "--at", where, "--num-examples", "1e6", "--json")
    assert done.exit_code == 0, done.output
    (point,) = found["points"]
    factors = {"lm_params": [7.5e9], "num_frames": [100], "tokens_per_frame": [100]}
    assert point["error"] == pytest.approx(fit_posterior(runs).predict(factors, 1e6)[0], abs=0.02)
    assert point["run_low"] < point["low"] <= point["error"] <= point["high"] < point["run_high"]
    assert point["extrapolates"] and "num_frames above the swept range" in point["reasons"]
    assert found["verdict"]["status"] and found["form"] == "auto"
    for wrong in ("lm_params=7.5e9", "lm_params=big,num_frames=1,tokens_per_frame=1", where + ",depth=3"):
        done, _ = called("predict", table, "--at", wrong)
        assert done.exit_code == 2 and "--at" in done.output


def test_validate_names_its_splits(table):
    done, found = called("validate", table, "--by", "cost,num_examples", "--json")
    assert done.exit_code == 0, done.output
    assert len(found["splits"]) == 2
    assert all(split["r2"] < 1 and 0 <= split["coverage_of_90_bands"] <= 1 for split in found["splits"].values())
    done, _ = called("validate", table, "--by", "depth")
    assert done.exit_code == 2 and "choose cost, rolling" in done.output


def test_limits_hold_beside_the_budget(table):
    done, found = called("frontier", table, "--budgets", "20", "--limit", "num_frames <= 3", "--json")
    assert done.exit_code == 0, done.output
    assert found["points"][0]["num_frames"] <= 3
    done, _ = called("frontier", table, "--budgets", "20", "--limit", "memory <= 3")
    assert done.exit_code == 2 and "'memory'" in done.output


def test_next_stays_within_the_hours(table):
    done, found = called("next", table, "--gpu-hours", "30", "--runs", "3", "--json")
    assert done.exit_code == 0, done.output
    assert 1 <= len(found["runs"]) <= 3 and sum(run["gpu_hours"] for run in found["runs"]) <= 30
    assert found["expected_regret"] > 0
    done, _ = called("next", table, "--budgets", "1,x")
    assert done.exit_code == 2
