"""Which trials a study has, and that their ids say what they mean and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from changes import changed

from vvlm_ray.study.config import Study
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def ids(study):
    return {t.trial_id for t in expand(study)}


def test_the_quickstart_has_at_least_24_distinct_trials():
    trials = expand(load_sweep(QUICKSTART))
    assert len(trials) >= 24
    assert len({t.trial_id for t in trials}) == len(trials)
    assert len({(t.lm_params, t.num_frames, t.tokens_per_frame, t.num_examples) for t in trials}) == len(trials)


def test_a_star_shares_its_centre():
    study = load_sweep(QUICKSTART)
    star = study.sweeps[0]
    expected = (1 + sum(len(v) - 1 for v in star.levels.values())) * len(star.num_examples)
    assert sum(t.sweep == "star" for t in expand(study)) == expected


def test_costs_are_eq_1():
    study = load_sweep(QUICKSTART)
    for t in expand(study):
        per_frame = study.cost.vision_params * study.cost.vision_tokens + t.lm_params * t.tokens_per_frame
        assert t.inference_flops == pytest.approx(2 * t.num_frames * per_frame)


def test_isoflop_points_lie_near_their_target():
    for t in expand(load_sweep(QUICKSTART)):
        if t.target_flops:
            assert t.inference_flops == pytest.approx(t.target_flops, rel=0.17)


def test_how_a_trial_runs_does_not_change_its_id():
    base = ids(changed(QUICKSTART))
    assert ids(changed(QUICKSTART, resources={"workers": 4, "gpus_per_worker": 1, "sharding": "fsdp"})) == base
    assert ids(changed(QUICKSTART, tracking={"mode": "disabled"})) == base
    assert ids(changed(QUICKSTART, planning={"overhead_seconds": 1})) == base
    assert ids(changed(QUICKSTART, name="other")) == base


def test_what_a_trial_means_does():
    base = ids(changed(QUICKSTART))
    assert not ids(changed(QUICKSTART, finetune__batch_size=32)) & base
    assert not ids(changed(QUICKSTART, seed=1)) & base
    assert not ids(changed(QUICKSTART, evaluation__limit=10)) & base
    small = {t.trial_id for t in expand(changed(QUICKSTART)) if t.backbone == "small"}
    other = ids(changed(QUICKSTART, backbones__small__lr=1.0))
    assert base - other == small


def test_extending_a_study_keeps_its_trials():
    raw = yaml.safe_load(QUICKSTART.read_text())
    raw["sweeps"][0]["num_examples"].append(600)
    assert ids(load_sweep(QUICKSTART)) < ids(Study.model_validate(raw))


def test_ids_are_the_same_in_another_process():
    code = (
        "import sys; from vvlm_ray.study.sweep_file import load_sweep; from vvlm_ray.study.trials import expand\n"
        "print(*[t.trial_id for t in expand(load_sweep(sys.argv[1]))])"
    )
    done = subprocess.run([sys.executable, "-c", code, QUICKSTART], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [t.trial_id for t in expand(load_sweep(QUICKSTART))]
