"""Designs: within their budget, judged on surfaces of both kinds, written as sweep files, never over anything."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from vvlm_ray.commands.design import design as design_command
from vvlm_ray.designs.candidates import battery_for, make_candidates, runs_of
from vvlm_ray.designs.surfaces import (
    INSIDE,
    OUTSIDE,
    Fitting,
    frontier_regret,
    make_question,
    plant_battery,
    plant_kind,
)
from vvlm_ray.errors import UserError
from vvlm_ray.scaling.simulation import observe
from vvlm_ray.study.points import choices_of, cost_function, distinct_points
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

PAPER = Path(__file__).parents[2] / "sweeps" / "paper.yaml"


@pytest.fixture(scope="module")
def study():
    return load_sweep(PAPER)


@pytest.fixture(scope="module")
def reference(study):
    return runs_of(distinct_points(study), study.factors)


def spent(study):
    cost = cost_function(study)

    def spend(points):
        x = {f: np.array([p.factors[f] for p in points], float) for f in study.factors}
        return float((3 * cost(**x) * np.array([p.num_examples for p in points])).sum())

    return spend


def candidates(study, budget):
    return make_candidates(
        choices_of(study),
        cost_function(study),
        budgets_flops=np.geomspace(2e12, 60e12, 10),
        largest_n=2_000_000,
        budget=budget,
        spend=spent(study),
    )


def test_the_battery_has_both_halves_at_the_scale_of_the_papers_data(reference):
    battery = plant_battery(reference, 12, seed=3)
    kinds = [kind for kind, _ in battery]
    assert kinds[:6] == ["family"] * 6
    assert set(kinds[6:]) == set(OUTSIDE)
    for _, surface in battery:
        error = surface(reference.factors, reference.num_examples)
        assert 40 <= error.mean() <= 56
        assert error.std() == pytest.approx(3.1, rel=0.02)


@pytest.mark.parametrize("kind", ["worst-factor", "product", "saturating", *INSIDE])
def test_more_of_anything_never_hurts_outside_the_family_or_much_inside(reference, kind):
    surface = plant_kind(kind, reference, 5)
    base = {name: np.array([np.median(values)]) for name, values in reference.factors.items()}
    n = np.array([1e6])
    for name, value in base.items():
        better = base | {name: value * 1.5}
        assert surface(better, n) <= surface(base, n) + (0.5 if kind == "family" else 1e-9)


def test_a_frontier_is_judged_by_brute_force(study, reference):
    levels = {"lm_params": [1e9, 7.5e9], "num_frames": [1, 4, 16, 32], "tokens_per_frame": [1, 16, 100, 196]}
    question = make_question(levels, cost_function(study), [5e12, 20e12], [1e6])
    surface = plant_kind("family", reference, 1)
    exact = frontier_regret(surface, reference, question, 0, noise=1e-6, fitting=Fitting(resamples=3))
    assert exact.shape == (1, 2)
    assert (exact >= 0).all()
    assert exact.max() < 1e-6  # without noise, in the family, nothing is lost
    noisy = frontier_regret(surface, reference, question, 0, noise=5.0, fitting=Fitting(resamples=3))
    assert (noisy >= 0).all()


def test_candidates_use_their_budget_and_stay_within_it(study):
    full = spent(study)(distinct_points(study))
    found = candidates(study, 0.2 * full)
    assert len(found) >= 8
    for candidate in found:
        assert 0.17 * full < candidate.spent <= 0.2 * full
        assert all(p.num_examples <= 2_000_000 for p in candidate.points)
        assert len({(*p.factors.values(), p.num_examples) for p in candidate.points}) == len(candidate.points)
    with pytest.raises(UserError, match="too small for any design"):
        candidates(study, 1e-4 * full)


def test_known_records_keep_the_surfaces_that_are_like_them(reference):
    truth = plant_kind("worst-factor", reference, 77)
    known = observe(truth, reference, 0.2, seed=0)
    battery = battery_for(reference, 8, seed=1, known=known)
    wide = battery_for(reference, 8, seed=1)

    def distance(surfaces):
        return np.mean([np.abs(s(known.factors, known.num_examples) - known.error).mean() for _, s in surfaces])

    assert len(battery) == 8
    assert sum(kind in INSIDE for kind, _ in battery) == 4
    assert distance(battery) < 0.6 * distance(wide)


@pytest.mark.timeout(200)
def test_the_command_writes_a_sweep_file_within_the_budget(tmp_path, reference):
    sweep = tmp_path / "paper.yaml"
    sweep.write_text(PAPER.read_text())
    records = tmp_path / "records.csv"
    known = observe(plant_kind("family", reference, 3), reference, 0.4, seed=0).select(np.arange(0, 88, 4))
    columns = {name: values for name, values in known.factors.items()}
    pd.DataFrame(columns | {"num_examples": known.num_examples, "avg": 100 - known.error}).to_csv(records, index=False)
    arguments = [str(sweep), "--training-flops", "1e21", "--surfaces", "4", "--records", str(records), "--json"]
    done = CliRunner().invoke(design_command, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["chosen"]["training_flops"] <= 1e21
    assert result["own"]["runs"] == 88
    written = load_sweep(result["file"])
    assert written.name == "paper-design"
    trials = expand(written)
    assert len(trials) == result["chosen"]["runs"]
    assert sum(3 * t.inference_flops * t.num_examples for t in trials) <= 1e21
    assert yaml.safe_load(Path(result["file"]).read_text())["data"] == yaml.safe_load(sweep.read_text())["data"]
    before = Path(result["file"]).read_text()
    again = CliRunner().invoke(design_command, arguments)
    assert again.exit_code == 2
    assert "exists" in again.output
    assert Path(result["file"]).read_text() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--training-flops or as --gpu-hours"),
        (["--training-flops", "1e21", "--gpu-hours", "5"], "--training-flops or as --gpu-hours"),
        (["--training-flops", "1e15"], "too small for any design"),
        (["--training-flops", "1e21", "--output", "/elsewhere/x.yaml"], "must lie beside"),
        (["--training-flops", "1e21", "--tflops", "0.1"], "buys nothing"),
    ],
)
def test_bad_input_is_named(tmp_path, arguments, words):
    sweep = tmp_path / "paper.yaml"
    sweep.write_text(PAPER.read_text())
    done = CliRunner().invoke(design_command, [str(sweep), *arguments])
    assert done.exit_code == 2
    assert words in done.output
    assert [p.name for p in tmp_path.iterdir()] == ["paper.yaml"]
