"""What `evaluation.tasks` names, worked out: the eight benchmarks, other tasks of lmms-eval, a study's own questions.

Also what can be known to be wrong with them before anything heavy is imported or a GPU is taken.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.benchmarks import BENCHMARKS, CHOICES, Benchmark, Metric
from vvlm_ray.evaluation.judge_client import key_problem
from vvlm_ray.evaluation.local_tasks import read_questions
from vvlm_ray.study.evaluation_section import Evaluation, LmmsTask, LocalTask

Resolve = Callable[[str], Path]  # of a path in the sweep file

_NAMED = re.compile(r"""^\s*(?:task|group|tag)\s*:\s*["']?([\w.-]+)["']?\s*$""", re.MULTILINE)
_LOCAL_METRIC = "exact_match"


@dataclass(frozen=True)
class Plan:
    """One column of the records: its benchmark, and where lmms-eval finds the tasks.

    `is_asked_live`: a judge whose verdicts only the task can read. The rest is of local tasks alone.
    """

    benchmark: Benchmark
    folder: str = ""
    is_asked_live: bool = False
    questions: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    scoring: str = ""
    video_root: Path = Path()
    max_new_tokens: int = 16

    @property
    def name(self) -> str:
        return self.benchmark.abbreviation

    @property
    def is_judged(self) -> bool:
        return self.benchmark.is_judged or self.is_asked_live

    @property
    def is_choice(self) -> bool:
        """Whether an answer has to name one of several options."""
        return self.scoring == "choice" or self.name in CHOICES


def plans_of(settings: Evaluation, resolve: Resolve = Path) -> list[Plan]:
    """The plans of `settings.tasks`, in their order. Raises UserError for what is wrong with them."""
    return [plan_of(settings, name, resolve) for name in settings.tasks]


def plan_of(settings: Evaluation, name: str, resolve: Resolve = Path) -> Plan:
    """The plan of one task."""
    if name in settings.local:
        return _local_plan(name, settings.local[name], resolve)
    if name in settings.lmms_eval:
        return _lmms_plan(name, settings.lmms_eval[name], resolve)
    if name in BENCHMARKS:
        return Plan(BENCHMARKS[name], folder=str(_lmms_tasks() / BENCHMARKS[name].folder))
    known = [*BENCHMARKS, *settings.local, *settings.lmms_eval]
    near = difflib.get_close_matches(name, known, 1)
    raise UserError(
        f"evaluation.tasks: {name!r} is none of {', '.join(known)}{f' (did you mean {near[0]}?)' if near else ''}; "
        "describe your own questions under evaluation.local, another task of lmms-eval under evaluation.lmms_eval"
    )


def task_problems(settings: Evaluation, resolve: Resolve = Path) -> list[str]:
    """What would stop an evaluation, found without a GPU, a model, lmms-eval's code or the network.

    Unknown or doubled names, missing local files, the wrong lmms-eval, no HF_HOME or no videos in it, no judge's key.
    """
    from vvlm_ray.evaluation.lmms import version_problem

    problems = [] if settings.tasks else ["evaluation.tasks: none given"]
    names = list(dict.fromkeys(settings.tasks))
    problems += [f"{name}: named twice in evaluation.tasks" for name in names if settings.tasks.count(name) > 1]
    if problem := version_problem():
        problems.append(problem)
    for name in names:
        try:
            plan = plan_of(settings, name, resolve)
        except UserError as error:
            problems.append(str(error))
            continue
        problems += _data_problems(plan)
        if plan.is_judged and (problem := key_problem(settings.judge)):
            problems.append(f"{name}: {problem}")
    return list(dict.fromkeys(problems))


def _data_problems(plan: Plan) -> list[str]:
    if plan.questions:
        if plan.video_root.is_dir():
            return []
        return [
            f"{plan.name}: the video folder {plan.video_root} does not exist (evaluation.local.{plan.name}.video_root)"
        ]
    home = os.environ.get("HF_HOME")
    if not home:
        return [f"{plan.name}: HF_HOME is not set; lmms-eval looks for videos and annotations in it"]
    videos = Path(home).expanduser() / plan.benchmark.videos
    if plan.benchmark.videos and not (videos.is_dir() and any(videos.iterdir())):
        return [f"{plan.name}: no videos in {videos}; put the videos of {plan.benchmark.name} there"]
    return []


def _local_plan(name: str, task: LocalTask, resolve: Resolve) -> Plan:
    if name in BENCHMARKS:
        raise UserError(f"evaluation.local.{name}: takes a published benchmark's name; rename it")
    reads = "prediction" if task.scoring == "judged" else None
    return Plan(
        Benchmark(name, name, folder="", videos="", metrics=(Metric(name, _LOCAL_METRIC, 1.0),), reads=reads),
        questions=tuple(read_questions(resolve(task.questions), task.scoring)),
        scoring=task.scoring,
        video_root=resolve(task.video_root),
        max_new_tokens=task.max_new_tokens,
    )


def _lmms_plan(name: str, task: LmmsTask, resolve: Resolve) -> Plan:
    if name in BENCHMARKS:
        raise UserError(f"evaluation.lmms_eval.{name}: takes a published benchmark's name; rename it")
    where = f"evaluation.lmms_eval.{name}.task"
    wanted, folder = task.task, None
    if task.task.endswith((".yaml", ".yml")):
        path = resolve(task.task)
        try:
            names = _NAMED.findall(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{where}: {path}: {error.strerror}") from None
        if not names:
            raise UserError(f"{where}: {path} names no task or group")
        wanted, folder = names[0], path.parent
    else:
        folder = _folders().get(task.task)
    if folder is None:
        near = difflib.get_close_matches(task.task, _folders(), 3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise UserError(f"{where}: lmms-eval has no task {task.task!r}{hint}")
    metric = Metric(wanted, task.metric, task.full_mark, higher_is_better=task.higher_is_better)
    return Plan(
        Benchmark(name, wanted, folder=str(folder), videos="", metrics=(metric,)),
        folder=str(folder),
        is_asked_live=task.judged,
    )


def _lmms_tasks() -> Path:
    spec = find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("lmms-eval is not installed; the benchmarks are its tasks")
    return Path(spec.submodule_search_locations[0]) / "tasks"


@lru_cache(maxsize=1)
def _folders() -> dict[str, Path]:
    """The folder of every task, group and tag of lmms-eval, by name; read as text, not imported."""
    found: dict[str, Path] = {}
    for path in sorted(_lmms_tasks().rglob("*.yaml")):
        for name in _NAMED.findall(path.read_text(encoding="utf-8", errors="replace")):
            found.setdefault(name, path.parent)
    return found
