"""Runs: what a sweep measured, as plain arrays; checked once, here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.forms import Form
from vvlm_ray.scaling.space import Space


@dataclass(frozen=True)
class Runs:
    """R finished runs: factors {name: (R,)}, error (R,), num_examples (R,) or None; plain counts, error in points.

    `space` is what may be chosen and what it costs; what is not given of it is filled in. `error_se` (R,) are known
    standard errors of the errors; `weights` multiply a run's loss; `sweep` names the sweep a run belongs to (star,
    isoflop, ...); `targets` (R,) the cost that its sweep aimed at, or NaN; `labels` say where a run came from
    ("row 12") and appear in messages; `notes` are sentences about what was left out or changed on reading.

    Raises:
        UserError: missing, non-finite or non-positive values, naming run and column.
    """

    factors: Mapping[str, np.ndarray]
    error: np.ndarray
    num_examples: np.ndarray | None = None
    weights: np.ndarray | None = None
    sweep: np.ndarray | None = None
    labels: tuple[str, ...] = field(default=())
    space: Space | None = None
    error_se: np.ndarray | None = None
    targets: np.ndarray | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self):
        arrays = {name: _array(name, values) for name, values in self.factors.items()}
        object.__setattr__(self, "factors", arrays)
        object.__setattr__(self, "error", _array("error", self.error))
        if self.num_examples is not None:
            object.__setattr__(self, "num_examples", _array("num_examples", self.num_examples))
        for name in ("weights", "error_se", "targets"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _array(name, getattr(self, name)))
        if self.sweep is not None:
            object.__setattr__(self, "sweep", np.asarray(self.sweep))
        count = len(self.error)
        if not self.labels:
            object.__setattr__(self, "labels", tuple(f"run {i + 1}" for i in range(count)))
        for name, values in self.columns().items():
            if len(values) != count:
                raise UserError(f"{name} has {len(values)} values, error has {count}: give one per run")
            bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
            if len(bad):
                raise UserError(
                    f"{self.labels[bad[0]]}: {name} is {values[bad[0]]:g}; it must be a positive number, because "
                    f"the fit works with logarithms (mend or remove the run)"
                )
        for name in ("weights", "sweep", "error_se", "targets"):
            if getattr(self, name) is not None and len(getattr(self, name)) != count:
                raise UserError(f"{name} must have one value per run")
        if self.weights is not None and not (np.isfinite(self.weights) & (self.weights >= 0)).all():
            raise UserError("weights must be finite and not negative")
        if self.error_se is not None and not (np.isfinite(self.error_se) & (self.error_se >= 0)).all():
            raise UserError("error_se must be finite and not negative")
        object.__setattr__(self, "space", (self.space or Space()).over(self.factors))

    @property
    def num_runs(self) -> int:
        return len(self.error)

    @property
    def configurations(self) -> np.ndarray:
        """Which configuration (x, n) each run is of, counted in the order in which they first appear: (R,).

        Repeated runs of one configuration are not independent: they are resampled and left out together.
        """
        _, first, inverse = np.unique(self.inputs(), axis=1, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse.ravel()]

    @property
    def cost(self) -> np.ndarray:
        """c(x) of the runs in the unit of the cost: (R,). Raises UserError where the cost is unknown."""
        values = np.asarray(self.space.known_cost()(**self.factors), float)
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise UserError(
                f"{self.labels[bad[0]]}: it costs {values[bad[0]]:g} by {self.space.cost.expression or 'Eq. 1'}, "
                "which is no positive number: check the cost"
            )
        return values

    def columns(self) -> dict[str, np.ndarray]:
        """Factors, the data size where there is one, and the error."""
        columns = dict(self.factors)
        if self.num_examples is not None:
            columns["num_examples"] = self.num_examples
        return columns | {"error": self.error}

    def inputs(self) -> np.ndarray:
        """The columns of x and n, (C, R), in the order the form counts them."""
        rows = list(self.factors.values())
        if self.num_examples is not None:
            rows.append(self.num_examples)
        return np.stack(rows)

    def select(self, index: np.ndarray) -> "Runs":
        """The runs at `index` (a mask or positions)."""

        def pick(values):
            return None if values is None else values[index]

        return replace(
            self,
            factors={name: values[index] for name, values in self.factors.items()},
            error=self.error[index],
            num_examples=pick(self.num_examples),
            weights=pick(self.weights),
            sweep=pick(self.sweep),
            error_se=pick(self.error_se),
            targets=pick(self.targets),
            labels=tuple(np.asarray(self.labels, dtype=object)[index]),
        )

    def over(self, space: Space) -> "Runs":
        """The same runs with another space to choose from."""
        return replace(self, space=space)

    def hold(self, names: Iterable[str]) -> "Runs":
        """The runs without these factors, whose one value the space then holds, or without "num_examples"."""
        held = {name: float(self.factors[name][0]) for name in names if name in self.factors}
        return replace(
            self,
            factors={name: values for name, values in self.factors.items() if name not in held},
            num_examples=None if "num_examples" in set(names) else self.num_examples,
            space=self.space.fix(**held),
        )


def check_identifiable(runs: Runs, form: Form) -> None:
    """Refuse what cannot be fitted at all: a factor with one level, fewer runs than parameters."""
    for name, values in runs.columns().items():
        if name != "error" and np.ptp(values) == 0 and len(values):
            remedy = "leave out the data size" if name == "num_examples" else "leave it out of the factors"
            raise UserError(
                f"column {name!r} has one level only ({values[0]:g} in all {len(values)} runs): "
                f"its effect cannot be fitted; {remedy}, or add runs that vary it"
            )
    distinct = len(np.unique(runs.inputs(), axis=1).T)
    if distinct < form.num_params:
        raise UserError(
            f"form {form.name} has {form.num_params} parameters, but there are only {distinct} distinct runs "
            f"({runs.num_runs} in all): choose a smaller form or add runs"
        )


def _array(name: str, values) -> np.ndarray:
    try:
        return np.ascontiguousarray(values, dtype=float)
    except (TypeError, ValueError) as problem:
        raise UserError(f"{name} holds something that is not a number: {problem}") from None
