"""The compiled hot loop: many starts of one least-squares problem over log-sum-exp of affine functions.

Symbols: runs i, terms j, atoms a (powers x^(s e)), parameters k = (log coefficients, exponents);
t_ji the value of a term, p_ji = t_ji / f_i its share, r_i the residual, g_ki = d log f_i / d theta_k.

Per start: random exponents; the coefficients are then a non-negative linear least-squares problem in relative
error (`_nonnegative_coefficients`), which both places the start well and ranks it. The best starts descend by
damped Gauss-Newton, in rounds that keep fewer and fewer; the last few are polished with the exact Hessian,
  H = sum_i q1_i g_i g_i' + sum_j sum_i q2_i p_ji A_ji A_ji'     (the second sum is sparse),
where terms whose coefficient goes to zero are switched off and every switched-off term is offered a return at
the exponent where it would help most: the optimum often lies on that boundary, and log c never reaches it.

Imports numba: import this module inside functions only.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

OFF = -1.0e300  # log coefficient of a term that is switched off: its value is exactly 0
NUM_SCANNED = 31  # exponents looked at in a scan, both signs
MAX_LOG_STEP = 4.0  # longest step of a log coefficient, and of exponent times log-range
# Sums may be reordered (that is what lets them use vector registers); inf and nan keep their meaning.
FASTMATH = {"reassoc", "contract", "nsz"}


class Problem(NamedTuple):
    """One weighted data set under one form, centred and scaled; see `engine.py` for how it is built."""

    atom_column: np.ndarray  # (A,)
    atom_exponent: np.ndarray  # (A,)
    atom_sign: np.ndarray  # (A,)
    term_atoms: np.ndarray  # (J, most atoms of a term), padded with -1
    level: np.ndarray  # (C, most levels): log of the distinct values of a column, centred
    num_levels: np.ndarray  # (C,)
    index: np.ndarray  # (C, N): level of each run
    log_column: np.ndarray  # (C, N)
    target: np.ndarray  # (N,): log error, or error when not in log space
    weight: np.ndarray  # (N,)
    lower: np.ndarray  # (E,)
    upper: np.ndarray  # (E,)
    log_space: bool
    huber_delta: float  # inf: squared loss


class Work(NamedTuple):
    """Scratch of one thread."""

    power: np.ndarray  # (A, N)
    table: np.ndarray  # (most levels,)
    term: np.ndarray  # (J, N)
    value: np.ndarray  # (N,) f
    residual: np.ndarray  # (N,)
    slope: np.ndarray  # (P, N) g
    q1: np.ndarray  # (N,)
    q2: np.ndarray  # (N,)
    hessian: np.ndarray  # (P, P)
    damped: np.ndarray  # (P, P)
    gradient: np.ndarray  # (P,)
    scale: np.ndarray  # (P,) diagonal of the Gauss-Newton matrix
    step: np.ndarray  # (P,)
    trial: np.ndarray  # (P,)
    gram: np.ndarray  # (J, J)
    moment: np.ndarray  # (J,)
    norm: np.ndarray  # (J,)
    coefficient: np.ndarray  # (J,)
    solution: np.ndarray  # (J,)
    root: np.ndarray  # (N,) square root of the weights of the linearised problem
    goal: np.ndarray  # (N,) its right-hand side
    reference: np.ndarray  # (N,) what divides f in it, inverted
    reach: np.ndarray  # (E,): largest |log column| an exponent multiplies


def _jit(function):
    return numba.njit(nogil=True, cache=True, fastmath=FASTMATH)(function)


@_jit
def _work(pb):
    atoms, runs = len(pb.atom_column), len(pb.target)
    terms, exponents = pb.term_atoms.shape[0], len(pb.lower)
    params = terms + exponents
    reach = np.full(exponents, 1e-12)
    for a in range(atoms):
        for i in range(runs):
            reach[pb.atom_exponent[a]] = max(reach[pb.atom_exponent[a]], abs(pb.log_column[pb.atom_column[a], i]))
    return Work(
        np.empty((atoms, runs)), np.empty(pb.level.shape[1]), np.empty((terms, runs)), np.empty(runs),
        np.empty(runs), np.empty((params, runs)), np.empty(runs), np.empty(runs),
        np.empty((params, params)), np.empty((params, params)), np.empty(params), np.empty(params),
        np.empty(params), np.empty(params), np.empty((terms, terms)), np.empty(terms), np.empty(terms),
        np.zeros(terms), np.zeros(terms), np.empty(runs), np.empty(runs), np.empty(runs), reach,
    )  # fmt: skip


@_jit
def _powers(pb, wk, theta):
    terms = pb.term_atoms.shape[0]
    for a in range(len(pb.atom_column)):
        column = pb.atom_column[a]
        exponent = pb.atom_sign[a] * theta[terms + pb.atom_exponent[a]]
        for level in range(pb.num_levels[column]):
            wk.table[level] = math.exp(exponent * pb.level[column, level])
        index = pb.index[column]
        power = wk.power[a]
        for i in range(len(power)):
            power[i] = wk.table[index[i]]


@_jit
def _loss(pb, wk, theta):
    """Half the weighted sum of squared residuals (or Huber's sum) at theta; fills term, value, residual."""
    _powers(pb, wk, theta)
    runs = len(pb.target)
    value = wk.value
    value[:] = 0.0
    for j in range(pb.term_atoms.shape[0]):
        term = wk.term[j]
        if theta[j] <= OFF:
            term[:] = 0.0
            continue
        term[:] = math.exp(theta[j])
        for m in range(pb.term_atoms.shape[1]):
            a = pb.term_atoms[j, m]
            if a < 0:
                break
            power = wk.power[a]
            for i in range(runs):
                term[i] *= power[i]
        for i in range(runs):
            value[i] += term[i]
    total = 0.0
    delta = pb.huber_delta
    for i in range(runs):
        r = (math.log(value[i]) if value[i] > 0.0 else -math.inf) if pb.log_space else value[i]
        r -= pb.target[i]
        wk.residual[i] = r
        size = abs(r)
        total += pb.weight[i] * (0.5 * r * r if size <= delta else delta * (size - 0.5 * delta))
    return total if total < math.inf else math.inf


@_jit
def _dot3(a, b, c):
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i] * c[i]
    return total


