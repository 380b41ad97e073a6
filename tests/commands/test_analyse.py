"""The analysis commands as a user calls them: JSON as documented, plain errors, exit code 2."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from vvlm_ray.commands import analyse
from vvlm_ray.commands.analysis_options import parse_levels
from vvlm_ray.errors import UserError
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import observe, plant

FAST = ["--starts", "30"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    rng = np.random.default_rng(0)
    factors = {
        "lm_params": rng.choice([1e9, 2.8e9, 7.5e9], 60),
        "num_frames": rng.choice([2.0, 4, 8, 16, 32], 60),
        "tokens_per_frame": rng.choice([4.0, 16, 49, 100], 60),
    }
    design = Runs(factors, np.full(60, 50.0), rng.choice([0.25e6, 0.5e6, 1e6], 60))
    runs = observe(plant("add-interact", design, 0), design, noise=0.3, seed=0)
    path = tmp_path_factory.mktemp("records") / "records.csv"
    sweep = np.where(runs.num_examples < 1e6, "star", "isoflop")
    table = pd.DataFrame({"sweep": sweep, **factors, "num_examples": runs.num_examples, "avg": 100 - runs.error})
    table.to_csv(path, index=False)
    return path


def run(command, *arguments):
    result = CliRunner().invoke(getattr(analyse, command), [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_fit_json(records):
    found = json.loads(run("fit", records, "--form", "add", "--resamples", 6, "--json", *FAST))
    expected = {"form", "loss", "objective", "params", "num_runs", "num_starts", "share_at_best", "status"}
    assert expected | {"unidentified", "intervals"} <= set(found)
    assert (found["form"], found["loss"], found["num_runs"], found["num_starts"]) == ("add", "mse", 60, 30)
    assert set(found["params"]) == set(found["intervals"])
    table = pd.read_csv(records)
    f = found["params"]["eps"] + found["params"]["xi"] * table["num_examples"] ** -found["params"]["d"]
    for name in ("lm_params", "num_frames", "tokens_per_frame"):
        f += found["params"][f"alpha_{name}"] * table[name] ** -found["params"][f"a_{name}"]
    residual = np.log(f / (100 - table["avg"]))
    assert found["objective"] == pytest.approx((residual**2).sum(), rel=1e-6)


def test_objective_and_params_are_those_of_all_runs(records):
    alone, bagged = (
        json.loads(run("fit", records, "--form", "mult", "--resamples", count, "--json", *FAST)) for count in (0, 3)
    )
    assert alone["params"] == bagged["params"] and alone["objective"] == bagged["objective"]
    assert alone["intervals"] == {}


def test_huber_and_other_columns(records):
    options = ["--factors", "lm_params,num_frames", "--error", "avg", "--form", "add", "--loss", "huber", "--json"]
    found = json.loads(run("fit", records, "--huber-delta", "0.01", *options, *FAST))
    assert found["loss"] == "huber" and "xi" not in found["params"]


def test_frontier_json(records):
    arguments = [records, "--num-examples", 1e6, "--budgets", "2,5,10", "--resamples", 6, "--json", *FAST]
    points = json.loads(run("frontier", *arguments))["points"]
    assert [point["budget_tflops"] for point in points] == [2, 5, 10]
    factors = {"lm_params", "num_frames", "tokens_per_frame"}
    assert all(set(point) == {"budget_tflops", "error", "low", "high", "extrapolates"} | factors for point in points)
    assert all(point["low"] <= point["error"] <= point["high"] for point in points)


def test_grid_and_cost_of_ones_own(records):
    options = ["--grid", "num_frames=1,2", "--grid", "tokens_per_frame=2^2..3^2", "--cost", "num_frames * lm_params"]
    arguments = [records, "--budgets", "0.1", "--resamples", 3, "--json", *FAST]
    (point,) = json.loads(run("frontier", *arguments, *options))["points"]
    assert point["num_frames"] in {1, 2} and point["tokens_per_frame"] in {4, 9}


def test_elasticity_json(records):
    found = json.loads(run("elasticity", records, "--resamples", 4, "--json", *FAST))
    assert set(found) == {"elasticity"}
    assert set(found["elasticity"]) == {"lm_params", "num_frames", "tokens_per_frame"}
    assert all(set(value) == {"mean", "low", "high"} for value in found["elasticity"].values())


def test_what_the_bands_leave_out_is_said(records):
    options = [str(records), "--budgets", "5", "--num-examples", "500000", "--resamples", "4", *FAST]
    notes = CliRunner().invoke(analyse.frontier, options).stderr
    assert "in cross-validation the law misses runs that it has not seen by 0." in notes


def test_compare_with_ablations(records):
    arguments = [records, "--resamples", 3, "--starts", 20, "--tflops", 5, "--ablations", "--json", "--form", "add"]
    found = json.loads(run("compare", *arguments))
    assert set(found["forms"]) == {"mult", "add", "add-interact-s", "add-interact"}
    setups = {"cross-validation", "star -> rest", "up to 5 TFLOPs -> dearer"}
    assert all(set(scores) == setups for scores in found["forms"].values())
    assert set(found["forms"]["add"]["cross-validation"]) == {"mse", "error_percent", "r2"}
    assert {"Huber loss", "not in log space"} <= set(found["fits"])
    assert {"mean of 3", "median of 3", "median of 1"} <= set(found["aggregates"])


def test_recommend_in_a_sentence_and_in_json(records):
    options = [records, "--tflops", 10, "--num-examples", 500_000, "--resamples", 6, *FAST]
    sentence = run("recommend", *options)
    assert sentence.startswith("For 10 TFLOPs per example and 500k finetuning examples, deploy an LM of")
    assert "90 % band" in sentence
    found = json.loads(run("recommend", *options, "--json"))
    assert found["cost_tflops"] <= 10 and 0 <= found["agreement"] <= 1
    assert 0.2 < found["cross_validated_rmse"] < 1.5  # the noise is 0.3


@pytest.mark.parametrize(("command", "arguments", "message"), [
    ("fit", ["--form", "power"], "unknown form 'power'"),
    ("fit", ["--factors", "lm_params,height"], "no column 'height'"),
    ("fit", ["--score", "sweep"], "row 1 (line 2), column 'sweep'"),
    ("fit", ["--loss", "l1"], "unknown loss"),
    ("frontier", ["--budgets", "one"], "--budgets one"),
    ("frontier", ["--budgets", "0.001"], "buys nothing"),
    ("frontier", ["--grid", "height=1"], "'height' is no factor"),
    ("frontier", ["--grid", "num_frames=x"], "--grid num_frames=x"),
    ("frontier", ["--factors", "num_frames,tokens_per_frame"], "--cost"),
    ("elasticity", ["--data-size", "none"], "data size"),
    ("recommend", ["--tflops", "5", "--num-examples", "-1"], "must be positive"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(records, command, arguments, message):
    extra = [] if command == "fit" else ["--resamples", "1"]
    result = CliRunner().invoke(getattr(analyse, command), [str(records), *arguments, *extra, *FAST])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ") and message in result.stderr
    assert "Traceback" not in result.output


def test_levels():
    assert parse_levels("1..4,8", "").tolist() == [1, 2, 3, 4, 8]
    assert parse_levels("1^2..4^2", "").tolist() == [1, 4, 9, 16]
    assert parse_levels("1.5e9,5^2", "").tolist() == [25, 1.5e9]
    with pytest.raises(UserError):
        parse_levels("0,1", "x=0,1")
