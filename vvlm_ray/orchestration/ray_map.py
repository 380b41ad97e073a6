"""The executor over a Ray cluster: `fit(runs, map=ray_map())` runs the pieces as tasks, with the same numbers.

A piece depends on its arguments alone, so tasks may run anywhere, in any order, and again after a worker was lost.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vvlm_ray.scaling.parallel import Map

RETRIES = 10  # of a task whose worker was lost


def ray_map(address: str | None = None) -> Map:
    """A map whose calls are Ray tasks of one CPU each, on the cluster at `address`.

    Without an address: a Ray that is running already, else one started on this machine for the time of the call. The
    function is stored once, with whatever it has bound; results come in the order of the items.
    """

    def run(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        import ray

        with _connected(ray, address):
            stored = ray.put(function)
            task = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
            pending = [task.remote(stored, item) for item in items]
            for reference in pending:
                yield ray.get(reference)

    return run


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


@contextmanager
def _connected(ray, address: str | None):
    """Ray, started here if it is not running; only what was started here is ended."""
    if ray.is_initialized():
        yield
        return
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        yield
    finally:
        ray.shutdown()
