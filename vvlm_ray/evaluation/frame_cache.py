"""Pixel values of videos, decoded ahead in threads and kept while several questions share a video."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

Value = TypeVar("Value")


class FrameCache(Generic[Value]):
    """`load(path)` once per video for as long as it is among the last `capacity` asked for.

    decord and torch release the interpreter lock, so threads decode the next batch while a GPU answers this
    one. Use as a context manager: leaving it ends the threads.
    """

    def __init__(self, load: Callable[[str], Value], *, capacity: int, num_threads: int) -> None:
        self._load = load
        self._capacity = capacity
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="frames")
        self._futures: OrderedDict[str, Future[Value]] = OrderedDict()

    def __enter__(self) -> FrameCache[Value]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def prefetch(self, paths: Iterable[str]) -> None:
        """Start loading what is not there yet; the videos asked for longest ago make room."""
        for path in paths:
            if path in self._futures:
                self._futures.move_to_end(path)
                continue
            self._futures[path] = self._pool.submit(self._load, path)
            if len(self._futures) > self._capacity:
                self._futures.popitem(last=False)

    def get(self, path: str) -> Value:
        """The value of `load(path)`, waiting for it when needed; what it raises is raised here."""
        self.prefetch([path])
        return self._futures[path].result()
