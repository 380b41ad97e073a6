"""Planted surfaces inside and outside the fitted family, and the regret of the frontier that a set of runs gives.

Kinds: `family` (add-interact, Wang et al. 2025, Table 7), `worst-factor` (a p-norm of the terms: the worst factor
dominates), `product` (two factors matter through their product), `saturating` (powers that level off, and factors
that interact). All are scaled to the paper's data over a reference set of runs: mean 40-55 points, spread 3.1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from vvlm_ray.scaling.bagging import fit_bag
from vvlm_ray.scaling.cost import Cost
from vvlm_ray.scaling.forms import AUTO
from vvlm_ray.scaling.frontier import check_budgets, search
from vvlm_ray.scaling.parallel import threads
from vvlm_ray.scaling.posterior import fit_posterior
from vvlm_ray.scaling.predictor import first_minimum
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import MEAN_ERROR, SPREAD, observe, plant, plant_misfit
from vvlm_ray.scaling.space import Grid, Space

Surface = Callable[..., np.ndarray]  # surface(factors {name: (P,)}, num_examples) -> error (P,)
INSIDE = ("family",)
OUTSIDE = ("worst-factor", "product", "saturating")
NOISE = 0.4  # points: the residual of the best fit to the paper's data


def plant_battery(reference: Runs, count: int, seed: int) -> list[tuple[str, Surface]]:
    """`count` surfaces with their kinds: the first half inside the family, the others outside, kinds in turn."""
    surfaces: list[tuple[str, Surface]] = []
    for i in range(count):
        kind = INSIDE[0] if i < (count + 1) // 2 else OUTSIDE[i % len(OUTSIDE)]
        surfaces.append((kind, plant_kind(kind, reference, 1000 * seed + i)))
    return surfaces


def plant_kind(kind: str, reference: Runs, seed: int) -> Surface:
    """One random surface of a kind, scaled over the reference runs."""
    if kind == "family":
        return plant("add-interact", reference, seed)
    if kind == "saturating":
        return plant_misfit(reference, seed)
    return _scaled(
        _worst_factor(reference, seed) if kind == "worst-factor" else _product(reference, seed), reference, seed
    )


def _middle(reference: Runs) -> tuple[dict[str, float], float]:
    middle = {name: float(np.exp(np.log(values).mean())) for name, values in reference.factors.items()}
    return middle, float(np.exp(np.log(reference.num_examples).mean()))


def _worst_factor(reference: Runs, seed: int) -> Surface:
    """(sum_k t_k^p)^(1/p) with t_k = w_k x_k^-a_k (1 + beta_k n^-d), and n a factor of its own; p ~ U(2, 8)."""
    rng = np.random.default_rng([seed, 17])
    middle, middle_n = _middle(reference)
    weight, power = rng.uniform(0.5, 1.5, len(middle) + 1), rng.uniform(0.2, 1.0, len(middle))
    beta, decay, p = rng.uniform(0, 1, len(middle)), rng.uniform(0.15, 0.6), rng.uniform(2, 8)

    def shape(factors, num_examples):
        n = (np.asarray(num_examples, float) / middle_n) ** -decay
        total = (weight[-1] * n) ** p
        for k, name in enumerate(middle):
            x = np.asarray(factors[name], float) / middle[name]
            total = total + (weight[k] * x ** -power[k] * (1 + beta[k] * n) / (1 + beta[k])) ** p
        return total ** (1 / p)

    return shape


def _product(reference: Runs, seed: int) -> Surface:
    """One pair of factors through its product, (x_i x_j)^-g (1 + beta n^-d); the others as powers; n on its own."""
    rng = np.random.default_rng([seed, 19])
    middle, middle_n = _middle(reference)
    names = list(middle)
    pairs = list(combinations(names, 2)) or [(names[0], names[0])]
    first, second = pairs[rng.integers(len(pairs))] if rng.random() < 0.5 else pairs[-1]
    share = rng.dirichlet(np.full(len(names), 2.0))
    power, joint = rng.uniform(0.2, 1.0, len(names)), rng.uniform(0.2, 0.8)
    beta, decay = rng.uniform(0, 1.5), rng.uniform(0.15, 0.6)

    def shape(factors, num_examples):
        x = {name: np.asarray(factors[name], float) / middle[name] for name in names}
        n = (np.asarray(num_examples, float) / middle_n) ** -decay
        total = share[0] * (x[first] * x[second]) ** -joint * (1 + beta * n) + share[1 % len(share)] * n
        for k, name in enumerate(names):
            if name not in (first, second):
                total = total + share[2 % len(share)] * x[name] ** -power[k]
        return total

    return shape


def _scaled(shape: Surface, reference: Runs, seed: int) -> Surface:
    """level + scale shape(x, n), so that mean and spread over the reference are those of the paper's data."""
    rng = np.random.default_rng([seed, 23])
    swept = shape(reference.factors, reference.num_examples)
    scale, level = SPREAD / swept.std(), rng.uniform(*MEAN_ERROR)
    return lambda factors, num_examples: level + scale * (shape(factors, num_examples) - swept.mean())


