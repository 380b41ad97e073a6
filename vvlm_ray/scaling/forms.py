"""The parametric forms: sums of monomials with free exponents (Wang et al. 2025, Table 7).

Every form reads  f(x, n) = sum_j c_j prod_k x_k^(s e),  coefficients c_j >= 0, exponents e in R, signs s fixed.
An *atom* is one power x_k^(s e); a *term* is a coefficient times a product of atoms. Hence
log f = LSE_j(A_j theta) with theta = (log coefficients, exponents), and one engine serves all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vvlm_ray.errors import UserError

LARGEST_LOG = 300.0  # far outside the data a member may predict anything; this much stays finite when multiplied
FORM_NAMES = ("mult", "add", "add-interact-s", "add-interact")
AUTO = "auto"  # no form: the posterior over many (scaling.posterior)


@dataclass(frozen=True)
class Atom:
    """One power column^(sign * exponent); `column` counts the factors, the data size is the last one."""

    column: int
    exponent: int
    sign: float


@dataclass(frozen=True)
class Form:
    """A form for named factors. `terms[j]` lists the atoms that coefficient j multiplies."""

    name: str
    factors: tuple[str, ...]
    has_data_size: bool
    coefficients: tuple[str, ...]
    exponents: tuple[str, ...]
    atoms: tuple[Atom, ...]
    terms: tuple[tuple[int, ...], ...]

    @property
    def num_params(self) -> int:
        return len(self.coefficients) + len(self.exponents)

    @property
    def param_names(self) -> tuple[str, ...]:
        return self.coefficients + self.exponents

    @property
    def num_columns(self) -> int:
        return len(self.factors) + self.has_data_size

    def design(self, columns: np.ndarray) -> np.ndarray:
        """A_ij of log f_i = LSE_j(A_ij theta): shape (runs, terms, params), from positive columns (C, runs)."""
        logs = np.log(columns)
        matrix = np.zeros((columns.shape[1], len(self.terms), self.num_params))
        for j, term in enumerate(self.terms):
            matrix[:, j, j] = 1.0
            for index in term:
                atom = self.atoms[index]
                matrix[:, j, len(self.coefficients) + atom.exponent] += atom.sign * logs[atom.column]
        return matrix

    def split(
        self,
        log_coefficients: np.ndarray,
        exponents: np.ndarray,
        factors: Sequence[np.ndarray],
        log_reference: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """f(x, n) = fixed(x) + shrinking(x) (n / n_0)^-d for members (M, .) at points (P,): (M, P), (M, P), (M,).

        n_0 = exp(log_reference), near the sizes asked for: apart, coefficient and power may overflow.
        Powers are computed once per distinct level of a factor.
        """
        members, points = len(exponents), len(factors[0]) if factors else 1
        levels = [np.unique(np.asarray(values, float), return_inverse=True) for values in factors]
        fixed, shrinking = np.zeros((members, points)), np.zeros((members, points))
        decay = np.zeros(members)
        for j, term in enumerate(self.terms):
            by_column: dict[int, Atom] = {self.atoms[index].column: self.atoms[index] for index in term}
            data = by_column.pop(len(self.factors), None)
            if data is not None:
                decay = -data.sign * exponents[:, data.exponent]
            log_coefficient = log_coefficients[:, j]
            if data is not None:
                log_coefficient = log_coefficient - decay * log_reference
            value = _term_on_grid(log_coefficient, exponents, by_column, levels)
            if data is None:
                fixed += value
            else:
                shrinking += value
        return fixed, shrinking, decay

    def predict(
        self,
        log_coefficients: np.ndarray,
        exponents: np.ndarray,
        factors: Mapping[str, np.ndarray],
        num_examples: np.ndarray | float | None = None,
    ) -> np.ndarray:
        """f of M members at P points: (M, P)."""
        columns = [np.atleast_1d(np.asarray(factors[name], float)) for name in self.factors]
        columns = list(np.broadcast_arrays(*columns)) if columns else []
        if self.has_data_size and num_examples is None:
            raise UserError(f"form {self.name} was fitted with a data size: give num_examples")
        if not self.has_data_size:
            return self.split(log_coefficients, exponents, columns)[0]
        sizes = np.asarray(num_examples, float)
        shape = np.broadcast_shapes(sizes.shape, columns[0].shape)
        columns = [np.broadcast_to(column, shape) for column in columns]
        log_reference = float(np.log(sizes).mean())
        fixed, shrinking, decay = self.split(log_coefficients, exponents, columns, log_reference)
        return fixed + shrinking * shrinkage(np.broadcast_to(sizes, shape), log_reference, decay)


def shrinkage(sizes: np.ndarray, log_reference: float, decay: np.ndarray) -> np.ndarray:
    """(n / n_0)^-d for members: (M, sizes)."""
    return np.exp(np.minimum(-decay[:, None] * (np.log(sizes) - log_reference), LARGEST_LOG))


def _term_on_grid(log_coefficient, exponents, by_column, levels) -> np.ndarray:
    """exp(log c + sum_k s e log x_k): (members, points).

    The coefficient goes with the first factor: apart, either may overflow where the product does not.
    """
    value = None
    for column, atom in by_column.items():
        distinct, inverse = levels[column]
        log_power = atom.sign * exponents[:, atom.exponent, None] * np.log(distinct)
        if value is None:
            value = (log_coefficient[:, None] + log_power)[:, inverse]
        else:
            value += log_power[:, inverse]
    if value is None:
        points = len(levels[0][1]) if levels else 1
        return np.repeat(np.exp(log_coefficient)[:, None], points, axis=1)
    return np.exp(np.minimum(value, LARGEST_LOG, out=value), out=value)


def make_form(name: str, factors: Sequence[str], data_size: bool = True) -> Form:
    """The form `name` for K = len(factors) factors (Wang et al. 2025, Table 7, Eq. 2 for K = 1).

    - mult:            alpha (prod_k x_k^-a_k) n^-d + eps
    - add:             sum_k alpha_k x_k^-a_k + xi n^-d + eps
    - add-interact-s:  sum_k alpha_k x_k^-a_k + sum_k beta_k x_k^b_k n^-d + eps
    - add-interact:    add-interact-s + xi n^-d

    Without a data size the terms in n drop out, so `add` over (N, D) is Chinchilla's E + A N^-a + B D^-b.
    """
    if name == AUTO:
        raise UserError(f"{AUTO} has no parameters of its own: choose one of {', '.join(FORM_NAMES)}")
    if name not in FORM_NAMES:
        raise UserError(f"unknown form {name!r}: choose {AUTO} or one of {', '.join(FORM_NAMES)}")
    if not factors:
        raise UserError("a form needs at least one factor")
    builder = _Builder(tuple(factors), data_size)
    if name == "mult":
        powers = [builder.atom(k, f"a_{factor}", -1.0) for k, factor in enumerate(factors)]
        builder.term("alpha", *powers, *builder.data_atom())
    else:
        for k, factor in enumerate(factors):
            builder.term(f"alpha_{factor}", builder.atom(k, f"a_{factor}", -1.0))
        if data_size and name.startswith("add-interact"):
            for k, factor in enumerate(factors):
                builder.term(f"beta_{factor}", builder.atom(k, f"b_{factor}", 1.0), *builder.data_atom())
        if data_size and name in {"add", "add-interact"}:
            builder.term("xi", *builder.data_atom())
    builder.term("eps")
    return builder.build(name)


class _Builder:
    """Collects atoms and terms; an exponent or atom named twice is shared (d is one for all factors)."""

    def __init__(self, factors: tuple[str, ...], data_size: bool):
        self.factors, self.has_data_size = factors, data_size
        self.exponents: list[str] = []
        self.atoms: list[Atom] = []
        self.coefficients: list[str] = []
        self.terms: list[tuple[int, ...]] = []

    def atom(self, column: int, exponent: str, sign: float) -> int:
        if exponent not in self.exponents:
            self.exponents.append(exponent)
        atom = Atom(column, self.exponents.index(exponent), sign)
        if atom not in self.atoms:
            self.atoms.append(atom)
        return self.atoms.index(atom)

    def data_atom(self) -> tuple[int, ...]:
        return (self.atom(len(self.factors), "d", -1.0),) if self.has_data_size else ()

    def term(self, coefficient: str, *atoms: int) -> None:
        self.coefficients.append(coefficient)
        self.terms.append(atoms)

    def build(self, name: str) -> Form:
        return Form(
            name, self.factors, self.has_data_size, tuple(self.coefficients), tuple(self.exponents),
            tuple(self.atoms), tuple(self.terms),
        )  # fmt: skip
