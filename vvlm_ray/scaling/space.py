"""The space X of configurations: the factors, the levels each may take, and what a configuration costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.scaling.cost import EQ1_CONSTANTS, EQ1_FACTORS, Cost

DEFAULT_FRAMES = np.arange(1, 129)  # X_T of the method
DEFAULT_TOKENS = np.arange(1, 28) ** 2  # X_V: pooled grids of 1 x 1 to 27 x 27
DEFAULT_LEVELS = {"num_frames": DEFAULT_FRAMES, "tokens_per_frame": DEFAULT_TOKENS}
MOST_POINTS = 5_000_000  # of a grid that is searched exhaustively


@dataclass(frozen=True)
class Grid:
    """The points of X, cheapest first: factors {name: (P,)} and cost (P,) in the unit of the cost."""

    points: Mapping[str, np.ndarray]
    cost: np.ndarray

    def up_to(self, most: float) -> "Grid":
        """The points that cost at most this much, in the unit of `cost`."""
        return self.first(self.count(most))

    def count(self, most) -> np.ndarray:
        """How many points cost at most this much; the last digit of a budget does not decide."""
        return np.searchsorted(self.cost, np.asarray(most, float) * (1 + 1e-12), side="right")

    def first(self, count: int) -> "Grid":
        return Grid({name: values[:count] for name, values in self.points.items()}, self.cost[:count])


@dataclass(frozen=True)
class Limit:
    """A constraint beside the budget: arithmetic over the factors that must not exceed `most` (frames, bytes, ms)."""

    expression: str
    most: float

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """`"num_frames <= 64"`, `"2 * lm_params + 1e5 * num_frames * tokens_per_frame <= 24e9"`. Raises UserError."""
        expression, sign, most = text.partition("<=")
        try:
            bound = float(most)
        except ValueError:
            bound = math.nan
        if not sign or not math.isfinite(bound):
            raise UserError(f"limit {text!r}: write arithmetic over factors, <= and a number")
        limit = cls(expression.strip(), bound)
        _ = limit.cost.reads
        return limit

    @property
    def cost(self) -> Cost:
        return Cost(self.expression, unit="")

    @property
    def text(self) -> str:
        return f"{self.expression} <= {self.most:g}"


@dataclass(frozen=True)
class Space:
    """Factors {name: levels (L,)} that may be combined freely, and the cost of a combination; X of Eq. 4.

    `Space(levels={"lm_params": [1e9, 7.5e9], "num_frames": range(1, 65)}, cost=cost(vision_tokens=729))`. Runs fill
    in what is not given: the levels of the method for frames and tokens, else those that were run; Eq. 1 where the
    factors are those of Eq. 1. `cost` is None where it is unknown: there is no frontier then. Only configurations
    within all `limits` may be chosen.

    Raises:
        UserError: a level that is not a positive number, too many points, or a cost that names no factor.
    """

    levels: Mapping[str, np.ndarray] = field(default_factory=dict)
    cost: Cost | None = None
    limits: tuple[Limit, ...] = ()
    held: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "held", MappingProxyType(dict(self.held)))
        levels = {name: _levels(name, values) for name, values in self.levels.items()}
        object.__setattr__(self, "levels", MappingProxyType(levels))

    def __reduce__(self):
        return Space, (dict(self.levels), self.cost, self.limits, dict(self.held))

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(self.levels)

    @property
    def num_points(self) -> int:
        return math.prod(len(values) for values in self.levels.values())

    def over(self, factors: Mapping[str, np.ndarray]) -> "Space":
        """The space of these factors, in their order, with what it lacks filled in from the runs' values (R,)."""
        unknown = [name for name in self.levels if name not in factors]
        if unknown:
            raise UserError(
                f"the space has levels of {', '.join(map(repr, unknown))}, which is no factor of the runs; "
                f"their factors are {', '.join(factors)}"
            )
        levels = {}
        for name, values in factors.items():
            usual = self.levels.get(name, DEFAULT_LEVELS.get(name))
            levels[name] = np.unique(values) if usual is None else usual
        cost = self.cost or usual_cost(tuple(factors))
        if cost is not None:
            cost.check(tuple(factors))
        for limit in self.limits:
            limit.cost.check((*factors, *self.held))
        return replace(self, levels=levels, cost=cost)

    def within(self, *limits: Limit) -> "Space":
        """The space with further limits."""
        return replace(self, limits=(*self.limits, *limits))

    def fix(self, **values: float) -> "Space":
        """The space without these factors, which are held at a value each."""
        levels = {name: levels for name, levels in self.levels.items() if name not in values}
        cost = self.cost.fix(**values) if self.cost else None
        return replace(self, levels=levels, cost=cost, held={**self.held, **values})

    def grid(self) -> Grid:
        """Every combination of the levels, cheapest first.

        Raises:
            UserError: the cost is unknown, or that of a point is not a positive number.
        """
        cost = self.known_cost()
        if self.num_points > MOST_POINTS:
            raise UserError(
                f"the grid has {self.num_points:,} points, and at most {MOST_POINTS:,} are searched: "
                "give fewer levels (--grid)"
            )
        mesh = np.meshgrid(*self.levels.values(), indexing="ij")
        points = {name: axis.ravel() for name, axis in zip(self.levels, mesh, strict=True)}
        values = np.asarray(cost(**points), float)
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            where = ", ".join(f"{name}={column[bad[0]]:g}" for name, column in points.items())
            raise UserError(
                f"the cost of a grid point ({where}) is {values[bad[0]]:g}, not a positive number: "
                "check the cost and the grid"
            )
        for limit in self.limits:
            kept = np.asarray(limit.cost(**self.held, **points), float) <= limit.most
            if not kept.any():
                raise UserError(
                    f"no configuration of the grid keeps {limit.text}: raise the limit or add levels (--grid)"
                )
            points, values = {name: column[kept] for name, column in points.items()}, values[kept]
        order = np.argsort(values, kind="stable")
        return Grid({name: column[order] for name, column in points.items()}, values[order])

    def known_cost(self) -> Cost:
        """The cost. Raises UserError where it is unknown."""
        if self.cost is None:
            raise UserError(
                f"what a configuration of {', '.join(self.levels)} costs is unknown: say it with --cost, "
                f'e.g. --cost "2 * {" * ".join(self.levels)}" (in Python: Space(cost=cost("...")))'
            )
        return self.cost

    def to_dict(self) -> dict:
        """Plain values; `Space.from_dict` makes it again."""
        levels = {name: values.tolist() for name, values in self.levels.items()}
        return {
            "levels": levels,
            "cost": self.cost.to_dict() if self.cost else None,
            "limits": [limit.text for limit in self.limits],
            "held": dict(self.held),
        }

    @classmethod
    def from_dict(cls, value: Mapping) -> "Space":
        limits = tuple(Limit.parse(text) for text in value.get("limits", ()))
        cost = Cost(**value["cost"]) if value["cost"] else None
        return cls(value["levels"], cost, limits, value.get("held", {}))


def usual_cost(factors: Sequence[str]) -> Cost | None:
    """Eq. 1 where the factors are those of Eq. 1 (and perhaps its constants), None otherwise."""
    return Cost() if set(EQ1_FACTORS) <= set(factors) <= {*EQ1_FACTORS, *EQ1_CONSTANTS} else None


def _levels(name: str, values) -> np.ndarray:
    try:
        levels = np.unique(np.asarray(list(values), float))
    except (TypeError, ValueError):
        raise UserError(f"the levels of {name} are not numbers: {values!r}") from None
    if not len(levels) or not (np.isfinite(levels) & (levels > 0)).all():
        raise UserError(f"the levels of {name} must be positive numbers, at least one")
    return levels
