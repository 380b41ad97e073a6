"""Right where the law fits, honest where none does: `auto` beside the add-interact bag on planted surfaces.

    python benchmarks/misfit.py [--surfaces 20] [--kinds product,peaked] [--runs 88] [--design 0.2] [--output FILE.json]

The paper's 88 runs (or a random subset of them, or the runs that `vvlm-ray design` chooses for a share of their FLOPs),
noise of 0.4 points; 8 budgets of 2-30 TFLOPs at n = 1M and 2M. By kind of surface and pooled:

- regret: true error at the chosen x minus the least true error, points; and the value below which 95 % of cases lie
- cov90: share of 90 % bands of f at the chosen x that hold the truth; width: their mean width
- half: share of surfaces whose 16 bands hold the truth in fewer than half of the cases
- gap: share of cases whose regret is no more than the stated 90 % bound on it; bound: the mean of that bound
- bag: the same of the add-interact bag (100 resamples, 500 starts), same runs
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from misfit_surfaces import BATTERY, FURTHER, INSIDE, KINDS, NOISE, Case, make_case
from planted_fit import paper_design

from vvlm_ray.scaling.bagging import fit_bag
from vvlm_ray.scaling.parallel import threads
from vvlm_ray.scaling.posterior import fit_posterior
from vvlm_ray.scaling.runs import Runs

BUDGETS = np.geomspace(2e12, 30e12, 8)
SIZES = (1e6, 2e6)
LEVEL = 0.9


@dataclass(frozen=True)
class Outcome:
    """Of one surface and one method, by size and budget, flat (16,)."""

    kind: str
    seed: int
    method: str
    regret: list
    covered: list
    width: list
    gap_held: list
    gap: list
    cpu_seconds: float


class Question:
    """The grid and what is asked of it."""

    def __init__(self, design: Runs, budgets=BUDGETS, sizes=SIZES):
        self.grid = design.space.grid().up_to(budgets.max())
        self.ends = self.grid.count(budgets)
        self.sizes = sizes

    def judge(self, case: Case, method: str, answer, cpu: float) -> Outcome:
        """`answer(factors, n)` gives the mean (P,) that chooses, and samples (S, P)."""
        found: dict[str, list] = {name: [] for name in ("regret", "covered", "width", "gap_held", "gap")}
        for size in self.sizes:
            truth = case.surface(self.grid.points, size)
            mean, samples = answer(self.grid.points, size)
            best = np.minimum.accumulate(samples, axis=1)
            for end in self.ends:
                x = int(np.argmin(mean[:end]))
                regret = truth[x] - truth[:end].min()
                low, high = np.quantile(samples[:, x], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                gap = np.quantile(samples[:, x] - best[:, end - 1], LEVEL)
                found["regret"].append(float(regret))
                found["covered"].append(bool(low <= truth[x] <= high))
                found["width"].append(float(high - low))
                found["gap"].append(float(gap))
                found["gap_held"].append(bool(regret <= gap + 1e-9))
        return Outcome(case.kind, case.seed, method, cpu_seconds=cpu, **found)


def answer_of_bag(runs: Runs):
    bag = fit_bag(runs, "add-interact", resamples=100, map=threads(1))

    def answer(points, size):
        members = bag.samples(points, size)
        return np.median(members, axis=0), members

    return answer


def answer_of_auto(runs: Runs):
    posterior = fit_posterior(runs)
    return lambda points, size: posterior.evaluate(posterior.columns(points, size))


METHODS = {"bag": answer_of_bag, "auto": answer_of_auto}


def design_of(options, full: Runs, seed: int) -> Runs:
    """The design of one case: all runs, or a random subset that keeps every level of every column that it can."""
    if not options.runs or options.runs == full.num_runs:
        return full
    rng = np.random.default_rng([seed, 107])
    if options.runs < full.num_runs:
        return full.select(np.sort(rng.permutation(full.num_runs)[: options.runs]))
    extra = rng.integers(0, full.num_runs, options.runs - full.num_runs)
    more = full.select(extra)
    sizes = np.round(more.num_examples * np.exp(rng.uniform(-0.7, 0.7, len(extra))))
    frames = np.clip(np.round(more.factors["num_frames"] * np.exp(rng.uniform(-0.5, 0.5, len(extra)))), 1, 64)
    factors = {name: np.concatenate([full.factors[name], values]) for name, values in
               (more.factors | {"num_frames": frames}).items()}  # fmt: skip
    return Runs(factors, np.full(options.runs, 50.0), np.concatenate([full.num_examples, np.minimum(sizes, 2e6)]))


def designed(share: float) -> Runs:
    """What `vvlm-ray design` chooses for this share of the training FLOPs of the paper's runs."""
    from design_regret import PAPER, chosen_design, training_flops

    from vvlm_ray.designs.candidates import runs_of
    from vvlm_ray.designs.surfaces import make_question
    from vvlm_ray.study.points import choices_of, cost_function, distinct_points
    from vvlm_ray.study.sweep_file import load_sweep

    study = load_sweep(PAPER)
    cost, own = cost_function(study), distinct_points(study)
    question = make_question(choices_of(study), cost, np.geomspace(2e12, 60e12, 10), [5e5, 1e6, 2e6])
    chosen = chosen_design(study, question, share, training_flops(own, cost), 18)
    return runs_of(chosen.points, study.factors)


