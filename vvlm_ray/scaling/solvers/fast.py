"""The compiled hot loop: many starts of one least-squares problem over log-sum-exp of affine functions.

Symbols: runs i, terms j, atoms a (powers x^(s e)), parameters k = (log coefficients, exponents);
t_ji the value of a term, p_ji = t_ji / f_i its share, r_i the residual, g_ki = d log f_i / d theta_k.

1. Variable projection: for given exponents the coefficients are a small non-negative least-squares problem
   (`_solve_coefficients`), exact zeros included. It places and ranks the random starts, and it is solved anew
   after every step, so that only the exponents are searched.
2. Steps (`_descend`): damped Gauss-Newton in all parameters, later with the exact Hessian
   H = sum_i q1_i g_i g_i' + sum_j sum_i q2_i p_ji A_ji A_ji'  (the second sum is sparse).
3. The boundary (`_offer_return`): a term whose coefficient is zero has lost its exponent; it is offered a return at
   the exponent that promises the largest decrease.
4. Other basins: from the best fits, `engine.py` scans every exponent in turn over its whole range.

Everything lives in one `State`, whose many small vectors share three blocks: few, large arguments are what
keeps compilation short. Imports numba: import this module inside functions only.
"""
# ruff: noqa: E741

import math
from typing import NamedTuple

import numba
import numpy as np

OFF = -1.0e300  # log coefficient of a term that is switched off: its value is exactly 0
MAX_LOG_STEP = 4.0  # longest step of an exponent times its log-range
HURRIED, EXACT = 1e-9, 1e-13  # relative gains below which a descent ends

# Rows of State.per_run
TARGET, WEIGHT, VALUE, RESIDUAL, Q1, Q2, ROOT, GOAL, REFERENCE = range(9)
NUM_PER_RUN = 9
# Rows of State.per_param: bounds and log-range by exponent; gradient, scale, step, trial by parameter; the rest by term
LOWER, UPPER, REACH, GRADIENT, SCALE, STEP, TRIAL, NORM, MOMENT, COEFFICIENT, SOLUTION, CHOSEN = range(12)
NUM_PER_PARAM = 12
# State.square
HESSIAN, CHOLESKY, GRAM = range(3)


class State(NamedTuple):
    """One weighted data set under one form, centred and scaled (`engine.py` builds it), and scratch for one thread."""

    atom: np.ndarray  # (A, 2): column, exponent
    sign: np.ndarray  # (A,)
    term_atoms: np.ndarray  # (J, most atoms of a term), padded with -1
    level: np.ndarray  # (C, most levels): log of the distinct values of a column, centred
    num_levels: np.ndarray  # (C,)
    index: np.ndarray  # (C, N): level of each run
    log_column: np.ndarray  # (C, N)
    per_run: np.ndarray  # (NUM_PER_RUN, N)
    per_param: np.ndarray  # (NUM_PER_PARAM, P)
    power: np.ndarray  # (A, N)
    term: np.ndarray  # (J, N)
    slope: np.ndarray  # (P, N)
    square: np.ndarray  # (3, P, P)
    grid: np.ndarray  # (E, values): exponents looked at in scans
    log_space: bool
    huber_delta: float  # inf: squared loss


# Sums may be reordered (that is what lets them use vector registers); inf and nan keep their meaning.
_OPTIONS = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}
_entry = numba.njit(cache=True, **_OPTIONS)
# Called from compiled code only. Inlined without exception, because a process that compiles must run the same
# instructions as one that loads the cache: with sums reordered, another copy of a function rounds differently.
_jit = numba.njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)


@_jit
def _powers(st, theta):
    terms, runs = st.term.shape
    for a in range(len(st.sign)):
        column = st.atom[a, 0]
        exponent = st.sign[a] * theta[terms + st.atom[a, 1]]
        for level in range(st.num_levels[column]):
            st.level[-1, level] = math.exp(exponent * st.level[column, level])  # the last row is scratch
        for i in range(runs):
            st.power[a, i] = st.level[-1, st.index[column, i]]


