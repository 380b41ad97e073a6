"""Storage: the same functions on a disk and on an object store (moto's S3 server on loopback, failing now and then)."""

import contextlib
import logging
import random
import socket
import threading
from pathlib import Path

import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.ledger import ENDED, FINISHED, STARTED, Ledger, read_history
from vvlm_ray.study.lock import Taken, hold, read_holder
from vvlm_ray.study.storage import (
    append_line,
    create,
    local_copy,
    local_output,
    open_storage,
    patiently,
    remove_tree,
    write_atomically,
)

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


class Flaky:
    """A WSGI application that fails a share of the requests to the one inside, as S3 does on bad days."""

    def __init__(self, inside, share, seed=0):
        self.inside, self.share, self.random = inside, share, random.Random(seed)
        self.num_failed = 0

    def __call__(self, environ, start_response):
        if self.random.random() < self.share:
            self.num_failed += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self.inside(environ, start_response)


@contextlib.contextmanager
def s3_server():
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flaky = Flaky(DomainDispatcherApplication(create_backend_app), 0.0)
    server = make_server("127.0.0.1", port, flaky, threaded=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{port}", flaky
    server.shutdown()


@pytest.fixture(scope="module")
def bucket():
    import s3fs

    patch = pytest.MonkeyPatch()
    with s3_server() as (url, flaky):
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("studies")
        flaky.share = 0.05
        yield "s3://studies"
        assert flaky.num_failed > 0
        patch.undo()


@pytest.fixture(params=["disk", "s3"])
def root(request, tmp_path):
    if request.param == "disk":
        return tmp_path
    return open_storage(request.getfixturevalue("bucket")) / request.node.originalname


def test_writing_replacing_creating_and_appending(root):
    file = root / "a" / "record.json"
    write_atomically(file, "one")
    write_atomically(file, "two")
    assert file.read_text() == "two"
    assert create(root / "a" / "once", "first")
    assert not create(root / "a" / "once", "second")
    assert (root / "a" / "once").read_text() == "first"
    for line in ("x", "y"):
        append_line(root / "a" / "ledger", line)
    assert (root / "a" / "ledger").read_text() == "x\ny\n"
    with local_output(root / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("made")
    assert (local_copy(root / "out") / "sub" / "file").read_text() == "made"
    remove_tree(root / "a")
    assert not file.exists()
    remove_tree(root / "a")


def test_a_study_of_ledger_and_lock(root):
    folder = StudyFolder(root)
    write_atomically(folder.sweep_file, "name: x\n")
    with hold(folder.root):
        with pytest.raises(Taken, match="process"), hold(folder.root, take_over=True):
            pass
        ledger = Ledger(folder, print)
        for number in range(1, 6):
            ledger.note(STARTED, "a", attempt=number)
            ledger.note(ENDED, "a", attempt=number, outcome=FINISHED)
    assert read_holder(folder.root) is None
    assert [a.outcome for a in read_history(folder).attempts["a"]] == [FINISHED] * 5


def test_of_many_writers_one_creates(root):
    results = []

    def write(number):
        results.append(create(root / "one" / "lock", str(number)))

    (root / "one").mkdir(parents=True, exist_ok=True)
    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]


def test_an_unknown_kind_of_storage_is_refused_and_never_becomes_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nosuch://b/x"):
        open_storage("nosuch://b/x")
    assert list(tmp_path.iterdir()) == []


def test_patience_ends_when_it_is_told_to():
    def refuse():
        raise OSError(28, "No space left on device")

    said = []
    with pytest.raises(OSError, match="No space"):
        patiently(refuse, "the record", said.append, seconds=1.5)
    assert "No space left" in said[0]


def test_a_report_of_a_study_in_a_bucket_is_put_there(bucket):
    from click.testing import CliRunner

    from vvlm_ray.commands.report import report
    from vvlm_ray.commands.status import status
    from vvlm_ray.study.records import Scores, collect_records, finished_record, write_record, write_tables
    from vvlm_ray.study.trials import expand

    folder = StudyFolder(open_storage(bucket) / "quickstart")
    study = folder.adopt(QUICKSTART)
    for trial in expand(study):
        x = trial.factors
        score = 90 - 40 / x["num_frames"] - 30 / x["tokens_per_frame"] - 300 / trial.num_examples**0.5
        found = Scores({"synthetic": max(score, 1.0)}, {}, {})
        assert write_record(folder, finished_record(trial, found, meaning={}, details={"seconds": 1.0}))
    write_tables(folder, collect_records(folder, expand(study)))
    seen = CliRunner().invoke(status, [str(folder.root)])
    assert "42 finished" in seen.output, seen.output
    done = CliRunner().invoke(report, [str(folder.root), "--resamples", "2", "--starts", "4"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("s3://studies/quickstart/report/")
    assert open_storage(done.output.split()[0]).stat().st_size > 1000
