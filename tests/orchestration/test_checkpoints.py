"""Checkpoints in a trial's folder: whole or not there, two kept, the older used when the newer is damaged."""

import json

import pytest

from vvlm_ray.orchestration.checkpoints import MANIFEST, CheckpointStore, find, remove


@pytest.fixture
def in_a_worker():
    """Ray Train's local mode, as inside a worker function; no Ray runs."""
    from ray.train.v2._internal.execution.train_fn_utils import LocalTrainFnUtils, set_train_fn_utils

    set_train_fn_utils(LocalTrainFnUtils("test"))
    yield
    set_train_fn_utils(None)


def save(store, tmp_path, step):
    handed = tmp_path / "handed"
    (handed / "shards").mkdir(parents=True, exist_ok=True)
    (handed / "state.json").write_text(json.dumps({"step": step}))
    (handed / "shards" / "rank-0").write_bytes(bytes([step]) * 1000)
    store.save(handed)


def step_of(folder):
    return json.loads((folder / "state.json").read_text())["step"] if folder else None


@pytest.fixture
def run(tmp_path, in_a_worker):
    """A run that has saved three times."""
    run = tmp_path / "run"
    store = CheckpointStore(run)
    assert store.resume_from() is None
    for step in (1, 2, 3):
        save(store, tmp_path, step)
    return run


def test_two_are_kept_and_the_newest_is_taken(run):
    assert sorted(f.name for f in (run / "checkpoints").iterdir()) == ["000002", "000003"]
    assert step_of(CheckpointStore(run).resume_from()) == 3
    remove(run)
    assert list(run.iterdir()) == []


def test_a_new_start_counts_on(run, tmp_path):
    save(CheckpointStore(run), tmp_path, 4)
    assert sorted(f.name for f in (run / "checkpoints").iterdir()) == ["000003", "000004"]


DAMAGE = {
    "cut": lambda f: (f / "shards" / "rank-0").write_bytes(b"\3" * 500),
    "emptied": lambda f: (f / "state.json").write_bytes(b""),
    "altered": lambda f: (f / "shards" / "rank-0").write_bytes(b"\3" * 999 + b"\4"),
    "file missing": lambda f: (f / "shards" / "rank-0").unlink(),
    "never completed": lambda f: (f / MANIFEST).unlink(),
    "manifest cut": lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text()[:20]),
    "manifest of noise": lambda f: (f / MANIFEST).write_bytes(bytes(range(256))),
    "manifest of another kind": lambda f: (f / MANIFEST).write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_older_is_used_when_the_newer_is_damaged_and_none_when_both_are(run, damage):
    newer, older = run / "checkpoints" / "000003", run / "checkpoints" / "000002"
    damage(newer)
    found = find(run / "checkpoints")
    assert step_of(found.folder) == 2
    assert list(found.damaged) == [newer]
    damage(older)
    assert find(run / "checkpoints").folder is None
    assert CheckpointStore(run).resume_from() is None
