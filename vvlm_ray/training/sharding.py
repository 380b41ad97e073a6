"""The model on its device(s): alone, copied to every worker (DDP), or split over them (FSDP2)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import nn

from vvlm_ray.errors import UserError
from vvlm_ray.training.settings import FinetuneSettings

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator() -> Accelerator:
    """accelerate's view of this process: its rank and device; on a machine without GPUs, the CPU.

    Picks up the process group that Ray Train or torchrun has made or described in the environment. Mixed precision
    is left to the loop: accelerate would replace the model's forward for good.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # The model's only buffers are constants (rotary frequencies): nothing to broadcast before every forward.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[ddp])


def place_model(model: nn.Module, settings: FinetuneSettings, accelerator: Accelerator) -> nn.Module:
    """Move the model to this worker's device, split or wrapped as asked; returns the module to call.

    With "none" that is the model itself, or DistributedDataParallel around it. With "fsdp" the model is split in
    place by torch's `fully_shard`, not by accelerate: on CPU workers accelerate 1.15 silently gives DDP instead, and
    one way of splitting, tested on gloo, serves both.
    Raises UserError if "fsdp" is asked for outside of a process group.
    """
    if settings.sharding == "none":
        return accelerator.prepare_model(model)
    _shard(model, settings.precision, accelerator.device)
    return model


def accumulating(model: nn.Module, accelerator: Accelerator) -> contextlib.AbstractContextManager:
    """Around every micro-batch but a step's last: gradients are summed here, and exchanged once at the end.

    Not under FSDP: unexchanged gradients are whole ones, and would need the memory that sharding saves.
    """
    return contextlib.nullcontext() if is_sharded(model) else accelerator.no_sync(model)


def is_sharded(model: nn.Module) -> bool:
    from torch.distributed.tensor import DTensor

    return any(isinstance(p, DTensor) for p in model.parameters())


def gather_model(model: nn.Module) -> None:
    """Give every worker a whole copy of a split model, in place and in the precision it computed in.

    From then on workers call it independently of one another, to evaluate or to generate; training is over.
    """
    for module in _sharded_modules(model):
        module.set_reshard_after_forward(False)
        module.unshard()


def _shard(model: nn.Module, precision: str, device: torch.device) -> None:
    """FSDP2 over all workers: each encoder and decoder layer a unit of its own, all the rest one more."""
    if not torch.distributed.is_initialized():
        raise UserError(
            'sharding: "fsdp" needs a process group; run with resources that give a trial workers '
            'under Ray Train or torchrun, or use sharding: "none"'
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    low = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32 if low else None)
    names = set(model._no_split_modules) | set(model.language_model._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    model.to(device)  # buffers of modules that fully_shard did not move
    if not all(hasattr(p, "to_local") for p in model.parameters()):
        raise RuntimeError("fully_shard left parameters whole")


def _sharded_modules(model: nn.Module) -> list[nn.Module]:
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
