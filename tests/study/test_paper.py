"""sweeps/paper.yaml is the paper's study: Table 6 exactly, and the settings of Tables 3, 4 and 5."""

from pathlib import Path

import numpy as np
import pytest

from vvlm_ray.study.points import cost_function, isoflop_candidates
from vvlm_ray.study.sections import Generate
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

PAPER = Path(__file__).parents[2] / "sweeps" / "paper.yaml"

# Wang et al. 2025, Table 6, lower half: (x_T, x_V) by target TFLOPs and x_N in billions.
ISOFLOP = {
    2: {1: "2,196 3,9 3,16", 2.8: "2,64 3,4", 7.5: "2,25 3,1"},
    5: {1: "4,289 5,169 6,81 7,25", 2.8: "3,169 4,100 5,64 6,25 7,9", 7.5: "2,121 3,64 6,9 7,4"},
    15: {
        1: "8,625 11,361 16,144 20,49 22,16",
        2.8: "6,324 11,121 16,49 19,25 20,16",
        7.5: "7,100 8,81 15,25 19,9 21,4",
    },
    30: {
        1: "16,625 26,256 32,144 37,81 40,49",
        2.8: "9,484 17,196 22,121 27,81 35,36",
        7.5: "16,81 25,36 29,25 38,9",
    },
}


def isoflop_of_table_6():
    return {
        (round(size * 1e9), *map(int, pair.split(",")), 2_000_000): target
        for target, rows in ISOFLOP.items()
        for size, pairs in rows.items()
        for pair in pairs.split()
    }


def star_of_table_6():
    centre = (7_500_000_000, 32, 196)
    levels = (
        (1_000_000_000, 2_800_000_000, 7_500_000_000),
        (4, 8, 12, 16, 32),
        (4, 16, 25, 36, 49, 100, 196),
    )
    for n in (250_000, 500_000, 1_000_000):
        for k, values in enumerate(levels):
            for value in values:
                yield (*centre[:k], value, *centre[k + 1 :], n)


@pytest.fixture(scope="module")
def study():
    return load_sweep(PAPER)


def key(trial):
    return trial.lm_params, trial.num_frames, trial.tokens_per_frame, trial.num_examples


def test_table_6_exactly(study):
    trials = expand(study)
    star, isoflop = list(star_of_table_6()), isoflop_of_table_6()
    assert (len(star), len(set(star)), len(isoflop)) == (45, 39, 49)
    assert {key(t) for t in trials if t.sweep == "star"} == set(star)
    assert {key(t): t.target_flops for t in trials if t.sweep == "isoflop"} == {
        x: target * 1e12 for x, target in isoflop.items()
    }
    assert len(trials) == len({t.trial_id for t in trials}) == 88


def test_42_of_the_49_lie_within_3_percent_and_all_within_5_25(study):
    distance = np.array([abs(t.inference_flops / t.target_flops - 1) for t in expand(study) if t.target_flops])
    assert (distance <= 0.03).sum() == 42
    assert 0.0524 < distance.max() < 0.0525


def test_the_generated_candidates_contain_the_42(study):
    levels = {
        "lm_params": [1e9, 2.8e9, 7.5e9],
        "num_frames": range(1, 129),
        "tokens_per_frame": [side**2 for side in range(1, 28)],
    }
    for target in ISOFLOP:
        found = isoflop_candidates(levels, cost_function(study), target * 1e12, 0.03)
        candidates = set(zip(*(column.astype(int).tolist() for column in found.values()), strict=True))
        near = {
            key(t)[:3]
            for t in expand(study)
            if t.target_flops == target * 1e12 and abs(t.inference_flops / t.target_flops - 1) <= 0.03
        }
        assert near <= candidates
        assert Generate(tflops=[target], levels=levels).tolerance == 0.03


def test_tables_3_4_and_5(study):
    assert sum(source.num_examples for source in study.data.sources.values()) == 2_192_374
    assert len(study.data.sources) == 13
    assert study.data.sources["llava_video_178k"].num_examples == 1_335_500
    assert study.data.sources["perception_test"].num_examples == 2_403
    stage1, stage2 = study.stage1, study.finetune
    assert (stage1.batch_size, stage1.lr, stage1.num_examples) == (512, 1e-3, 558_128)
    assert (stage2.batch_size, stage2.lr, stage2.vision_lr, stage2.weight_decay) == (256, 1e-5, 2e-6, 0)
    for stage in (stage1, stage2):
        assert (stage.epochs, stage.warmup_fraction, stage.weight_decay, stage.precision) == (1, 0.03, 0, "bf16")
    assert study.evaluation.tasks == ["VDC", "AQA", "VCG", "LVB", "PT", "MV", "VMME", "NQA"]
    assert study.evaluation.judge.model == "gpt-4o-mini-2024-07-18"
    assert all(backbone.projector is None for backbone in study.backbones.values())  # stage 1 makes them
