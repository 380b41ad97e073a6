"""W&B can do no harm: a server that hangs, fails or is not there costs seconds, and an offline run has everything."""

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vvlm_ray.orchestration import tracking
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import Scores, finished_record, write_record
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


@contextlib.contextmanager
def hanging():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield server.getsockname()[1]


@contextlib.contextmanager
def failing():
    class Fails(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_error(500)

        do_GET = do_POST

        def log_message(self, *what):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fails)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@contextlib.contextmanager
def absent():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield port


@pytest.fixture
def trial(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(tracking._Live, "asks_again", 0.0)
    folder = StudyFolder(tmp_path / "quickstart")
    study = folder.adopt(QUICKSTART)
    return folder, study, expand(study)[0]


def attempt(folder, study, trial, steps):
    with tracking.track(folder, study, trial, is_writer=True) as log:
        for step in steps:
            log({"train/step": step, "train/loss": 1.0 / step})


def finish(folder, study, trial):
    found = Scores({"synthetic": 50.0}, {}, {})
    write_record(folder, finished_record(trial, found, meaning={}, details={}))
    tracking.publish(folder, study, trial.to_dict(), folder.trial(trial.trial_id))


def offline_runs(folder):
    return list(folder.wandb.rglob("offline-run-*/run-*.wandb"))


def history_of(file):
    """The rows that a run's file holds once W&B's own process has written its end, by W&B's own reader."""
    for _ in range(100):
        if (rows := read_history(file)) and "eval/avg" in rows[-1]:
            return rows
        time.sleep(0.1)
    return rows


def read_history(file):
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store, rows = DataStore(), []
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            rows.append({(i.key or i.nested_key[0]): json.loads(i.value_json) for i in record.history.item})
    return rows


@pytest.mark.timeout(120)
@pytest.mark.parametrize("server", [hanging, failing, absent])
def test_a_server_in_trouble_costs_seconds_and_nothing_else(trial, monkeypatch, server):
    folder, study, one = trial
    with server() as port:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        assert tracking.tracking_mode(study) == "online"
        start = time.monotonic()
        attempt(folder, study, one, range(1, 4))
        assert time.monotonic() - start < 20
        finish(folder, study, one)
    (run,) = offline_runs(folder)
    rows = history_of(run)
    assert [row["train/step"] for row in rows[:3]] == [1, 2, 3]
    assert rows[-1]["eval/avg"] == 50.0


@pytest.mark.timeout(120)
def test_all_attempts_are_one_offline_run(trial, monkeypatch):
    folder, study, one = trial
    monkeypatch.setenv("WANDB_MODE", "offline")
    attempt(folder, study, one, [1, 2, 3])
    with (folder.trial(one.trial_id) / "metrics.jsonl").open("a") as file:
        file.write('{"train/step": 4, "tra')  # killed while it wrote
    attempt(folder, study, one, [3, 4, 5])  # it goes on from a checkpoint of step 2
    finish(folder, study, one)
    (run,) = offline_runs(folder)
    rows = history_of(run)
    assert [row.get("train/step") for row in rows] == [1, 2, 3, 4, 5, None]


def test_online_without_a_key_is_offline(trial, monkeypatch):
    _, study, _ = trial
    monkeypatch.setattr(tracking, "_has_key", lambda: False)
    monkeypatch.setenv("WANDB_MODE", "online")
    assert tracking.tracking_mode(study) == "offline"


PROCESS = """
import sys
from pathlib import Path
from vvlm_ray.orchestration import tracking
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.trials import expand
folder = StudyFolder(Path(sys.argv[1]))
study = folder.adopt(Path(sys.argv[2]))
with tracking.track(folder, study, expand(study)[0], is_writer=True) as log:
    log({"train/step": 1, "train/loss": 1.0})
"""


def test_a_process_ends_though_the_server_never_answers(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with hanging() as port:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        subprocess.run([sys.executable, "-c", PROCESS, tmp_path / "quickstart", QUICKSTART], check=True, timeout=60)
