"""Published scaling data, read from the folder `shared` beside the checkout where there is one."""

import csv
from pathlib import Path

import numpy as np
import pytest

from vvlm_ray.scaling.fitting import fit
from vvlm_ray.scaling.runs import Runs

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="there is no folder shared/data beside the checkout")

SIZES = {"124M": 124e6, "774M": 774e6, "256M": 256e6, "1.3B": 1.3e9, "350m": 350e6, "1.3b": 1.3e9, "6.7b": 6.7e9}


def test_llava_token_compression_is_not_identified():
    """An unbounded fit runs off to A = 185, d = -184 (Li et al. 2024's data); ours says that the floor is unknown."""
    with open(DATA / "llava-token-compression" / "llava_token_compression.csv") as file:
        rows = list(csv.DictReader(file))
    factors = {name: np.array([float(row[name]) for row in rows]) for name in ("N_billion", "visual_tokens")}
    found = fit(Runs(factors, np.array([float(row["avg_error"]) for row in rows])), "mult", starts=100)
    assert found.status == "unidentified"
    assert "eps" in {verdict.param for verdict in found.unidentified}
    assert any("eps" in warning for warning in found.warnings)
    assert 0 < found.params["alpha"] < 1 and found.params["eps"] == 0
    assert found.params["a_N_billion"] == pytest.approx(0.071, abs=0.01)  # published in a box: 0.077
    assert found.params["a_visual_tokens"] == pytest.approx(0.015, abs=0.003)  # 0.015


@pytest.mark.parametrize(("task", "tolerance"), [("flan", 0.15), ("gigaword", 0.30), ("wikiword", 0.15)])
def test_finetuning_loss_of_the_largest_n_is_predicted(task, tolerance):
    """One surface over (size, n) for one family of models, the largest n held out.

    Gigaword bends in the middle (Lin et al. 2024's "pre-power phase"), which no power law follows.
    """
    with open(DATA / "finetune-rectified" / f"{task}.csv") as file:
        header, *rows = csv.reader(file)
    sizes = [float(text) for text in header[2:]]
    rows = [row for row in rows if row[0].startswith("facebook/opt")]
    params = {row[0]: SIZES[row[0].rsplit("-", 1)[1]] for row in rows}
    table = [(params[row[0]], n, float(value)) for row in rows for n, value in zip(sizes, row[2:], strict=True)]
    lm, n, loss = np.array(table).T
    runs = Runs({"lm_params": lm}, loss, n)
    train = n < max(sizes)
    found = fit(runs.select(train), "add-interact", starts=100)
    error = np.abs(found.predict({"lm_params": lm[~train]}, n[~train]) / loss[~train] - 1)
    assert error.max() < tolerance
