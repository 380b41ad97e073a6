"""What a finetuning run can be told, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vvlm_ray.errors import UserError

_CHOICES = {"precision": ("bf16", "fp32"), "sharding": ("none", "fsdp"), "trainable": ("all", "projector")}
_POSITIVE = ("batch_size", "lr", "vision_lr", "epochs", "checkpoint_every_seconds")
_NOT_NEGATIVE = ("weight_decay", "num_loader_workers", "seed")


@dataclass(frozen=True)
class FinetuneSettings:
    """Stage 2 of Wang et al. 2025, Table 4, by default; stage 1 is trainable="projector", batch_size=512, lr=1e-3.

    batch_size: examples per optimiser step, over all workers and accumulation steps.
    projector_lr: None is `lr`.
    micro_batch_size: examples per worker and forward pass; None takes a worker's whole share of the batch.
    precision: "bf16" computes in bfloat16 and keeps weights and optimiser in float32.
    sharding: "fsdp" splits weights, gradients and optimiser over the workers; "none" copies them to each.
    checkpoint_every_seconds: of wall time; only where `finetune` is given a `save_checkpoint`.
    max_unreadable_share: of all examples; more unreadable videos than that end the run.
    Raises UserError for values that make no sense.
    """

    batch_size: int = 256
    lr: float = 1e-5
    vision_lr: float = 2e-6
    projector_lr: float | None = None
    weight_decay: float = 0.0
    warmup_fraction: float = 0.03
    epochs: int = 1
    micro_batch_size: int | None = None
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    num_loader_workers: int = 0
    seed: int = 0
    max_unreadable_share: float = 0.01
    checkpoint_every_seconds: float = 600
    trainable: Literal["all", "projector"] = "all"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(choices)}")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: {getattr(self, name)} has to be positive")
        for name in _NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: {getattr(self, name)} must not be negative")
        for name in ("projector_lr", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name}: {value} has to be positive, or left out")
        for name in ("warmup_fraction", "max_unreadable_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}: {getattr(self, name)} has to lie between 0 and 1")
