"""A study that is hit at random times, and must end as if nothing had happened.

    python benchmarks/chaos.py --seeds 0 1 2 --trials 20 --hits 8 [--work FOLDER]

An undisturbed run gives the records to be met. Then, for each seed, the same study runs on a disk of its own (a small
tmpfs, where this user may mount one) while hits drawn from the seed fall on it: a worker, a driver or the run killed,
Ray's raylet or its control service killed, SIGTERM and Ctrl-C, a second run, the disk full for some seconds, a
checkpoint cut, a record cut or overwritten with noise, the ledger torn, W&B pointed at a server that never answers. A
run that has ended is started again, as a user would. In the end every trial must have exactly one record, with the
scores and losses of the undisturbed run to the last bit, and no process and no temporary folder may be left.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[1]


def write_sweep(folder: Path, num_trials: int) -> Path:
    """The quickstart cut down to one tiny backbone and short trials that differ in their data size."""
    raw = yaml.safe_load((ROOT / "sweeps" / "quickstart.yaml").read_text())
    raw["synthetic"] = {"num_train": 200, "num_test": 32, "seed": 0, "base_training": 0.02}
    small = raw["backbones"]["small"]
    raw["backbones"] = {"small": small}
    points = [[small["lm_params"], 2, 4, 100 + 4 * i] for i in range(num_trials)]
    raw["sweeps"] = [{"kind": "points", "points": points}]
    raw["resources"] |= {"checkpoint_every_seconds": 0.2, "max_retries": 3}
    raw.pop("grid"), raw.pop("answer")
    raw["name"] = "chaos"
    path = folder / "chaos.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


class Study:
    """The study under fire: its folder and the process that runs it."""

    def __init__(self, sweep: Path, storage: Path, environment: dict[str, str]):
        self.sweep, self.storage, self.environment = sweep, storage, environment
        self.root = storage / "chaos"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = storage.parent / f"{storage.name}.log"

    def start(self) -> None:
        command = [sys.executable, "-m", "vvlm_ray", "run", str(self.sweep), "--storage", str(self.storage)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--slots", "2"], stdout=log, stderr=log, env=self.environment, start_new_session=True
            )

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ours(self, *names: str) -> list[psutil.Process]:
        """Processes of this run's Ray whose command line begins with, or names, one of these."""
        if not self.is_running:
            return []
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if any(name in line for name in names):
                    found.append(child)
        return found

    def records(self) -> dict[str, dict]:
        return {p.parent.name: json.loads(p.read_bytes()) for p in self.root.glob("trials/*/record.json")}


def kill_one(*names: str) -> Callable[[Study, random.Random], bool]:
    def hit(study: Study, rng: random.Random) -> bool:
        processes = study.ours(*names)
        if processes:
            with contextlib.suppress(psutil.Error):
                rng.choice(processes).kill()
        return bool(processes)

    return hit


