"""What a configuration costs: Eq. 1 of Wang et al. 2025, or arithmetic over the factors. Sizes are plain counts."""

import ast
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.units import si

VISION_PARAMS = 0.43e9  # SigLIP SoViT-400m/14, Wang et al. 2025
VISION_TOKENS = 768  # the paper's x_W; SigLIP-so400m/14 at 384 px really emits 27 x 27 = 729
FLOPS = "FLOPs"
EQ1_FACTORS = ("lm_params", "num_frames", "tokens_per_frame")
EQ1_CONSTANTS = ("vision_params", "vision_tokens")  # they may be factors of a study as well
LEAST_LM_PARAMS = 1000  # a smaller number of parameters is one in millions or billions
LONGEST_EXPRESSION = 1000
DEEPEST_EXPRESSION = 50


def inference_flops_parts(
    lm_params, num_frames, tokens_per_frame, *, vision_params=VISION_PARAMS, vision_tokens=VISION_TOKENS
) -> tuple[np.ndarray, np.ndarray]:
    """(2 x_T x_M x_W, 2 x_T x_N x_V): FLOPs per example of the vision model and of the LM."""
    frames = np.asarray(num_frames, float)
    vision = 2.0 * frames * vision_params * vision_tokens
    language = 2.0 * frames * np.asarray(lm_params, float) * np.asarray(tokens_per_frame, float)
    return vision, language


def inference_flops(
    lm_params, num_frames, tokens_per_frame, *, vision_params=VISION_PARAMS, vision_tokens=VISION_TOKENS
) -> np.ndarray:
    """c(x) = 2 x_T (x_M x_W + x_N x_V), FLOPs per example (Wang et al. 2025, Eq. 1)."""
    vision, language = inference_flops_parts(
        lm_params, num_frames, tokens_per_frame, vision_params=vision_params, vision_tokens=vision_tokens
    )
    return vision + language


def training_flops(inference_flops_per_example, num_examples, epochs=1) -> np.ndarray:
    """3 c(x) n epochs: a forward and a backward pass cost three forward passes; text tokens apart."""
    return 3.0 * np.asarray(inference_flops_per_example, float) * np.asarray(num_examples, float) * epochs


def inference_to_finetuning_ratio(num_inferences, num_examples) -> np.ndarray:
    """n_inference / (3 n): how often serving outweighs finetuning; 34M videos a day for 30 days at 1M give 340."""
    return np.asarray(num_inferences, float) / (3.0 * np.asarray(num_examples, float))


@dataclass(frozen=True)
class Cost:
    """c(x) as a function of named factors: `cost(lm_params=7.5e9, num_frames=32, tokens_per_frame=196)`.

    Without an `expression` it is Eq. 1 in FLOPs per example, with x_M = vision_params and x_W = vision_tokens. An
    expression is arithmetic over factor names in any `unit`. `fixed` {factor: value} are factors that do not vary.
    Calls return values in `unit`; budgets are written in `budget_unit` (TFLOPs for FLOPs), `scale` of which is one.
    """

    expression: str | None = None
    vision_params: float = VISION_PARAMS
    vision_tokens: float = VISION_TOKENS
    unit: str = FLOPS
    fixed: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixed", MappingProxyType(dict(self.fixed)))
        if self.expression is not None:
            _parse(self.expression)
        for name in EQ1_CONSTANTS:
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise UserError(f"{name} = {value!r}: it must be a positive number")

    def __call__(self, **factors) -> np.ndarray:
        """The cost of configurations, factors {name: number or (P,)}, in `unit`."""
        arrays = {name: np.asarray(value, float) for name, value in {**self.fixed, **factors}.items()}
        if self.expression is not None:
            shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
            with np.errstate(all="ignore"):
                return np.broadcast_to(_value(_parse(self.expression), arrays), shape)
        _check_counts(arrays)
        known = {name: arrays[name] for name in EQ1_FACTORS}
        constants = {name: arrays.get(name, getattr(self, name)) for name in EQ1_CONSTANTS}
        return inference_flops(**known, **constants)

    def __reduce__(self):
        return Cost, (self.expression, self.vision_params, self.vision_tokens, self.unit, dict(self.fixed))

    @property
    def is_eq1(self) -> bool:
        return self.expression is None

    @property
    def reads(self) -> tuple[str, ...]:
        """The factors that must be given, but for `fixed`."""
        if self.expression is None:
            return EQ1_FACTORS
        names = (node.id for node in ast.walk(_parse(self.expression)) if isinstance(node, ast.Name))
        return tuple(dict.fromkeys(names))

    @property
    def scale(self) -> float:
        """How many of `unit` one `budget_unit` is."""
        return 1e12 if self.unit == FLOPS else 1.0

    @property
    def budget_unit(self) -> str:
        return "TFLOPs" if self.unit == FLOPS else self.unit

    def text(self, value: float) -> str:
        """A cost in `unit` for people: '12.3 TFLOPs', '41.5 ms'."""
        return si(value, FLOPS) if self.unit == FLOPS else f"{value:.4g} {self.unit}".strip()

    def fix(self, **values: float) -> "Cost":
        """The same cost with these factors held."""
        return replace(self, fixed={**self.fixed, **values})

    def check(self, factors: Sequence[str]) -> None:
        """Raises UserError unless every factor that is read is given, naming the one that is not."""
        there = {*factors, *self.fixed}
        for name in self.reads:
            if name not in there:
                raise UserError(f"the cost names {name!r}, which is no factor; the factors are {', '.join(factors)}")

    def to_dict(self) -> dict:
        """Plain values; `Cost(**value)` makes it again."""
        constants = {name: float(getattr(self, name)) for name in EQ1_CONSTANTS}
        return {"expression": self.expression, **constants, "unit": self.unit, "fixed": dict(self.fixed)}