@_jit
def _terms(st, j, scale):
    """term j = scale * product of its powers."""
    for i in range(st.term.shape[1]):
        st.term[j, i] = scale
    for m in range(st.term_atoms.shape[1]):
        a = st.term_atoms[j, m]
        if a >= 0:
            for i in range(st.term.shape[1]):
                st.term[j, i] *= st.power[a, i]


@_jit
def _loss(st, theta):
    """Half the weighted sum of squared residuals (or Huber's sum) at theta; fills term, VALUE, RESIDUAL.

    Wants the current `_powers`.
    """
    terms, runs = st.term.shape
    data = st.per_run
    for i in range(runs):
        data[VALUE, i] = 0.0
    for j in range(terms):
        _terms(st, j, math.exp(theta[j]) if theta[j] > OFF else 0.0)
        for i in range(runs):
            data[VALUE, i] += st.term[j, i]
    total = 0.0
    delta = st.huber_delta
    for i in range(runs):
        r = (math.log(data[VALUE, i]) if st.log_space else data[VALUE, i]) - data[TARGET, i]
        data[RESIDUAL, i] = r
        size = abs(r)
        total += data[WEIGHT, i] * (0.5 * r * r if size <= delta else delta * (size - 0.5 * delta))
    return total if total < math.inf else math.inf


@_jit
def _linearise_at_data(st):
    """Set up the coefficients' problem: residuals linear in f around f = error."""
    data = st.per_run
    for i in range(data.shape[1]):
        data[ROOT, i] = math.sqrt(data[WEIGHT, i])
        data[GOAL, i] = 1.0 if st.log_space else data[TARGET, i]
        data[REFERENCE, i] = math.exp(-data[TARGET, i]) if st.log_space else 1.0


@_jit
def _linearise_at_fit(st):
    """Set up the coefficients' problem: residuals linear in f around the last `_loss`."""
    data = st.per_run
    for i in range(data.shape[1]):
        r = data[RESIDUAL, i]
        size = abs(r)
        data[ROOT, i] = math.sqrt(data[WEIGHT, i] * (1.0 if size <= st.huber_delta else st.huber_delta / size))
        data[GOAL, i] = 1.0 - r if st.log_space else data[TARGET, i]
        data[REFERENCE, i] = 1.0 / data[VALUE, i] if st.log_space else 1.0


