"""A study of two trials through the real stack: Ray Tune, Ray Train, decord, lmms-eval, W&B offline."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import read_record
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
NOISE = 1e-3  # relative; what two runs on one machine may differ by


def write_sweep(folder, **changes):
    """The quickstart cut down to one backbone of a few steps and two trials."""
    raw = yaml.safe_load(QUICKSTART.read_text())
    raw["synthetic"] = {"num_train": 60, "num_test": 24, "seed": 0, "base_training": 0.02}
    small = raw["backbones"]["small"]
    raw["backbones"] = {"small": small}
    raw["sweeps"] = [
        {
            "kind": "star",
            "centre": {"lm_params": small["lm_params"], "num_frames": 2, "tokens_per_frame": 4},
            "levels": {"num_frames": [2]},
            "num_examples": [30, 60],
        }
    ]
    raw.pop("grid"), raw.pop("answer")
    raw |= {"name": "two"} | changes
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def command(sweep, storage):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "RAY"))}
    return {
        "args": [sys.executable, "-m", "vvlm_ray", "run", str(sweep), "--storage", str(storage), "--slots", "2"],
        "env": environment | {"WANDB_MODE": "offline"},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


def run(sweep, storage):
    return subprocess.run(**command(sweep, storage), check=False, timeout=240)


def records(sweep, storage):
    study = load_sweep(sweep)
    folder = StudyFolder(storage / study.name)
    return {t.trial_id: read_record(folder, t.trial_id) for t in expand(study)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study, run once without interruption."""
    folder = tmp_path_factory.mktemp("study")
    sweep = write_sweep(folder)
    done = run(sweep, folder / "studies")
    assert done.returncode == 0, done.stdout
    return sweep, folder / "studies", done.stdout


