"""Planted surfaces and noise over any design, to test fits, bands and frontiers against a known truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vvlm_ray.scaling.forms import Form, make_form
from vvlm_ray.scaling.frontier import Frontier
from vvlm_ray.scaling.runs import Runs

MEAN_ERROR = (40.0, 55.0)  # points: the scale of the paper's data
SPREAD = 3.1  # standard deviation over all its runs, points
Surface = Callable[..., np.ndarray]  # surface(factors, num_examples) -> error


@dataclass(frozen=True)
class Planted:
    """A surface of one of the forms: call it with factors {name: (P,)} and num_examples."""

    form: Form
    log_coefficients: np.ndarray
    exponents: np.ndarray

    def __call__(self, factors: Mapping[str, np.ndarray], num_examples=None) -> np.ndarray:
        return self.form.predict(self.log_coefficients[None], self.exponents[None], factors, num_examples)[0]


def plant(form_name: str, design: Runs, seed: int) -> Planted:
    """A random surface of a form over the design, on the scale of the paper's data: mean 40-55, spread 3.1 points.

    Exponents: a ~ U(0.2, 1), b ~ U(-0.3, 0.3), d ~ U(0.15, 0.6); terms weigh in at random.
    """
    rng = np.random.default_rng([seed, 7])
    form = make_form(form_name, tuple(design.factors), design.num_examples is not None)
    ranges = {"a": (0.2, 1.0), "b": (-0.3, 0.3), "d": (0.15, 0.6)}
    exponents = np.array([rng.uniform(*ranges[name[0]]) for name in form.exponents])
    matrix = form.design(design.inputs())[:, :, len(form.coefficients) :]
    terms = np.exp(matrix @ exponents)
    terms /= terms.mean(axis=0)
    weights = rng.dirichlet(np.full(len(form.coefficients) - 1, 2.0))
    varying = terms[:, :-1] @ weights
    weights *= SPREAD / varying.std()
    weights = np.append(weights, max(rng.uniform(*MEAN_ERROR) - weights.sum(), 5.0))
    scale = np.exp(matrix @ exponents).mean(axis=0)
    return Planted(form, np.log(weights / scale), exponents)


def plant_misfit(design: Runs, seed: int) -> Surface:
    """A random surface that no form represents: powers that saturate, and factors that interact with each other.

    f = eps + sum_k alpha_k / (1 + (x_k / s_k)^a_k) (1 + beta_k n^-d) + gamma (prod_k x_k)^-g, on the same scale.
    """
    rng = np.random.default_rng([seed, 11])
    names = tuple(design.factors)
    middle = {name: np.exp(np.log(values).mean()) for name, values in design.factors.items()}
    middle_n = np.exp(np.log(design.num_examples).mean())
    where, power = rng.uniform(0.3, 3.0, len(names)), rng.uniform(0.6, 1.5, len(names))
    share, beta = rng.dirichlet(np.full(len(names) + 1, 2.0)), rng.uniform(0.2, 1.5, len(names))
    decay, joint = rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.4)

    def shape(factors, num_examples):
        shrink = (np.asarray(num_examples, float) / middle_n) ** -decay
        total, product = 0.0, 1.0
        for k, name in enumerate(names):
            relative = np.asarray(factors[name], float) / middle[name]
            total = total + share[k] / (1 + (relative / where[k]) ** power[k]) * (1 + beta[k] * shrink)
            product = product * relative
        return total + share[-1] * product**-joint

    swept = shape(design.factors, design.num_examples)
    scale, level = SPREAD / swept.std(), rng.uniform(*MEAN_ERROR)

    def surface(factors, num_examples):
        return level + scale * (shape(factors, num_examples) - swept.mean())

    return surface


def observe(surface: Surface, design: Runs, noise: float, seed: int) -> Runs:
    """The design's runs with the surface's error plus Gaussian noise (points)."""
    rng = np.random.default_rng([seed, 13])
    truth = surface(design.factors, design.num_examples)
    return replace(design, error=truth + noise * rng.normal(size=design.num_runs))


@dataclass(frozen=True)
class Judgement:
    """Of a frontier under the truth, by budget (B,): regret f(x_hat*) - f(x*) in points, and whether the band held."""

    regret: np.ndarray
    covered: np.ndarray


def judge(surface: Surface, line: Frontier) -> Judgement:
    """Regret of x_hat*, and whether its band contains f(x_hat*), by brute force over the frontier's space."""
    grid = line.space.grid()
    truth = np.minimum.accumulate(surface(grid.points, line.num_examples))
    best = truth[grid.count(line.budgets * line.space.known_cost().scale) - 1]
    chosen = surface(line.factors, line.num_examples)
    return Judgement(chosen - best, (line.low <= chosen) & (chosen <= line.high))