@_jit
def _solve_coefficients(st, theta):
    """Coefficients c >= 0 for the exponents in theta: min over c of 1/2 sum_i root_i^2 (f_i reference_i - goal_i)^2.

    Active set on the normal equations (Lawson and Hanson 1974), begun at the terms that are CHOSEN.
    Fills the log coefficients (OFF where zero) and CHOSEN; returns the value reached.
    """
    terms, runs = st.term.shape
    _powers(st, theta)
    data, vec, gram, column = st.per_run, st.per_param, st.square[GRAM], st.term
    total = 0.0
    for i in range(runs):
        data[Q1, i] = data[ROOT, i] * data[REFERENCE, i]
        data[Q2, i] = data[ROOT, i] * data[GOAL, i]
        total += data[Q2, i] * data[Q2, i]
    for j in range(terms):
        _terms(st, j, 1.0)
        moment = 0.0
        for i in range(runs):
            column[j, i] *= data[Q1, i]
            moment += column[j, i] * data[Q2, i]
        for l in range(j + 1):
            dot = 0.0
            for i in range(runs):
                dot += column[j, i] * column[l, i]
            gram[j, l] = dot
        vec[NORM, j] = 1.0 / math.sqrt(gram[j, j])
        vec[MOMENT, j] = moment * vec[NORM, j]
        for l in range(j + 1):  # as if all columns had norm one
            gram[j, l] *= vec[NORM, j] * vec[NORM, l]
            gram[l, j] = gram[j, l]
        vec[COEFFICIENT, j] = 0.0
    small = math.sqrt(total)
    feasible = False  # until the coefficients of the terms chosen at the start are
    for _ in range(5 * terms):
        _solve_chosen(st)
        shrink = 1.0
        clean = True
        for j in range(terms):
            if vec[CHOSEN, j] > 0.0 and vec[SOLUTION, j] <= 0.0:
                clean = False
                x = vec[COEFFICIENT, j]
                if feasible:
                    shrink = min(shrink, x / (x - vec[SOLUTION, j]) if x > 0.0 else 0.0)
                else:
                    vec[CHOSEN, j] = 0.0
        if not feasible and not clean:
            continue
        feasible = True
        for j in range(terms):
            if vec[CHOSEN, j] > 0.0:
                vec[COEFFICIENT, j] += shrink * (vec[SOLUTION, j] - vec[COEFFICIENT, j])
                if vec[SOLUTION, j] <= 0.0 and vec[COEFFICIENT, j] <= 1e-14 * small:
                    vec[CHOSEN, j] = 0.0
            if vec[CHOSEN, j] <= 0.0:
                vec[COEFFICIENT, j] = 0.0
        if not clean:
            continue
        best, pick = 1e-9 * small, -1
        for j in range(terms):
            if vec[CHOSEN, j] <= 0.0:
                slack = vec[MOMENT, j]
                for l in range(terms):
                    slack -= gram[j, l] * vec[COEFFICIENT, l]
                if slack > best:
                    best, pick = slack, j
        if pick < 0:
            break
        vec[CHOSEN, pick] = 1.0
    for j in range(terms):
        total -= vec[COEFFICIENT, j] * vec[MOMENT, j]
        theta[j] = math.log(vec[COEFFICIENT, j] * vec[NORM, j]) if vec[COEFFICIENT, j] > 0.0 else OFF
    return 0.5 * total


@_jit
def _solve_chosen(st):
    """SOLUTION of the normal equations on the chosen columns, with a breath of ridge against collinear ones."""
    terms = st.term.shape[0]
    vec, gram, lower = st.per_param, st.square[GRAM], st.square[CHOLESKY]
    for j in range(terms):
        if vec[CHOSEN, j] <= 0.0:
            for l in range(j + 1):
                lower[j, l] = 0.0
            lower[j, j] = 1.0
            vec[SOLUTION, j] = 0.0
            continue
        right = vec[MOMENT, j]
        for l in range(j + 1):
            total = gram[j, l] if vec[CHOSEN, l] > 0.0 else 0.0
            for m in range(l):
                total -= lower[j, m] * lower[l, m]
            if l < j:
                lower[j, l] = total / lower[l, l]
                right -= lower[j, l] * vec[SOLUTION, l]
            else:
                lower[j, j] = math.sqrt(max(total + 1e-13, 1e-14))
        vec[SOLUTION, j] = right / lower[j, j]
    for j in range(terms - 1, -1, -1):
        total = vec[SOLUTION, j]
        for m in range(j + 1, terms):
            total -= lower[m, j] * vec[SOLUTION, m]
        vec[SOLUTION, j] = total / lower[j, j]