@_jit
def _derivatives(pb, wk, theta, exact):
    """Gradient and Hessian (or Gauss-Newton matrix) at the point of the last `_loss`."""
    terms = pb.term_atoms.shape[0]
    params, runs = wk.slope.shape
    slope, term, value, q1, q2 = wk.slope, wk.term, wk.value, wk.q1, wk.q2
    for i in range(runs):
        r = wk.residual[i]
        inside = abs(r) <= pb.huber_delta
        force = r if inside else math.copysign(pb.huber_delta, r)
        curvature = (1.0 if inside else 0.0) if exact else (1.0 if inside else pb.huber_delta / abs(r))
        if pb.log_space:
            q1[i] = pb.weight[i] * (curvature - force if exact else curvature)
            q2[i] = pb.weight[i] * force
        else:
            q1[i] = pb.weight[i] * curvature * value[i] * value[i]
            q2[i] = pb.weight[i] * force * value[i]
        value[i] = 1.0 / value[i]  # from here on: the inverse
    for k in range(terms, params):
        slope[k] = 0.0
    for j in range(terms):
        if theta[j] <= OFF:
            slope[j] = 0.0
            continue
        share, row = slope[j], term[j]
        for i in range(runs):
            share[i] = row[i] * value[i]
        for m in range(pb.term_atoms.shape[1]):
            a = pb.term_atoms[j, m]
            if a < 0:
                break
            target, logs, sign = slope[terms + pb.atom_exponent[a]], pb.log_column[pb.atom_column[a]], pb.atom_sign[a]
            for i in range(runs):
                target[i] += sign * share[i] * logs[i]
    hessian, weighted = wk.hessian, wk.residual  # the residual is not needed any more
    for k in range(params):
        row = slope[k]
        total = 0.0
        diagonal = 0.0
        for i in range(runs):
            total += q2[i] * row[i]
            weighted[i] = q1[i] * row[i]
            diagonal += pb.weight[i] * row[i] * row[i]
        wk.gradient[k] = total
        wk.scale[k] = diagonal
        for l in range(0, k + 1 - (k + 1) % 4, 4):
            s0, s1, s2, s3 = slope[l], slope[l + 1], slope[l + 2], slope[l + 3]
            t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
            for i in range(runs):
                w = weighted[i]
                t0 += w * s0[i]
                t1 += w * s1[i]
                t2 += w * s2[i]
                t3 += w * s3[i]
            hessian[k, l], hessian[k, l + 1], hessian[k, l + 2], hessian[k, l + 3] = t0, t1, t2, t3
        for l in range(k + 1 - (k + 1) % 4, k + 1):
            t0 = 0.0
            s0 = slope[l]
            for i in range(runs):
                t0 += weighted[i] * s0[i]
            hessian[k, l] = t0
    if not pb.log_space:  # the scale of the Gauss-Newton matrix in linear space carries f^2
        for k in range(params):
            wk.scale[k] = abs(hessian[k, k]) if not exact else 0.0
            if exact:
                for i in range(runs):
                    wk.scale[k] += pb.weight[i] * slope[k, i] * slope[k, i] / (value[i] * value[i])
    if exact:
        _add_curvature_of_terms(pb, wk, theta)


