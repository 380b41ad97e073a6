"""The executor as an argument: `map(function, items)` gives the results in the order of the items.

Pieces of work depend on their arguments alone, so threads, processes and Ray tasks give the same numbers.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
PIECE = 4  # resamples, or data sizes, that are handed out together


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(count: int | None = None) -> Map:
    """A map over `count` threads of this process, all its cores by default; compiled code runs side by side."""

    def run(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        with ThreadPoolExecutor(count or num_cores()) as pool:
            yield from pool.map(function, items)

    return run


def pieces(items: Sequence[Any], size: int = PIECE) -> list[Sequence[Any]]:
    """The items in runs of `size`, whatever the executor: what is computed together must not depend on it."""
    return [items[i : i + size] for i in range(0, len(items), size)]
