"""W&B: one run per trial with a stable id, one group per study. A copy of the results, never the only one, and it can
do no harm: it is started in the background, every call is guarded, and a server that hangs, fails or is not there
costs a trial nothing but the picture.

What a trial logs goes to `metrics.jsonl` in its folder, over all its attempts. Where W&B is online it is sent as it
comes (and resumed by its id); otherwise, and where a server has failed, the whole trial is written as one offline run
when its record is there, for `wandb sync`.
"""

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import read_record
from vvlm_ray.study.storage import is_local, local_output, storage_errors
from vvlm_ray.study.trials import Trial, meaning_of

Log = Callable[[dict[str, Any]], None]
METRICS_FILE = "metrics.jsonl"
ONLINE_NOTE = "wandb.online"  # in a trial's folder: its live run is whole so far
INIT_SECONDS, FINISH_SECONDS = 15, 30
UNREACHED_SECONDS = 3  # for a server that has not answered by the end of a trial
SILENT_SECONDS = 600  # how long a process does not ask a server again that did not answer
MAX_WAITING = 10_000  # values that wait for a server that is slow


@contextlib.contextmanager
def track(folder: StudyFolder, study: Study, trial: Trial, *, is_writer: bool) -> Iterator[Log]:
    """Where a trial's metrics go, on rank 0; elsewhere, and where tracking is disabled, nowhere.

    Values are a dict, with the step of training under "train/step".
    """
    mode = tracking_mode(study)
    if not is_writer or mode == "disabled":
        yield lambda values: None
        return
    run = folder.trial(trial.trial_id)
    with _MetricsFile(run) as metrics:
        live = _Live(folder, study, trial) if mode == "online" and _Live.is_worth_it() else None
        if live is None:
            (run / ONLINE_NOTE).unlink(missing_ok=True)  # what follows is not in the live run

        def log(values: dict[str, Any]) -> None:
            metrics.add(values)
            if live:
                live.add(values)

        try:
            yield log
        finally:
            if live:
                live.close()


def publish(folder: StudyFolder, study: Study, trial: dict[str, Any], run: Path) -> None:
    """Copy a finished trial, whose record is there, to W&B. Whatever goes wrong, it is said in the log and no more."""
    mode = tracking_mode(study)
    if mode == "disabled":
        return
    known = Trial.from_dict(trial)
    record = read_record(folder, known.trial_id)
    if record is None:
        return
    last = {f"eval/{task}": score for task, score in record["scores"].items()} | {"eval/avg": record["avg"]}

    def write() -> None:
        if mode == "online" and (run / ONLINE_NOTE).exists() and _send([last], folder, study, known, "online"):
            return
        if known.trial_id in _Live.unanswered:
            # W&B's service in this process still asks for this run's id and would never open it again.
            command = [sys.executable, "-m", __name__, str(folder.root), known.trial_id]
            subprocess.run(command, env=os.environ | {"WANDB_MODE": "offline"}, timeout=2 * FINISH_SECONDS, check=True)
            return
        _send([*_merged(run), last], folder, study, known, "offline")

    thread = threading.Thread(target=_guarded, args=(write,), daemon=True)
    thread.start()
    thread.join(INIT_SECONDS + 2 * FINISH_SECONDS)
    if thread.is_alive():
        print("W&B did not answer; the trial's record and metrics.jsonl have everything")


def _send(rows: list[dict[str, Any]], folder: StudyFolder, study: Study, trial: Trial, mode: str) -> bool:
    with _wandb_folder(folder) as target:
        run = _init(target, study, trial, mode=mode, identity=folder.identity())
        for values in rows:
            run.log(values)
        run.finish()
    return True


@contextlib.contextmanager
def _wandb_folder(folder: StudyFolder) -> Iterator[Path]:
    with local_output(folder.wandb) as target:
        yield target


def _init(target: Path, study: Study, trial: Trial, *, mode: str, identity: str) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it tells a third party of its troubles
    import wandb

    return wandb.init(
        project=study.tracking.project,
        entity=study.tracking.entity,
        group=study.name,
        id=f"{study.name}-{identity}-{trial.trial_id}",
        name=trial.label,
        job_type=trial.sweep,
        config=_config(study, trial),
        dir=str(target),
        mode=mode,
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        # Metrics only: nothing of the code, the console or the environment leaves the machine.
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            init_timeout=INIT_SECONDS,
        ),
    )