def cost(expression: str | None = None, *, vision_params: float = VISION_PARAMS,
         vision_tokens: float = VISION_TOKENS, unit: str | None = None) -> Cost:  # fmt: skip
    """Eq. 1 of Wang et al. 2025 with these constants (budgets in TFLOPs), or arithmetic over the factors in `unit`.

    `cost("0.2 * frames * (3e9 + params * tokens) / 4e11", unit="ms")`; unit="FLOPs" has budgets in TFLOPs.

    Raises:
        UserError: the expression holds anything but numbers, names, + - * / ** and brackets.
    """
    if expression is None:
        return Cost(None, vision_params, vision_tokens, unit or FLOPS)
    return Cost(expression, unit="" if unit is None else unit)


def cost_from_expression(expression: str, factors: Sequence[str], unit: str = FLOPS) -> Cost:
    """A cost that must read these factors only. Raises UserError otherwise."""
    found = Cost(expression, unit=unit)
    found.check(factors)
    return found


_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


def _parse(expression: str) -> ast.expr:
    """The syntax tree, checked: arithmetic only, of bounded length and depth."""
    if not isinstance(expression, str) or not expression.strip():
        raise UserError(f"the cost {expression!r} is not an arithmetic expression")
    if len(expression) > LONGEST_EXPRESSION:
        raise UserError(f"the cost is longer than {LONGEST_EXPRESSION} characters: {expression[:40]}...")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"the cost {expression!r} is not an arithmetic expression") from None
    _check(tree, expression, 0)
    return tree


def _check(node: ast.AST, expression: str, depth: int) -> None:
    if depth > DEEPEST_EXPRESSION:
        raise UserError(f"the cost {expression[:60]!r}... is nested too deeply")
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        # A sum of many terms leans to the left: that is length, not depth.
        _check(node.left, expression, depth if isinstance(node.left, ast.BinOp) else depth + 1)
        _check(node.right, expression, depth + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        _check(node.operand, expression, depth + 1)
    elif isinstance(node, ast.Constant) and type(node.value) in {int, float}:
        _float(node.value)
    elif not isinstance(node, ast.Name):
        raise UserError(f"the cost {expression!r} may hold numbers, factors, + - * / ** and brackets only")


def _value(node: ast.AST, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """In double precision throughout: 9**9**9 is infinite and takes no time; a root of a negative number is NaN."""
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, arrays), _value(node.right, arrays))
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, arrays)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Constant):
        return np.float64(_float(node.value))
    if node.id not in arrays:
        raise UserError(f"the cost names {node.id!r}, which is no factor; the factors are {', '.join(arrays)}")
    return arrays[node.id]


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise UserError("the cost holds a whole number that is too large") from None


def _check_counts(arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse what cannot be a count: LM sizes in billions would make every budget too large by as much."""
    for name in EQ1_FACTORS:
        if name not in arrays:
            raise UserError(f"Eq. 1 needs {name}, which is no factor here: say what a configuration costs (--cost)")
    least = {"lm_params": LEAST_LM_PARAMS, "num_frames": 1, "tokens_per_frame": 1}
    for name, bound in least.items():
        values = arrays[name]
        bad = np.ravel(values)[np.ravel(values < bound)]
        if len(bad):
            remedy = "give plain counts, or say the unit: --unit lm_params=1e9" if name == "lm_params" else "mend it"
            raise UserError(f"{name} = {bad[0]:g} cannot be a count in Eq. 1, the cost of a configuration: {remedy}")
