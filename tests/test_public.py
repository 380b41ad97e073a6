"""The public API as a notebook uses it."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import vvlm_ray as vr
from vvlm_ray.errors import UserError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(1)
    n, t, v, size = (rng.choice(values, 50) for values in ([1e9, 2.8e9, 7.5e9], [2, 4, 8, 16], [4, 16, 49], [2e5, 1e6]))
    error = 25 + 8 * (n / 1e9) ** -0.4 + 30 / t + 60 / v + 4 * (size / 1e6) ** -0.3 + rng.normal(0, 0.2, 50)
    frame = {"lm_params": n, "num_frames": t, "tokens_per_frame": v, "num_examples": size, "avg": 100 - error}
    path = tmp_path_factory.mktemp("public") / "records.csv"
    pd.DataFrame(frame).assign(status=["finished"] * 49 + ["failed"]).to_csv(path, index=False)
    return path


def test_what_the_documentation_shows(table, tmp_path):
    space = vr.Space(levels={"num_frames": range(1, 33)}, cost=vr.cost(vision_params=0.43e9, vision_tokens=729))
    runs = vr.Runs.read(table, space=space)
    assert runs.num_runs == 49 and any("1 row that is not done" in note for note in runs.notes)
    bag = vr.fit(runs, "add", resamples=8, starts=30)
    line = bag.frontier(budgets=[2, 5, 15], num_examples=1e6)
    assert bag.runs.space.cost.vision_tokens == 729 and line.factors["num_frames"].max() <= 32
    frame = line.to_frame()
    assert frame["budget"].tolist() == [2, 5, 15] and (frame["cost"] <= frame["budget"]).all()
    assert line.plot().get_xlabel() == "budget, TFLOPs"
    bag.save(tmp_path / "bag.json")
    again = vr.Bag.load(tmp_path / "bag.json")
    other = again.frontier(budgets=[2, 5, 15], num_examples=1e6)
    assert other.to_frame().equals(frame) and again.runs.notes == runs.notes
    assert set(bag.elasticity(budgets=[5], sizes=[5e5]).mean) == set(runs.factors)
    assert bag.recommend(budget=10, num_examples=5e5).line.cost[0] <= 10
    assert vr.cross_validate(runs, "add", resamples=3, starts=20).r2 > 0.8
    assert isinstance(vr.fit(runs), vr.Posterior)


@pytest.mark.parametrize("damage", [
    lambda value: value.pop("runs"),
    lambda value: value["bag"]["exponents"].append(1.0),
    lambda value: value["bag"]["resamples"]["exponents"].pop(),
    lambda value: value["settings"].update(unheard=1),
    lambda value: value["runs"]["error"].__setitem__(0, "low"),
    lambda value: value["runs"].update(space=None),
])  # fmt: skip
def test_damaged_bags_are_refused(table, tmp_path, damage):
    path = tmp_path / "bag.json"
    vr.fit(vr.Runs.read(table), "mult", resamples=2, starts=5).save(path)
    value = json.loads(path.read_text())
    damage(value)
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"bag.json"):
        vr.Bag.load(path)


def test_a_study_is_planned_from_its_sweep_file():
    study = vr.Study.read("sweeps/quickstart.yaml")
    assert study.name == "quickstart" and study.plan(slots=2).problems == []


def test_the_names_are_listed_and_imported_lazily():
    assert {"Space", "cost", "Runs", "fit", "Bag", "cross_validate", "Study", "analyse"} <= set(dir(vr))
    assert all(getattr(vr, name).__doc__ for name in dir(vr))
    code = "import sys, vvlm_ray; assert not {'numpy', 'torch', 'ray', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = vr.nothing_like_it
