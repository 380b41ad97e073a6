"""The nursery's process: imports the heavy packages once and forks Ray's workers (see `warm_workers.py`).

ray is imported when the first worker asks, with that worker's environment: some of it ray reads only then (the job's
id, the raylet's), and the rest each worker has it read again. Ray draws its ids from a generator that is seeded when
first used: used before the fork, it gives all workers the same ids. So nothing may draw from it in here, which is
checked. decord is left out: loaded before ray, it breaks ray's asynchronous actors.
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
import sys
from collections.abc import Iterator

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
PRELOAD_WITH_RAY = (
    "ray.tune",
    "ray.train.torch",
    "vvlm_ray.orchestration.worker",
    "vvlm_ray.training.loop",
    "vvlm_ray.evaluation.adapter",
)
READ_ONCE = ("RAY_JOB_ID", "RAY_RAYLET_PID")
NO_JOB = "ffffffff"  # of workers that Ray starts in advance, for any job


def serve(address: str) -> None:
    """Listen first, import then (early clients wait), and fork a worker for every request until stdin closes."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(128)
    for module in PRELOAD:
        importlib.import_module(module)
    os.write(1, b"ready\n")
    shared: dict[str, str | None] | None = None  # what ray has read from the environment; None: it is not imported
    while True:
        readable, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        connection, _ = server.accept()
        request, streams = _receive(connection)
        read = {name: request["env"].get(name) for name in READ_ONCE}
        if shared is None and read["RAY_JOB_ID"] != NO_JOB:
            _import_ray(request["env"])
            shared = read if _forks_draw_different_ids() else {}
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
        if os.fork() == 0:
            server.close()
            # It keeps `connection` open, by whose end the client sees this one end.
            _become_worker(request, streams, is_warm=shared == read)
        for stream in streams:
            os.close(stream)
        connection.close()


def _import_ray(env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    with _ids_of_actor_classes_from_the_system():
        for module in PRELOAD_WITH_RAY:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else every worker's collector writes to, and so copies, the pages that all of them share


@contextlib.contextmanager
def _ids_of_actor_classes_from_the_system() -> Iterator[None]:
    """Modules that define actors draw an id for each when imported: here from the operating system."""
    import ray.actor

    drawn_by_ray = ray.actor.ActorClassID

    class DrawnBySystem:
        @staticmethod
        def from_random():
            return drawn_by_ray(os.urandom(drawn_by_ray.size()))

    ray.actor.ActorClassID = DrawnBySystem
    try:
        yield
    finally:
        ray.actor.ActorClassID = drawn_by_ray


def _forks_draw_different_ids() -> bool:
    """Whether two processes forked from here would draw different ids from ray's generator."""
    from ray._raylet import NodeID

    drawn = []
    for _ in range(2):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, NodeID.from_random().binary())
            os._exit(0)
        os.waitpid(child, 0)
        drawn.append(os.read(reading, 1024))
        os.close(reading)
        os.close(writing)
    return drawn[0] != drawn[1]


def _receive(connection: socket.socket) -> tuple[dict, list[int]]:
    streams = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_LEN(3 * streams.itemsize))
    for _level, _kind, payload in ancillary:
        streams.frombytes(payload)
    while not data.endswith(b"\0"):
        data += connection.recv(1 << 20)
    return json.loads(data[:-1]), list(streams)


def _become_worker(request: dict, streams: list[int], *, is_warm: bool) -> None:
    os.setsid()  # Ray ends a worker together with its process group, which must not be the nursery's
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    if not is_warm:  # slower, not wrong
        os.execve(sys.executable, [sys.executable, *request["argv"]], request["env"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.modules["ray._raylet"].Config.initialize("")  # read the environment again
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
