"""Regret of the frontier against training FLOPs: the paper's 88 runs beside designs for 10 to 40 % of their FLOPs.

    python benchmarks/design_regret.py [--surfaces 56] [--seed 100] [--only NAME] [--output FILE.json]

Surfaces: half add-interact, half outside the family (p-norms, products, saturating), scaled to the paper's data, 0.4
points of noise. Regret is averaged over 10 budgets from 2 to 60 TFLOPs and n = 0.5, 1, 2 million. Results are written
after every design, so that an interrupted run is not lost.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from vvlm_ray.study.battery import make_question, plant_battery
from vvlm_ray.study.config import Generate, load_sweep
from vvlm_ray.study.design import Candidate, choices_of, judge_one, runs_of
from vvlm_ray.study.designs import Point, cost_function, distinct_points, generate_isoflop

PAPER = Path(__file__).parents[1] / "sweeps" / "paper.yaml"


def designs(study):
    """{name: points}: the paper's, its cheaper variants, and generated curves at several budgets."""
    cost, own = cost_function(study), distinct_points(study)
    full = training_flops(own, cost)
    found = {"paper": own}
    isoflop = [p for p in own if p.sweep == "isoflop"]
    small_star = [p for p in own if p.sweep == "star" and p.num_examples <= 500_000]
    found["smaller star, isoFLOP at 1M"] = small_star + [at(p, 1e6) for p in isoflop]
    for curves, points, ladder, share in (
        (6, 4, (1, 1 / 4), 0.2),
        (6, 6, (1, 1 / 4), 0.2),
        (4, 6, (1, 1 / 4), 0.2),
        (6, 6, (1, 1 / 4), 0.1),
        (6, 6, (1, 1 / 4), 0.4),
        (6, 6, (1, 1 / 4, 1 / 16), 0.2),
    ):
        generated = generate_isoflop(
            Generate(
                tflops=(np.geomspace(1.6, 60, curves)).tolist(),
                levels=choices_of(study),
                points=points,
                tolerance=0.05,
            ),
            cost,
            study.factors,
        )
        base = [Point("design", x, 1, c) for c, xs in generated.items() for x in xs]
        top = share * full / sum(training_flops([at(p, r) for p in base], cost) for r in ladder)
        name = f"{curves} curves x {points}, n x {', '.join(f'1/{1 / r:g}' for r in ladder)} at {share:.0%}"
        found[name] = [at(p, top * r) for r in ladder for p in base]
    return found, full


def at(point, num_examples):
    return Point(point.sweep, point.factors, num_examples, point.target_flops)


def training_flops(points, cost):
    names = points[0].factors
    x = {name: np.array([p.factors[name] for p in points], float) for name in names}
    return float((3 * cost(**x) * np.array([p.num_examples for p in points])).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=int, default=56)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="parts of the names of designs to run")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    study = load_sweep(PAPER)
    cost = cost_function(study)
    all_designs, full = designs(study)
    battery = plant_battery(runs_of(all_designs["paper"], study.factors), options.surfaces, options.seed)
    question = make_question(choices_of(study), cost, np.geomspace(2e12, 60e12, 10), [5e5, 1e6, 2e6])
    kinds = [kind for kind, _ in battery]
    rows = []
    for name, points in all_designs.items():
        if options.only and not any(part in name for part in options.only):
            continue
        start = time.perf_counter()
        v = judge_one(Candidate(name, tuple(points), 0.0), battery, question, factors=study.factors)
        row = {
            "name": name,
            "runs": len(points),
            "share_of_training_flops": training_flops(points, cost) / full,
            "inside": v.mean_inside,
            "inside_sd": float(v.regret[v.inside].std()),
            "outside": v.mean_outside,
            "outside_sd": float(v.regret[~v.inside].std()),
            "outside_median": float(np.median(v.regret[~v.inside])),
            "by_kind": {k: float(np.mean(v.regret[np.array(kinds) == k])) for k in dict.fromkeys(kinds)},
            "regret": v.regret.tolist(),
            "seconds": time.perf_counter() - start,
        }
        rows.append(row)
        print(
            f"{name:40s} {row['runs']:4d} runs {row['share_of_training_flops']:6.1%}  "
            f"inside {row['inside']:.4f} +- {row['inside_sd']:.4f}  "
            f"outside {row['outside']:.4f} +- {row['outside_sd']:.4f} (median {row['outside_median']:.4f})  "
            + "  ".join(f"{k} {r:.3f}" for k, r in row["by_kind"].items())
            + f"  {row['seconds']:.0f} s",
            flush=True,
        )
        if options.output:
            options.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