@pytest.mark.timeout(280)
def test_every_trial_leaves_a_whole_record(finished):
    sweep, storage, output = finished
    study = load_sweep(sweep)
    assert "2/2 trials finished" in output
    for trial in expand(study):
        record = records(sweep, storage)[trial.trial_id]
        assert record["status"] == "finished"
        assert record["avg"] == record["scores"]["synthetic"]
        assert 0 <= record["avg"] <= 100
        assert record["meaning"]["finetune"]["lr"] == study.recipe_of(trial.backbone).lr
        details = record["details"]
        assert details["num_examples_seen"] == record["num_examples"] == trial.num_examples
        assert details["num_steps"] == -(-trial.num_examples // study.finetune.batch_size)
        assert details["num_questions"] == 24
        assert details["num_unreadable"] == 0
        assert record["inference_flops"] == trial.inference_flops
        assert details["versions"]["torch"]
    assert not list(storage.rglob("stage.json"))  # how far a trial is, while it runs
    table = pd.read_csv(storage / "two" / "records.csv")
    assert sorted(table["num_examples"]) == [30, 60]


@pytest.mark.timeout(280)
def test_wandb_has_a_run_per_trial_and_no_secret(finished):
    sweep, storage, _ = finished
    files = list((storage / "two" / "wandb").rglob("run-*.wandb"))
    known = {t.trial_id for t in expand(load_sweep(sweep))}
    assert {f.stem.split("-")[-1] for f in files} == known
    assert all(f.stem.startswith(f"run-two-{StudyFolder(storage / 'two').identity()}-") for f in files)
    for file in files:
        content = file.read_bytes()
        assert b"eval/avg" in content
        assert b"train/loss" in content
        assert str(Path.home()).encode() not in content


@pytest.mark.timeout(280)
def test_a_second_run_starts_nothing_and_changes_nothing(finished):
    sweep, storage, _ = finished
    before = {p: p.stat().st_mtime_ns for p in storage.rglob("record.json")}
    start = time.monotonic()
    done = run(sweep, storage)
    assert done.returncode == 0, done.stdout
    assert "2/2 trials finished" in done.stdout
    assert time.monotonic() - start < 15
    assert {p: p.stat().st_mtime_ns for p in storage.rglob("record.json")} == before


@pytest.mark.timeout(280)
def test_killed_after_the_first_trial_it_goes_on_and_gives_the_same_records(finished, tmp_path):
    sweep, uninterrupted, _ = finished
    storage = tmp_path / "studies"
    process = subprocess.Popen(**command(sweep, storage) | {"stdout": subprocess.DEVNULL}, start_new_session=True)
    while not (first := list(storage.rglob("record.json"))):
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {p: p.read_text() for p in first}
    done = run(sweep, storage)
    assert done.returncode == 0, done.stdout
    for path, text in kept.items():
        assert path.read_text() == text
    expected = records(sweep, uninterrupted)
    for trial_id, record in records(sweep, storage).items():
        assert record["avg"] == pytest.approx(expected[trial_id]["avg"], rel=NOISE)
        assert record["details"]["final_loss"] == pytest.approx(expected[trial_id]["details"]["final_loss"], rel=NOISE)


@pytest.mark.timeout(280)
def test_a_corrupt_video_is_counted_and_too_many_fail_the_trial_by_name(finished, tmp_path):
    _, finished_storage, _ = finished
    storage = tmp_path / "studies"
    assets = storage / "two" / "assets"
    shutil.copytree(finished_storage / "two" / "assets", assets)
    train = json.loads((assets / "benchmark" / "train.json").read_text())
    broken = assets / "benchmark" / "videos" / train[0]["video"]
    broken.write_bytes(b"not a video")
    tolerant = write_sweep(tmp_path)
    raw = yaml.safe_load(tolerant.read_text())
    raw["data"]["max_unreadable_share"] = 0.02  # one of 60, but not one of 30
    raw["resources"]["max_retries"] = 0
    tolerant.write_text(yaml.safe_dump(raw))
    done = run(tolerant, storage)
    by_size = {r["num_examples"]: r for r in records(tolerant, storage).values()}
    assert by_size[60]["status"] == "finished"
    assert by_size[60]["details"]["num_unreadable"] == 1
    assert by_size[60]["details"]["num_examples_seen"] == 59
    assert by_size[60]["details"]["unreadable"][0][0].endswith(broken.name)
    if by_size[30]["status"] == "finished":  # its subset happened to leave the broken one out
        assert by_size[30]["details"]["num_unreadable"] == 0
    else:
        assert done.returncode == 1
        assert broken.name in by_size[30]["reason"]
        assert "avg" not in by_size[30]


@pytest.mark.timeout(60)
def test_bad_input_is_named_before_anything_starts(tmp_path):
    raw = yaml.safe_load(write_sweep(tmp_path).read_text())
    raw["backbones"]["small"]["lm"] = "/no/such/backbone"
    path = tmp_path / "missing.yaml"
    path.write_text(yaml.safe_dump(raw))
    start = time.monotonic()
    done = run(path, tmp_path / "studies")
    assert done.returncode == 2
    assert "backbones.small.lm: /no/such/backbone does not exist" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "studies").exists()
    assert time.monotonic() - start < 10


@pytest.mark.timeout(280)
def test_scores_are_made_again_from_the_answers_alone(finished, tmp_path):
    """`score` needs no Ray, no backbone and no training data: answers, questions and (to find them) their videos."""
    sweep, storage, _ = finished
    before = records(sweep, storage)
    shutil.copytree(storage / "two", tmp_path / "two", ignore=shutil.ignore_patterns("backbones"))
    first, second = before
    (tmp_path / f"two/trials/{first}/record.json").unlink()
    again = [sys.executable, "-m", "vvlm_ray", "score", str(tmp_path / "two"), "--json"]
    done = subprocess.run(again, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    told = {row["trial_id"]: row["scores"] for row in json.loads(done.stdout)["trials"]}
    after = records(sweep, tmp_path)
    for trial_id in (first, second):
        assert told[trial_id] == after[trial_id]["scores"] == before[trial_id]["scores"]
        assert after[trial_id]["standard_errors"] == before[trial_id]["standard_errors"]
        assert after[trial_id]["details"]["finetune_seconds"] == before[trial_id]["details"]["finetune_seconds"]
    for arguments, said in (
        ([*again, "--trial", "nope"], "no trial nope"),
        ([*again[:-2], str(tmp_path)], "not a study"),
    ):
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=100)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
