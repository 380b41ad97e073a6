"""One way to the answer: every front door gives the same one, to the digit, for studies of different kinds."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import vvlm_ray as vr
from vvlm_ray.commands.frontier import frontier
from vvlm_ray.commands.report import report
from vvlm_ray.scaling.simulation import observe, plant, plant_misfit
from vvlm_ray.study.additions import all_trials
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import Scores, finished_record, write_record
from vvlm_ray.study.sweep_file import load_sweep

REPO = Path(__file__).parents[1]


def simulated(folder, kind, seed):
    """A folder of records made elsewhere: the paper's factors, a planted surface."""
    rng = np.random.default_rng(seed)
    levels = {
        "lm_params": [1e9, 2.8e9, 7.5e9],
        "num_frames": [2.0, 4, 8, 16, 32],
        "tokens_per_frame": [4.0, 16, 49, 100],
    }
    factors = {name: rng.choice(values, 48) for name, values in levels.items()}
    design = vr.Runs(factors, np.full(48, 50.0), rng.choice([0.25e6, 0.5e6, 1e6], 48))
    surface = plant_misfit(design, seed) if kind == "misfit" else plant(kind, design, seed)
    runs = observe(surface, design, 0.4, seed)
    table = pd.DataFrame({**factors, "num_examples": runs.num_examples, "avg": 100 - runs.error})
    if kind == "mult":
        table = table.drop(columns="num_examples")
    folder.mkdir(parents=True)
    table.to_csv(folder / "records.csv", index=False)
    (folder / "sweep.yaml").write_text("answer: {tflops: [2, 6, 15], resamples: 8, starts: 30}\n")
    return folder


def quickstart(folder):
    """The quickstart's sweep with records as trials write them, one trial missing and one failed."""
    folder.mkdir(parents=True)
    text = (REPO / "sweeps" / "quickstart.yaml").read_text()
    (folder / "sweep.yaml").write_text(text)
    study = load_sweep(folder / "sweep.yaml")
    place = StudyFolder(folder)
    rng = np.random.default_rng(5)
    for trial in all_trials(study, place)[:-1]:
        x = trial.factors
        error = 5 + 60 * x["lm_params"] ** -0.15 + 14 * x["num_frames"] ** -0.9 + 26 * x["tokens_per_frame"] ** -0.7
        error += 90 * trial.num_examples**-0.35 + rng.normal(0, 0.5)
        scores = Scores({task: 100 - error for task in study.evaluation.tasks}, {}, {})
        write_record(place, finished_record(trial, scores, meaning={}, details={}))
    return folder


@pytest.fixture(scope="module", params=["add-interact", "add", "misfit", "mult", "quickstart"])
def study(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors") / request.param
    if request.param == "quickstart":
        return quickstart(folder)
    return simulated(folder, request.param, 3)


def run(command, *arguments):
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_all_front_doors_give_the_same_answer(study, tmp_path):
    said = json.loads(run(frontier, study, "--json"))
    assert said["points"] and said["form"] == "auto" and said["verdict"]["status"]
    # Python
    answer = vr.analyse(study)
    assert answer.to_json() == said
    line = answer.predictor.frontier([p["budget"] for p in said["points"]], said["num_examples"])
    frame = line.to_frame()
    for name in ("budget", "cost", "error", "low", "high", "gap", "agreement", *line.factors):
        assert frame[name].tolist() == [point[name] for point in said["points"]]
    # the script
    script = subprocess.run([sys.executable, REPO / "analysis" / "frontier.py", study, "--json"],
                            capture_output=True, text=True, check=True, cwd=REPO)  # fmt: skip
    assert json.loads(script.stdout) == said
    # text, which is also what the end of a run prints
    from vvlm_ray.report.answer import sentences

    text = run(frontier, study)
    assert all(sentence in text for sentence in sentences(answer))
    assert answer.verdict.sentence in text and all(note in text for note in said["notes"])
    # the report
    run(report, study, "--output", tmp_path)
    rows = json.loads((tmp_path / "frontier.json").read_text())
    table = pd.read_csv(tmp_path / "frontier.csv")
    for row, (_, printed), point in zip(rows, table.iterrows(), said["points"], strict=True):
        for name in (*line.factors, "budget", "cost", "error", "low", "high", "gap", "agreement"):
            assert row[name] == point[name] == printed[name], name


def test_a_study_says_what_is_missing(tmp_path):
    answer = vr.analyse(quickstart(tmp_path / "quickstart"))
    assert any("1 trials have not run yet" in note for note in answer.notes)
