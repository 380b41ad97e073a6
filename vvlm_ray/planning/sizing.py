"""How many GPUs of each type a trial or a projector gets, and how long it then takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vvlm_ray.planning.estimates import Estimator
from vvlm_ray.planning.gpus import Gpu, gpu_of, nodes_of
from vvlm_ray.planning.jobs import projector_job, projector_run, started_workers
from vvlm_ray.planning.memory import gang_sizes, smallest_feasible
from vvlm_ray.planning.queue import POOL, Choice, Job, Node
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sections import NodeType
from vvlm_ray.study.trials import Trial

POOL_GPUS_PER_NODE = 8  # where a cluster is only a number of GPUs
# Without max_trial_hours, a trial with workers: auto gets more GPUs while it would last longer than a share of what
# the whole study takes on the cluster: few long trials must not decide when the study ends. The first of these
# shares with a schedule near the lower bound is taken, since narrow gangs waste less on talking to one another.
LONGEST_SHARES = (0.5, 0.33, 0.25, 0.2, 0.15, 0.1)
PROJECTOR_SHARE = 0.01  # the same for stage 1, for which every trial of a backbone waits


def trial_slots(study: Study) -> float:
    """Slots of one trial, where the sweep file says it: its GPUs, or its CPUs where it uses no GPU."""
    r = study.resources
    workers = 1 if r.workers == "auto" else r.workers
    return workers * (r.gpus_per_worker or r.cpus_per_worker)


def plain_estimator(study: Study) -> Estimator:
    return Estimator(study, Path("sweep.yaml"), StudyFolder(Path(study.name)))


class Machines:
    """What is planned for: nodes with GPU types, or a plain number of slots."""

    def __init__(self, study: Study, num_slots: float | None, cluster: Sequence[NodeType] | None):
        self.uses_gpus = study.resources.gpus_per_worker > 0
        kinds = list(cluster or (() if num_slots is not None else study.cluster))
        self.kinds = kinds if self.uses_gpus else []
        self.gpus = {kind.gpu: gpu_of(kind, study.planning) for kind in self.kinds}
        self.num_slots = num_slots or sum(kind.gpus * kind.count for kind in kinds) or 8
        if self.uses_gpus and not self.kinds:
            gpu = plain_estimator(study).pool_gpu()
            self.gpus = {gpu.name: gpu}

    def nodes_for(self, jobs: Sequence[Job]) -> list[Node]:
        """The machines; a plain number of slots is widened to hold the widest job."""
        if self.kinds:
            return nodes_of(self.kinds)
        widest = max((choice.slots for job in jobs for choice in job.options), default=0)
        return [Node(POOL, max(self.num_slots, widest))]

    def per_type(self) -> Iterable[tuple[str | None, Gpu, int, int]]:
        """(kind of node or None for any, GPU, GPUs of a node, GPUs in all) for each GPU type."""
        if not self.kinds:
            (gpu,) = self.gpus.values()
            yield None, gpu, POOL_GPUS_PER_NODE, max(int(self.num_slots), 1)
            return
        for name, gpu in self.gpus.items():
            mine = [kind for kind in self.kinds if kind.gpu == name]
            yield name, gpu, max(kind.gpus for kind in mine), sum(kind.gpus * kind.count for kind in mine)


@dataclass(frozen=True)
class Demand:
    """What a trial or a projector asks for: bytes of a GPU by their number, seconds by slots and GPU type."""

    job_id: str
    backbone: str | None
    seconds: Callable[[float, Gpu | None], float]
    bytes_at: Callable[[int], float] | None  # None: unknown, as for a study with factors of its own
    longest: float  # seconds that it should not exceed, with workers: auto
    run: Path  # where its checkpoints lie


class Sizing:
    """How many GPUs of each type a trial or projector gets, and how long it then takes."""

    def __init__(
        self, estimator: Estimator, machines: Machines, waiting: Sequence[Trial], share: float = LONGEST_SHARES[0]
    ):
        self.estimator, self.study, self.machines = estimator, estimator.study, machines
        self.min_gpus: dict[str, int | None] = {}
        self.too_small: dict[tuple[str, str], list[Demand]] = {}  # (backbone, GPU type) -> what did not fit
        self.homeless: set[str] = set()
        self.whole = self._seconds_of_all(waiting)
        self.longest = (self.study.resources.max_trial_hours or share * self.whole / 3600) * 3600
        self.known: dict[str, tuple[Choice, ...]] = {}

    def _seconds_of_all(self, waiting: Sequence[Trial]) -> float:
        """What the whole study would take on the cluster without a gap."""
        if not self.machines.uses_gpus:
            return float("inf")
        rate = sum(self.estimator.throughput(gpu) * total for _, gpu, _, total in self.machines.per_type())
        return sum(self.estimator.training_flops(t) + self.estimator.text_flops(t) for t in waiting) / rate

    def of_trial(self, trial: Trial) -> tuple[Choice, ...]:
        e = self.estimator
        bytes_at = (lambda size: e.memory(trial, size)) if trial.backbone else None
        return self._choices(
            Demand(
                trial.trial_id,
                trial.backbone,
                lambda slots, gpu: e.seconds(trial, slots, gpu),
                bytes_at,
                self.longest,
                e.folder.trial(trial.trial_id),
            )
        )

    def of_projector(self, name: str) -> tuple[Choice, ...]:
        e = self.estimator
        return self._choices(
            Demand(
                projector_job(name),
                name,
                lambda slots, gpu: e.stage1_seconds(name, slots, gpu),
                lambda size: e.stage1_memory(name, size),
                self.whole * PROJECTOR_SHARE,
                projector_run(self.study, e.folder, name),
            )
        )

    def _choices(self, demand: Demand) -> tuple[Choice, ...]:
        if demand.job_id not in self.known:
            self.known[demand.job_id] = self._work_out(demand)
        return self.known[demand.job_id]

    def _work_out(self, demand: Demand) -> tuple[Choice, ...]:
        if not self.machines.uses_gpus:
            slots = trial_slots(self.study)
            return (Choice(slots, demand.seconds(slots, None)),)
        fitting, others = [], []
        for kind, gpu, per_node, total in self.machines.per_type():
            sizes = gang_sizes(per_node, max(total, 64 * per_node))
            fewest = smallest_feasible(demand.bytes_at, gpu, sizes) if demand.bytes_at else 1
            self.min_gpus.setdefault(demand.job_id, fewest)
            slots = self._slots(demand, gpu, fewest, [size for size in sizes if size <= total]) or sizes[-1]
            choice = Choice(slots, demand.seconds(slots, gpu), kind)
            if fewest is None or fewest > max(slots, 1):
                self.too_small.setdefault((demand.backbone or "", gpu.name), []).append(demand)
                others.append(choice)
            else:
                (others if kind and slots > total else fitting).append(choice)
        if not fitting:
            self.homeless.add(demand.job_id)
        return tuple(fitting or others[:1])

    def _slots(self, demand: Demand, gpu: Gpu, fewest: int | None, sizes: list[int]) -> float | None:
        """What the sweep file says; with workers: auto the fewest, or more until the trial is short enough.

        A trial that has checkpoints keeps its workers: a checkpoint is made for their number.
        """
        r = self.study.resources
        if r.workers != "auto":
            return r.workers * r.gpus_per_worker
        if started := started_workers(demand.run):
            return started * r.gpus_per_worker
        wider = [size for size in sizes if fewest and fewest <= size <= self.study.finetune.batch_size]
        enough = (size for size in wider if demand.seconds(size, gpu) <= demand.longest)
        return next(enough, wider[-1] if wider else fewest)

    def problems(self) -> list[str]:
        """What no GPU type of the cluster can hold; a type that is too small beside one that is not is no problem."""
        lines = []
        for (backbone, gpu), demands in self.too_small.items():
            if not (lost := [d for d in demands if d.job_id in self.homeless]):
                continue
            slots = self.known[lost[0].job_id][0].slots
            need = max(d.bytes_at(max(1, int(slots))) for d in lost) / 1e9
            counts = [self.min_gpus[d.job_id] for d in lost]
            remedy = (
                f"they need {max(counts)} GPUs with sharding: fsdp; raise resources.workers or set workers: auto"
                if all(counts) and self.study.resources.sharding == "fsdp"
                else "use sharding: fsdp, a smaller micro_batch_size, gradient_checkpointing or a larger GPU type"
            )
            name = f"backbones.{backbone}" if backbone else "the trials"
            lines.append(
                f"{name}: {len(lost)} jobs do not fit into {gpu} (up to {need:,.0f} GB each on {slots:g} of them, "
                f"and one has {self.machines.gpus[gpu].memory_gb:g}); {remedy}"
            )
        return lines
