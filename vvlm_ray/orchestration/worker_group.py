"""Ray Train's worker groups, with less around them: the controller runs in the process that asks for it, and the
group's placement group has a name, by which the study's run frees it when that process is killed (Train's own cleaner
is a process for each trial on the head node, and needs the dashboard).
"""

import asyncio
import tempfile
import uuid
from pathlib import Path
from typing import Any

from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _setup_torch_process_group, _TorchBackend
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle


class _NamedGroup(WorkerGroup):
    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> Any:
        from ray.util.placement_group import placement_group

        context = worker_group_context
        group = placement_group(
            bundles=[context.resources_per_worker] * context.num_workers,
            strategy=context.placement_strategy,
            bundle_label_selector=context.label_selector,
            name=self._train_run_context.run_config.name,
        )
        return DefaultPlacementGroupHandle(group)


class _Controller(TrainController):
    worker_group_cls = _NamedGroup


class GroupTrainer(TorchTrainer):
    """A TorchTrainer whose controller is in this process, which must be an actor's. The run's name names its group."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if not isinstance(c, PlacementGroupCleanerCallback)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        controller = _Controller(**arguments)
        asyncio.run(controller.run())
        return controller.get_result()


def torch_config(*, use_gpu: bool, is_own_ray: bool) -> TorchConfig:
    """How workers find one another: on one machine through a file, since torch's store listens on all interfaces."""
    backend = "nccl" if use_gpu else "gloo"
    return _OneMachine(backend=backend) if is_own_ray else TorchConfig(backend=backend)


class _OneMachine(TorchConfig):
    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _FileBackend


class _FileBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        import ray

        file = Path(tempfile.gettempdir(), f"vvlm-ray-{uuid.uuid4().hex}")
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _set_up_through_file,
                    backend=backend_config.backend,
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=f"file://{file}",
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )
        file.unlink(missing_ok=True)


def _set_up_through_file(**arguments: Any) -> None:
    import os

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    _setup_torch_process_group(**arguments)
