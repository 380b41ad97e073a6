"""Records: nothing half-written, nothing made up, nothing lost."""

import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.study.config import load_sweep
from vvlm_ray.study.folder import StudyFolder, open_study, write_json
from vvlm_ray.study.records import collect, failed_record, finished_record, is_finished, read_record, write_record
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


@pytest.fixture
def trials():
    return expand(load_sweep(QUICKSTART))


def test_avg_is_the_plain_mean_and_bad_scores_are_refused(trials):
    assert finished_record(trials[0], {"a": 10.0, "b": 40.0}, {})["avg"] == 25.0
    for bad in (None, math.nan, math.inf, -1.0, 101.0, "50"):
        with pytest.raises(ValueError, match="score of a"):
            finished_record(trials[0], {"a": bad}, {})
    with pytest.raises(ValueError, match="no scores"):
        finished_record(trials[0], {}, {})


def test_collect_writes_both_tables_and_keeps_missing_scores_missing(tmp_path, trials):
    folder = StudyFolder(tmp_path)
    write_record(folder, finished_record(trials[0], {"a": 50.0}, {"seconds": 1.0}))
    write_record(folder, failed_record(trials[1], "out of memory", 2))
    assert is_finished(folder, trials[0].trial_id)
    assert not is_finished(folder, trials[1].trial_id)
    assert not is_finished(folder, trials[2].trial_id)
    table = collect(folder, trials)
    assert list(table["status"]) == ["finished", "failed"]
    for read in (pd.read_csv(tmp_path / "records.csv"), pd.read_parquet(tmp_path / "records.parquet")):
        assert read["avg"].isna().tolist() == [False, True]
        assert read["lm_params"].tolist() == [trials[0].lm_params, trials[1].lm_params]


def test_a_damaged_record_is_named(tmp_path, trials):
    folder = StudyFolder(tmp_path)
    path = folder.record(trials[0].trial_id)
    path.parent.mkdir(parents=True)
    for text in ("{", "[]", json.dumps({"trial_id": "other", "status": "finished"})):
        path.write_text(text)
        with pytest.raises(UserError, match=r"record\.json"):
            read_record(folder, trials[0].trial_id)


def _write_for_ever(path):
    for i in range(10**9):
        write_json(path, {"value": i, "padding": "x" * 200_000})


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "record.json"
    for pause in (0.05, 0.11, 0.17, 0.23):
        process = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(path,))
        process.start()
        while not path.exists():
            time.sleep(0.01)
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert len(json.loads(path.read_text())["padding"]) == 200_000


def test_a_folder_of_another_study_is_refused_and_left_alone(tmp_path):
    folder = StudyFolder(tmp_path / "quickstart")
    folder.adopt(QUICKSTART)
    before = folder.sweep_file.read_text()
    other = tmp_path / "other.yaml"
    other.write_text(QUICKSTART.read_text().replace("name: quickstart", "name: other"))
    with pytest.raises(UserError, match="holds the study 'quickstart'"):
        folder.adopt(other)
    assert folder.sweep_file.read_text() == before
    assert open_study(folder.root)[1].name == "quickstart"
    with pytest.raises(UserError, match="not a study's folder"):
        open_study(tmp_path)


def test_assets_made_with_other_settings_are_not_used(tmp_path):
    folder = StudyFolder(tmp_path / "quickstart")
    folder.adopt(QUICKSTART)
    folder.assets.mkdir()
    other = tmp_path / "sweep.yaml"
    other.write_text(QUICKSTART.read_text().replace("num_test: 512", "num_test: 256"))
    with pytest.raises(UserError, match="other `synthetic` settings"):
        folder.adopt(other)
    assert folder.sweep_file.read_text() == QUICKSTART.read_text()
    folder.assets.rmdir()
    assert folder.adopt(other).synthetic.num_test == 256
