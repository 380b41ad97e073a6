"""GPU types and clusters, for planning. Peaks are dense bf16 TFLOP/s, memory is in GB; both from the data sheets."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vvlm_ray.errors import UserError
from vvlm_ray.planning.queue import Node
from vvlm_ray.study.sections import NodeType, Planning


@dataclass(frozen=True)
class Gpu:
    """A type of GPU: memory (GB, 1e9 bytes), peak dense bf16 TFLOP/s, what an hour costs (None: not stated).

    `accelerator` is Ray's name of it; Ray does not tell apart types that differ in memory or form only.
    """

    name: str
    memory_gb: float
    peak_tflops: float
    accelerator: str
    price_per_hour: float | None = None


# Data sheets: nvidia.com (A100, H100, H200, B200, L40S, L4, A10, RTX A6000, RTX 4090), aws.amazon.com/ec2 (A10G),
# amd.com (MI300X). Peaks with sparsity, which the sheets like to print, are twice these.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100-40GB", 40, 312, "A100"),
        Gpu("A100-80GB", 80, 312, "A100"),
        Gpu("H100", 80, 989, "H100"),
        Gpu("H100-PCIe", 80, 756, "H100"),
        Gpu("H200", 141, 989, "H200"),
        Gpu("B200", 180, 2250, "B200"),
        Gpu("L40S", 48, 362, "L40S"),
        Gpu("L4", 24, 121, "L4"),
        Gpu("A10", 24, 125, "A10"),
        Gpu("A10G", 24, 70, "A10G"),
        Gpu("RTX-A6000", 48, 155, "RTX-A6000"),
        Gpu("RTX-4090", 24, 165, "GeForce-RTX-4090"),
        Gpu("MI300X", 192, 1307, "AMD-Instinct-MI300X-OAM"),
    )
}
DEFAULT_GPU = "A100-80GB"  # where a study that uses GPUs names no cluster
# What a process may fill: the rest goes to the CUDA context, NCCL's buffers and the allocator's fragmentation [ours].
USABLE_SHARE = 0.92
RESERVED_GB = 1.5


def usable_bytes(gpu: Gpu) -> float:
    return (gpu.memory_gb * USABLE_SHARE - RESERVED_GB) * 1e9


def gpu_of(node: NodeType, planning: Planning) -> Gpu:
    """The GPU type of a node, with what the sweep file states in place of the data sheet.

    Raises:
        UserError: an unknown type without memory_gb and peak_tflops.
    """
    known = GPUS.get(node.gpu)
    if known is None and not (node.memory_gb and node.peak_tflops):
        raise UserError(
            f"cluster: the GPU type {node.gpu!r} is not known; use one of {', '.join(GPUS)}, "
            "or give memory_gb and peak_tflops in the sweep file"
        )
    price = node.price_per_gpu_hour if node.price_per_gpu_hour is not None else planning.price_per_gpu_hour
    return Gpu(
        node.gpu,
        node.memory_gb or known.memory_gb,
        node.peak_tflops or known.peak_tflops,
        node.accelerator or (known.accelerator if known else node.gpu),
        price,
    )


def nodes_of(cluster: Sequence[NodeType]) -> list[Node]:
    """Every machine of the cluster, by name."""
    nodes = []
    for i, kind in enumerate(cluster):
        nodes += [Node(f"{kind.gpu}/{i}.{j:03}", kind.gpus, kind.gpu) for j in range(kind.count)]
    return nodes


def indistinct_types(gpus: Iterable[Gpu]) -> list[str]:
    """What is wrong with a cluster that mixes types which Ray cannot tell apart, so that trials may land on either."""
    by_accelerator: dict[str, list[str]] = {}
    for gpu in gpus:
        by_accelerator.setdefault(gpu.accelerator, []).append(gpu.name)
    return [
        f"cluster: Ray calls both {' and '.join(names)} {accelerator}; give each an `accelerator` of its own and start "
        'its machines with that resource, such as resources: {"accelerator_type:A100-40GB": 1}'
        for accelerator, names in by_accelerator.items()
        if len(names) > 1
    ]


def parse_cluster(text: str) -> list[NodeType]:
    """'8x8xA100-80GB,4x4xL40S' (machines x GPUs each x type, joined by commas) as node types.

    Raises:
        UserError: anything else.
    """
    nodes = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)x(\d+)x([A-Za-z0-9._-]+)\s*", part)
        if not match or not (int(match[1]) and int(match[2])):
            raise UserError(f"--cluster: {part!r} is not MACHINESxGPUSxTYPE, such as 8x8xA100-80GB")
        nodes.append(NodeType(gpu=match[3], gpus=int(match[2]), count=int(match[1])))
    return nodes
