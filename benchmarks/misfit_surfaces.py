"""Planted surfaces of many kinds over the paper's 88 runs, to judge estimators where no law fits.

Inside the fitted family: `add-interact`, `add-interact-s`, `add`. The battery of `vvlm-ray design`: `worst-factor`,
`product`, `saturating`. Further kinds, that nothing in the package knows of: see FURTHER. Every surface is scaled over
the design to a mean error of 40-55 points and a spread of 3.1 (the paper's data), save `chance`, which is an accuracy.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from vvlm_ray.designs.surfaces import plant_kind
from vvlm_ray.scaling.runs import Runs
from vvlm_ray.scaling.simulation import MEAN_ERROR, SPREAD, plant

INSIDE = ("add-interact", "add-interact-s", "add")
BATTERY = ("worst-factor", "product", "saturating")
FURTHER = (
    "mixture", "chance", "threshold", "peaked", "broken", "translog", "joint-tokens", "bottleneck", "student-t",
    "binomial",
)  # fmt: skip
KINDS = INSIDE + BATTERY + FURTHER
NOISE = 0.4  # points


@dataclass(frozen=True)
class Case:
    """A surface and the runs that were observed of it."""

    kind: str
    seed: int
    surface: Callable
    runs: Runs


def make_case(kind: str, design: Runs, seed: int, noise: float = NOISE, reference: Runs | None = None) -> Case:
    """The surface `seed` of a kind, scaled over the reference runs (the design itself by default), with noise."""
    surface = surface_of(kind, reference if reference is not None else design, seed)
    rng = np.random.default_rng([seed, 101])
    truth = surface(design.factors, design.num_examples)
    if kind == "student-t":  # now and then a run goes badly wrong
        error = truth + noise * rng.standard_t(3, design.num_runs) / np.sqrt(3) * 1.3
    elif kind == "binomial":  # nine tasks of 700 questions, and nothing else
        error = 100 * rng.binomial(6300, np.clip(truth / 100, 0, 1)) / 6300
    else:
        error = truth + noise * rng.normal(size=design.num_runs)
    return Case(kind, seed, surface, replace(design, error=np.clip(error, 0.5, 99.5)))


def surface_of(kind: str, design: Runs, seed: int) -> Callable:
    if kind in INSIDE:
        return plant(kind, design, 5000 + seed)
    if kind in BATTERY:
        return plant_kind(kind, design, 5000 + seed)
    rng = np.random.default_rng([seed, 103, KINDS.index(kind)])
    if kind in ("student-t", "binomial"):
        under = ("add-interact", "product", "worst-factor")[seed % 3]
        return surface_of(under, design, 700 + seed)
    middle = {name: float(np.exp(np.log(values).mean())) for name, values in design.factors.items()}
    middle_n = float(np.exp(np.log(design.num_examples).mean()))

    def relative(factors, num_examples):
        x = {name: np.asarray(factors[name], float) / middle[name] for name in middle}
        return x, np.asarray(num_examples, float) / middle_n

    shape = SHAPES[kind](rng, list(middle))
    raw = lambda factors, num_examples: shape(*relative(factors, num_examples))  # noqa: E731
    if kind == "chance":
        return raw
    swept = raw(design.factors, design.num_examples)
    scale, level = SPREAD / swept.std(), rng.uniform(*MEAN_ERROR)
    centre = swept.mean()
    return lambda factors, num_examples: level + scale * (raw(factors, num_examples) - centre)


def _mixture(rng, names):
    """Eight tasks, each a sum of powers of its own (own exponents, own d, own pair), some of them a worst factor."""
    tasks = []
    for _ in range(8):
        pair = list(combinations(names, 2))[rng.integers(len(names) * (len(names) - 1) // 2)]
        tasks.append((rng.dirichlet(np.full(len(names) + 2, 1.0)), rng.uniform(0.1, 1.2, len(names)),
                      rng.uniform(0.1, 0.8), rng.uniform(0, 1.2, len(names)), pair, rng.uniform(0.1, 0.7),
                      rng.choice([1.0, 1.0, 3.0])))  # fmt: skip

    def shape(x, n):
        total = 0.0
        for share, a, d, beta, pair, joint, p in tasks:
            terms = [share[k] * x[name] ** -a[k] * (1 + beta[k] * n**-d) for k, name in enumerate(names)]
            terms += [share[-1] * n**-d + 0 * terms[0], share[-2] * (x[pair[0]] * x[pair[1]]) ** -joint]
            total = total + sum(term**p for term in terms) ** (1 / p)
        return total

    return shape


def _chance(rng, names):
    """Mean of four multiple-choice tasks: chance + (top - chance) sigmoid(ability - difficulty), in points of error."""
    a, d = rng.uniform(0.2, 0.7, len(names)), rng.uniform(0.2, 0.6)
    beta = rng.uniform(0.0, 0.6, len(names))
    tasks = [(rng.choice([0.2, 0.25, 0.5]), rng.uniform(0.75, 0.98), rng.uniform(-1.2, 1.2), rng.uniform(0.6, 1.6))
             for _ in range(4)]  # fmt: skip

    def shape(x, n):
        lack = sum((x[name] ** -a[k]) * (1 + beta[k] * n**-d) / (1 + beta[k]) for k, name in enumerate(names)) + n**-d
        ability = -np.log(lack / (len(names) + 1)) * 1.5
        scores = [c + (top - c) / (1 + np.exp(-(slope * ability - hard))) for c, top, hard, slope in tasks]
        return 100 * (1 - np.mean(scores, axis=0))

    return shape


def _threshold(rng, names):
    """One factor helps only once another is past a threshold (smooth step in its log)."""
    i, j = rng.permutation(len(names))[:2]
    a, where, sharp = rng.uniform(0.2, 0.9, len(names)), rng.uniform(-0.8, 0.8), rng.uniform(1.0, 3.0)
    share, d, beta = rng.dirichlet(np.full(len(names) + 1, 3.0)), rng.uniform(0.15, 0.6), rng.uniform(0, 1, len(names))

    def shape(x, n):
        opened = 1 / (1 + np.exp(-sharp * (np.log(x[names[j]]) - where)))
        total = share[-1] * n**-d
        for k, name in enumerate(names):
            power = a[k] * (0.15 + 0.85 * opened) if k == i else a[k]
            total = total + share[k] * x[name] ** -power * (1 + beta[k] * n**-d)
        return total

    return shape


def _peaked(rng, names):
    """Longer is worse beyond some number of frames (and of tokens in all), the later the more data there is."""
    a, d = rng.uniform(0.2, 0.9, len(names)), rng.uniform(0.15, 0.6)
    share, beta = rng.dirichlet(np.full(len(names) + 1, 3.0)), rng.uniform(0, 1, len(names))
    which, where, strength = rng.integers(1, len(names)), rng.uniform(0.3, 1.2), rng.uniform(0.05, 0.3)
    later = rng.uniform(0.0, 0.5)

    def shape(x, n):
        total = share[-1] * n**-d
        for k, name in enumerate(names):
            total = total + share[k] * x[name] ** -a[k] * (1 + beta[k] * n**-d)
        over = np.log(x[names[which]]) - where - later * np.log(n)
        return total + strength * np.logaddexp(0, 2 * over) ** 1.5 / 2

    return shape


def _broken(rng, names):
    """Powers whose exponent changes at a break (Caballero et al. 2023): x^-a (1 + (x / b)^(1/s))^(-c s)."""
    a, c = rng.uniform(0.1, 0.6, len(names) + 1), rng.uniform(-0.1, 1.2, len(names) + 1)
    b, s = np.exp(rng.uniform(-0.8, 0.8, len(names) + 1)), rng.uniform(0.1, 0.6, len(names) + 1)
    share, beta = rng.dirichlet(np.full(len(names) + 1, 2.5)), rng.uniform(0, 1, len(names))

    def power(x, k):
        return x ** -a[k] * (1 + (x / b[k]) ** (1 / s[k])) ** (-c[k] * s[k])

    def shape(x, n):
        shrink = power(n, len(names))
        total = share[-1] * shrink
        for k, name in enumerate(names):
            total = total + share[k] * power(x[name], k) * (1 + beta[k] * shrink)
        return total

    return shape


def _translog(rng, names):
    """exp of a quadratic in the logs: curved, every pair interacts, falling over most of the sweep."""
    count = len(names) + 1
    slope, curve = rng.uniform(0.05, 0.35, count), rng.uniform(0.0, 0.06, count)
    cross = rng.normal(0, 0.03, (count, count))

    def shape(x, n):
        u = [np.log(x[name]) for name in names] + [np.log(n)]
        log_f = sum(-slope[k] * u[k] + curve[k] * u[k] ** 2 for k in range(count))
        for k, m in combinations(range(count), 2):
            log_f = log_f + cross[k, m] * u[k] * u[m]
        return np.exp(log_f)

    return shape


def _joint_tokens(rng, names):
    """LM size against all visual tokens as in Chinchilla, with a penalty for an LM too small for its context."""
    a, g, d = rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.6), rng.uniform(0.15, 0.6)
    share, beta, strain = rng.dirichlet(np.full(3, 3.0)), rng.uniform(0, 1, 2), rng.uniform(0.0, 0.3)
    uneven = rng.uniform(-0.3, 0.3)

    def shape(x, n):
        tokens = x[names[1]] ** (1 + uneven) * x[names[-1]] ** (1 - uneven) if len(names) > 1 else x[names[0]]
        shrink = n**-d
        total = share[0] * x[names[0]] ** -a * (1 + beta[0] * shrink) + share[1] * tokens**-g * (1 + beta[1] * shrink)
        return total + share[2] * shrink + strain * (tokens / (1 + tokens)) * x[names[0]] ** -0.5

    return shape


def _bottleneck(rng, names):
    """The worst of the factors alone counts (a maximum, with a kink), and n on top."""
    a, w = rng.uniform(0.3, 1.0, len(names)), rng.uniform(0.6, 1.5, len(names))
    d, beta, share = rng.uniform(0.15, 0.6), rng.uniform(0, 1, len(names)), rng.uniform(0.2, 0.6)

    def shape(x, n):
        shrink = n**-d
        terms = [w[k] * x[name] ** -a[k] * (1 + beta[k] * shrink) for k, name in enumerate(names)]
        worst = np.maximum.reduce(np.broadcast_arrays(*terms))
        return worst + 0.3 * sum(terms) / len(terms) + share * shrink

    return shape


SHAPES = {
    "mixture": _mixture, "chance": _chance, "threshold": _threshold, "peaked": _peaked, "broken": _broken,
    "translog": _translog, "joint-tokens": _joint_tokens, "bottleneck": _bottleneck,
}  # fmt: skip
