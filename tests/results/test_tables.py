"""What a folder of records says beside its table."""

import numpy as np
import pandas as pd
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.results.source import open_source
from vvlm_ray.results.tables import metric_columns


def results(count=40):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "trial_id": [f"t{i}" for i in range(count)],
            "sweep": ["star" if i % 2 else "isoflop" for i in range(count)],
            "lm_params": rng.choice([1e9, 2.8e9, 7.5e9], count),
            "num_frames": np.arange(1, count + 1),
            "tokens_per_frame": rng.choice([4, 16, 196], count),
            "num_examples": rng.choice([250_000, 500_000], count),
            "inference_flops": 1e12,
            "VDC": 40.0,
            "avg": rng.uniform(40, 60, count),
        }
    )


def test_metric_columns_stand_between_cost_and_average():
    assert metric_columns(results()) == ["VDC", "avg"]


def test_a_folder_knows_its_cost_and_grid(tmp_path):
    results().to_csv(tmp_path / "records.csv", index=False)
    (tmp_path / "sweep.yaml").write_text(
        "cost: {vision_params: 1.0e+6, vision_tokens: 64}\ngrid: {num_frames: [1, 2]}\n"
    )
    source = open_source(tmp_path)
    assert source.cost(lm_params=1e9, num_frames=2, tokens_per_frame=4) == 2 * 2 * (1e6 * 64 + 1e9 * 4)
    assert (source.grid["num_frames"] == [1, 2]).all()
    (tmp_path / "sweep.yaml").write_text("cost: {vision_params: many}\n")
    with pytest.raises(UserError, match=r"sweep.yaml:\n  line 1, cost.vision_params"):
        open_source(tmp_path)
