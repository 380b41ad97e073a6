"""From lmms-eval's results to one number on 0..100, or an error where something is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vvlm_ray.evaluation.benchmarks import Benchmark
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.judge import Verdicts


def checked_score(benchmark: Benchmark, results: Any, verdicts: Verdicts | None) -> tuple[float, int]:
    """(score, number of questions) once nothing is missing."""
    num_questions = 0
    answered_share: dict[str, float] = {}
    for task in benchmark.tasks:
        samples = results["samples"].get(task, [])
        expected = results["n-samples"][task]["effective"]
        scored = {sample["doc_id"] for sample in samples}
        if len(scored) != expected:
            raise EvaluationFailed(
                f"{benchmark.abbreviation}: {task} has {expected} questions, but lmms-eval returned "
                f"{len(scored)}; a score over a part of them would be false. Run the evaluation again"
            )
        num_questions += expected
        answered_share[task] = sum(bool(_answer(sample)) for sample in samples) / expected
    if verdicts is not None:
        calls = sum(
            int(metric.judge_calls * results["n-samples"][metric.task]["effective"]) for metric in benchmark.metrics
        )
        verdicts.check(benchmark.abbreviation, calls)
    return normalised_score(benchmark, results["results"], answered_share), num_questions


def normalised_score(
    benchmark: Benchmark,
    results: Mapping[str, Mapping[str, Any]],
    answered_share: Mapping[str, float] | None = None,
) -> float:
    """Mean over the benchmark's metrics of 100 * value / full mark, from lmms-eval's `results`.

    `answered_share`: per task the share of non-empty answers, for metrics whose mean leaves empty ones out;
    they count as wrong here, as everywhere else.
    Raises EvaluationFailed for a missing metric, NaN, or a value beyond its scale.
    """
    points = []
    for metric in benchmark.metrics:
        value = results.get(metric.task, {}).get(f"{metric.key},none")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise EvaluationFailed(
                f"{benchmark.abbreviation}: lmms-eval gave {value!r} for {metric.key} of {metric.task}; "
                "no score is recorded. Look at this task's log, and whether its data is complete"
            )
        if not 0 <= value <= metric.full_mark:
            raise EvaluationFailed(
                f"{benchmark.abbreviation}: {metric.key} of {metric.task} is {value}, beyond its scale of "
                f"0..{metric.full_mark:g}; is another version of lmms-eval installed than 0.7.3?"
            )
        share = (answered_share or {}).get(metric.task, 1.0) if metric.skips_empty else 1.0
        points.append(100 * value / metric.full_mark * share)
    return sum(points) / len(points)


def _answer(sample: Mapping[str, Any]) -> str:
    answer = sample["filtered_resps"][0]
    return answer.strip() if isinstance(answer, str) else str(answer)