@dataclass(frozen=True)
class Question:
    """What the frontier is wanted for: budgets (B,) in FLOPs and data sizes (S,), over a grid sorted by cost."""

    grid: Grid
    budgets_flops: np.ndarray
    sizes: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """How many points of the grid each budget affords: (B,)."""
        return self.grid.count(self.budgets_flops)


def make_question(levels: Mapping[str, Sequence[float]], cost: Cost, budgets_flops, sizes) -> Question:
    """The question over all combinations of the levels. Raises UserError for a budget below the cheapest of them."""
    budgets = np.asarray(budgets_flops, float)
    space = Space(levels, cost)
    grid = space.grid()
    check_budgets(grid, budgets / cost.scale, space)
    return Question(grid.up_to(budgets.max()), budgets, np.asarray(sizes, float))


@dataclass(frozen=True)
class Fitting:
    """How the frontier is fitted in a simulation: a bag with fewer resamples and starts than for real, or "auto"."""

    form: str = "add-interact"
    resamples: int = 12
    starts: int = 32


def frontier_regret(
    surface: Surface,
    design: Runs,
    question: Question,
    seed: int,
    *,
    noise: float = NOISE,
    fitting: Fitting | None = None,
) -> np.ndarray:
    """f(x_hat*) - f(x*) in points, (S, B), of the frontier fitted to noisy runs of the design; f is the surface."""
    fitting = fitting or Fitting()
    runs = observe(surface, design, noise, seed)
    # n in units of its middle: exponents of a form that does not fit may be large, and counts to such powers overflow.
    unit = np.exp(np.log(design.num_examples).mean())
    runs = replace(runs, error=np.maximum(runs.error, 1e-3), num_examples=runs.num_examples / unit)
    if fitting.form == AUTO:
        posterior = fit_posterior(runs, seed=seed, num_samples=1)
        ends = np.asarray(question.ends)
        chosen = np.array(
            [first_minimum(posterior.predict(question.grid.points, n)[None], ends)[0] for n in question.sizes / unit]
        )
    else:
        chosen = _chosen_by_bag(runs, question, fitting, seed, unit)
    regret = np.empty(chosen.shape)
    for s, size in enumerate(question.sizes):
        truth = surface(question.grid.points, size)
        best = np.minimum.accumulate(truth)[question.ends - 1]
        regret[s] = truth[chosen[s]] - best
    return regret


def _chosen_by_bag(runs: Runs, question: Question, fitting: Fitting, seed: int, unit: float) -> np.ndarray:
    """Positions of the frontier of a bag: (S, B)."""
    bag = fit_bag(runs, fitting.form, resamples=fitting.resamples, starts=fitting.starts, seed=seed, map=threads(1))
    chosen, _ = search(bag, question.grid, question.budgets_flops, question.sizes / unit, map=threads(1))
    return chosen
