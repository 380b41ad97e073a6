"""Reading results: any CSV or parquet, with errors that name row and column."""

import numpy as np
import pandas as pd
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.results.source import open_source
from vvlm_ray.results.tables import Columns, metric_columns, read_table, runs_of


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


def read(tmp_path, frame, columns=None, name="records.csv"):
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    return runs_of(read_table(path), path, columns or Columns())


def with_value(column, row, value):
    frame = results().astype({column: object})
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize("name", ["records.csv", "records.parquet"])
def test_default_columns_need_no_flags(tmp_path, name):
    frame = results()
    runs, notes = read(tmp_path, frame, name=name)
    assert list(runs.factors) == ["lm_params", "num_frames", "tokens_per_frame"]
    assert np.allclose(runs.error, 100 - frame["avg"])
    assert np.allclose(runs.num_examples, frame["num_examples"])
    assert (runs.sweep == frame["sweep"].to_numpy()).all()
    assert not notes


def test_named_columns_and_an_error_column(tmp_path):
    frame = results().rename(columns={"lm_params": "N"})
    columns = Columns(("N", "num_frames"), data_size="num_examples", error="VDC")
    runs, _ = read(tmp_path, frame, columns)
    assert list(runs.factors) == ["N", "num_frames"]
    assert (runs.error == 40).all()
    runs, _ = read(tmp_path, frame, Columns(("N", "num_frames"), score="avg"))
    assert runs.num_examples is not None, "used whatever the factors are"


@pytest.mark.parametrize(("column", "value", "message"), [
    ("lm_params", -1e9, r"row 3 \(line 4\), column 'lm_params'.*must be positive"),
    ("num_frames", 0, r"row 3 \(line 4\), column 'num_frames'.*must be positive"),
    ("num_frames", None, r"row 3 \(line 4\), column 'num_frames'.*missing"),
    ("avg", None, r"row 3 \(line 4\), column 'avg'.*missing"),
    ("avg", "n/a?", r"row 3 \(line 4\), column 'avg': n/a\? is not a number"),
    ("num_examples", "1M", r"row 3 \(line 4\), column 'num_examples': 1M is not a number"),
    ("avg", 100.0, r"row 3 \(line 4\), column 'avg'.*error is 0"),
    ("avg", 130.0, r"row 3 \(line 4\), column 'avg'.*0\.\.100"),
    ("num_examples", np.inf, r"row 3 \(line 4\), column 'num_examples'.*not finite"),
])  # fmt: skip
def test_bad_values_are_named_with_row_and_column(tmp_path, column, value, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, with_value(column, 2, value))


def test_an_error_of_zero(tmp_path):
    with pytest.raises(UserError, match=r"row 1 \(line 2\), column 'VDC'.*positive"):
        read(tmp_path, with_value("VDC", 0, 0.0), Columns(error="VDC"))


def test_duplicate_rows_are_refused_unless_wanted(tmp_path):
    frame = pd.concat([results(), results().iloc[[4]]])
    with pytest.raises(UserError, match=r"row 41 \(line 42\) repeats row 5 \(line 6\).*--keep-duplicates"):
        read(tmp_path, frame)
    runs, _ = read(tmp_path, frame, Columns(keep_duplicates=True))
    assert runs.num_runs == 41


def test_the_same_configuration_measured_again_is_no_duplicate(tmp_path):
    again = results().iloc[[4]].assign(avg=51.0)
    assert read(tmp_path, pd.concat([results(), again]))[0].num_runs == 41


def test_scores_on_0_to_1_are_noticed(tmp_path):
    frame = results()
    with pytest.raises(UserError, match=r"0\.\.1.*multiply them by 100"):
        read(tmp_path, frame.assign(avg=frame["avg"] / 100))


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"no column 'num_frames'; the columns are .*tokens_per_frame"):
        read(tmp_path, results().drop(columns="num_frames"))


def test_rows_that_are_not_done_are_left_out_and_said(tmp_path):
    frame = results().assign(status="done")
    frame.loc[7, ["status", "avg"]] = ["failed", np.nan]
    runs, notes = read(tmp_path, frame)
    assert runs.num_runs == 39
    assert notes == ("1 of 40 rows are not done and were left out",)
    assert runs.labels[7] == "row 9 (line 10)"


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "nothing.csv")
    (tmp_path / "broken.parquet").write_text("text")
    with pytest.raises(UserError, match=r"broken.parquet: not readable"):
        read_table(tmp_path / "broken.parquet")
    (tmp_path / "empty.csv").write_text("lm_params,avg\n")
    with pytest.raises(UserError, match="no rows"):
        read_table(tmp_path / "empty.csv")


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
