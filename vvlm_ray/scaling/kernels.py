"""Gaussian-process kernels over standardised logs, their gradients, and random features of them.

Matern-5/2: m(a) = (1 + a + a^2/3) exp(-a), a = sqrt(5) |(z - z') / l|. `matern`: v m over all columns at once.
`anova`: v (prod_k (1 + w_k m_k) - 1), a kernel for each column, so that effects of one column and of several add up.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Kernel:
    """`kind` is matern or anova, over C columns. Parameters, in logs: v, l (C,), and for anova w (C,)."""

    kind: str
    num_columns: int

    @property
    def num_params(self) -> int:
        return 1 + self.num_columns * (2 if self.kind == "anova" else 1)

    def cross(self, params: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """K (L, R) between standardised points (C, L) and (C, R)."""
        v, scale = np.exp(params[0]), np.exp(params[1 : 1 + self.num_columns])
        if self.kind == "matern":
            a, b = left / scale[:, None], right / scale[:, None]
            squared = (a**2).sum(axis=0)[:, None] + (b**2).sum(axis=0) - 2 * a.T @ b
            return v * _matern(np.sqrt(5 * np.maximum(squared, 0.0)))
        weight = np.exp(params[1 + self.num_columns :])
        product = 1.0
        for k in range(self.num_columns):
            product = product * (1 + weight[k] * _matern(np.sqrt(5) * np.abs(left[k][:, None] - right[k]) / scale[k]))
        return v * (product - 1)

    def prior_variance(self, params: np.ndarray) -> float:
        """K(x, x)."""
        v = np.exp(params[0])
        if self.kind == "matern":
            return float(v)
        return float(v * (np.prod(1 + np.exp(params[1 + self.num_columns :])) - 1))

    def gradients(self, params: np.ndarray, distances: np.ndarray):
        """K (R, R) and its derivatives by the parameters (num_params, R, R), from |z_k - z'_k| (C, R, R)."""
        v, scale = np.exp(params[0]), np.exp(params[1 : 1 + self.num_columns])
        slopes = np.empty((self.num_params, *distances.shape[1:]))
        if self.kind == "matern":
            squared = (distances / scale[:, None, None]) ** 2
            a = np.sqrt(5 * squared.sum(axis=0))
            decay = v * np.exp(-a)
            value = decay * (1 + a + a**2 / 3)
            slopes[0] = value
            slopes[1:] = (5 / 3) * decay * (1 + a) * squared
            return value, slopes
        weight = np.exp(params[1 + self.num_columns :])
        a = np.sqrt(5) * distances / scale[:, None, None]
        decay = np.exp(-a)
        each = weight[:, None, None] * decay * (1 + a + a**2 / 3)
        product = np.prod(1 + each, axis=0)
        value = v * (product - 1)
        slopes[0] = value
        others = v * product / (1 + each)
        slopes[1 : 1 + self.num_columns] = others * weight[:, None, None] * decay * (1 + a) * a**2 / 3
        slopes[1 + self.num_columns :] = others * each
        return value, slopes

    def features(self, params: np.ndarray, count: int, rng: np.random.Generator):
        """Frequencies (count, C), phases and amplitudes (count,): sum_f amplitude_f w_f cos(frequency_f z + phase_f)
        with w ~ N(0, 1) is close to a draw from the process (Rahimi and Recht 2007).

        Matern-5/2 has a Student-t spectrum of 5 degrees; anova is a sum of products over subsets of the columns.
        """
        scale = np.exp(params[1 : 1 + self.num_columns])
        normal = rng.standard_normal((count, self.num_columns))
        phases = rng.uniform(0, 2 * np.pi, count)
        amplitude = np.full(count, np.sqrt(2 * self.prior_variance(params) / count))
        if self.kind == "matern":
            return normal * np.sqrt(5 / rng.chisquare(5, (count, 1))) / scale, phases, amplitude
        weight = np.exp(params[1 + self.num_columns :])
        frequency = normal * np.sqrt(5 / rng.chisquare(5, (count, self.num_columns))) / scale
        subsets = np.array([[i >> k & 1 for k in range(self.num_columns)] for i in range(1, 2**self.num_columns)])
        share = np.prod(np.where(subsets, weight, 1.0), axis=1)
        chosen = rng.choice(len(subsets), count, p=share / share.sum())
        return frequency * subsets[chosen], phases, amplitude


def _matern(a: np.ndarray) -> np.ndarray:
    return (1 + a + a**2 / 3) * np.exp(-a)
