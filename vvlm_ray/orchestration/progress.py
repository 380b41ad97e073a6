"""What one sees while a study runs: a live panel on a terminal, a line per event elsewhere."""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vvlm_ray.orchestration.attempts import FINISHED, Outcome, Verdict
from vvlm_ray.planning.queue import Job
from vvlm_ray.study.stages import Stage
from vvlm_ray.units import duration

MAX_RUNNING_ROWS = 12


class Progress:
    """Jobs done, running and how far, failed, and the time left.

    The time left is that of the simulated schedule, scaled by how long finished jobs took against what was
    expected of them.
    """

    def __init__(
        self,
        jobs: list[Job],
        label: Callable[[str], str],
        stage: Callable[[str], Stage | None],
        makespan_seconds: float,
        num_done_before: int,
    ):
        self._jobs = {job.job_id: job for job in jobs}
        self._label, self._stage = label, stage
        self._makespan = makespan_seconds
        self._num_before = num_done_before
        self._started: dict[str, float] = {}
        self._expected_done, self._seconds_done = 0.0, 0.0
        self._done: list[str] = []
        self._failed: dict[str, str] = {}
        self._given_up: set[str] = set()
        self._begin = time.monotonic()
        self._console = Console()
        self._live: Live | None = None

    def add(self, job: Job) -> None:
        """A further job of the study."""
        self._makespan += job.seconds
        self._jobs[job.job_id] = job

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._panel, console=self._console, refresh_per_second=2)
            self._live.__enter__()
        return self

    def __exit__(self, *exc_info) -> None:
        if self._live:
            self._live.__exit__(*exc_info)

    def started(self, job_id: str) -> None:
        self._started[job_id] = time.monotonic()

    def ended(self, job_id: str, attempt: int, outcome: Outcome, verdict: Verdict) -> None:
        seconds = time.monotonic() - self._started.pop(job_id, time.monotonic())
        if outcome.outcome == FINISHED:
            self._failed.pop(job_id, None)
            self._done.append(job_id)
            self._expected_done += self._jobs[job_id].seconds
            self._seconds_done += seconds
            self._say(f"[green]done[/]   {self._label(job_id)} in {seconds:.0f} s")
            return
        cause = first_line(outcome.cause or "it ended without a word")
        self._failed[job_id] = cause
        then = "not tried again" if verdict.given_up else f"again in {verdict.pause:.0f} s"
        counted = "" if verdict.counts else ", not counted"
        self._say(f"[red]{outcome.outcome}[/] {self._label(job_id)}, attempt {attempt}{counted}: {cause}; {then}")

    def given_up(self, job_id: str) -> None:
        """A job that will not run: its time is not waited for."""
        self._given_up.add(job_id)

    def say(self, text: str) -> None:
        """Something that the user must see."""
        self._say(f"[yellow]{text}[/]")

    def _say(self, text: str) -> None:
        if self._live and text.startswith("[green]"):
            return  # the panel shows it
        self._console.print(f"{self._counts()}  {text}", highlight=False, soft_wrap=True)

    def _counts(self) -> str:
        done, total = self._num_before + len(self._done), self._num_before + len(self._jobs)
        return f"[{time.monotonic() - self._begin:5.0f} s] {done}/{total} done, {duration(self.seconds_left)} left"

    @property
    def seconds_left(self) -> float:
        expected = sum(job.seconds for job_id, job in self._jobs.items() if job_id not in self._given_up)
        pace = self._seconds_done / self._expected_done if self._expected_done else 1.0
        now = time.monotonic()
        running = sum(min(now - s, pace * self._jobs[j].seconds) for j, s in self._started.items())
        left = max(0.0, pace * (expected - self._expected_done) - running)
        whole = sum(job.seconds for job in self._jobs.values())
        return left * (self._makespan / whole if whole else 0.0)

    def _panel(self) -> Group:
        done, total = self._num_before + len(self._done), self._num_before + len(self._jobs)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=max(total, 1), completed=done, width=40),
            Text(f"{done}/{total} done"),
            Text(f"{len(self._started)} running"),
            Text(f"{len(self._failed)} failed", style="red" if self._failed else "dim"),
            Text(f"{duration(self.seconds_left)} left", style="bold"),
        )
        rows = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for job_id, start in list(self._started.items())[:MAX_RUNNING_ROWS]:
            stage = self._stage(job_id)
            rows.add_row(
                "  ", self._label(job_id), Text(duration(now - start), style="dim"), stage.text if stage else ""
            )
        return Group(head, rows)


def first_line(text: str) -> str:
    """The first line that says something: an error's own, where its last may be a hint or an empty line."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
