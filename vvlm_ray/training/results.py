"""What a finetuning run reports: after every step, at its end, and when it has to be given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vvlm_ray.errors import UserError


@dataclass(frozen=True)
class StepReport:
    """One optimiser step, over all workers; rates count the time since the previous report.

    step: 1..num_steps. loss: mean cross-entropy of the global batch before the step, as `recipe.loss` weighs it.
    lr: of the LM, or of the projector where it alone is trained.
    grad_norm: before clipping. tokens: of the LM's sequences, visual and text, without padding.
    tflops_per_second: the model's floating point operations, 2 per weight and token forward and 4 backward;
    recomputation by gradient checkpointing and attention's own products are not counted.
    """

    step: int
    num_steps: int
    loss: float
    lr: float
    grad_norm: float
    examples_per_second: float
    tokens_per_second: float
    tflops_per_second: float


@dataclass(frozen=True)
class FinetuneResult:
    """A finished run; `num_examples_seen + num_unreadable` is epochs times the dataset's length.

    unreadable: (path, reason), the first 1,000 of them. mean_loss_last_tenth: over the last tenth of the steps.
    seconds: of training, those before an interruption included.
    """

    num_steps: int
    num_examples_seen: int
    num_unreadable: int
    unreadable: tuple[tuple[str, str], ...]
    final_loss: float
    mean_loss_last_tenth: float
    seconds: float
    examples_per_second: float
    tokens_per_second: float


class UnreadableVideos(UserError):
    """More videos than allowed could not be read."""


def unreadable_videos(num_unreadable: int, num_examples: int, allowed: float, unreadable: Sequence) -> UnreadableVideos:
    """The error with the share, what is allowed, and the first files; `unreadable` holds (path, reason)."""
    named = "".join(f"\n  {path}: {reason}" for path, reason in unreadable[:5])
    return UnreadableVideos(
        f"{num_unreadable:,} of {num_examples:,} videos ({num_unreadable / num_examples:.1%}) could not be read, and "
        f"max_unreadable_share allows {allowed:g}; check video_root, mend or leave out these files, or raise "
        f"max_unreadable_share. The first of them:{named}"
    )


class Diverged(RuntimeError):
    """The loss is no number any more, or far beyond its history: what such a model scored would be a false record."""
