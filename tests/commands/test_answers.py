"""The analysis commands as a user calls them: JSON as documented, plain errors, exit code 2."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from vvlm_ray.cli import main
from vvlm_ray.commands.options import parse_levels
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
    result = CliRunner().invoke(main, [command, *(str(argument) for argument in arguments)])
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
    assert found["loss"] == "huber" and "xi" in found["params"]


def test_frontier_json(records):
    arguments = [records, "--num-examples", 1e6, "--budgets", "2,5,10", "--resamples", 6, "--json", *FAST]
    points = json.loads(run("frontier", *arguments))["points"]
    assert [(point["budget"], point["unit"]) for point in points] == [(2, "TFLOPs"), (5, "TFLOPs"), (10, "TFLOPs")]
    factors = {"lm_params", "num_frames", "tokens_per_frame"}
    keys = {"budget", "unit", "cost", "error", "low", "high", "gap", "agreement", "extrapolates", "reasons", "measured"}
    assert all(set(point) == keys | factors for point in points)
    assert all(point["cost"] <= point["budget"] and point["gap"] >= 0 for point in points)
    assert all(point["low"] <= point["error"] <= point["high"] for point in points)


def test_grid_and_cost_of_ones_own(records):
    options = ["--grid", "num_frames=1,2", "--grid", "tokens_per_frame=2^2..3^2", "--cost", "num_frames * lm_params"]
    arguments = [records, "--budgets", "1e11", "--resamples", 3, "--json", *FAST]
    (point,) = json.loads(run("frontier", *arguments, *options))["points"]
    assert point["unit"] == "" and point["cost"] == point["num_frames"] * point["lm_params"]
    (same,) = json.loads(run("frontier", *arguments[:1], "--budgets", "0.1", *arguments[3:], *options, "--cost-unit",
                             "FLOPs"))["points"]  # fmt: skip
    assert (same["unit"], same["lm_params"], same["error"]) == ("TFLOPs", point["lm_params"], point["error"])
    assert point["num_frames"] in {1, 2} and point["tokens_per_frame"] in {4, 9}


def test_elasticity_json(records):
    found = json.loads(run("elasticity", records, "--resamples", 4, "--json", *FAST))
    assert {"elasticity", "verdict", "warnings", "notes", "share_extrapolated"} <= set(found)
    assert set(found["elasticity"]) == {"lm_params", "num_frames", "tokens_per_frame"}
    assert all(set(value) == {"mean", "low", "high"} for value in found["elasticity"].values())


def test_the_verdict_comes_first_and_the_bag_stands_beside_it(records):
    text = run("frontier", records, "--budgets", "5", "--num-examples", "500000", "--resamples", "4", *FAST)
    assert any(text.strip().split(": ", 1)[1].startswith(word) for word in ("Trust", "Do not use"))
    assert "For comparison, add-interact alone agrees at" in text
    found = json.loads(run("frontier", records, "--budgets", "5", "--resamples", "4", "--json", *FAST))
    assert found["compared"]["form"] == "add-interact" and found["verdict"]["reasons"] is not None


def test_the_data_size_is_used_whatever_the_factors_are(records):
    options = ["--factors", "num_frames,lm_params", "--cost", "num_frames * lm_params", "--budgets", "1e10", *FAST]
    found = json.loads(run("frontier", records, *options, "--resamples", 3, "--json"))
    assert found["num_examples"] == 1e6
    found = json.loads(run("frontier", records, *options, "--resamples", 3, "--data-size", "none", "--json"))
    assert found["num_examples"] is None
    assert "left out: num_examples (--data-size none)" in found["read"]


def test_compare_with_ablations(records):
    arguments = [records, "--resamples", 3, "--starts", 20, "--split-at", 5, "--ablations", "--json", "--form", "add"]
    found = json.loads(run("compare", *arguments))
    assert set(found["forms"]) == {"auto", "mult", "add", "add-interact-s", "add-interact"}
    setups = {"cross-validation", "star -> rest", "up to 5 TFLOPs -> dearer"}
    assert all(set(scores) == setups for scores in found["forms"].values())
    assert {"mse", "error_percent", "r2"} <= set(found["forms"]["add"]["cross-validation"])
    assert {"Huber loss", "not in log space"} <= set(found["fits"])
    assert {"mean of 3", "median of 3", "median of 1"} <= set(found["aggregates"])


def test_recommend_in_sentences_and_in_json(records):
    options = [records, "--budgets", 10, "--num-examples", 500_000, "--resamples", 6, *FAST]
    text = run("recommend", *options)
    assert "Up to 10 TFLOPs per video: deploy an LM of" in text and "90% band" in text
    found = json.loads(run("recommend", *options, "--json"))
    assert found["cost"] <= 10 and 0 <= found["agreement"] <= 1
    assert {"alternatives", "equivalent", "cheapest", "next_budget", "if_doubled", "verdict"} <= set(found)
    point = json.loads(run("frontier", *options, "--json"))["points"][0]
    assert all(found[key] == value for key, value in point.items() if key != "measured")


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
    ("frontier", ["--grid", "num_frames=1..1000000000"], "more than 1,000,000 levels"),
    ("frontier", ["--cost", "9**9**9**9", "--budgets", "1"], "positive number"),
    ("frontier", ["--cost", "num_frames/0", "--budgets", "1"], "positive number"),
    ("frontier", ["--cost", "num_frames*1j", "--budgets", "1"], "numbers, factors"),
    ("frontier", ["--cost", "num_frames-40", "--budgets", "1"], "positive number"),
    ("frontier", ["--cost-unit", "ms"], "give both"),
    ("frontier", ["--seed", "-1"], "must not be negative"),
    ("frontier", ["--exponents-from", "nan"], "must be numbers"),
    ("frontier", ["--num-examples", "0.5"], "at least 1"),
    ("frontier", ["--form", "add-interct"], "did you mean 'add-interact'"),
    ("frontier", ["--budgets", "nan"], "--budgets nan"),
    ("fit", ["--seed", "-1"], "-1"),
    ("elasticity", ["--data-size", "none"], "data size"),
    ("recommend", ["--budgets", "5", "--num-examples", "-1"], "at least 1"),
    ("recommend", ["--budgets", "5,6"], "one budget"),
    ("recomend", [], "did you mean 'recommend'"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(records, command, arguments, message):
    extra = [] if command == "fit" else ["--resamples", "1"]
    result = CliRunner().invoke(main, [command, str(records), *arguments, *extra, *FAST])
    assert result.exit_code == 2
    assert "Error: " in result.stderr and message in result.stderr
    assert "Traceback" not in result.output


def test_levels():
    assert parse_levels("1..4,8", "").tolist() == [1, 2, 3, 4, 8]
    assert parse_levels("1^2..4^2", "").tolist() == [1, 4, 9, 16]
    assert parse_levels("1.5e9,5^2", "").tolist() == [25, 1.5e9]
    with pytest.raises(UserError):
        parse_levels("0,1", "x=0,1")
