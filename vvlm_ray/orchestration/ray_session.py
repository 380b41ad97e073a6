"""The Ray that a run works on: a cluster's, or one of its own on this machine, which keeps to itself.

A Ray of our own listens on the loopback interface only, asks for a token that only this user can read, and keeps
everything it and its processes write (sessions, sockets, temporary files of W&B and others) in one folder, which is
removed at the end; what a killed run has left is removed by the next.
"""

import contextlib
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "vvlm-"
LONGEST_SOCKET_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.1")
# Ray's own defaults suit a cluster; on one machine polling faster and serving no metrics saves seconds a trial.
LOCAL_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # what workers print goes to their job's log as it is
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",  # processes for nobody
    "OMP_NUM_THREADS": "1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # no cluster: this is what makes Ray take the loopback address
    "GLOO_SOCKET_IFNAME": "lo",
    "MASTER_ADDR": "127.0.0.1",
}


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """A connection to the Ray at an address; None starts one of our own, which ends with the block."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    if address is None:
        with _own_ray():
            yield
        return
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_ray() -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=_base()))  # mode 0700
    token, scratch = folder / "token", folder / "tmp"
    scratch.mkdir()
    with os.fdopen(os.open(token, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    settings = {k: v for k, v in LOCAL_ENVIRONMENT.items() if k not in os.environ}
    settings |= {"TMPDIR": str(scratch)}
    if _can_ask_for_a_token():
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    usual, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        import ray

        _forget_token()
        ray.init(
            address="local",
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        try:
            yield
        finally:
            ray.shutdown()
    finally:
        tempfile.tempdir = usual
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _forget_token()
        shutil.rmtree(folder, ignore_errors=True)


def _can_ask_for_a_token() -> bool:
    """Ray reads its mode once, when it is imported: where that was without one, only the loopback guards our Ray."""
    if "ray._raylet" not in sys.modules:
        return True
    from ray._raylet import AuthenticationMode, get_authentication_mode

    return get_authentication_mode() == AuthenticationMode.TOKEN


def _forget_token() -> None:
    """Have Ray read its token again: it keeps the first of a process, which a second Ray of ours would refuse."""
    from ray._raylet import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()


def _base() -> str:
    """Where temporary files go, unless Ray's sockets would have too long a path there."""
    usual = tempfile.gettempdir()
    longest = len(usual) + len(f"/{PREFIX}{os.getpid()}-12345678")
    return usual if longest <= LONGEST_SOCKET_FOLDER else "/tmp"


def remove_left_folders() -> None:
    """Remove the folders of runs that were killed: of this user, and of processes that are gone."""
    for folder in Path(_base()).glob(f"{PREFIX}*"):
        pid = re.fullmatch(rf"{PREFIX}(\d+)-\w{{8}}", folder.name)
        with contextlib.suppress(OSError):
            if pid and folder.stat().st_uid == os.getuid() and not Path(f"/proc/{pid[1]}").exists():
                shutil.rmtree(folder, ignore_errors=True)