@_jit
def _add_curvature_of_terms(pb, wk, theta):
    """Adds sum_j sum_i q2_i p_ji A_ji A_ji' to the lower triangle."""
    terms = pb.term_atoms.shape[0]
    hessian, v = wk.hessian, wk.residual
    for j in range(terms):
        if theta[j] <= OFF:
            continue
        share = wk.slope[j]
        total = 0.0
        for i in range(len(v)):
            v[i] = wk.q2[i] * share[i]
            total += v[i]
        hessian[j, j] += total
        for m in range(pb.term_atoms.shape[1]):
            a = pb.term_atoms[j, m]
            if a < 0:
                break
            logs, k = pb.log_column[pb.atom_column[a]], terms + pb.atom_exponent[a]
            total = 0.0
            for i in range(len(v)):
                total += v[i] * logs[i]
            hessian[k, j] += pb.atom_sign[a] * total
            for m2 in range(m + 1):
                b = pb.term_atoms[j, m2]
                l = terms + pb.atom_exponent[b]
                cross = pb.atom_sign[a] * pb.atom_sign[b] * _dot3(v, logs, pb.log_column[pb.atom_column[b]])
                hessian[max(k, l), min(k, l)] += cross


@_jit
def _solve_damped(wk, damping):
    """step = -(H + damping D)^-1 gradient by Cholesky; False where the matrix is not positive definite."""
    params = len(wk.gradient)
    lower, step = wk.damped, wk.step
    for k in range(params):
        for l in range(k + 1):
            total = wk.hessian[k, l]
            if k == l:
                total += damping * wk.scale[k]
            for m in range(l):
                total -= lower[k, m] * lower[l, m]
            if k == l:
                if total <= 1e-14 * (wk.hessian[k, k] + damping * wk.scale[k]) or total <= 0.0:
                    return False
                lower[k, k] = math.sqrt(total)
            else:
                lower[k, l] = total / lower[l, l]
    for k in range(params):
        total = -wk.gradient[k]
        for m in range(k):
            total -= lower[k, m] * step[m]
        step[k] = total / lower[k, k]
    for k in range(params - 1, -1, -1):
        total = step[k]
        for m in range(k + 1, params):
            total -= lower[m, k] * step[m]
        step[k] = total / lower[k, k]
    return True


@_jit
def _fix(wk, k):
    """Take parameter k out of the step."""
    for l in range(k):
        wk.hessian[k, l] = 0.0
    for l in range(k + 1, len(wk.gradient)):
        wk.hessian[l, k] = 0.0
    wk.hessian[k, k] = 1.0
    wk.scale[k] = 1.0
    wk.gradient[k] = 0.0


@_jit
def _fix_what_cannot_move(pb, wk, theta):
    """Switched-off terms, exponents without effect, and exponents pressed against a bound."""
    terms = pb.term_atoms.shape[0]
    for k in range(len(theta)):
        stuck = wk.scale[k] <= 1e-300
        if k < terms:
            stuck = stuck or theta[k] <= OFF
        else:
            e = k - terms
            stuck = stuck or (theta[k] <= pb.lower[e] and wk.gradient[k] > 0.0)
            stuck = stuck or (theta[k] >= pb.upper[e] and wk.gradient[k] < 0.0)
        if stuck:
            _fix(wk, k)
        elif k < terms:
            wk.scale[k] *= 1e-9  # the coefficients are solved for anew after the step: hardly any damping


