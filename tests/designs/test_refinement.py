"""Refinement: the optimum of every isoFLOP curve ends up inside it, within the budget, and nothing is repeated."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from vvlm_ray.designs.refinement import propose, propose_uncertain
from vvlm_ray.errors import UserError
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.study.additions import add_points, all_trials, read_added
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.trials import expand, make_trials

PAPER = Path(__file__).parents[2] / "sweeps" / "paper.yaml"


def narrow_study(**refinement):
    """Two points a curve, both on the side of few tokens: the optimum of `score` lies outside of every curve."""
    raw = yaml.safe_load(PAPER.read_text())
    raw["sweeps"] = [
        {
            "kind": "isoflop",
            "num_examples": [1_000_000],
            "curves": [
                {"tflops": 15, "points": [[1e9, 22, 16], [1e9, 20, 49], [7.5e9, 21, 4], [7.5e9, 19, 9]]},
                {"tflops": 30, "points": [[1e9, 40, 49], [1e9, 37, 81]]},
            ],
        }
    ]
    raw["refinement"] = {"max_trials": 30} | refinement
    return Study.model_validate(raw)


def score(trial):
    """Best where T and V are balanced."""
    return -(np.log(trial.num_frames / 10) ** 2) - np.log(trial.tokens_per_frame / 150) ** 2


def refine(study):
    trials = expand(study)
    for _ in range(40):
        scores = {t.trial_id: score(t) for t in trials}
        points = propose(study, scores, trials)
        if not points:
            return trials, scores
        new = make_trials(study, points)
        assert not {t.trial_id for t in new} & {t.trial_id for t in trials}
        trials += new
    raise AssertionError("refinement does not end")


def interior_optima(trials):
    """For each curve, whether its best point has neighbours on both sides."""
    curves = {}
    for t in trials:
        curves.setdefault((t.target_flops, t.num_examples, t.lm_params), []).append((t.tokens_per_frame, score(t)))
    for points in curves.values():
        scores = [score for _, score in sorted(points)]
        yield 0 < int(np.argmax(scores)) < len(scores) - 1


def test_every_optimum_becomes_interior():
    study = narrow_study()
    trials, _ = refine(study)
    assert not any(interior_optima(expand(study)))
    assert all(interior_optima(trials))
    added = [t for t in trials if t.sweep == "refinement"]
    assert 3 <= len(added) <= 15
    for t in added:
        assert abs(t.inference_flops / t.target_flops - 1) <= study.refinement.tolerance
    # what refinement found is as good as the best of all candidates on a curve, up to its spacing
    best = max(score(t) for t in trials if t.target_flops == 15e12 and t.lm_params == 1e9)
    assert best > max(score(t) for t in expand(study) if t.target_flops == 15e12 and t.lm_params == 1e9)


def test_it_stops_at_its_budget():
    trials, _ = refine(narrow_study(max_trials=2))
    assert sum(t.sweep == "refinement" for t in trials) == 2
    one = 3 * 15e12 * 1e6
    trials, _ = refine(narrow_study(max_training_flops=1.2 * one))
    assert sum(3 * t.inference_flops * t.num_examples for t in trials if t.sweep == "refinement") <= 1.2 * one
    raw = narrow_study().model_copy(update={"refinement": None})
    assert propose(raw, {}, expand(raw)) == []


def test_a_curve_waits_for_its_trials_but_not_for_those_given_up():
    study = narrow_study()
    trials = expand(study)
    scores = {t.trial_id: score(t) for t in trials}
    waiting = next(t for t in trials if t.target_flops == 30e12)
    del scores[waiting.trial_id]
    assert {p.target_flops for p in propose(study, scores, trials)} == {15e12}
    # of the two points of the other curve one failed: one point alone has no inner neighbour to measure a step by
    assert {p.target_flops for p in propose(study, scores, trials, given_up=[waiting.trial_id])} == {15e12}


def test_the_end_of_the_choices_is_the_end_of_refinement():
    study = narrow_study()
    falling = {t.trial_id: -t.tokens_per_frame for t in expand(study)}  # the fewer tokens the better, down to one
    trials = expand(study)
    for _ in range(20):
        points = propose(study, falling, trials)
        trials += make_trials(study, points)
        falling = {t.trial_id: -t.tokens_per_frame for t in trials}
    assert propose(study, falling, trials) == []
    assert min(t.tokens_per_frame for t in trials) == 1


def test_what_was_added_is_kept_in_the_folder(tmp_path):
    study, folder = narrow_study(), StudyFolder(tmp_path)
    assert read_added(folder) == []
    points = propose(study, {t.trial_id: score(t) for t in expand(study)}, expand(study))
    add_points(folder, points[:1])
    add_points(folder, points[1:])
    assert read_added(folder) == points
    assert len(all_trials(study, folder)) == len(expand(study)) + len(points)
    (tmp_path / "refinement.json").write_text("{")
    with pytest.raises(UserError, match=r"refinement\.json"):
        read_added(folder)


def test_the_uncertain_point_has_not_been_run_and_costs_what_was_asked():
    raw = yaml.safe_load(PAPER.read_text())
    raw["refinement"] = {"uncertain_trials": 1}
    study = Study.model_validate(raw)
    trials = expand(study)
    rng = np.random.default_rng(0)
    columns = {f: np.array([t.factors[f] for t in trials], float) for f in study.factors}
    n = np.array([t.num_examples for t in trials], float)
    error = 40 + 3 * (columns["lm_params"] / 1e9) ** -0.4 + 9 * columns["num_frames"] ** -0.5
    error += 8 * columns["tokens_per_frame"] ** -0.4 + 2 * (n / 1e6) ** -0.3 + 0.4 * rng.normal(size=len(n))
    (point,) = propose_uncertain(study, Runs(columns, error, num_examples=n), trials, resamples=8)
    new = make_trials(study, [point])[0]
    assert new.trial_id not in {t.trial_id for t in trials}
    assert new.inference_flops <= new.target_flops
    assert propose_uncertain(study, Runs(columns, error, num_examples=n), [*trials, new]) == []
    poor = study.model_copy(update={"refinement": study.refinement.model_copy(update={"max_training_flops": 1e18})})
    assert propose_uncertain(poor, Runs(columns, error, num_examples=n), trials, resamples=8) == []


def test_ties_and_near_ties_at_an_edge_are_edges():
    """Scores are discrete: 40, 65, 65 leaves the optimum open; so does 40, 65.2, 65 if good to 0.5."""
    raw = yaml.safe_load(PAPER.read_text())
    curve = {"tflops": 15, "points": [[1e9, 22, 16], [1e9, 20, 49], [1e9, 16, 144]]}
    raw["sweeps"] = [{"kind": "isoflop", "num_examples": [1_000_000], "curves": [curve]}]
    raw["refinement"] = {"max_trials": 5}
    study = Study.model_validate(raw)
    trials = sorted(expand(study), key=lambda t: t.tokens_per_frame)

    def proposed(values, **options):
        return propose(study, {t.trial_id: v for t, v in zip(trials, values, strict=True)}, trials, **options)

    (point,) = proposed([40, 65, 65])
    assert point.factors["tokens_per_frame"] > 144
    assert proposed([40, 65.2, 65]) == []
    (point,) = proposed([40, 65.2, 65], noise=0.5)
    assert point.factors["tokens_per_frame"] > 144
    assert proposed([40, 65, 60], noise=0.5) == []


def test_what_does_not_fit_the_limits_is_said():
    study = narrow_study(max_training_flops=1e18)
    trials, told = expand(study), []
    scores = {t.trial_id: score(t) for t in trials}
    assert propose(study, scores, trials, said=told.append) == []
    assert len(told) == 3 and all("training FLOPs" in sentence for sentence in told)
    study, told = narrow_study(max_trials=1), []
    assert len(propose(study, scores, trials, said=told.append)) == 1
    assert len(told) == 2 and all("max_trials = 1" in sentence for sentence in told)
