"""Where a job's workers go: the GPU type and the machines that the queue has admitted the job to.

Left to itself Ray spreads narrow jobs over machines (STRICT_PACK does not fill one before the next), and a wide gang
then waits for a machine that the queue counts as free.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vvlm_ray.planning.gpus import Gpu
from vvlm_ray.planning.queue import POOL, Node, Placement
from vvlm_ray.study.sections import Resources

NODE_ID_LABEL = "ray.io/node-id"
# A job tied to a machine that dies before its workers start would wait for it for ever: after so many minutes it is put
# back and placed anew. Other jobs wait as long as it takes, since their machines may still have to be started.
START_TIMEOUTS = 5
GROUP_PREFIX = "vvlm-ray "  # of the names of placement groups


class Machines:
    """The planned machines and the Ray nodes that stand for them, one for one, chosen when first needed.

    `alive` gives the resources of Ray's nodes by id; the binding of a node that has died is forgotten.
    """

    def __init__(
        self, nodes: Sequence[Node], gpus: Mapping[str, Gpu], alive: Callable[[], Mapping[str, Mapping[str, float]]]
    ):
        self._planned = {node.name: node for node in nodes if node.name != POOL}
        self._gpus = gpus if len({node.kind for node in nodes}) > 1 else {}  # of one type only there is nothing to say
        self._alive = alive
        self._bound: dict[str, str] = {}

    def locate(self, placement: Placement) -> dict[str, Any]:
        """For a driver: whether the job lies `on_one_machine`, its `accelerator` (None: any), and `node_ids`.

        `node_ids` is empty where there are no planned machines, and while Ray lacks one of them.
        """
        names = [name for name in placement.nodes if name in self._planned]
        kind = self._gpus.get(placement.choice.kind)
        return {
            "on_one_machine": len(names) == 1,
            "accelerator": kind.accelerator if kind else None,
            "node_ids": self._node_ids(names),
        }

    def _node_ids(self, names: Iterable[str]) -> list[str]:
        alive = self._alive()
        self._bound = {name: node_id for name, node_id in self._bound.items() if node_id in alive}
        for name in names:
            if name not in self._bound and (node_id := self._smallest_free(self._planned[name], alive)):
                self._bound[name] = node_id
        node_ids = [self._bound.get(name) for name in names]
        return node_ids if all(node_ids) else []

    def _smallest_free(self, node: Node, alive: Mapping[str, Mapping[str, float]]) -> str | None:
        kind = self._gpus.get(node.kind)
        taken = set(self._bound.values())
        fitting = [
            (resources["GPU"], node_id)
            for node_id, resources in alive.items()
            if node_id not in taken
            and resources.get("GPU", 0) >= node.slots
            and (kind is None or f"accelerator_type:{kind.accelerator}" in resources)
        ]
        return min(fitting)[1] if fitting else None


def alive_nodes() -> dict[str, dict[str, float]]:
    """The resources of the Ray nodes that are up, by id."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def scaling_config(resources: Resources, config: Mapping[str, Any]):
    """Ray Train's ScalingConfig for a job suggested by StudySearcher."""
    from ray.train import ScalingConfig

    use_gpu = resources.gpus_per_worker > 0
    node_ids = config["node_ids"]
    return ScalingConfig(
        num_workers=max(1, round(config["slots"] / (resources.gpus_per_worker or resources.cpus_per_worker))),
        use_gpu=use_gpu,
        resources_per_worker={"CPU": resources.cpus_per_worker}
        | ({"GPU": resources.gpus_per_worker} if use_gpu else {}),
        placement_strategy="STRICT_PACK" if config["on_one_machine"] else "PACK",
        accelerator_type=config["accelerator"],
        label_selector={NODE_ID_LABEL: f"in({','.join(node_ids)})"} if node_ids else None,
    )


def failure_config(config: Mapping[str, Any]):
    """No retries within Train (the searcher decides about them), and an end to waiting for a certain machine."""
    from ray.train import FailureConfig

    return FailureConfig(max_failures=0, controller_failure_limit=START_TIMEOUTS - 1 if config["node_ids"] else -1)


def never_started(error: Exception) -> bool:
    """Whether a Train job ended because its workers found no room, so that nothing is wrong with the job."""
    cause = getattr(error, "controller_failure", None)
    return type(cause).__name__ == "WorkerGroupStartupTimeoutError"  # ray keeps it in a private module


def group_name(job_id: str, attempt: int) -> str:
    return f"{GROUP_PREFIX}{job_id} {attempt}"


def free_groups(running: set[str]) -> list[str]:
    """Remove this Ray job's placement groups of worker groups that do not run any more; returns their names."""
    import ray
    from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    freed = []
    for group_id, about in placement_group_table().items():
        is_ours = group_id.endswith(job) and about["name"].startswith(GROUP_PREFIX)
        if is_ours and about["name"] not in running and about["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(group_id)))
            freed.append(about["name"])
    return freed