def table(outcomes: list[Outcome]) -> list[dict]:
    rows = []
    pools = {"inside": INSIDE, "battery": BATTERY, "further": FURTHER, "outside": BATTERY + FURTHER}
    kinds = [kind for kind in KINDS if any(o.kind == kind for o in outcomes)]
    for name, members in [*pools.items(), *((kind, (kind,)) for kind in kinds)]:
        for method in METHODS:
            mine = [o for o in outcomes if o.kind in members and o.method == method]
            if mine:
                rows.append({"surfaces": name, "method": method} | summary(mine))
    return rows


def summary(mine: list[Outcome]) -> dict:
    pool = {name: np.array([getattr(o, name) for o in mine], float) for name in
            ("regret", "covered", "width", "gap_held", "gap")}  # fmt: skip
    return {
        "count": len(mine),
        "regret": float(pool["regret"].mean()),
        "regret_95": float(np.quantile(pool["regret"], 0.95)),
        "cov90": float(100 * pool["covered"].mean()),
        "width": float(pool["width"].mean()),
        "half": float(100 * (pool["covered"].mean(axis=1) < 0.5).mean()),
        "gap": float(100 * pool["gap_held"].mean()),
        "bound": float(pool["gap"].mean()),
        "cpu": float(np.mean([o.cpu_seconds for o in mine])),
    }


def show(rows: list[dict]) -> None:
    print(f"{'surfaces':16}{'method':8}{'count':>6}{'regret':>8}{'95 %':>7}{'cov90':>7}{'width':>7}{'half':>6}"
          f"{'gap':>6}{'bound':>7}{'cpu':>6}")  # fmt: skip
    for r in rows:
        print(f"{r['surfaces']:16}{r['method']:8}{r['count']:6d}{r['regret']:8.3f}{r['regret_95']:7.2f}"
              f"{r['cov90']:7.1f}{r['width']:7.2f}{r['half']:6.1f}{r['gap']:6.1f}{r['bound']:7.2f}"
              f"{r['cpu']:6.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--methods", default="bag,auto")
    parser.add_argument("--runs", type=int, help="a random subset of the 88 runs, or more runs like them")
    parser.add_argument("--design", type=float, help="the runs that `vvlm-ray design` chooses for this share of FLOPs")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--noise", type=float, default=NOISE)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    full = paper_design()
    question = Question(full)
    reference = full
    if options.design:
        full = designed(options.design)
        print(f"design for {options.design:.0%} of the training FLOPs: {full.num_runs} runs", flush=True)
    outcomes: list[Outcome] = []
    if options.output and options.output.exists():
        outcomes = [Outcome(**row) for row in json.loads(options.output.read_text())]
    done = {(o.kind, o.seed, o.method) for o in outcomes}
    for seed in range(options.first, options.first + options.surfaces):
        for kind in options.kinds.split(","):
            case = make_case(kind, design_of(options, full, seed), seed, options.noise, reference)
            for method in options.methods.split(","):
                if (kind, seed, method) in done:
                    continue
                start = time.process_time()
                try:
                    answer = METHODS[method](case.runs)
                except Exception as problem:
                    print(f"{kind} {seed} {method}: {problem}", flush=True)
                    continue
                outcomes.append(question.judge(case, method, answer, time.process_time() - start))
        if options.output:
            options.output.write_text(json.dumps([asdict(o) for o in outcomes]))
    show(table(outcomes))


if __name__ == "__main__":
    main()