class _MetricsFile:
    """Appends what a trial logs to its folder, or, on an object store, puts it there at the end."""

    def __init__(self, run: Path):
        self._path = run / METRICS_FILE
        self._lines: list[str] = []

    def __enter__(self) -> "_MetricsFile":
        return self

    def add(self, values: dict[str, Any]) -> None:
        self._lines.append(json.dumps(values))
        if len(self._lines) >= 50 and is_local(self._path):
            self._flush()

    def __exit__(self, *error: object) -> None:
        self._flush()

    def _flush(self) -> None:
        text = "".join(f"{line}\n" for line in self._lines)
        with contextlib.suppress(*storage_errors()):
            if is_local(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    file.write(text)
            else:
                old = self._path.read_text() if self._path.exists() else ""
                self._path.write_text(old + text)
        self._lines.clear()


def _merged(run: Path) -> list[dict[str, Any]]:
    """What all attempts logged, in the order of steps; of a step that was taken twice, the later."""
    by_step: dict[int, dict[str, Any]] = {}
    with contextlib.suppress(*storage_errors()):
        for line in (run / METRICS_FILE).read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, TypeError):  # a torn line
                values = json.loads(line)
                by_step[int(values.get("train/step", 0))] = values
    return [by_step[step] for step in sorted(by_step)]


class _Live:
    """A W&B run in a thread of its own: nobody waits for it longer than `FINISH_SECONDS`, at the end."""

    asks_again = 0.0  # this process's clock
    unanswered: ClassVar[set[str]] = set()  # ids of trials

    @classmethod
    def is_worth_it(cls) -> bool:
        return time.monotonic() >= cls.asks_again

    def __init__(self, folder: StudyFolder, study: Study, trial: Trial):
        self._values: queue.Queue[dict[str, Any] | None] = queue.Queue(MAX_WAITING)
        self._note = folder.trial(trial.trial_id) / ONLINE_NOTE
        self._has_failed = self._is_up = False
        self._trial_id = trial.trial_id
        self._thread = threading.Thread(target=self._run, args=(folder, study, trial), daemon=True)
        self._thread.start()

    def add(self, values: dict[str, Any]) -> None:
        with contextlib.suppress(queue.Full):
            self._values.put_nowait(values)
            return
        self._has_failed = True  # some are lost to it; metrics.jsonl has them

    def close(self) -> None:
        with contextlib.suppress(queue.Full):
            self._values.put_nowait(None)
        self._thread.join(FINISH_SECONDS if self._is_up else UNREACHED_SECONDS)
        if not self._is_up:
            _Live.asks_again = time.monotonic() + SILENT_SECONDS
            _Live.unanswered.add(self._trial_id)
            print("W&B did not answer; the trial is written as an offline run when its record is there")
        whole = not self._has_failed and not self._thread.is_alive()
        if not whole:
            _let_the_process_end()
        with contextlib.suppress(*storage_errors()):
            if whole:
                self._note.parent.mkdir(parents=True, exist_ok=True)
                self._note.write_text("")
            else:
                self._note.unlink(missing_ok=True)

    def _run(self, folder: StudyFolder, study: Study, trial: Trial) -> None:
        def send() -> None:
            with _wandb_folder(folder) as target:
                run = _init(target, study, trial, mode="online", identity=folder.identity())
                self._is_up = True
                while (values := self._values.get()) is not None:
                    run.log(values)
                run.finish()

        self._has_failed |= not _guarded(send)


@lru_cache(maxsize=1)
def _let_the_process_end() -> None:
    """At its exit wandb waits for its service without end while a server does not answer: end the service before.

    Exit hooks run last in, first out, and wandb's is there since the run was started. What the service still holds is
    in the trial's metrics.jsonl too.
    """
    atexit.register(_end_service)


def _end_service() -> None:
    import psutil

    time.sleep(UNREACHED_SECONDS)  # the service may still be writing the end of an offline run
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name() == "wandb-core":
                child.kill()


def _guarded(action: Callable[[], None]) -> bool:
    """Whether `action` came to its end; what it raises is said in the trial's log."""
    try:
        action()
    except BaseException as error:  # wandb raises what it likes, SystemExit among it
        print(f"W&B: {type(error).__name__}: {error}; the trial goes on without it")
        return False
    return True


def _config(study: Study, trial: Trial) -> dict[str, Any]:
    """What W&B shows of a trial: its factors as columns of their own, and all that it means."""
    row = trial.to_dict()
    return {**row.pop("factors"), **row, "meaning": meaning_of(study, trial)}


def tracking_mode(study: Study) -> str:
    """`auto` is online with a key (WANDB_API_KEY or a W&B login), offline without; online without a key is offline."""
    mode = study.tracking.mode
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    return mode if mode != "online" or _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        import wandb

        return bool(wandb.api.api_key)
    except Exception:
        return False


if __name__ == "__main__":  # STUDY TRIAL: write a finished trial as an offline run
    from vvlm_ray.study.additions import all_trials
    from vvlm_ray.study.folder import open_study

    _folder, _study = open_study(sys.argv[1])
    _trial = next(t for t in all_trials(_study, _folder) if t.trial_id == sys.argv[2])
    publish(_folder, _study, _trial.to_dict(), _folder.trial(_trial.trial_id))
