"""The super-form: what the paper's forms are special cases of, with priors instead of bounds.

f = eps + ( sum_g ( sum_{j in g} c_j prod_k X_k^e_jk )^p )^(1/p),  X_k = (x_k + s_k) / (1 + s_k),

with x_k and n in units of their geometric means. Groups g: {x_k^-a_k, x_k^b_k n^-d} for each factor, {n^-d}, and
one for each pair of factors. With p = 1, no shifts and no pairs it is add-interact (Wang et al. 2025, Table 7); p > 1
lets the worst factor dominate, pairs let factors matter through their product, shifts let a power level off.

theta = (log eps, log c, exponents, log p, log s) has a normal prior. `fit_form` finds the maximum a posteriori by
damped Gauss-Newton from several starts at once.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

LARGEST_LOG = 60.0
LARGEST_STEP = 2.0  # of any parameter in one step


@dataclass(frozen=True)
class SuperForm:
    """Structure and priors. Parameters P, terms J, columns C (factors, then the data size where there is one).

    `exponents` (J, C, P): the exponent of column k in term j is exponents[j, k] @ theta; `groups` (G, J) says which
    terms stand in a group; term j has the log coefficient theta[1 + j]; `power` is the place of log p in theta or
    None; `shifts` are those of log s_k, one for each factor or none. `mean`, `sd` (P,) are the prior.
    """

    name: str
    param_names: tuple[str, ...]
    exponents: np.ndarray
    groups: np.ndarray
    power: int | None
    shifts: tuple[int, ...]
    mean: np.ndarray
    sd: np.ndarray

    @property
    def num_params(self) -> int:
        return len(self.mean)

    def value(self, theta: np.ndarray, u: np.ndarray, *, jacobian: bool = True):
        """f (B, R) and its derivatives (B, P, R) for thetas (B, P) at centred logs u (C, R)."""
        batch, (num_columns, num_points) = len(theta), u.shape
        num_terms = self.groups.shape[1]
        logs = np.broadcast_to(u, (batch, num_columns, num_points))
        if self.shifts:
            logs = logs.copy()
            log_s = theta[:, list(self.shifts), None]
            k = len(self.shifts)
            logs[:, :k] = np.logaddexp(u[:k], log_s) - np.logaddexp(0.0, log_s)
        powers = np.einsum("jkp,bp->bjk", self.exponents, theta)
        log_terms = np.clip(powers @ logs + theta[:, 1 : 1 + num_terms, None], -LARGEST_LOG * 5, LARGEST_LOG)
        terms = np.exp(log_terms)
        sums = self.groups @ terms
        eps = np.exp(np.minimum(theta[:, 0], LARGEST_LOG))[:, None]
        if self.power is None:
            total = sums.sum(axis=1)
            by_term = terms
        else:
            p = np.exp(np.clip(theta[:, self.power], -3.0, 4.0))[:, None, None]
            log_sums = np.log(np.maximum(sums, 1e-300))
            largest = log_sums.max(axis=1, keepdims=True)
            weights = np.exp(p * (log_sums - largest))
            norm = weights.sum(axis=1, keepdims=True)
            weights /= norm
            log_total = (largest + np.log(norm) / p)[:, 0]
            total = np.exp(np.minimum(log_total, LARGEST_LOG))
            # d f / d log t_j = H w_g t_j / G_g, of the term's group
            ratio = weights * (total[:, None] / np.maximum(sums, 1e-300))
            by_term = terms * (self.groups.T @ ratio)
        f = eps + total
        if not jacobian:
            return f, None
        slope = np.zeros((batch, self.num_params, num_points))
        slope[:, 0] = eps
        slope[:, 1 : 1 + num_terms] = by_term
        for k in range(num_columns):
            users = np.flatnonzero(self.exponents[:, k].any(axis=1))
            if len(users):
                slope += np.einsum("jp,bjr->bpr", self.exponents[users, k], by_term[:, users] * logs[:, [k]])
        if self.power is not None:
            slope[:, self.power] = total * ((weights * log_sums).sum(axis=1) - log_total)
        for k, place in enumerate(self.shifts):
            s = np.exp(theta[:, place, None])
            moved = s / (np.exp(u[k]) + s) - s / (1 + s)
            slope[:, place] = np.einsum("bj,bjr->br", powers[:, :, k], by_term) * moved
        return f, slope


def make_forms(num_factors: int, data_size: bool, level: float, spread: float) -> list[SuperForm]:
    """add-interact, and it with p, shifts and pairs (own exponents; tied ones), for errors of this level and spread.

    The priors suit errors of 40-55 points with a spread of 3.1; coefficients go with the spread, eps with the level.
    """
    forms = [_make("add-interact", num_factors, data_size, level, spread)]
    if num_factors > 1:
        forms.append(_make("products", num_factors, data_size, level, spread))
        forms.append(_make("tied products", num_factors, data_size, level, spread))
    else:
        forms.append(_make("shifted", num_factors, data_size, level, spread))
    return forms


def _make(name: str, num_factors: int, data_size: bool, level: float, spread: float) -> SuperForm:
    unit = np.log(spread / 3.1)
    terms: list[tuple[str, int, dict[int, tuple[str, float]], float]] = []  # name, group, {column: (exp, sign)}, log c
    n = num_factors
    for k in range(num_factors):
        terms.append((f"c_{k}", k, {k: (f"a_{k}", -1.0)}, np.log(2.0)))
        if data_size:
            terms.append((f"cn_{k}", k, {k: (f"b_{k}", 1.0), n: ("d", -1.0)}, 0.0))
    group = num_factors
    if data_size:
        terms.append(("xi", group, {n: ("d", -1.0)}, 0.0))
        group += 1
    for k, m in combinations(range(num_factors), 2):
        if name == "products":
            terms.append((f"p_{k}{m}", group, {k: (f"g_{k}{m}", -1.0), m: (f"h_{k}{m}", -1.0)}, np.log(0.7)))
        elif name == "tied products":
            tied = (f"t_{k}{m}", -1.0)
            terms.append((f"p_{k}{m}", group, {k: tied, m: tied}, np.log(0.7)))
            if data_size:
                terms.append((f"q_{k}{m}", group, {k: tied, m: tied, n: ("d", -1.0)}, np.log(0.5)))
        group += name in ("products", "tied products")
    prior = {"a": (0.5, 0.4), "b": (0.0, 0.3), "d": (0.35, 0.25), "g": (0.4, 0.3), "h": (0.4, 0.3), "t": (0.45, 0.3)}
    exponent_names = list(dict.fromkeys(e for _, _, powers, _ in terms for e, _ in powers.values()))
    names = ["eps", *(term[0] for term in terms), *exponent_names]
    mean = [np.log(level * 0.75), *(unit + term[3] for term in terms), *(prior[e[0]][0] for e in exponent_names)]
    sd = [0.7, *(1.5 for _ in terms), *(prior[e[0]][1] for e in exponent_names)]
    power, shifts = None, ()
    if name != "add-interact":
        power = len(names)
        shifts = tuple(range(power + 1, power + 1 + num_factors))
        names += ["p", *(f"s_{k}" for k in range(num_factors))]
        mean += [0.3, *(-3.0 for _ in shifts)]
        sd += [0.6, *(1.5 for _ in shifts)]
    place = {name: i for i, name in enumerate(names)}
    exponents = np.zeros((len(terms), num_factors + data_size, len(names)))
    groups = np.zeros((group, len(terms)))
    for j, (_, g, powers, _) in enumerate(terms):
        groups[g, j] = 1.0
        for column, (exponent, sign) in powers.items():
            exponents[j, column, place[exponent]] = sign
    return SuperForm(name, tuple(names), exponents, groups, power, shifts, np.array(mean), np.array(sd))


def fit_form(form: SuperForm, u: np.ndarray, y: np.ndarray, whiten: np.ndarray, starts: np.ndarray, *,
             iterations: int = 60, keep: int = 4) -> tuple[np.ndarray, float]:  # fmt: skip
    """theta of least ||W (y - f)||^2 / 2 + ||(theta - mean) / sd||^2 / 2, and that; from starts (B, P).

    `whiten` is W (R, R) or, where it is diagonal, (R,). After a quarter of the iterations only the best `keep` go on.
    """
    theta = starts.copy()
    damping = np.full(len(theta), 1.0)

    def residual(at, jacobian=True):
        f, slope = form.value(at, u, jacobian=jacobian)
        if whiten.ndim == 1:
            return (y - f) * whiten, slope * whiten if jacobian else None
        return (y - f) @ whiten.T, slope @ whiten.T if jacobian else None

    def objective(r, at):
        value = 0.5 * (r**2).sum(axis=1) + 0.5 * (((at - form.mean) / form.sd) ** 2).sum(axis=1)
        return np.where(np.isfinite(value), value, np.inf)

    r, slope = residual(theta)
    loss = objective(r, theta)
    precision = form.sd**-2.0
    still = 0
    for step in range(iterations):
        if step == iterations // 4 and len(theta) > keep:
            best = np.argsort(loss)[:keep]
            theta, damping, r, slope, loss = theta[best], damping[best], r[best], slope[best], loss[best]
        hessian = slope @ slope.transpose(0, 2, 1)
        diagonal = np.einsum("bpp->bp", hessian)
        diagonal += precision
        gradient = np.einsum("bpr,br->bp", slope, r) - (theta - form.mean) * precision
        damped = hessian.copy()
        np.einsum("bpp->bp", damped)[:] += damping[:, None] * diagonal
        move = np.linalg.solve(damped, gradient[..., None])[..., 0]
        move *= np.minimum(1.0, LARGEST_STEP / np.maximum(np.abs(move).max(axis=1, keepdims=True), 1e-12))
        tried = theta + move
        new_r, new_slope = residual(tried)
        new_loss = objective(new_r, tried)
        better = new_loss < loss
        gain = np.where(better, loss - new_loss, 0.0)
        theta = np.where(better[:, None], tried, theta)
        r, slope = np.where(better[:, None], new_r, r), np.where(better[:, None, None], new_slope, slope)
        loss = np.where(better, new_loss, loss)
        damping = np.clip(np.where(better, damping * 0.3, damping * 4), 1e-9, 1e9)
        still = still + 1 if gain.max() < 1e-4 else 0
        if still >= 3 and step >= iterations // 4:
            break
    best = int(np.argmin(loss))
    return theta[best], float(loss[best])