@_jit
def _derivatives(st, theta, exact):
    """GRADIENT and HESSIAN (or the Gauss-Newton matrix) at the point of the last `_loss`; spoils RESIDUAL."""
    terms, runs = st.term.shape
    params = st.slope.shape[0]
    data, slope, hessian, vec = st.per_run, st.slope, st.square[HESSIAN], st.per_param
    for i in range(runs):
        r, f = data[RESIDUAL, i], data[VALUE, i]
        inside = abs(r) <= st.huber_delta
        force = r if inside else math.copysign(st.huber_delta, r)
        bend = 1.0 if inside else (0.0 if exact else st.huber_delta / abs(r))
        if st.log_space:
            data[Q1, i] = data[WEIGHT, i] * (bend - force if exact else bend)
            data[Q2, i] = data[WEIGHT, i] * force
        else:
            data[Q1, i] = data[WEIGHT, i] * bend * f * f
            data[Q2, i] = data[WEIGHT, i] * force * f
    for k in range(terms, params):
        for i in range(runs):
            slope[k, i] = 0.0
    for j in range(terms):
        for i in range(runs):
            slope[j, i] = st.term[j, i] / data[VALUE, i]
        for m in range(st.term_atoms.shape[1]):
            a = st.term_atoms[j, m]
            if a >= 0:
                column, k, sign = st.atom[a, 0], terms + st.atom[a, 1], st.sign[a]
                for i in range(runs):
                    slope[k, i] += sign * slope[j, i] * st.log_column[column, i]
    for k in range(params):
        gradient, scale = 0.0, 0.0
        for i in range(runs):
            g = slope[k, i]
            gradient += data[Q2, i] * g
            scale += data[WEIGHT, i] * g * g * (1.0 if st.log_space else data[VALUE, i] * data[VALUE, i])
            data[RESIDUAL, i] = data[Q1, i] * g
        vec[GRADIENT, k], vec[SCALE, k] = gradient, scale
        l = 0
        while l <= k:  # four rows at a time: each product loads less
            l1, l2, l3 = min(l + 1, k), min(l + 2, k), min(l + 3, k)
            t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
            for i in range(runs):
                weighted = data[RESIDUAL, i]
                t0 += weighted * slope[l, i]
                t1 += weighted * slope[l1, i]
                t2 += weighted * slope[l2, i]
                t3 += weighted * slope[l3, i]
            hessian[k, l], hessian[k, l1], hessian[k, l2], hessian[k, l3] = t0, t1, t2, t3
            l += 4
    if exact:
        _add_curvature_of_terms(st)
    for k in range(params):  # what cannot move is taken out of the step
        stuck = vec[SCALE, k] <= 1e-300
        if k < terms:
            stuck = stuck or theta[k] <= OFF
        else:
            stuck = stuck or (theta[k] <= vec[LOWER, k - terms] and vec[GRADIENT, k] > 0.0)
            stuck = stuck or (theta[k] >= vec[UPPER, k - terms] and vec[GRADIENT, k] < 0.0)
        if stuck:
            for l in range(params):
                hessian[max(k, l), min(k, l)] = 1.0 if k == l else 0.0
            vec[SCALE, k], vec[GRADIENT, k] = 1.0, 0.0
        elif k < terms:
            vec[SCALE, k] *= 1e-9  # the coefficients are solved for anew after the step: hardly any damping


@_jit
def _add_curvature_of_terms(st):
    """Adds sum_j sum_i q2_i p_ji A_ji A_ji' to the lower triangle."""
    terms, runs = st.term.shape
    hessian, v = st.square[HESSIAN], st.per_run
    for j in range(terms):
        total = 0.0
        for i in range(runs):
            v[RESIDUAL, i] = v[Q2, i] * st.slope[j, i]
            total += v[RESIDUAL, i]
        hessian[j, j] += total
        for m in range(st.term_atoms.shape[1]):
            a = st.term_atoms[j, m]
            if a < 0:
                continue
            column, k = st.atom[a, 0], terms + st.atom[a, 1]
            total = 0.0
            for i in range(runs):
                total += v[RESIDUAL, i] * st.log_column[column, i]
            hessian[k, j] += st.sign[a] * total
            for m2 in range(m + 1):
                b = st.term_atoms[j, m2]
                other, l = st.atom[b, 0], terms + st.atom[b, 1]
                total = 0.0
                for i in range(runs):
                    total += v[RESIDUAL, i] * st.log_column[column, i] * st.log_column[other, i]
                hessian[max(k, l), min(k, l)] += st.sign[a] * st.sign[b] * total


