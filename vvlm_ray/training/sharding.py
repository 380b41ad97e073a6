"""The model on its device(s): alone, copied to every worker (DDP), or split over them (FSDP2)."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from vvlm_ray.errors import UserError
from vvlm_ray.training.settings import FinetuneSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vvlm_ray.model.video_vlm import VideoVLM


def make_accelerator() -> Accelerator:
    """accelerate's view of this process: its rank and device; on a machine without GPUs, the CPU.

    Picks up the process group that Ray Train or torchrun has made or described in the environment. Mixed precision
    is left to the loop: accelerate would replace the model's forward for good.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[ddp])


def place_model(model: VideoVLM, settings: FinetuneSettings, accelerator: Accelerator) -> tuple[VideoVLM, nn.Module]:
    """Move the model to this worker's device, copied or split; returns (what is trained, what is called).

    With sharding "none" the model itself is trained, and called through DistributedDataParallel where there are more
    workers. With "fsdp" a split twin of the model is, and the model is empty until `gather_model`: FSDP2 hooks itself
    into modules for good, and a model that evaluates and generates afterwards had better never been touched.
    The split is torch's `fully_shard`, not accelerate's: on CPU workers accelerate 1.15 silently gives DDP instead,
    and one way of splitting, tested on gloo, serves both.
    Raises UserError if "fsdp" is asked for outside of a process group.
    """
    if settings.resources.sharding == "none":
        return model, accelerator.prepare_model(model)
    if not torch.distributed.is_initialized():
        raise UserError(
            "sharding: 'fsdp' needs a process group, as Ray Train and torchrun make it; give the trial such workers "
            "or use sharding: 'none'"
        )
    twin = _take_weights(model)
    _split(twin, settings.recipe.precision, accelerator.device)
    return twin, twin


def accumulating(module: nn.Module, accelerator: Accelerator) -> contextlib.AbstractContextManager:
    """Around every micro-batch but a step's last: gradients are summed here, and exchanged once at the end.

    Not under FSDP: unexchanged gradients are whole ones, and would need the memory that sharding saves.
    """
    return contextlib.nullcontext() if is_sharded(module) else accelerator.no_sync(module)


def is_sharded(module: nn.Module) -> bool:
    return hasattr(next(module.parameters()), "to_local")


@torch.no_grad()
def gather_model(twin: VideoVLM, model: VideoVLM, settings: FinetuneSettings) -> None:
    """Put the weights of a split twin back into the model, whole on every worker and on its device.

    In the precision that the run computed in: bfloat16 then halves what a GPU has to hold.
    """
    low = torch.bfloat16 if settings.recipe.precision == "bf16" else None
    whole = {name: p.to(low or p.dtype).full_tensor() for name, p in twin.named_parameters()}
    _replace_parameters(model, {name: nn.Parameter(value) for name, value in whole.items()})


def _take_weights(model: VideoVLM) -> VideoVLM:
    """A twin of the model that owns its weights; what stays behind has shapes only."""
    parameters = dict(model.named_parameters())
    shared = [*parameters.values(), *model.buffers()]
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    empty = {name: nn.Parameter(torch.empty_like(p, device="meta")) for name, p in parameters.items()}
    _replace_parameters(model, empty)
    return twin


def _replace_parameters(model: nn.Module, new: dict[str, nn.Parameter]) -> None:
    """Put parameters in place of those of the same names; tied ones stay tied, frozen ones frozen."""
    substitutes = {id(p): new[name].requires_grad_(p.requires_grad) for name, p in model.named_parameters()}
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = substitutes[id(p)]


def _split(model: VideoVLM, precision: str, device: torch.device) -> None:
    """FSDP2 over all workers: each encoder and decoder layer a unit of its own, all the rest one more."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import DTensor

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    low = torch.bfloat16 if precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32 if low else None)
    layers = {*model._no_split_modules, *(model.language_model._no_split_modules or ())}
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    if not all(isinstance(p, DTensor) for p in model.parameters()):
        raise RuntimeError("fully_shard left some parameters whole: memory would not suffice for real models")
