"""Stage 1 and refinement through the real stack: a projector before its trials, further trials after theirs."""

import json
from pathlib import Path

import pytest
import yaml

from vvlm_ray.orchestration.refinement import Refinement
from vvlm_ray.orchestration.run import run_study
from vvlm_ray.planning.jobs import projector_file
from vvlm_ray.planning.plan import make_plan
from vvlm_ray.study.additions import all_trials, read_added
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import Scores, finished_record, read_record, write_record
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def write_sweep(folder):
    """One tiny backbone without a projector, two isoFLOP points with room on both sides, one refinement."""
    raw = yaml.safe_load(QUICKSTART.read_text())
    raw["synthetic"] = {"num_train": 60, "num_test": 24, "seed": 0, "base_training": 0.02}
    small = raw["backbones"]["small"] | {"projector": None}
    raw["backbones"] = {"small": small}
    raw["tracking"] = {"mode": "disabled"}
    raw["stage1"] = {
        "path": "${study}/assets/benchmark/train.json",
        "image_root": "${study}/assets/benchmark/videos",  # of a video, one frame is read
        "num_examples": 40,
        "tokens_per_frame": 16,
        "batch_size": 16,
        "precision": "fp32",
    }
    n, cost = small["lm_params"], raw["cost"]
    tflops = 2 * 4 * (cost["vision_params"] * cost["vision_tokens"] + n * 4) / 1e12
    raw["sweeps"] = [
        {
            "kind": "isoflop",
            "num_examples": [30],
            "curves": [{"tflops": tflops, "points": [[n, 4, 4], [n, 3, 9]]}],
        }
    ]
    raw["refinement"] = {"max_trials": 1, "tolerance": 0.9}
    raw.pop("grid"), raw.pop("answer")
    raw["name"] = "stages"
    path = folder / "stages.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.timeout(300)
def test_a_projector_is_trained_once_and_used_and_refinement_adds_a_trial(tmp_path):
    sweep = write_sweep(tmp_path)
    study, folder = load_sweep(sweep), StudyFolder(tmp_path / "studies" / "stages")
    jobs = make_plan(study, sweep, folder, 2).jobs
    (projector,) = (job for job in jobs if job.kind == "projector")
    assert all(projector.job_id in job.after for job in jobs if job.kind == "trial")
    assert projector.after == {"benchmark", "small"}

    outcome = run_study(sweep, tmp_path / "studies", num_slots=2)
    assert outcome.failed == {}
    assert outcome.num_finished == outcome.num_trials == 3
    assert projector_file(study, folder, "small").stat().st_size > 1000
    (added,) = read_added(folder)
    assert added.sweep == "refinement"
    records = [read_record(folder, t.trial_id) for t in all_trials(study, folder)]
    assert [r["status"] for r in records] == ["finished"] * 3
    assert [r["sweep"] for r in records] == ["isoflop", "isoflop", "refinement"]

    written = {p: p.stat().st_mtime_ns for p in folder.root.rglob("record.json")}
    again = run_study(sweep, tmp_path / "studies", num_slots=2)
    assert again.num_finished == 3
    assert {p: p.stat().st_mtime_ns for p in folder.root.rglob("record.json")} == written


def test_a_run_that_stopped_before_proposing_proposes_when_it_resumes(tmp_path):
    sweep = write_sweep(tmp_path)
    study, folder = load_sweep(sweep), StudyFolder(tmp_path / "stages")
    trials = expand(study)
    folder.adopt(sweep)
    for trial, avg in zip(trials, (60.0, 40.0), strict=True):
        write_record(folder, finished_record(trial, Scores({"synthetic": avg}, {}, {}), meaning={}, details={}))
    refinement = Refinement(study, folder, sweep, 2, {t.trial_id: t for t in trials})
    (job,) = refinement.further_jobs()
    assert job.job_id in {j.job_id for j in make_plan(study, sweep, folder, 2).jobs}
    assert refinement.further_jobs() == []  # it waits for that one, and may add no more
    stored = json.loads((folder.root / "refinement.json").read_text())
    assert [row["sweep"] for row in stored] == ["refinement"]
