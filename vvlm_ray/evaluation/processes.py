"""Several processes that evaluate together (RANK, WORLD_SIZE and torch.distributed, as lmms-eval expects them)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.failures import EvaluationFailed

Value = TypeVar("Value")


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes evaluate together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def gathered(own: Value) -> list[Value]:
    """Every process's value, in all of them."""
    if world_size() == 1:
        return [own]
    import torch.distributed as dist

    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, own)
    return values


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()


def on_first_process(compute: Callable[[], Value]) -> Value:
    """`compute()` on rank 0; its result, or the error it raised, on all."""
    if world_size() == 1:
        return compute()
    import torch.distributed as dist

    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = compute()
        except (EvaluationFailed, UserError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