@_jit
def _solve_damped(st, damping):
    """STEP = -(H + damping SCALE)^-1 GRADIENT by Cholesky; False where the matrix is not positive definite."""
    params = st.slope.shape[0]
    vec, hessian, lower = st.per_param, st.square[HESSIAN], st.square[CHOLESKY]
    for k in range(params):
        right = -vec[GRADIENT, k]
        for l in range(k + 1):
            total = hessian[k, l]
            if k == l:
                total += damping * vec[SCALE, k]
                least = max(1e-14 * total, 0.0)
            for m in range(l):
                total -= lower[k, m] * lower[l, m]
            if l < k:
                lower[k, l] = total / lower[l, l]
                right -= lower[k, l] * vec[STEP, l]
            elif total > least:
                lower[k, k] = math.sqrt(total)
            else:
                return False
        vec[STEP, k] = right / lower[k, k]
    for k in range(params - 1, -1, -1):
        total = vec[STEP, k]
        for m in range(k + 1, params):
            total -= lower[m, k] * vec[STEP, m]
        vec[STEP, k] = total / lower[k, k]
    return True


@_jit
def _descend(st, theta, iterations, exact, tolerance):
    """Variable projection from theta (changed in place); the loss there.

    A damped step of all parameters moves the exponents; the coefficients are then solved for anew, so that a
    step follows the curved valleys in which a coefficient makes up for its exponent.
    """
    terms = st.term.shape[0]
    params = len(theta)
    vec = st.per_param
    trial = vec[TRIAL]
    damping = 1e-2
    fresh, stale, second_order, small = True, True, exact, 0
    loss = math.inf
    for _ in range(iterations):
        if fresh:
            if stale:
                _powers(st, theta)
                loss = _loss(st, theta)
                stale = False
                if not loss < math.inf:
                    return loss
            _linearise_at_fit(st)
            _derivatives(st, theta, second_order)
            fresh = False
        if not _solve_damped(st, damping):
            if second_order:  # not convex here: Gauss-Newton is
                second_order, fresh, stale = False, True, True
            else:
                damping = max(10.0 * damping, 1e-8)
                if damping > 1e12:
                    break
            continue
        predicted = 0.0
        for k in range(params):
            predicted -= vec[GRADIENT, k] * vec[STEP, k]
            trial[k] = theta[k]
            if k < terms:
                vec[CHOSEN, k] = 1.0 if theta[k] > OFF else 0.0
            else:
                limit = MAX_LOG_STEP / vec[REACH, k - terms]
                moved = theta[k] + min(max(vec[STEP, k], -limit), limit)
                trial[k] = min(max(moved, vec[LOWER, k - terms]), vec[UPPER, k - terms])
        _solve_coefficients(st, trial)
        new = _loss(st, trial)
        if new < loss:
            gain = loss - new
            for k in range(params):
                theta[k] = trial[k]
            loss = new
            damping = max(damping * (0.1 if gain > 0.25 * predicted else 0.5), 1e-15)
            fresh = True
            second_order = exact
            small = small + 1 if gain <= tolerance * loss else 0
            if loss < 1e-29 * st.term.shape[1] or (small >= 2 and damping < 1e-3):
                break
        else:
            if predicted <= 1e-15 * loss:
                break
            damping = max(10.0 * damping, 1e-8)
            if damping > 1e12:
                break
    return loss


@_jit
def _is_used(st, theta, exponent):
    for j in range(st.term.shape[0]):
        for m in range(st.term_atoms.shape[1]):
            a = st.term_atoms[j, m]
            if a >= 0 and theta[j] > OFF and st.atom[a, 1] == exponent:
                return True
    return False


