"""Simulated schedules of the paper's study on several clusters: makespan over its lower bound, beside FIFO.

python benchmarks/schedule_paper.py
"""

import time
from pathlib import Path

from vvlm_ray.planning.gpus import parse_cluster
from vvlm_ray.planning.order import simulate
from vvlm_ray.planning.plan import make_plan
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sweep_file import load_sweep

PAPER = Path(__file__).parents[1] / "sweeps" / "paper.yaml"
CLUSTERS = {
    "8 GPUs": "1x8xA100-80GB",
    "64 GPUs": "8x8xA100-80GB",
    "256 GPUs": "32x8xA100-80GB",
    "64 GPUs on 8- and 4-GPU nodes": "4x8xA100-80GB,8x4xA100-80GB",
    "64 GPUs of two sizes": "4x8xA100-80GB,8x4xA100-40GB",
    "64 GPUs of two speeds": "4x8xH100,8x4xL40S",
}


def main():
    study = load_sweep(PAPER)
    print("| cluster | makespan, h | lower bound, h | ratio | FIFO ratio | GPUs busy | planned in, s |")
    print("|---|---|---|---|---|---|---|")
    for name, cluster in CLUSTERS.items():
        start = time.perf_counter()
        plan = make_plan(study, PAPER, StudyFolder(Path("no-such-folder")), cluster=parse_cluster(cluster))
        seconds = time.perf_counter() - start
        fifo = max(s.end for s in simulate(plan.jobs, plan.nodes, order="fifo"))
        bound, makespan = plan.lower_bound_seconds, plan.makespan_seconds
        busy = sum((s.end - s.start) * sum(s.placement.nodes.values()) for s in plan.schedule)
        print(
            f"| {name} ({cluster}) | {makespan / 3600:,.1f} | {bound / 3600:,.1f} | {makespan / bound:.3f} | "
            f"{fifo / bound:.3f} | {busy / plan.num_slots / makespan:.1%} | {seconds:.1f} |"
        )


if __name__ == "__main__":
    main()
