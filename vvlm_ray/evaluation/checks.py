"""What can be known about a list of tasks before anything heavy is imported; `plan` asks this."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vvlm_ray.evaluation.benchmarks import BENCHMARKS, Benchmark
from vvlm_ray.evaluation.judge import key_problem
from vvlm_ray.evaluation.local_tasks import find_local_tasks, local_problems


def check_tasks(
    tasks: Sequence[str], *, task_folders: Sequence[Path] = (), video_root: Path | None = None
) -> list[str]:
    """Problems that would stop an evaluation, found without a GPU, a model, lmms-eval or the network.

    Unknown or doubled names, missing local files, no HF_HOME or no videos in it, no key for the judge.
    """
    local = find_local_tasks(task_folders)
    problems = [] if tasks else ["tasks: none given"]
    problems += [f"{name}: named twice in tasks" for name in dict.fromkeys(tasks) if tasks.count(name) > 1]
    problems += [f"{folder}: no such folder (task_folders)" for folder in task_folders if not folder.is_dir()]
    for name in dict.fromkeys(tasks):
        if name in local and name in BENCHMARKS:
            problems.append(f"{name}: {local[name].yaml_path} takes a published benchmark's name; rename it")
        elif name in local:
            problems += local_problems(local[name], video_root)
        elif name in BENCHMARKS:
            problems += _benchmark_problems(BENCHMARKS[name])
        else:
            known = ", ".join((*BENCHMARKS, *local))
            problems.append(f"{name}: not a task; known are {known} (local ones are sought in task_folders)")
    return list(dict.fromkeys(problems))


def _benchmark_problems(benchmark: Benchmark) -> list[str]:
    name = benchmark.abbreviation
    problems = []
    home = os.environ.get("HF_HOME")
    if not home:
        problems.append(f"{name}: HF_HOME is not set; lmms-eval looks for videos and annotations in it")
    else:
        videos = Path(home).expanduser() / benchmark.videos
        if not videos.is_dir() or not any(videos.iterdir()):
            problems.append(f"{name}: no videos in {videos}; put the videos of {benchmark.name} there")
    problem = key_problem() if benchmark.is_judged else None
    return [*problems, f"{name}: {problem}"] if problem else problems