@_jit
def _offer_return(st, theta, loss):
    """Switch on the term, at the exponent, that promises the largest decrease; True where one does.

    With c_j = 0 the loss changes at the rate s = sum_i force_i t_ji / c_j, with curvature h: the promise of a
    Gauss-Newton step is s^2 / 2h. Exponents that no other live term uses are scanned, one at a time.
    """
    terms, runs = st.term.shape
    data = st.per_run
    _powers(st, theta)
    _loss(st, theta)
    _linearise_at_fit(st)
    for i in range(runs):  # half squares of root (f reference - goal), whose slope by f is Q1, curvature Q2
        weight = data[ROOT, i] * data[ROOT, i] * data[REFERENCE, i]
        data[Q1, i] = weight * (data[VALUE, i] * data[REFERENCE, i] - data[GOAL, i])
        data[Q2, i] = weight * data[REFERENCE, i]
    best, best_term, best_exponent, best_value, best_log = 1e-9 * loss, -1, -1, 0.0, 0.0
    for j in range(terms):
        if theta[j] > OFF:
            continue
        for m in range(-1, st.term_atoms.shape[1]):  # -1: at the present exponents
            a = st.term_atoms[j, max(m, 0)]
            exponent = st.atom[a, 1] if m >= 0 and a >= 0 else -1
            if m >= 0 and (a < 0 or _is_used(st, theta, exponent)):
                continue
            for s in range(st.grid.shape[1] if m >= 0 else 1):
                value = st.grid[exponent, s] if m >= 0 else 0.0
                for i in range(runs):
                    data[RESIDUAL, i] = 0.0
                for m2 in range(st.term_atoms.shape[1]):
                    b = st.term_atoms[j, m2]
                    if b >= 0:
                        e = st.sign[b] * (value if st.atom[b, 1] == exponent else theta[terms + st.atom[b, 1]])
                        for i in range(runs):
                            data[RESIDUAL, i] += e * st.log_column[st.atom[b, 0], i]
                rate, bend = 0.0, 0.0
                for i in range(runs):
                    t = math.exp(data[RESIDUAL, i])
                    rate += data[Q1, i] * t
                    bend += data[Q2, i] * t * t
                if rate < 0.0 and bend > 0.0 and 0.5 * rate * rate / bend > best:
                    best, best_term, best_exponent = 0.5 * rate * rate / bend, j, exponent
                    best_value, best_log = value, math.log(-0.5 * rate / bend)
    if best_term < 0:
        return False
    kept = theta[terms + max(best_exponent, 0)]
    theta[best_term] = best_log
    if best_exponent >= 0:
        theta[terms + best_exponent] = best_value
    for _ in range(30):
        _powers(st, theta)
        if _loss(st, theta) < loss:
            return True
        theta[best_term] -= 1.0
    theta[best_term] = OFF
    theta[terms + max(best_exponent, 0)] = kept
    return False


@_entry
def settle(st, thetas, iterations, exact, returns):
    """Descend from whole parameter vectors (S, P), in place; losses (S,).

    Up to `returns` times, switched-off terms are offered a return and the descent goes on.
    """
    losses = np.empty(len(thetas))
    for s in range(len(thetas)):
        losses[s] = math.inf
        for round_ in range(returns + 1):
            if round_ > 0 and not _offer_return(st, thetas[s], losses[s]):
                break
            losses[s] = _descend(st, thetas[s], iterations, exact, EXACT if exact else HURRIED)
    return losses


@_entry
def place(st, thetas, around):
    """Coefficients for the exponents in thetas (S, P), in place; the linearised losses (S,).

    Residuals are linearised around the data, or around the fit in `around` (1, P) where there is one; its live terms
    are then the first guess of which coefficients are positive.
    """
    terms = st.term.shape[0]
    losses = np.empty(len(thetas))
    for s in range(len(around)):
        _powers(st, around[s])
        _loss(st, around[s])
        _linearise_at_fit(st)
    if len(around) == 0:
        _linearise_at_data(st)
    for s in range(len(thetas)):
        for j in range(terms):
            st.per_param[CHOSEN, j] = 1.0 if len(around) > 0 and around[0, j] > OFF else 0.0
        losses[s] = _solve_coefficients(st, thetas[s])
    return losses


@_entry
def powers_and_derivatives(st, theta, exact):
    """GRADIENT and the lower triangle of HESSIAN at theta, as a descent sees them (for tests and diagnostics)."""
    _powers(st, theta)
    loss = _loss(st, theta)
    _derivatives(st, theta, exact)
    return loss
