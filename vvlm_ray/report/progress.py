"""A progress bar on stderr for what takes long: fits and drawings."""

from collections.abc import Iterator
from contextlib import contextmanager

from vvlm_ray.results.analysis import COMPILING, Progress


@contextmanager
def shown() -> Iterator[Progress]:
    """A function (what, done, total) that moves one bar per `what`; nothing is shown where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
               TimeElapsedColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def move(what: str, done: int, total: int) -> None:
            if what == COMPILING:
                console.print(f"{what} ...", highlight=False)
                return
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield move
