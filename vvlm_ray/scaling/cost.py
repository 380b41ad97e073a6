"""Inference and training cost in FLOPs (Wang et al. 2025, Eq. 1). Sizes are plain counts."""

import ast
from collections.abc import Sequence

import numpy as np

from vvlm_ray.errors import UserError

VISION_PARAMS = 0.43e9  # SigLIP SoViT-400m/14, Wang et al. 2025
VISION_TOKENS = 768  # the paper's x_W; SigLIP-so400m/14 at 384 px really emits 27 x 27 = 729


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


_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UAdd, ast.USub)


def cost_from_expression(expression: str, factors: Sequence[str]):
    """A cost function from arithmetic over factor names, e.g. "2 * frames * (3e11 + params * tokens)".

    Raises UserError for anything but numbers, the factors, + - * / ** and brackets.
    """
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        raise UserError(f"the cost {expression!r} is not an arithmetic expression") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in factors:
            raise UserError(f"the cost names {node.id!r}, which is no factor; the factors are {', '.join(factors)}")
        number = isinstance(node, ast.Constant) and isinstance(node.value, int | float)
        structure = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Load, ast.Name, *_OPERATORS)
        if not number and not isinstance(node, structure):
            raise UserError(f"the cost {expression!r} may hold numbers, factors, + - * / ** and brackets only")
    code = compile(tree, "<cost>", "eval")

    def cost(**values):
        arrays = {name: np.asarray(value, float) for name, value in values.items()}
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        return np.broadcast_to(eval(code, {"__builtins__": {}}, arrays), shape)

    return cost