def signal_run(number: int) -> Callable[[Study, random.Random], bool]:
    def hit(study: Study, rng: random.Random) -> bool:
        if study.is_running:
            os.kill(study.process.pid, number)
            if number == signal.SIGINT and rng.random() < 0.5:  # twice
                time.sleep(0.3)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(study.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                study.process.wait(timeout=90)
        return not study.is_running

    return hit


def second_run(study: Study, rng: random.Random) -> bool:
    """Must be refused with code 2 while the first runs."""
    if not (study.is_running and (study.root / "lock.json").exists()):
        return False
    command = [sys.executable, "-m", "vvlm_ray", "run", str(study.sweep), "--storage", str(study.storage)]
    done = subprocess.run(command, capture_output=True, text=True, env=study.environment, check=False)
    if study.is_running and done.returncode != 2:
        raise SystemExit(f"a second run was not refused: {done.returncode} {done.stdout} {done.stderr}")
    return True


def fill_disk(study: Study, rng: random.Random) -> bool:
    if not os.path.ismount(study.storage):
        return False
    filler = study.storage / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    time.sleep(rng.uniform(3, 10))
    filler.unlink()
    return True


def damage(pattern: str) -> Callable[[Study, random.Random], bool]:
    """Cut a file, empty it, or overwrite it with noise."""

    def hit(study: Study, rng: random.Random) -> bool:
        files = sorted(study.root.glob(pattern))
        if not files:
            return False
        file = rng.choice(files)
        with contextlib.suppress(FileNotFoundError):
            data = file.read_bytes()
            file.write_bytes(rng.choice([data[: len(data) // 2], b"", rng.randbytes(200)]))
        return True

    return hit


def tear_ledger(study: Study, rng: random.Random) -> bool:
    if not (study.root / "ledger.jsonl").exists():
        return False
    with (study.root / "ledger.jsonl").open("ab") as file:
        file.write(rng.choice([b'{"time": 1, "ev', b"\xff\xfe\x00", b"[]\n"]))
    return True


HITS: dict[str, Callable[[Study, random.Random], bool]] = {
    "worker killed": kill_one("ray::run_job"),
    "driver killed": kill_one("ray::ImplicitFunc", "ray::drive"),
    "run killed": signal_run(signal.SIGKILL),
    "SIGTERM": signal_run(signal.SIGTERM),
    "Ctrl-C": signal_run(signal.SIGINT),
    "raylet killed": kill_one("raylet/raylet"),
    "control service killed": kill_one("gcs/gcs_server"),
    "second run": second_run,
    "disk full": fill_disk,
    "checkpoint damaged": damage("trials/*/checkpoints/*/rank-*"),
    "manifest damaged": damage("trials/*/checkpoints/*/manifest.json"),
    "record damaged": damage("trials/*/record.json"),
    "index damaged": damage("records.index.jsonl"),
    "stage damaged": damage("trials/*/stage.json"),
    "ledger torn": tear_ledger,
}


def silent_server() -> socket.socket:
    """Takes connections and never says a word."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(64)
    return server


def run_seed(seed: int, calm: Study, work: Path, *, num_hits: int, expected: dict[str, dict]) -> dict:
    rng = random.Random(seed)
    storage = work / f"seed-{seed}"
    storage.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", storage], check=False).returncode == 0
    temporary = work / f"tmp-{seed}"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "WANDB_MODE": "offline"}
    server = silent_server() if rng.random() < 0.5 else None
    if server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        environment |= {"WANDB_MODE": "online", "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
    study = Study(calm.sweep, storage, environment)
    shutil.copytree(calm.root / "assets", study.root / "assets")
    start, hits, starts = time.monotonic(), [], 0
    try:
        while True:
            if not study.is_running:
                if study.process is not None and study.process.returncode == 0:
                    break
                starts += 1
                if starts > 3 * num_hits + 5:
                    raise SystemExit(f"seed {seed}: not finished after {starts} starts; see {study.log}")
                study.start()
            deadline = time.monotonic() + rng.uniform(4, 20)
            while study.is_running and time.monotonic() < deadline:
                time.sleep(0.2)
            if study.is_running and len(hits) < num_hits:
                name = rng.choice(list(HITS))
                if HITS[name](study, rng):
                    hits.append(name)
            if time.monotonic() - start > 3600:
                raise SystemExit(f"seed {seed}: hangs; see {study.log}")
        result = judge(study, expected) | {"left": left(temporary, study)}
    finally:
        if study.is_running:
            study.process.kill()
        if mounted:
            subprocess.run(["umount", "-l", storage], check=False)
        if server:
            server.close()
    return (
        {"seed": seed, "W&B": "hangs" if server else "offline", "hits": hits, "starts": starts}
        | result
        | {"seconds": round(time.monotonic() - start)}
    )


def judge(study: Study, expected: dict[str, dict]) -> dict:
    found = study.records()
    differing = [
        trial_id
        for trial_id, record in expected.items()
        if trial_id in found
        and (found[trial_id]["scores"], found[trial_id]["details"]["final_loss"])
        != (record["scores"], record["details"]["final_loss"])
    ]
    return {
        "missing": sorted(expected.keys() - found.keys()),
        "further": sorted(found.keys() - expected.keys()),
        "differing": differing,
        "attempts": (study.root / "ledger.jsonl").read_bytes().count(b'"event": "started"'),
    }


def left(temporary: Path, study: Study) -> list[str]:
    """Temporary files, and processes that work in them, after the last run has ended."""
    time.sleep(3)
    names = [f.name for f in temporary.iterdir() if not f.name.startswith("torchinductor")]
    for process in psutil.process_iter(["cmdline"]):
        if str(temporary) in " ".join(process.info["cmdline"] or ()):
            names.append(f"process {process.pid}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--hits", type=int, default=8)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="chaos-"))
    work.mkdir(parents=True, exist_ok=True)
    sweep = write_sweep(work, options.trials)
    calm = Study(sweep, work / "calm", os.environ | {"WANDB_MODE": "offline"})
    calm.start()
    if calm.process.wait() != 0:
        raise SystemExit(f"the undisturbed run failed; see {calm.log}")
    expected, has_failed = calm.records(), False
    for seed in options.seeds:
        result = run_seed(seed, calm, work, num_hits=options.hits, expected=expected)
        print(json.dumps(result), flush=True)
        has_failed |= any(result[key] for key in ("missing", "further", "differing", "left"))
    sys.exit(has_failed)


if __name__ == "__main__":
    main()
