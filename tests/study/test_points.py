"""Generated isoFLOP points, listed runs, and studies whose factors and cost are their own."""

import numpy as np
import pytest
import yaml

from vvlm_ray.errors import UserError
from vvlm_ray.study.config import Study
from vvlm_ray.study.points import distinct_points, well_spaced
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import Trial, expand

OWN = {
    "name": "own",
    "factors": ["width", "crops"],
    "cost": {"expression": "2 * width * crops * 1e6"},
    "sweeps": [
        {
            "kind": "isoflop",
            "num_examples": [1000],
            "generate": {
                "tflops": [0.01, 0.1],
                "tolerance": 0.1,
                "points": 3,
                "levels": {"width": [100, 1000, 10_000], "crops": list(range(1, 200))},
            },
        }
    ],
}


def changed(**generate):
    raw = yaml.safe_load(yaml.safe_dump(OWN))
    raw["sweeps"][0]["generate"] |= generate
    return Study.model_validate(raw)


def test_generated_points_lie_within_the_tolerance_and_are_spread():
    points = distinct_points(changed())
    assert {p.target_flops for p in points} == {1e10, 1e11}
    for p in points:
        assert abs(2e6 * p.factors["width"] * p.factors["crops"] / p.target_flops - 1) <= 0.1 + 1e-9
    widths = [p.factors["width"] for p in points if p.target_flops == 1e11]
    assert set(widths) == {1000, 10_000}  # at a width of 100 it would take 500 crops
    crops = sorted(p.factors["crops"] for p in points if p.target_flops == 1e11 and p.factors["width"] == 1000)
    assert crops[0] == 45  # both ends of the candidates, and one between them
    assert crops[-1] == 55
    assert len(crops) == 3


def test_well_spaced_rows_begin_with_the_ends_and_leave_no_gap():
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(0, 5, 300))
    chosen = np.log(x[well_spaced([x], 9)])
    assert {chosen.min(), chosen.max()} == {np.log(x).min(), np.log(x).max()}
    assert np.diff(np.sort(chosen)).max() < 2 * np.ptp(np.log(x)) / 8
    assert well_spaced([x], 9) == well_spaced([x], 9)
    assert len(well_spaced([np.ones(4)], 3)) == 3
    assert well_spaced([np.array([1.0, 2.0])], 5) == [0, 1]


def test_trials_of_other_factors_have_ids_and_costs():
    trials = expand(changed())
    assert len({t.trial_id for t in trials}) == len(trials)
    for t in trials:
        assert t.inference_flops == 2e6 * t.factors["width"] * t.factors["crops"]
        row = t.to_dict()
        assert row["factors"] == t.factors
        assert Trial.from_dict(row) == t


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tolerance": 1e-6, "tflops": [0.0101]}, ["no configuration costs 0.0101", "nearest costs", "tolerance"]),
        ({"tflops": [1e-6]}, ["below the cheapest configuration", "width = 100", "crops = 1", "0.0002"]),
    ],
)
def test_impossible_budgets_are_explained(change, words):
    with pytest.raises(UserError) as err:
        expand(changed(**change))
    for word in ["sweeps[0]", *words]:
        assert word in str(err.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"factors": ["width", "crops", "depth"]}, ["factors must be", "missing: depth"]),
        ({"cost": {"vision_params": 1}}, ["not those of Eq. 1", "expression"]),
        ({"cost": {"expression": "width * depth"}}, ["depth", "no factor"]),
        ({"cost": {"expression": "__import__('os')"}}, ["may hold numbers, factors"]),
        ({"sweeps": [{"kind": "isoflop", "num_examples": [1]}]}, ["sweeps[0]", "curves", "generate"]),
        ({"sweeps": [{"kind": "points", "points": [[1, 2]]}]}, ["sweeps[0].points[0]", "2 values", "num_examples"]),
        ({"sweeps": [{"kind": "points", "points": [[1, 2, 0]]}]}, ["num_examples = 0"]),
        ({"sweeps": [{"kind": "points", "points": [[1, -2, 5]]}]}, ["crops = -2", "positive"]),
        ({"sweeps": [{"kind": "cube", "points": [[1, 2, 5]]}]}, ["sweeps.0", "star"]),
    ],
)
def test_bad_studies_are_named(tmp_path, change, words):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(OWN | change))
    with pytest.raises(UserError) as err:
        load_sweep(path)
    for word in [*words, str(path)]:
        assert word in str(err.value)


def test_listed_runs_name_their_sweep_and_share_trials_with_other_sweeps():
    raw = yaml.safe_load(yaml.safe_dump(OWN))
    raw["sweeps"] = [
        {"kind": "star", "centre": {"width": 100, "crops": 4}, "levels": {"crops": [4, 8]}, "num_examples": [10]},
        {"kind": "points", "name": "design", "points": [[100, 4, 10], [100, 16, 20]]},
    ]
    trials = expand(Study.model_validate(raw))
    assert [(t.sweep, t.factors["crops"], t.num_examples) for t in trials] == [
        ("star", 4, 10),
        ("star", 8, 10),
        ("design", 16, 20),
    ]
