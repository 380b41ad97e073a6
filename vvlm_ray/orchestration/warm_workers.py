"""Warm workers: on one machine, Ray's worker processes are forked from a process that has imported torch already.

A trial is five short-lived Ray processes (Train's controller, its helpers, and the worker), each of which would
import torch, ray and more: 14 CPU-seconds for a trial that does nothing. Here a *nursery* (`nursery.py`) imports the
heavy packages once. While Ray starts, `sys.executable` is a client of a few lines: for a worker it hands its
arguments, environment and standard streams to the nursery over a private Unix socket and stays until the forked
worker ends; for anything else it becomes the ordinary interpreter. Only for a Ray that `vvlm-ray run` starts on this
machine; on a cluster trials last hours and start in the ordinary way.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vvlm_ray.orchestration import nursery as nursery_module

# What Ray starts in the interpreter's place. With -I -S it costs milliseconds. For what is not a plain worker, and
# without a nursery, it becomes the interpreter that Ray meant: slower, not broken.
CLIENT = """#!{python} -IS
import array, json, os, socket, sys
PYTHON, ADDRESS, CONTEXT = {python!r}, {address!r}, "--serialized-runtime-env-context="

def worker():
    argv, env = sys.argv[1:], dict(os.environ)
    script = os.path.basename(argv[0]) if argv else ""
    if script == "setup_worker.py":  # a runtime_env: take what it sets, if that is environment variables only
        context = json.loads(next((a for a in argv if a.startswith(CONTEXT)), "")[len(CONTEXT):] or "{{}}")
        if context.get("command_prefix") or context.get("override_worker_entrypoint"):
            return None
        if context.get("py_executable", PYTHON) != PYTHON:
            return None
        env.update({{k: os.path.expandvars(v) for k, v in (context.get("env_vars") or {{}}).items()}})
        argv = [a for a in argv[1:] if not a.startswith((CONTEXT, "--language="))]
        script = os.path.basename(argv[0])
    return (argv, env) if script == "default_worker.py" else None

found = worker()
connection = socket.socket(socket.AF_UNIX)
try:
    if found is None:
        raise OSError
    connection.connect(ADDRESS)
except OSError:
    os.execv(PYTHON, [PYTHON, *sys.argv[1:]])
request = json.dumps({{"argv": found[0], "env": found[1], "cwd": os.getcwd()}}).encode() + b"\\0"
sent = connection.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
connection.sendall(request[sent:])
connection.recv(1)
"""


@dataclass(frozen=True)
class Nursery:
    """A running nursery: its process, and the client that stands in for the interpreter."""

    process: subprocess.Popen
    client: str

    @contextlib.contextmanager
    def interpreter(self) -> Iterator[None]:
        """Within the block, what starts `sys.executable` starts the client; ray.init hands it to the raylet."""
        python, sys.executable = sys.executable, self.client
        try:
            yield
        finally:
            sys.executable = python

    def wait_until_ready(self) -> None:
        """Return once the imports are done.

        Raises:
            RuntimeError: the nursery ended instead, which `vvlm-ray doctor` explains.
        """
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("importing torch, transformers or lmms_eval failed (see above); try `vvlm-ray doctor`")


@contextlib.contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery for as long as the block runs. It ends with this process, however this one ends."""
    with tempfile.TemporaryDirectory(prefix="vvlm-ray-") as folder:  # mode 0700: only this user can connect
        address, client = Path(folder, "nursery"), Path(folder, "python")
        client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
        client.chmod(0o700)
        process = subprocess.Popen(
            [sys.executable, "-m", nursery_module.__name__, str(address)],
            stdin=subprocess.PIPE,  # its end tells the nursery to stop
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,  # a Ctrl-C is for the driver, which then ends the nursery
        )
        try:
            yield Nursery(process, str(client))
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:  # it looks at its input only after its imports
                process.kill()
                process.wait()


# Math libraries start their threads when imported, and threads do not survive a fork.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
