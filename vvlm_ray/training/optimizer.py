"""AdamW with a learning rate per part, cosine schedule with linear warm-up (Wang et al. 2025, Table 4), clipping."""

from __future__ import annotations

import math

import torch
from torch import nn

from vvlm_ray.training.settings import FinetuneSettings

_MASTER = (torch.float32, torch.float64)
MAX_GRAD_NORM = 1.0  # [open in the paper: LLaVA's value]


def build_optimizer(model: nn.Module, settings: FinetuneSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in groups of the LM, the projector and the vision tower.

    Each group holds its peak rate under "peak_lr". Raises TypeError for a weight below float32, in which steps of
    1e-5 of its size are lost: AdamW's weights are the master weights here.
    """
    low = [f"{name} ({p.dtype})" for name, p in model.named_parameters() if p.requires_grad and p.dtype not in _MASTER]
    if low:
        raise TypeError(f"weights to be trained have to be in float32: {', '.join(low[:3])} of {len(low)} are not")
    groups = []
    for part, peak_lr in settings.recipe.peak_lrs.items():
        parameters = [p for p in model.get_submodule(part).parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "peak_lr": peak_lr})
    return torch.optim.AdamW(groups, lr=settings.recipe.lr, weight_decay=settings.recipe.weight_decay, fused=True)


def lr_factor(step: int, num_steps: int, warmup_fraction: float) -> float:
    """Share of the peak learning rate in a step (counted from 0).

    Rises in ceil(warmup_fraction * num_steps) equal steps to 1, then falls as half a cosine towards 0. Neither the
    first nor the last step is 0, so that no batch is spent on nothing.
    """
    num_warmup = math.ceil(warmup_fraction * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup)))


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def scale_and_clip(optimizer: torch.optim.Optimizer, scale: float) -> float:
    """Multiply the gradients by `scale`, then clip them to a total norm of 1; returns the norm before clipping.

    Both in one pass: the number of answer tokens in a global batch, by which gradients of the summed loss are
    divided, is known only after its last micro-batch has been read.
    """
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    norm = scale * float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    local = [grad.to_local() if hasattr(grad, "to_local") else grad for grad in grads]
    torch._foreach_mul_(local, scale * min(1.0, MAX_GRAD_NORM / (norm + 1e-6)))
    return norm