@_jit
def _refer_to_data(pb, wk):
    """Linearise the residuals at f = error."""
    for i in range(len(pb.target)):
        wk.goal[i] = 1.0 if pb.log_space else pb.target[i]
        wk.root[i] = math.sqrt(pb.weight[i])
        wk.reference[i] = 1.0 / math.exp(pb.target[i]) if pb.log_space else 1.0


@_jit
def _refer_to_fit(pb, wk):
    """Linearise the residuals at the f of the last `_loss`."""
    for i in range(len(pb.target)):
        r = wk.residual[i]
        size = abs(r)
        weight = pb.weight[i] * (1.0 if size <= pb.huber_delta else pb.huber_delta / size)
        wk.root[i] = math.sqrt(weight)
        wk.goal[i] = 1.0 - r if pb.log_space else pb.target[i]
        wk.reference[i] = 1.0 / wk.value[i] if pb.log_space else 1.0


@_jit
def _solve_coefficients(pb, wk, theta, chosen):
    """Coefficients c >= 0 for the exponents in theta: min over c of sum_i root_i^2 (f_i reference_i - goal_i)^2.

    Active set on the normal equations (Lawson and Hanson 1974), begun at the terms in `chosen`.
    Fills the log coefficients (OFF where zero) and `chosen`; returns the value reached.
    """
    terms, runs = wk.term.shape
    _powers(pb, wk, theta)
    column, gram, moment, norm, x = wk.term, wk.gram, wk.moment, wk.norm, wk.coefficient
    total = 0.0
    for i in range(runs):
        wk.q1[i] = wk.root[i] * wk.reference[i]
        wk.q2[i] = wk.root[i] * wk.goal[i]
        total += wk.q2[i] * wk.q2[i]
    for j in range(terms):
        row = column[j]
        row[:] = wk.q1
        for m in range(pb.term_atoms.shape[1]):
            a = pb.term_atoms[j, m]
            if a < 0:
                break
            power = wk.power[a]
            for i in range(runs):
                row[i] *= power[i]
        target = 0.0
        for i in range(runs):
            target += row[i] * wk.q2[i]
        for l in range(j + 1):
            other = column[l]
            dot = 0.0
            for i in range(runs):
                dot += row[i] * other[i]
            gram[j, l] = dot
        norm[j] = 1.0 / math.sqrt(gram[j, j])
        moment[j] = target * norm[j]
        for l in range(j + 1):  # as if all columns had norm one
            gram[j, l] *= norm[j] * norm[l]
            gram[l, j] = gram[j, l]
    for _ in range(terms + 1):
        _solve_chosen(wk, chosen)
        clean = True
        for j in range(terms):
            if chosen[j] and wk.solution[j] <= 0.0:
                chosen[j] = clean = False
        if clean:
            break
    for j in range(terms):
        x[j] = wk.solution[j] if chosen[j] else 0.0
    for _ in range(3 * terms):
        best, pick = 1e-9 * math.sqrt(total), -1
        for j in range(terms):
            if not chosen[j]:
                slack = moment[j]
                for l in range(terms):
                    slack -= gram[j, l] * x[l]
                if slack > best:
                    best, pick = slack, j
        if pick < 0:
            break
        chosen[pick] = True
        for _ in range(terms + 1):
            _solve_chosen(wk, chosen)
            shrink = 1.0
            for j in range(terms):
                if chosen[j] and wk.solution[j] <= 0.0:
                    shrink = min(shrink, x[j] / (x[j] - wk.solution[j]) if x[j] > 0.0 else 0.0)
            clean = True
            for j in range(terms):
                if chosen[j]:
                    x[j] += shrink * (wk.solution[j] - x[j])
                    if wk.solution[j] <= 0.0 and x[j] <= 1e-14 * math.sqrt(total):
                        x[j] = 0.0
                        chosen[j] = clean = False
            if clean:
                break
    value = total
    for j in range(terms):
        value -= x[j] * moment[j]
        theta[j] = math.log(x[j] * norm[j]) if x[j] > 0.0 else OFF
    return 0.5 * value


