"""Ten runs bought by value of information against ten by space filling, from the same 40 runs.

    python benchmarks/next_runs.py [--surfaces 20] [--output FILE.json]

Planted surfaces of every kind in turn; 40 of the paper's 88 runs; then ten more, each fitted before the next is
chosen. Value of information: most expected regret saved per GPU-hour. Space filling: the affordable points (same
data sizes) farthest in logs from all that were run. Regret over 8 budgets of 2-30 TFLOPs at n = 1M and 2M after every
run, GPU-hours at 125 TFLOP/s.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from misfit import BUDGETS, SIZES
from misfit_surfaces import KINDS, NOISE, make_case
from planted_fit import paper_design

from vvlm_ray.designs.next import candidates, next_runs
from vvlm_ray.scaling.cost import training_flops
from vvlm_ray.scaling.frontier import search
from vvlm_ray.scaling.posterior import fit_posterior
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.value import Question

THROUGHPUT = 125e12
QUESTION = Question(BUDGETS / 1e12, np.array(SIZES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=int, default=20)
    parser.add_argument("--start", type=int, default=40)
    parser.add_argument("--more", type=int, default=10)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    full, rows = paper_design(), []
    for s in range(options.surfaces):
        kind = KINDS[s % len(KINDS)]
        chosen = np.sort(np.random.default_rng([s, 109]).permutation(full.num_runs)[: options.start])
        case = make_case(kind, full, 900 + s)
        for how in ("value", "space"):
            runs = case.runs.select(chosen)
            rng = np.random.default_rng([s, 113])
            hours, path = 0.0, []
            for step in range(options.more + 1):
                posterior = fit_posterior(runs)
                path.append((hours, regret(posterior, case.surface)))
                if step == options.more:
                    break
                x, n = by_value(posterior) if how == "value" else by_space(posterior)
                hours += float(price({k: np.array([v]) for k, v in x.items()}, np.array([n]))[0])
                runs = added(runs, x, n, case.surface, rng)
            rows.append({"kind": kind, "surface": s, "how": how, "path": path})
            print(kind, s, how, " ".join(f"{h:.0f}h:{r:.3f}" for h, r in path), flush=True)
        if options.output:
            options.output.write_text(json.dumps(rows))
    summary(rows)


def price(factors, n):
    return training_flops(COST(**factors), n) / THROUGHPUT / 3600


COST = paper_design().space.known_cost()


def by_value(posterior):
    found = next_runs(posterior, QUESTION, price, most=1)
    return (found[0].factors, found[0].num_examples) if found else by_space(posterior)


def by_space(posterior):
    factors, n = candidates(posterior, QUESTION)
    every = np.log(np.stack([*factors.values(), n]))
    runs = np.log(posterior.runs.inputs())
    scale = runs.std(axis=1)[:, None]
    distance = np.linalg.norm((every / scale)[:, :, None] - (runs / scale)[:, None], axis=0).min(axis=1)
    best = int(np.argmax(distance))
    return {name: float(values[best]) for name, values in factors.items()}, float(n[best])


def added(runs: Runs, x, n, surface, rng) -> Runs:
    point = {name: np.array([value]) for name, value in x.items()}
    error = surface(point, np.array([n])) + NOISE * rng.normal()
    return replace(
        runs,
        factors={name: np.append(values, x[name]) for name, values in runs.factors.items()},
        error=np.append(runs.error, np.clip(error, 0.5, 99.5)),
        num_examples=np.append(runs.num_examples, n),
        sweep=None,
        labels=(),
    )


def regret(posterior, surface) -> float:
    grid = posterior.runs.space.grid().up_to(BUDGETS.max())
    chosen, _ = search(posterior, grid, BUDGETS, np.array(SIZES))
    ends, lost = grid.count(BUDGETS), []
    for s, size in enumerate(SIZES):
        truth = surface(grid.points, size)
        lost.append(truth[chosen[s]] - np.minimum.accumulate(truth)[ends - 1])
    return float(np.mean(lost))


def summary(rows) -> None:
    """Mean regret after each run, and after how many GPU-hours value of information is where space filling ends."""
    paths = {how: np.array([row["path"] for row in rows if row["how"] == how]) for how in ("value", "space")}
    for how, path in paths.items():
        steps = " ".join(f"{h:.0f}h:{r:.3f}" for h, r in path.mean(axis=0))
        print(f"{how:6} mean over {len(path)} surfaces: {steps}")
    goal, hours = paths["space"].mean(axis=0)[-1][::-1]
    reached = [h for h, r in paths["value"].mean(axis=0) if r <= goal]
    text = f"{reached[0]:.0f} GPU-hours" if reached else "never"
    print(f"space filling ends at {goal:.3f} after {hours:.0f} GPU-hours; value of information is there after {text}")


if __name__ == "__main__":
    main()
