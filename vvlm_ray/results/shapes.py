"""What an analysis found, as plain values: the JSON of the commands, the scripts and the report, and DataFrames.

Every shape carries the verdict, the warnings and the notes, so that no doubt is lost on the way.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vvlm_ray.results.analysis import Analysis
from vvlm_ray.scaling.recommendation import measured_near

if TYPE_CHECKING:
    from vvlm_ray.scaling.frontier import Frontier
    from vvlm_ray.scaling.recommendation import Recommendation


def doubts(analysis: Analysis) -> dict[str, Any]:
    """What stands beside every answer: who gives it, from what, and how far to believe it."""
    return {
        "score": analysis.score,
        "num_runs": analysis.runs.num_runs,
        "num_examples": analysis.num_examples,
        "form": analysis.settings.form,
        "verdict": analysis.verdict.to_dict(),
        "read": analysis.read,
        "warnings": list(analysis.predictor.warnings),
        "notes": list(analysis.notes),
    }


def points(analysis: Analysis, line: "Frontier") -> list[dict[str, Any]]:
    """A frontier, one mapping per budget: budget and cost in `unit`, one key per factor, error and its band."""
    found = []
    for b, budget in enumerate(line.budgets):
        chosen = {name: float(values[b]) for name, values in line.factors.items()}
        found.append(
            {"budget": float(budget), "unit": line.unit}
            | chosen
            | dict(analysis.fixed)
            | {
                "cost": float(line.cost[b]),
                "error": float(line.error[b]),
                "low": float(line.low[b]),
                "high": float(line.high[b]),
                "gap": float(line.gap[b]),
                "agreement": float(line.agreement[b]),
                "extrapolates": bool(line.extrapolates[b]),
                "reasons": list(line.reasons[b]),
                "measured": [asdict(run) for run in measured_near(analysis.predictor, chosen)],
            }
        )
    return found


def frontier(analysis: Analysis) -> dict[str, Any]:
    """x*(c; n) at the budgets asked for; `compared` is the bag of one form at the same budgets."""
    line, other = analysis.frontier, analysis.compared
    compared = None
    if other is not None and line is not None:
        compared = {"form": analysis.bag.label, "same": (other.index == line.index).tolist()}
        compared |= {name: values.tolist() for name, values in other.factors.items()} | {"error": other.error.tolist()}
    return {"points": points(analysis, line) if line is not None else [], **doubts(analysis), "compared": compared}


def recommendation(analysis: Analysis, answer: "Recommendation") -> dict[str, Any]:
    """The same for one budget, and what stands around it."""
    (point,) = points(analysis, answer.line)
    following = answer.next_budget
    return {
        **point,
        "measured": [asdict(run) for run in answer.measured],
        "delta": answer.delta,
        "alternatives": [asdict(option) for option in answer.alternatives],
        "equivalent": [asdict(option) for option in answer.equivalent],
        "num_equivalent": answer.num_equivalent,
        "cheapest": asdict(answer.cheapest) if answer.cheapest else None,
        "next_budget": {"budget": following.budget, **asdict(following.option)} if following else None,
        "if_doubled": asdict(answer.if_doubled) if answer.if_doubled else None,
        **doubts(analysis),
    }


def elasticity(analysis: Analysis) -> dict[str, Any]:
    """e_k with its band, and over what it was averaged."""
    moved = analysis.elasticity
    assert moved is not None
    return {
        "elasticity": {
            name: {"mean": moved.mean[name], "low": moved.low[name], "high": moved.high[name]} for name in moved.mean
        },
        "unit": moved.unit,
        "budgets": {"from": float(moved.budgets[0]), "to": float(moved.budgets[-1]), "count": len(moved.budgets)},
        "sizes": {"from": float(moved.sizes[0]), "to": float(moved.sizes[-1]), "count": len(moved.sizes)},
        "step": float(moved.step),
        "share_extrapolated": moved.share_extrapolated,
        "share_beyond_space": moved.share_beyond_space,
        **doubts(analysis),
    }


def plain(value: Any) -> Any:
    """Numbers, texts, lists and mappings that JSON knows; infinities and NaN become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None