@_jit
def _solve_chosen(wk, chosen):
    """Solve the normal equations on the chosen columns, with a breath of ridge against collinear ones."""
    terms = len(chosen)
    lower, solution = wk.damped, wk.solution
    for j in range(terms):
        if not chosen[j]:
            continue
        for l in range(j + 1):
            if not chosen[l]:
                continue
            total = wk.gram[j, l] + (1e-13 if j == l else 0.0)
            for m in range(l):
                if chosen[m]:
                    total -= lower[j, m] * lower[l, m]
            lower[j, l] = math.sqrt(max(total, 1e-14)) if j == l else total / lower[l, l]
        total = wk.moment[j]
        for m in range(j):
            if chosen[m]:
                total -= lower[j, m] * solution[m]
        solution[j] = total / lower[j, j]
    for j in range(terms - 1, -1, -1):
        if chosen[j]:
            total = solution[j]
            for m in range(j + 1, terms):
                if chosen[m]:
                    total -= lower[m, j] * solution[m]
            solution[j] = total / lower[j, j]


@_jit
def _descend(pb, wk, theta, iterations, exact, tolerance):
    """Variable projection from theta (changed in place); the loss there.

    A damped step of all parameters moves the exponents; the coefficients are then solved for anew, so that a
    step follows the curved valleys in which a coefficient makes up for its exponent.
    """
    terms = pb.term_atoms.shape[0]
    params = len(theta)
    loss = _loss(pb, wk, theta)
    if not loss < math.inf:
        return loss
    damping = 1e-2
    fresh, second_order, small = True, exact, 0
    chosen = np.zeros(terms, np.bool_)
    for _ in range(iterations):
        if fresh:
            _refer_to_fit(pb, wk)
            _derivatives(pb, wk, theta, second_order)
            _fix_what_cannot_move(pb, wk, theta)
            fresh = False
        if not _solve_damped(wk, damping):
            if second_order:  # not convex here: Gauss-Newton is
                second_order = False
                _loss(pb, wk, theta)
                fresh = True
            else:
                damping = max(10.0 * damping, 1e-8)
                if damping > 1e12:
                    break
            continue
        predicted = 0.0
        for k in range(params):
            predicted -= wk.gradient[k] * wk.step[k]
            wk.trial[k] = theta[k]
            if k >= terms:
                limit = MAX_LOG_STEP / wk.reach[k - terms]
                moved = theta[k] + min(max(wk.step[k], -limit), limit)
                wk.trial[k] = min(max(moved, pb.lower[k - terms]), pb.upper[k - terms])
            else:
                chosen[k] = theta[k] > OFF
        _solve_coefficients(pb, wk, wk.trial, chosen)
        new = _loss(pb, wk, wk.trial)
        if new < loss:
            gain = loss - new
            theta[:] = wk.trial
            loss = new
            damping = max(damping * (0.1 if gain > 0.25 * predicted else 0.5), 1e-15)
            fresh = True
            second_order = exact
            small = small + 1 if gain <= tolerance * loss else 0
            if loss < 1e-29 * len(pb.target) or (small >= 2 and damping < 1e-3):
                break
        else:
            if predicted <= 1e-15 * loss:
                break
            damping = max(10.0 * damping, 1e-8)
            if damping > 1e12:
                break
    return loss


@_jit
def _grid_exponent(pb, wk, exponent, position):
    """The exponent at a position of a scan: 0 in the middle, then growing geometrically up to the bound."""
    away = position - NUM_SCANNED // 2
    size = 0.15 * 1.6 ** (abs(away) - 1) / wk.reach[exponent] if away else 0.0
    return min(max(math.copysign(size, away), pb.lower[exponent]), pb.upper[exponent])


