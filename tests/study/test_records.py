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
from vvlm_ray.study.folder import StudyFolder, open_study, write_json
from vvlm_ray.study.records import (
    Scores,
    collect_records,
    failed_record,
    finished_record,
    is_finished,
    read_record,
    row_of,
    write_record,
    write_tables,
)
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


@pytest.fixture
def trials():
    return expand(load_sweep(QUICKSTART))


def finished(trial, scores, **found):
    known = {"standard_errors": {}, "subtasks": {}} | found
    return finished_record(trial, Scores(scores, **known), meaning={"finetune": {"lr": 1e-3}}, details={"seconds": 1.0})


def test_avg_is_the_plain_mean_and_bad_scores_are_refused(trials):
    assert finished(trials[0], {"a": 10.0, "b": 40.0})["avg"] == 25.0
    for bad in (None, math.nan, math.inf, -1.0, 101.0, "50", True):
        with pytest.raises(ValueError, match="score of a"):
            finished(trials[0], {"a": bad})
    with pytest.raises(ValueError, match="no scores"):
        finished(trials[0], {})
    with pytest.raises(ValueError, match="standard error of a"):
        finished(trials[0], {"a": 10.0}, standard_errors={"a": math.nan})


def test_both_tables_are_written_and_missing_scores_stay_missing(tmp_path, trials):
    folder = StudyFolder(tmp_path)
    write_record(folder, finished(trials[0], {"a": 50.0}))
    write_record(folder, failed_record(trials[1], "out of memory", 2))
    assert is_finished(folder, trials[0].trial_id)
    assert not is_finished(folder, trials[1].trial_id)
    assert not is_finished(folder, trials[2].trial_id)
    write_tables(folder, collect_records(folder, trials))
    for read in (pd.read_csv(tmp_path / "records.csv"), pd.read_parquet(tmp_path / "records.parquet")):
        assert list(read["status"]) == ["finished", "failed"]
        assert read["avg"].isna().tolist() == [False, True]
        assert read["lm_params"].tolist() == [trials[0].lm_params, trials[1].lm_params]
        assert read["finetune.lr"].isna().tolist() == [False, True]


def test_a_score_cannot_replace_what_the_project_adds(trials):
    record = finished(trials[0], {"other": 50.0})
    assert record["scores"] == {"other": 50.0}
    row = row_of(record)
    assert (row["seconds"], row["seed"], row["other"]) == (1.0, trials[0].seed, 50.0)


def test_what_is_missing_damaged_or_of_another_meaning_is_said(tmp_path, trials):
    folder = StudyFolder(tmp_path)
    write_record(folder, finished(trials[0], {"a": 50.0}))
    write_record(folder, finished(trials[1], {"a": 51.0}) | {"version": 1})
    write_record(folder, finished(trials[-1], {"a": 52.0}))
    folder.trial(trials[2].trial_id).mkdir()
    folder.record(trials[2].trial_id).write_bytes(b"\x80\xff")
    found = collect_records(folder, trials[:5])
    assert [record["trial_id"] for record in found.finished] == [trials[0].trial_id]
    assert list(found.damaged) == [trials[1].trial_id, trials[2].trial_id]
    assert (len(found.missing), found.others) == (2, 1)
    said = " ".join(found.notes)
    for words in ("1 of 5 trials are finished", "2 trials have not run", "not JSON", "written in form 1", "1 further"):
        assert words in said


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
