"""Records: finished is final, the damaged are set aside, and the index is only a copy."""

import json
import time
from pathlib import Path

import pytest

from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import (
    INDEX_FILE,
    Scores,
    collect_records,
    failed_record,
    finished_record,
    read_record,
    set_damaged_aside,
    write_record,
)
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


@pytest.fixture
def trials(tmp_path):
    folder = StudyFolder(tmp_path / "quickstart")
    return folder, expand(folder.adopt(QUICKSTART))


def finished(trial, score=50.0):
    return finished_record(trial, Scores({"synthetic": score}, {}, {}), meaning={}, details={"seconds": 1.0})


def test_a_failure_never_replaces_a_finished_record_and_neither_does_another(trials):
    folder, (trial, *_) = trials
    assert write_record(folder, failed_record(trial, "first", 1))
    assert read_record(folder, trial.trial_id)["status"] == "failed"
    assert write_record(folder, finished(trial))
    text = folder.record(trial.trial_id).read_text()
    assert not write_record(folder, failed_record(trial, "late", 2))
    assert not write_record(folder, finished(trial, 60.0))
    assert folder.record(trial.trial_id).read_text() == text
    assert read_record(folder, trial.trial_id)["scores"] == {"synthetic": 50.0}


def test_a_folder_that_is_gone_is_not_made_anew_on_another_disk(trials, tmp_path):
    folder, (trial, *_) = trials
    folder.root.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        write_record(folder, finished(trial))
    assert not folder.root.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b'{"trial_id": "', b"\xff\xfe\x80", b"[]", b'{"version": 99}', b"[" * 100_000],
    ids=["emptied", "cut", "noise", "a list", "another version", "nested"],
)
def test_a_damaged_record_is_named_set_aside_and_its_trial_runs_again(trials, content):
    folder, (trial, other, *_) = trials
    write_record(folder, finished(trial))
    write_record(folder, finished(other))
    folder.record(trial.trial_id).write_bytes(content)
    collected = collect_records(folder, [trial, other])
    assert [r["trial_id"] for r in collected.finished] == [other.trial_id]
    assert str(folder.record(trial.trial_id)) in collected.damaged[trial.trial_id]
    (aside,) = set_damaged_aside(folder, collected.damaged)
    assert aside.read_bytes() == content
    assert collect_records(folder, [trial, other]).missing == (trial.trial_id,)
    assert write_record(folder, finished(trial, 70.0))


def test_the_index_sees_what_is_new_changed_and_gone(trials):
    folder, known = trials
    some = known * 1
    for trial in some:
        write_record(folder, finished(trial))
    from vvlm_ray.study import records

    minimum, records.MIN_NEW = records.MIN_NEW, 1
    try:
        assert len(collect_records(folder, some).finished) == len(some)
        assert (folder.root / INDEX_FILE).exists()
        gone, changed = folder.record(some[0].trial_id), folder.record(some[1].trial_id)
        gone.unlink()
        time.sleep(0.01)
        changed.write_text(json.dumps(finished(some[1], 12.0)))
        collected = collect_records(folder, some)
        assert collected.missing == (some[0].trial_id,)
        assert {r["trial_id"]: r["avg"] for r in collected.finished}[some[1].trial_id] == 12.0
        for damage in (b"\xff\x00\n", b"{}\n[1,2]\n", b""):
            (folder.root / INDEX_FILE).write_bytes(damage)
            assert len(collect_records(folder, some).finished) == len(some) - 1
    finally:
        records.MIN_NEW = minimum
