"""Regret of the frontier against training FLOPs: the paper's 88 runs beside what `vvlm-ray design` chooses for less.

    python benchmarks/design_regret.py [--surfaces 56] [--seed 100] [--shares 0.05 0.1 0.2 0.4] [--output FILE.json]

For each share of the paper's training FLOPs the design is chosen by one battery of surfaces (seed 1) and judged by
another: half add-interact, half outside the family (p-norms, products, saturating), scaled to the paper's data, with
0.4 points of noise. Regret is averaged over 10 budgets from 2 to 60 TFLOPs and n = 0.5, 1, 2 million. Results are
written after every design, so that an interrupted run is not lost.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from vvlm_ray.designs.candidates import (
    Candidate,
    battery_for,
    judge_candidates,
    judge_one,
    make_candidates,
    runs_of,
)
from vvlm_ray.designs.surfaces import make_question, plant_battery
from vvlm_ray.study.points import Point, choices_of, cost_function, distinct_points
from vvlm_ray.study.sweep_file import load_sweep

PAPER = Path(__file__).parents[1] / "sweeps" / "paper.yaml"


def fixed_designs(own):
    """The paper's runs, and its own points for less: fewer examples on the isoFLOP curves, no star at 1M."""
    isoflop = [p for p in own if p.sweep == "isoflop"]
    star = [p for p in own if p.sweep == "star"]
    yield "paper, 88 runs", own
    yield "smaller star, isoFLOP at 1M", [p for p in star if p.num_examples <= 5e5] + [at(p, 1e6) for p in isoflop]
    yield "paper's isoFLOP at 0.54M and 0.14M", [at(p, n) for n in (5.4e5, 1.35e5) for p in isoflop]


def chosen_design(study, question, share, full, num_surfaces):
    """What the command chooses for this share of the FLOPs."""
    cost, own = cost_function(study), distinct_points(study)
    candidates = make_candidates(
        choices_of(study),
        cost,
        budgets_flops=question.budgets_flops,
        largest_n=2_000_000,
        budget=share * full,
        spend=lambda points: training_flops(points, cost),
    )
    battery = battery_for(runs_of(own, study.factors), num_surfaces, seed=1)
    return judge_candidates(candidates, battery, question, factors=study.factors)[0].candidate


def at(point, num_examples):
    return Point(point.sweep, point.factors, round(num_examples), point.target_flops)


def training_flops(points, cost):
    names = points[0].factors
    x = {name: np.array([p.factors[name] for p in points], float) for name in names}
    return float((3 * cost(**x) * np.array([p.num_examples for p in points])).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=int, default=56)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.2, 0.1, 0.4, 0.05])
    parser.add_argument("--choose-by", type=int, default=18, help="surfaces of the battery that chooses")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    study = load_sweep(PAPER)
    cost, own = cost_function(study), distinct_points(study)
    full = training_flops(own, cost)
    battery = plant_battery(runs_of(own, study.factors), options.surfaces, options.seed)
    question = make_question(choices_of(study), cost, np.geomspace(2e12, 60e12, 10), [5e5, 1e6, 2e6])
    rows = []

    def judge(name, points):
        start = time.perf_counter()
        v = judge_one(Candidate(name, tuple(points), 0.0), battery, question, factors=study.factors)
        kinds = np.array([kind for kind, _ in battery])
        row = {
            "name": name,
            "runs": len(points),
            "share_of_training_flops": training_flops(points, cost) / full,
            "inside": v.mean_inside,
            "inside_sd": float(v.regret[v.inside].std()),
            "outside": v.mean_outside,
            "outside_sd": float(v.regret[~v.inside].std()),
            "outside_median": float(np.median(v.regret[~v.inside])),
            "by_kind": {str(k): float(np.mean(v.regret[kinds == k])) for k in dict.fromkeys(kinds)},
            "regret": v.regret.tolist(),
            "seconds": time.perf_counter() - start,
        }
        rows.append(row)
        print(
            f"{name} | {row['runs']} runs | {row['share_of_training_flops']:.1%} | "
            f"inside {row['inside']:.4f} +- {row['inside_sd']:.4f} | "
            f"outside {row['outside']:.4f} +- {row['outside_sd']:.4f}, median {row['outside_median']:.4f} | "
            + ", ".join(f"{k} {r:.3f}" for k, r in row["by_kind"].items())
            + f" | {row['seconds']:.0f} s",
            flush=True,
        )
        if options.output:
            options.output.write_text(json.dumps(rows, indent=1))

    for name, points in fixed_designs(own):
        judge(name, points)
    for share in options.shares:
        chosen = chosen_design(study, question, share, full, options.choose_by)
        judge(f"design for {share:.0%}: {chosen.name}", chosen.points)


if __name__ == "__main__":
    main()
