"""A run's state on disk, enough to go on as if it had never stopped.

  state.json              progress, settings, number of workers
  rank-00000.safetensors  trainable weights, AdamW's moments, random states; one file per worker, of which the first
                          holds everything, or, with sharded weights, each its own part

Plain tensors and JSON: unlike accelerate's `save_state`, whose optimiser is a pickle, loading runs no code. Frozen
weights are not stored; they come from the backbones again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vvlm_ray.errors import UserError
from vvlm_ray.training.settings import FinetuneSettings
from vvlm_ray.training.sharding import is_sharded

_MOMENTS = ("exp_avg", "exp_avg_sq")
# These may change between interruption and resumption: they do not change what is computed.


@dataclass
class Progress:
    """How far a run has come: steps done, loss of each, counts over all workers, seconds spent."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    num_examples_seen: int = 0
    num_tokens: int = 0
    num_unreadable: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class RunState:
    """What a checkpoint holds, and what it has to fit."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress
    settings: FinetuneSettings
    num_examples: int
    rank: int
    world_size: int

    def hand_over(self, save_checkpoint: Callable[[Path], None]) -> None:
        """Write this worker's files to a temporary folder and pass it on; it is complete when it is seen.

        Called on every worker, with a folder each; the folder is gone after the call.
        """
        with tempfile.TemporaryDirectory(prefix="vvlm-ray-checkpoint-") as folder:
            self.save(Path(folder))
            save_checkpoint(Path(folder))

    def save(self, folder: Path) -> None:
        """Write this worker's files."""
        from safetensors.torch import save_file

        tensors = _random_states()
        if self.rank == 0 or is_sharded(self.model):
            tensors |= _weights(self.model) | _moments(self.model, self.optimizer)
        save_file(tensors, str(folder / _file_name(self.rank)))
        if self.rank == 0:
            (folder / "state.json").write_text(json.dumps(self._header() | {"progress": asdict(self.progress)}))

    def load(self, folder: Path) -> None:
        """Restore model, optimiser, progress and random states from files of all workers in `folder`.

        Raises UserError when the checkpoint is of another run: other data, settings, or shards.
        """
        try:
            stored = json.loads((folder / "state.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / 'state.json'}: cannot be read ({error}); is this a checkpoint?") from None
        self._check(folder, stored)
        for name, value in stored["progress"].items():
            setattr(self.progress, name, value)
        self.progress.unreadable = [tuple(entry) for entry in self.progress.unreadable]
        _restore(self.model, self.optimizer, folder / _file_name(self.rank if is_sharded(self.model) else 0))
        own = folder / _file_name(self.rank)
        if own.is_file():  # workers that were not there before keep the random state of their seed
            _restore_random_states(own)

    def _header(self) -> dict[str, Any]:
        return {
            "num_examples": self.num_examples,
            "settings": self.settings.recipe.model_dump(mode="json") | {"seed": self.settings.seed},
            "world_size": self.world_size,
            "sharded": is_sharded(self.model),
        }

    def _check(self, folder: Path, stored: dict[str, Any]) -> None:
        ours = self._header()
        differing = [key for key in ("num_examples", "sharded") if stored[key] != ours[key]]
        if ours["sharded"] and stored["world_size"] != ours["world_size"]:
            differing.append("world_size")  # the shards are cut for so many workers
        old, new = stored["settings"], ours["settings"]
        differing += [key for key in new if old.get(key) != new[key]]
        if differing:
            told = ", ".join(f"{k} {(stored | old).get(k)} then, {(ours | new)[k]} now" for k in differing)
            raise UserError(f"{folder}: is a checkpoint of another run ({told}); start without it, or as it was")


def _file_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This worker's part of a split tensor, or the tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"model.{name}": _local(p.detach()).contiguous() for name, p in _trainable(model)}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, p in _trainable(model):
        for key in _MOMENTS:
            tensors[f"{key}.{name}"] = _local(optimizer.state[p][key]).contiguous()
        tensors[f"step.{name}"] = optimizer.state[p]["step"].reshape(1)
    return tensors


@torch.no_grad()
def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        for name, p in _trainable(model):
            _local(p).copy_(file.get_tensor(f"model.{name}"))
            state = {key: torch.zeros_like(p) for key in _MOMENTS}
            for key in _MOMENTS:
                _local(state[key]).copy_(file.get_tensor(f"{key}.{name}"))
            state["step"] = file.get_tensor(f"step.{name}").reshape(()).to(p.device)
            optimizer.state[p] = state


def _random_states() -> dict[str, torch.Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        torch.set_rng_state(file.get_tensor("random.cpu"))
        if torch.cuda.is_available() and "random.cuda" in file.keys():  # noqa: SIM118 (no mapping)
            torch.cuda.set_rng_state(file.get_tensor("random.cuda"))