@_jit
def _scan(pb, wk, theta, loss, scanned, places, budget, iterations):
    """Look along every exponent in turn for another basin, with the coefficients solved for at every step.

    The local minima of these lines, best first, get a few steps each, and are polished where they come close.
    Changes theta where a better basin is found; the loss.
    """
    terms, exponents = pb.term_atoms.shape[0], len(pb.lower)
    chosen = np.zeros(terms, np.bool_)
    candidate = np.empty(len(theta))
    _loss(pb, wk, theta)
    _refer_to_fit(pb, wk)
    found = 0
    line = np.empty(NUM_SCANNED + 2)
    line[0] = line[NUM_SCANNED + 1] = math.inf
    for e in range(exponents):
        for s in range(NUM_SCANNED):
            candidate[:] = theta
            candidate[terms + e] = _grid_exponent(pb, wk, e, s)
            for j in range(terms):
                chosen[j] = theta[j] > OFF
            line[s + 1] = _solve_coefficients(pb, wk, candidate, chosen)
        for s in range(1, NUM_SCANNED + 1):
            here = _grid_exponent(pb, wk, e, s - 1)
            if line[s] <= line[s - 1] and line[s] < line[s + 1]:
                below = _grid_exponent(pb, wk, e, max(s - 2, 0))
                above = _grid_exponent(pb, wk, e, min(s, NUM_SCANNED - 1))
                if not below < theta[terms + e] < above:
                    scanned[found], places[found, 0], places[found, 1] = line[s], e, here
                    found += 1
    order = np.argsort(scanned[:found])
    start = theta.copy()
    for pick in order[:budget]:
        e = int(places[pick, 0])
        candidate[:] = start
        candidate[terms + e] = places[pick, 1]
        _loss(pb, wk, start)
        _refer_to_fit(pb, wk)
        for j in range(terms):
            chosen[j] = start[j] > OFF
        _solve_coefficients(pb, wk, candidate, chosen)
        new = _descend(pb, wk, candidate, 12, False, 1e-9)
        if new < loss * 1.01:
            new = _polish(pb, wk, candidate, iterations, 4)
        if new < loss * (1 - 1e-9):
            loss = new
            theta[:] = candidate
    return loss


@_jit
def _offer_return(pb, wk, theta, loss):
    """Switch on the term, at the exponent, that promises the largest decrease; True where one does.

    With c_j = 0 the loss changes at the rate s = sum_i force_i t_ji / c_j, with curvature h: the promise of a
    Gauss-Newton step is s^2 / 2h. Exponents that no other live term uses are scanned, one at a time.
    """
    terms, runs = wk.term.shape
    _loss(pb, wk, theta)
    for i in range(runs):
        r = wk.residual[i]
        inside = abs(r) <= pb.huber_delta
        force = r if inside else math.copysign(pb.huber_delta, r)
        curvature = 1.0 if inside else pb.huber_delta / abs(r)
        inverse = 1.0 / wk.value[i] if pb.log_space else 1.0
        wk.q1[i] = pb.weight[i] * force * inverse
        wk.q2[i] = pb.weight[i] * curvature * inverse * inverse
    best, best_term, best_exponent, best_value, best_log = 1e-9 * loss, -1, -1, 0.0, 0.0
    power = wk.residual
    for j in range(terms):
        if theta[j] > OFF:
            continue
        for m in range(-1, pb.term_atoms.shape[1]):
            # m = -1: at the present exponents; else atom m is scanned where its exponent is free
            a = pb.term_atoms[j, m] if m >= 0 else -1
            if m >= 0 and a < 0:
                break
            exponent = pb.atom_exponent[a] if m >= 0 else -1
            if m >= 0 and _is_used(pb, theta, exponent):
                continue
            tries = NUM_SCANNED if m >= 0 else 1
            for s in range(tries):
                trial = _grid_exponent(pb, wk, exponent, s) if m >= 0 else 0.0
                for i in range(runs):
                    power[i] = 0.0
                for m2 in range(pb.term_atoms.shape[1]):
                    b = pb.term_atoms[j, m2]
                    if b < 0:
                        break
                    e = trial if pb.atom_exponent[b] == exponent else theta[terms + pb.atom_exponent[b]]
                    e *= pb.atom_sign[b]
                    logs = pb.log_column[pb.atom_column[b]]
                    for i in range(runs):
                        power[i] += e * logs[i]
                rate, bend = 0.0, 0.0
                for i in range(runs):
                    t = math.exp(power[i])
                    rate += wk.q1[i] * t
                    bend += wk.q2[i] * t * t
                if rate < 0.0 and bend > 0.0:
                    promise = 0.5 * rate * rate / bend
                    if promise > best:
                        best, best_term, best_exponent = promise, j, exponent
                        best_value, best_log = trial, math.log(-0.5 * rate / bend)
    if best_term < 0:
        return False
    kept = theta[terms + best_exponent] if best_exponent >= 0 else 0.0
    theta[best_term] = best_log
    if best_exponent >= 0:
        theta[terms + best_exponent] = best_value
    for _ in range(30):
        if _loss(pb, wk, theta) < loss:
            return True
        theta[best_term] -= 1.0
    theta[best_term] = OFF
    if best_exponent >= 0:
        theta[terms + best_exponent] = kept
    return False


