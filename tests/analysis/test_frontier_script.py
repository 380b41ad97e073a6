"""analysis/frontier.py as a researcher runs it: a subprocess, any table, no torch, clear mistakes."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

REPO = Path(__file__).parents[2]
SCRIPT = REPO / "analysis" / "frontier.py"
# Runs the script where the named packages cannot be imported.
WITHOUT = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "ray", "transformers", "lmms_eval", "wandb"}:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments, code=None):
    start = ["-c", code, str(SCRIPT)] if code else [str(SCRIPT)]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=REPO
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder of records made elsewhere, with a short sweep.yaml of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    rng = np.random.default_rng(0)
    points = [(p, f, t, n) for p in (1e9, 3e9, 8e9) for f in (4, 16) for t in (16, 100) for n in (2e5, 1e6)]
    frame = pd.DataFrame(points, columns=["lm_params", "num_frames", "tokens_per_frame", "num_examples"])
    x = frame.astype(float)
    error = 25 + 8 * (x.lm_params / 1e9) ** -0.4 + 30 / x.num_frames + 60 / x.tokens_per_frame
    error += 4 * (x.lm_params / 1e9) ** 0.2 * (x.num_examples / 1e6) ** -0.3 + rng.normal(0, 0.2, len(x))
    frame.assign(VMME=100 - error, avg=100 - error).to_csv(folder / "records.csv", index=False)
    (folder / "sweep.yaml").write_text("answer: {tflops: [10, 40], resamples: 6, starts: 20}\n")
    return folder


@pytest.fixture(scope="module")
def told(study):
    done = run(study, "--num-examples", 500_000, "--budgets", "9,40", "--output", study / "report", code=WITHOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_works_where_torch_and_ray_are_not_installed(told, study):
    assert "Up to 9 TFLOPs per video: deploy an LM of" in told
    assert "Up to 40 TFLOPs per video: deploy an LM of" in told
    assert "The frontier after 500k examples:" in told
    for name in ("frontier.png", "frontier.svg"):
        assert (study / "report" / name).exists()


def test_what_it_prints_is_the_frontier(told, study):
    from vvlm_ray.results.analysis import analyse

    line = analyse(study, budgets=[9, 40], num_examples=500_000).frontier
    for b in range(2):
        frames, tokens = line.factors["num_frames"][b], line.factors["tokens_per_frame"][b]
        assert f"{frames:.0f} frames and {tokens:.0f} tokens per frame" in told
        assert f"expected score {100 - line.error[b]:.1f}, 90% band" in told


def test_a_lone_table_with_another_metric(study, tmp_path):
    path = tmp_path / "runs.parquet"
    pd.read_csv(study / "records.csv").drop(columns="avg").to_parquet(path)
    done = run(path, "--score", "VMME", "--output", tmp_path / "pictures")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {"frontier.png", "frontier.svg"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file"),
        (["{study}", "--score", "MVB"], "there is no column 'MVB'; the columns are lm_params"),
        (["{study}", "--budgets", "1e-9"], "buys nothing"),
        (["{study}", "--budgets", "few"], "could not convert"),
        (
            ["{study}", "--factors", "num_frames,tokens_per_frame"],
            "what a configuration of num_frames, tokens_per_frame costs is unknown: say it with --cost",
        ),
    ],
)
def test_mistakes_end_with_code_2_and_one_message(study, arguments, message):
    done = run(*(text.format(study=study) for text in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_costs_nothing():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert after.ru_utime - before.ru_utime < 1.0, "seconds of CPU; imports of scipy or matplotlib alone take more"
