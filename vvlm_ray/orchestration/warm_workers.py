"""Warm workers: on one machine, Ray's worker processes are forked from a process that has imported torch already.

A trial is five short-lived Ray processes (Train's controller, its helpers, and the worker), each of which would
import torch and more: 14 CPU-seconds for a trial that does nothing. Here a *nursery* process imports the heavy
packages once. While Ray starts, `sys.executable` is a client of a few lines: for a worker it hands its arguments,
environment and standard streams to the nursery over a private Unix socket and stays until the forked worker ends;
for anything else it becomes the ordinary interpreter. Only for a Ray that `vvlm-ray run` starts on this machine; on
a cluster trials last hours and start in the ordinary way.

Two things must not be imported before the fork: ray (its connection to the control store does not survive one)
and decord (loaded before ray, it breaks ray's asynchronous actors).
"""

import array
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PRELOAD = (
    "torch",
    "torch.distributed",
    "torch.utils.data",
    "pandas",
    "pyarrow.fs",
    "pyarrow.parquet",
    "requests",
    "jsonschema",
    "wandb",
    "accelerate",
    "transformers.models.siglip.modeling_siglip",
    "transformers.models.llama.modeling_llama",
    "lmms_eval.evaluator",
)
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
            [sys.executable, "-m", __spec__.name, str(address)],
            stdin=subprocess.PIPE,  # its end tells the nursery to stop
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,  # a Ctrl-C is for the driver, which then ends the nursery
        )
        try:
            yield Nursery(process, str(client))
        finally:
            process.stdin.close()
            process.wait(timeout=10)


# Math libraries start their threads when imported, and threads do not survive a fork.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def serve(address: str) -> None:
    """Listen first, import then (early clients wait), and fork a worker for every request until stdin closes."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(128)
    for module in PRELOAD:
        importlib.import_module(module)
    forbidden = {"ray", "decord"} & set(sys.modules)
    if forbidden:
        raise RuntimeError(f"{forbidden} must not be imported before the fork; some package in PRELOAD now does")
    gc.collect()
    gc.freeze()  # else every worker's collector writes to, and so copies, the pages that all of them share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    os.write(1, b"ready\n")
    while True:
        readable, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        connection, _ = server.accept()
        request, streams = _receive(connection)
        if os.fork() == 0:
            server.close()
            _become_worker(request, streams)  # keeps `connection` open, by whose end the client sees this one end
        for stream in streams:
            os.close(stream)
        connection.close()


def _receive(connection: socket.socket) -> tuple[dict, list[int]]:
    streams = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_LEN(3 * streams.itemsize))
    for _level, _kind, payload in ancillary:
        streams.frombytes(payload)
    while not data.endswith(b"\0"):
        data += connection.recv(1 << 20)
    return json.loads(data[:-1]), list(streams)


def _become_worker(request: dict, streams: list[int]) -> None:
    os.setsid()  # Ray ends a worker together with its process group, which must not be the nursery's
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = request["argv"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
