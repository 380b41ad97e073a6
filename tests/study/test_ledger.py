"""The ledger: every event a line; what is torn or foreign is counted and in nobody's way."""

import pytest

from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.ledger import ENDED, FAILED, FINISHED, STARTED, Ledger, read_history


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(tmp_path)


def test_attempts_are_read_back_with_their_seconds_over_all(folder):
    ledger = Ledger(folder, print)
    ledger.note(STARTED, "a", attempt=1, where=["n1"], log="trials/a/logs/attempt-1.log", resumes_from=0)
    ledger.note(ENDED, "a", attempt=1, outcome=FAILED, cause="x", counts=True, checkpoint=2, seconds=3.0)
    ledger.note(STARTED, "a", attempt=2, where=["n2"], log="l", resumes_from=2)
    history = read_history(folder)
    first, second = history.attempts["a"]
    assert (first.outcome, first.cause, first.counts, first.checkpoint) == (FAILED, "x", True, 2)
    assert second.ended is None
    assert second.resumes_from == 2
    Ledger(folder, print).note(ENDED, "a", attempt=2, outcome=FINISHED, counts=False, seconds=4.5)
    assert read_history(folder).seconds("a") == 7.5
    assert read_history(folder).counted("a") == 1


@pytest.mark.parametrize(
    "damage",
    [b'{"time": 1, "event": "star', b"\xff\xfe\x00\x01", b"[1, 2]\n", b'{"event": "ended"}\n', b"[" * 100_000],
    ids=["torn", "noise", "another form", "parts missing", "nested"],
)
def test_damaged_lines_are_passed_over_and_what_follows_is_kept(folder, damage):
    ledger = Ledger(folder, print)
    ledger.note(STARTED, "a", attempt=1)
    with folder.ledger.open("ab") as file:
        file.write(damage)
    ledger.note(ENDED, "a", attempt=1, outcome=FINISHED)
    history = read_history(folder)
    assert history.num_damaged == 1
    assert history.attempts["a"][0].outcome == FINISHED


def test_a_writer_waits_while_storage_refuses_and_says_so(folder, monkeypatch):
    from vvlm_ray.study import storage

    pauses, said = [], []

    def sleep(seconds):  # the disk has room again after the third try
        pauses.append(seconds)
        if len(pauses) == 3:
            folder.root.mkdir()

    folder.root.rmdir()
    monkeypatch.setattr(storage.time, "sleep", sleep)
    Ledger(folder, said.append).note(STARTED, "a", attempt=1)
    assert pauses == [1.0, 2.0, 4.0]
    assert "waiting for storage" in said[0]
    assert "going on" in said[-1]
    assert list(read_history(folder).attempts) == ["a"]