@_jit
def _is_used(pb, theta, exponent):
    for j in range(pb.term_atoms.shape[0]):
        if theta[j] > OFF:
            for m in range(pb.term_atoms.shape[1]):
                a = pb.term_atoms[j, m]
                if a < 0:
                    break
                if pb.atom_exponent[a] == exponent:
                    return True
    return False


@_jit
def _polish(pb, wk, theta, iterations, rounds):
    """Descend with the exact Hessian, offering switched-off terms a return, until nothing helps."""
    loss = _descend(pb, wk, theta, iterations, True, 1e-13)
    for _ in range(rounds):
        if not _offer_return(pb, wk, theta, loss):
            break
        loss = _descend(pb, wk, theta, iterations, True, 1e-13)
    return loss


@_jit
def solve(pb, starts, extra, keep, iterations, polish_iterations, polish_rounds, scans, scan_budget):
    """Best of many starts. starts (S, E) exponents; extra (X, P) whole parameter vectors, never dropped early.

    keep[s], iterations[s]: round s keeps that many and gives each that many iterations; what is left is
    polished.
    Returns thetas (left, P) sorted by loss, their losses (left,).
    """
    terms, exponents = pb.term_atoms.shape[0], len(pb.lower)
    wk = _work(pb)
    count = len(starts) + len(extra)
    thetas = np.empty((count, terms + exponents))
    losses = np.empty(count)
    chosen = np.zeros(terms, np.bool_)
    _refer_to_data(pb, wk)
    for s in range(len(starts)):
        for e in range(exponents):
            thetas[s, terms + e] = min(max(starts[s, e], pb.lower[e]), pb.upper[e])
        chosen[:] = False
        losses[s] = _solve_coefficients(pb, wk, thetas[s], chosen)
    for s in range(len(extra)):
        thetas[len(starts) + s] = extra[s]
        losses[len(starts) + s] = -1.0  # survives the first selection
    for round_ in range(len(keep)):
        order = np.argsort(losses, kind="mergesort")[: keep[round_]]
        thetas, losses = thetas[order], losses[order]
        for s in range(len(order)):
            losses[s] = _descend(pb, wk, thetas[s], iterations[round_], False, 1e-9)
    for s in range(len(thetas)):
        losses[s] = _polish(pb, wk, thetas[s], polish_iterations, polish_rounds)
    order = np.argsort(losses, kind="mergesort")
    thetas, losses = thetas[order], losses[order]
    scanned, places = np.empty(NUM_SCANNED * exponents), np.empty((NUM_SCANNED * exponents, 2))
    for s in range(min(scans, len(thetas))):
        if s > 0 and losses[s] <= losses[s - 1] * (1 + 1e-6):
            continue  # the same basin
        for _ in range(4):
            before = losses[s]
            losses[s] = _scan(pb, wk, thetas[s], before, scanned, places, scan_budget, polish_iterations)
            if losses[s] >= before * (1 - 1e-9):
                break
    order = np.argsort(losses, kind="mergesort")
    return thetas[order], losses[order]


@_jit
def descend_from(pb, thetas, polish_iterations, polish_rounds):
    """Polish whole parameter vectors (S, P) one by one, in place; losses (S,)."""
    wk = _work(pb)
    losses = np.empty(len(thetas))
    for s in range(len(thetas)):
        losses[s] = _polish(pb, wk, thetas[s], polish_iterations, polish_rounds)
    return losses
