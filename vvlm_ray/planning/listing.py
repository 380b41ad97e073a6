"""A plan as rows and totals, for people and for --json."""

from typing import Any

from vvlm_ray.planning.jobs import backbone_of_projector
from vvlm_ray.planning.order import Start
from vvlm_ray.planning.plan import Plan
from vvlm_ray.study.config import FACTORS, Study


def plan_table(study: Study, plan: Plan) -> list[dict[str, Any]]:
    """One row per trial, with plain counts: x, n, c(x) in its parts, training FLOPs, GPUs, memory, hours, money."""
    estimator = plan.estimator
    placed = {s.job.job_id: s.placement.choice for s in plan.schedule}
    uses_gpus = study.resources.gpus_per_worker > 0
    rows = []
    for t in plan.trials:
        vision, language = estimator.parts(t)
        choice = placed.get(t.trial_id) or plan.choices[t.trial_id][0]
        gpu = plan.gpus.get(choice.kind) or next(iter(plan.gpus.values()), None)
        hours = choice.seconds * choice.slots / 3600
        memory = estimator.memory(t, max(1, int(choice.slots))) if t.backbone and uses_gpus else None
        rows.append(
            {
                "trial_id": t.trial_id,
                "sweep": t.sweep,
                **{name: None for name in FACTORS},
                **t.factors,
                "num_examples": t.num_examples,
                "inference_flops": t.inference_flops,
                "vision_flops": vision,
                "lm_flops": language,
                "training_flops": estimator.training_flops(t),
                "text_flops": estimator.text_flops(t),
                "visual_tokens": estimator.visual_tokens(t),
                "gpus": choice.slots if uses_gpus else 0,
                "gpu_type": gpu.name if gpu else None,
                "min_gpus": plan.min_gpus.get(t.trial_id),
                "memory_gb": round(memory / 1e9, 2) if memory else None,
                "gpu_hours": hours,
                "seconds": choice.seconds,
                "money": hours * gpu.price_per_hour if gpu and gpu.price_per_hour is not None else None,
                "checkpoint_bytes": estimator.checkpoint_bytes(t),
                "finished": t.trial_id in plan.finished,
            }
        )
    return rows


def plan_totals(study: Study, plan: Plan, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums over all trials and projectors, and the schedule of what is left to run."""
    estimator = plan.estimator
    projectors = [s for s in plan.schedule if s.job.kind == "projector"]
    stage1_hours = sum(s.placement.choice.slots * s.placement.choice.seconds for s in projectors) / 3600
    busy = sum((s.end - s.start) * sum(s.placement.nodes.values()) for s in plan.schedule)
    prices = [r["money"] for r in rows]
    money = sum(prices) + _stage1_money(plan, projectors) if rows and None not in prices else None
    return {
        "trials": len(rows),
        "finished": len(plan.finished),
        "training_flops": sum(r["training_flops"] for r in rows),
        "text_flops": sum(r["text_flops"] for r in rows),
        "stage1_flops": sum(estimator.stage1_flops(backbone_of_projector(s.job.job_id)) for s in projectors),
        "visual_tokens": sum(r["visual_tokens"] for r in rows),
        "gpu_hours": sum(r["gpu_hours"] for r in rows) + stage1_hours,
        "stage1_gpu_hours": stage1_hours,
        "money": money,
        "checkpoint_bytes": sum(r["checkpoint_bytes"] for r in rows),
        "data_bytes": estimator.data_bytes,
        "slots": plan.num_slots,
        "makespan_seconds": plan.makespan_seconds,
        "lower_bound_seconds": plan.lower_bound_seconds,
        "schedule_utilisation": busy / (plan.num_slots * plan.makespan_seconds) if plan.makespan_seconds else None,
        "measured_flops_per_slot": estimator.measured_flops,
    }


def _stage1_money(plan: Plan, projectors: list[Start]) -> float:
    total = 0.0
    for s in projectors:
        gpu = plan.gpus.get(s.placement.choice.kind) or next(iter(plan.gpus.values()))
        total += s.placement.choice.slots * s.placement.choice.seconds / 3600 * (gpu.price_per_hour or 0.0)
    return total
