"""The plan of a study: every trial with its cost, the jobs it takes, their schedule, and what is wrong beforehand."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vvlm_ray.study.config import FACTORS, STUDY_PREFIX, NodeType, Study
from vvlm_ray.study.estimates import QUESTIONS, Estimator, measure_throughput
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.hardware import Gpu, gpu_of, indistinct_types, nodes_of
from vvlm_ray.study.memory import gang_sizes, smallest_feasible
from vvlm_ray.study.records import is_finished
from vvlm_ray.study.refine import all_trials
from vvlm_ray.study.schedule import POOL, Choice, Job, Node, Start, improve_order, lower_bound, simulate
from vvlm_ray.study.trials import Trial, needs_stage1, projector_id

BENCHMARK_JOB, PROJECTOR_JOB = "benchmark", "projector-"  # the latter before the name of a backbone
WORKERS_NOTE = "workers.json"  # in a job's folder: how many workers it was started with
BASE_TRAINING_SECONDS = {"small": 25.0, "medium": 38.0, "large": 80.0}  # one CPU core
BENCHMARK_SECONDS = 8.0
POOL_GPUS_PER_NODE = 8  # where a cluster is only a number of GPUs
# Without max_trial_hours, a trial with workers: auto gets more GPUs while it would last longer than a share of what
# the whole study takes on the cluster: few long trials must not decide when the study ends. The first of these
# shares with a schedule near the lower bound is taken, since narrow gangs waste less on talking to one another.
LONGEST_SHARES = (0.5, 0.33, 0.25, 0.2, 0.15, 0.1)
PROJECTOR_SHARE = 0.01  # the same for stage 1, for which every trial of a backbone waits
GOOD_ENOUGH = 1.04  # makespan over its lower bound
MAX_SIMULATED_STARTS = 2000  # of jobs, in looking for a better order: a second or two


@dataclass(frozen=True)
class Plan:
    """Trials in order, the jobs still to run, their simulated schedule, and problems (empty when it can start).

    `nodes` is what was planned for, of the types in `gpus`; `lower_bound_seconds` is what no schedule could beat;
    `choices` are by trial, `min_gpus` by job (on the first GPU type); `notes` are sentences about assumptions.
    """

    trials: list[Trial]
    jobs: list[Job]
    finished: frozenset[str]
    num_slots: float
    makespan_seconds: float
    problems: list[str]
    nodes: list[Node] = field(default_factory=list)
    gpus: dict[str, Gpu] = field(default_factory=dict)
    schedule: list[Start] = field(default_factory=list)
    lower_bound_seconds: float = 0.0
    choices: dict[str, tuple[Choice, ...]] = field(default_factory=dict)
    min_gpus: dict[str, int | None] = field(default_factory=dict)
    estimator: Estimator | None = None
    notes: list[str] = field(default_factory=list)


def trial_slots(study: Study) -> float:
    """Slots of one trial, where the sweep file says it: its GPUs, or its CPUs where it uses no GPU."""
    r = study.resources
    workers = 1 if r.workers == "auto" else r.workers
    return workers * (r.gpus_per_worker or r.cpus_per_worker)


def trial_seconds(study: Study, trial: Trial) -> float:
    """Expected wall seconds on the slots that the sweep file gives it, at the planned throughput."""
    estimator = _plain_estimator(study)
    gpu = estimator.pool_gpu() if study.resources.gpus_per_worker else None
    return estimator.seconds(trial, trial_slots(study), gpu)


def _plain_estimator(study: Study) -> Estimator:
    return Estimator(study, Path("sweep.yaml"), StudyFolder(Path(study.name)))


def make_plan(
    study: Study,
    sweep_file: Path,
    folder: StudyFolder,
    num_slots: float | None = None,
    *,
    cluster: Sequence[NodeType] | None = None,
) -> Plan:
    """Expand a study and find out what is left to run, how long it takes, and what is wrong.

    Args:
        num_slots: plan for one pool of so many GPUs (or CPUs, for trials without); widened to hold the widest trial.
        cluster: plan for these machines instead; default, without num_slots: the sweep file's `cluster`.
    """
    trials = all_trials(study, folder)
    finished = frozenset(t.trial_id for t in trials if is_finished(folder, t.trial_id))
    problems = find_problems(study, sweep_file, folder)
    estimator = Estimator(study, sweep_file, folder)
    measured = measure_throughput(estimator, [t for t in trials if t.trial_id in finished])
    estimator = Estimator(study, sweep_file, folder, measured)
    machines = _Machines(study, num_slots, cluster)
    waiting = [t for t in trials if t.trial_id not in finished]
    nodes, sizing, jobs, held = _best_schedule(study, folder, waiting, estimator, machines)
    problems += [f"{sweep_file}: {problem}" for problem in sizing.problems() + indistinct_types(machines.gpus.values())]
    if lost := len(jobs) - len(held):
        problems.append(f"{sweep_file}: {lost} jobs need more GPUs than the cluster has; they are not in the schedule")
    schedule = simulate(held, nodes) if held else []
    return Plan(
        trials=trials,
        jobs=jobs,
        finished=finished,
        num_slots=sum(node.slots for node in nodes),
        makespan_seconds=max((s.end for s in schedule), default=0.0),
        problems=problems,
        nodes=nodes,
        gpus=machines.gpus,
        schedule=schedule,
        lower_bound_seconds=lower_bound(held, nodes) if held else 0.0,
        choices={t.trial_id: sizing.of_trial(t) for t in trials},
        min_gpus=sizing.min_gpus,
        estimator=estimator,
        notes=_notes(study, machines, measured),
    )


def _best_schedule(
    study: Study, folder: StudyFolder, waiting: list[Trial], estimator: Estimator, machines: "_Machines"
) -> tuple[list[Node], "_Sizing", list[Job], list[Job]]:
    """Nodes, sizes, jobs, and the jobs among them that the nodes can hold, in the best order found."""
    r = study.resources
    is_free = machines.uses_gpus and r.workers == "auto" and not r.max_trial_hours
    best, least = None, float("inf")
    for share in LONGEST_SHARES if is_free else LONGEST_SHARES[:1]:
        sizing = _Sizing(estimator, machines, waiting, share)
        jobs = remaining_jobs(study, folder, waiting, frozenset(), sizing)
        nodes = machines.nodes_for(jobs)
        held = [job for job in jobs if _fits(job, nodes)]
        kept = {job.job_id for job in held}
        held = [job for job in held if job.after <= kept]
        tries = MAX_SIMULATED_STARTS // max(len(held), 1)
        ordered = {job.job_id: job for job in improve_order(held, nodes, tries, target=GOOD_ENOUGH)}
        makespan = max((s.end for s in simulate(list(ordered.values()), nodes)), default=0.0)
        if makespan < least or best is None:
            best, least = (nodes, sizing, [ordered.get(j.job_id, j) for j in jobs], list(ordered.values())), makespan
        if makespan <= GOOD_ENOUGH * lower_bound(held, nodes):
            break
    return best


class _Machines:
    """What is planned for: nodes with GPU types, or a plain number of slots."""

    def __init__(self, study: Study, num_slots: float | None, cluster: Sequence[NodeType] | None):
        self.uses_gpus = study.resources.gpus_per_worker > 0
        kinds = list(cluster or (() if num_slots is not None else study.cluster))
        self.kinds = kinds if self.uses_gpus else []
        self.gpus = {kind.gpu: gpu_of(kind, study.planning) for kind in self.kinds}
        self.num_slots = num_slots or sum(kind.gpus * kind.count for kind in kinds) or 8
        if self.uses_gpus and not self.kinds:
            gpu = _plain_estimator(study).pool_gpu()
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
class _Demand:
    """What a trial or a projector asks for: bytes of a GPU by their number, seconds by slots and GPU type."""

    job_id: str
    backbone: str | None
    seconds: Callable[[float, Gpu | None], float]
    bytes_at: Callable[[int], float] | None  # None: unknown, as for a study with factors of its own
    longest: float  # seconds that it should not exceed, with workers: auto
    run: Path  # where its checkpoints lie


class _Sizing:
    """How many GPUs of each type a trial or projector gets, and how long it then takes."""

    def __init__(
        self, estimator: Estimator, machines: _Machines, waiting: Sequence[Trial], share: float = LONGEST_SHARES[0]
    ):
        self.estimator, self.study, self.machines = estimator, estimator.study, machines
        self.min_gpus: dict[str, int | None] = {}
        self.too_small: dict[tuple[str, str], list[_Demand]] = {}  # (backbone, GPU type) -> what did not fit
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
            _Demand(
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
            _Demand(
                projector_job(name),
                name,
                lambda slots, gpu: e.stage1_seconds(name, slots, gpu),
                lambda size: e.stage1_memory(name, size),
                self.whole * PROJECTOR_SHARE,
                projector_run(self.study, e.folder, name),
            )
        )

    def _choices(self, demand: _Demand) -> tuple[Choice, ...]:
        if demand.job_id not in self.known:
            self.known[demand.job_id] = self._work_out(demand)
        return self.known[demand.job_id]

    def _work_out(self, demand: _Demand) -> tuple[Choice, ...]:
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

    def _slots(self, demand: _Demand, gpu: Gpu, fewest: int | None, sizes: list[int]) -> float | None:
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


def remaining_jobs(
    study: Study, folder: StudyFolder, trials: list[Trial], finished: frozenset[str], sizing: _Sizing | None = None
) -> list[Job]:
    """The jobs that are not done: what the study makes for itself, projectors, then the trials that wait for them."""
    waiting = [t for t in trials if t.trial_id not in finished]
    sizing = sizing or _Sizing(_plain_estimator(study), _Machines(study, None, None), waiting)
    jobs, made = [], set()
    backbones = sorted({t.backbone for t in waiting if t.backbone})
    if study.synthetic and waiting:
        if not (folder.assets / "benchmark" / "settings.json").exists():
            jobs.append(Job(BENCHMARK_JOB, BENCHMARK_SECONDS, kind="benchmark"))
            made.add(BENCHMARK_JOB)
        for name in backbones:
            if not (folder.assets / "backbones" / name).exists():
                jobs.append(Job(name, BASE_TRAINING_SECONDS[name], kind="backbone"))
                made.add(name)
    for name in backbones:
        if needs_stage1(study, name) and not projector_file(study, folder, name).exists():
            after = frozenset({BENCHMARK_JOB, name} & made)
            jobs.append(_job(projector_job(name), sizing.of_projector(name), after, kind="projector"))
            made.add(projector_job(name))
    for trial in waiting:
        after = frozenset({BENCHMARK_JOB, trial.backbone, projector_job(trial.backbone)} & made)
        jobs.append(_job(trial.trial_id, sizing.of_trial(trial), after))
    return jobs


def projector_job(backbone: str | None) -> str:
    return f"{PROJECTOR_JOB}{backbone}"


def backbone_of_projector(job_id: str) -> str:
    """The backbone whose projector a job trains: the inverse of `projector_job`."""
    return job_id.removeprefix(PROJECTOR_JOB)


def projector_file(study: Study, folder: StudyFolder, backbone: str) -> Path:
    """Where stage 1 leaves a backbone's projector; the name says what it was trained with."""
    return folder.assets / "projectors" / f"{projector_id(study, backbone)}.safetensors"


def projector_run(study: Study, folder: StudyFolder, backbone: str) -> Path:
    """Where the training job of a backbone's projector keeps its checkpoints."""
    return projector_file(study, folder, backbone).with_suffix("")


def trial_job(
    study: Study,
    sweep_file: Path,
    folder: StudyFolder,
    trial: Trial,
    *,
    num_slots: float | None = None,
    cluster: Sequence[NodeType] | None = None,
) -> Job:
    """One further trial as a job for the machines of `make_plan`; what it needs first must be in place."""
    sizing = _Sizing(Estimator(study, sweep_file, folder), _Machines(study, num_slots, cluster), [trial], share=1.0)
    return _job(trial.trial_id, sizing.of_trial(trial), frozenset())


def started_workers(run: Path) -> int | None:
    """How many workers the checkpoints in a job's folder were made by; None where there are none."""
    note = run / WORKERS_NOTE
    if not note.exists() or not any(run.glob("checkpoint_*")):
        return None
    return int(json.loads(note.read_text())["workers"])


def _job(job_id: str, choices: tuple[Choice, ...], after: frozenset[str], kind: str = "trial") -> Job:
    first = min(choices, key=lambda c: c.seconds)
    return Job(job_id, first.seconds, first.slots, after, kind, choices if first.kind else ())


def _fits(job: Job, nodes: Sequence[Node]) -> bool:
    return any(sum(n.slots for n in nodes if c.kind in (None, n.kind)) >= c.slots for c in job.options)


def find_problems(study: Study, sweep_file: Path, folder: StudyFolder) -> list[str]:
    """What would stop the study, found without a GPU: missing paths, data sets smaller than n, unknown benchmarks."""
    problems = []

    def need(key: str, path: str) -> None:
        if study.synthetic and path.startswith(STUDY_PREFIX):
            return  # made by the study itself
        if not (resolved := folder.resolve(path, sweep_file)).exists():
            problems.append(f"{sweep_file}: {key}: {resolved} does not exist; correct the path or put it there")

    if not study.trains_video_vlm:
        problems.append(
            f"{sweep_file}: the built-in model has the factors {', '.join(FACTORS)} and no others; this study can be "
            "planned here and its records analysed, but its trials must be run elsewhere"
        )
    for name, backbone in study.backbones.items():
        need(f"backbones.{name}.lm", backbone.lm)
        need(f"backbones.{name}.vision", backbone.vision)
        if backbone.projector:
            need(f"backbones.{name}.projector", backbone.projector)
        if study.synthetic and name not in BASE_TRAINING_SECONDS and backbone.lm.startswith(STUDY_PREFIX):
            known = ", ".join(BASE_TRAINING_SECONDS)
            problems.append(f"{sweep_file}: backbones.{name}: a synthetic study makes the backbones {known} only")
    for name, source in study.data.sources.items():
        need(f"data.sources.{name}.path", source.path)
        need(f"data.sources.{name}.video_root", source.video_root)
    if study.stage1:
        need("stage1.path", study.stage1.path)
        need("stage1.image_root", study.stage1.image_root)
    for name, task in study.evaluation.local.items():
        need(f"evaluation.local.{name}.questions", task.questions)
        need(f"evaluation.local.{name}.video_root", task.video_root)
    for task in study.evaluation.tasks:
        if task not in QUESTIONS and task not in study.evaluation.local:
            problems.append(
                f"{sweep_file}: evaluation.tasks: {task!r} is none of {', '.join(QUESTIONS)} and not in "
                "evaluation.local; correct it or describe it there"
            )
    if study.refinement and study.refinement.score not in {"avg", *study.evaluation.tasks}:
        problems.append(
            f"{sweep_file}: refinement.score: {study.refinement.score!r} is neither avg nor one of evaluation.tasks"
        )
    sizes = [s.num_examples for s in study.data.sources.values()]
    if study.synthetic:
        sizes = [study.synthetic.num_train]
    if sizes and all(sizes) and sum(sizes) < study.max_num_examples:
        problems.append(
            f"{sweep_file}: the sweeps need {study.max_num_examples:,} examples and data.sources hold {sum(sizes):,}; "
            "lower num_examples or add data"
        )
    return problems


def _notes(study: Study, machines: _Machines, measured: float | None) -> list[str]:
    notes = []
    if measured:
        slot = "GPU" if machines.uses_gpus else "CPU"
        notes.append(f"times follow the {measured / 1e12:.3g} TFLOP/s per {slot} measured on this study's trials")
    elif machines.uses_gpus and not study.planning.tflops_per_slot:
        names = ", ".join(f"{g.name} ({g.peak_tflops:g} TFLOP/s)" for g in machines.gpus.values())
        notes.append(f"times assume {study.planning.utilisation:.0%} utilisation of {names}")
    if study.stage1 is None and (bare := [name for name, b in study.backbones.items() if not b.projector]):
        notes.append(f"no projector and no stage1 for {', '.join(bare)}: their projectors start untrained")
    return notes


def plan_table(study: Study, plan: Plan) -> list[dict[str, Any]]:
    """One row per trial, with plain counts: x, n, c(x) in its parts, training FLOPs, GPUs, memory, hours, money."""
    estimator = plan.estimator
    placed = {s.job.job_id: s.placement.choice for s in plan.schedule}
    uses_gpus = study.resources.gpus_per_worker > 0
    rows = []
    for t in plan.trials:
        vision, language = estimator.parts(t)
        choice = placed.get(t.trial_id) or plan.choices[t.trial_id][0]
        gpu = plan.gpus.get(choice.kind) or next(iter(plan.gpus.values()), None)
        hours = choice.seconds * choice.slots / 3600
        memory = estimator.memory(t, max(1, int(choice.slots))) if t.backbone and uses_gpus else None
        rows.append(
            {
                "trial_id": t.trial_id,
                "sweep": t.sweep,
                **{name: None for name in FACTORS},
                **t.factors,
                "num_examples": t.num_examples,
                "inference_flops": t.inference_flops,
                "vision_flops": vision,
                "lm_flops": language,
                "training_flops": estimator.training_flops(t),
                "text_flops": estimator.text_flops(t),
                "visual_tokens": estimator.visual_tokens(t),
                "gpus": choice.slots if uses_gpus else 0,
                "gpu_type": gpu.name if gpu else None,
                "min_gpus": plan.min_gpus.get(t.trial_id),
                "memory_gb": round(memory / 1e9, 2) if memory else None,
                "gpu_hours": hours,
                "seconds": choice.seconds,
                "money": hours * gpu.price_per_hour if gpu and gpu.price_per_hour is not None else None,
                "checkpoint_bytes": estimator.checkpoint_bytes(t),
                "finished": t.trial_id in plan.finished,
            }
        )
    return rows


def plan_totals(study: Study, plan: Plan, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums over all trials and projectors, and the schedule of what is left to run."""
    estimator = plan.estimator
    projectors = [s for s in plan.schedule if s.job.kind == "projector"]
    stage1_hours = sum(s.placement.choice.slots * s.placement.choice.seconds for s in projectors) / 3600
    busy = sum((s.end - s.start) * sum(s.placement.nodes.values()) for s in plan.schedule)
    prices = [r["money"] for r in rows]
    money = sum(prices) + _stage1_money(plan, projectors) if rows and None not in prices else None
    return {
        "trials": len(rows),
        "finished": len(plan.finished),
        "training_flops": sum(r["training_flops"] for r in rows),
        "text_flops": sum(r["text_flops"] for r in rows),
        "stage1_flops": sum(estimator.stage1_flops(backbone_of_projector(s.job.job_id)) for s in projectors),
        "visual_tokens": sum(r["visual_tokens"] for r in rows),
        "gpu_hours": sum(r["gpu_hours"] for r in rows) + stage1_hours,
        "stage1_gpu_hours": stage1_hours,
        "money": money,
        "checkpoint_bytes": sum(r["checkpoint_bytes"] for r in rows),
        "data_bytes": estimator.data_bytes,
        "slots": plan.num_slots,
        "makespan_seconds": plan.makespan_seconds,
        "lower_bound_seconds": plan.lower_bound_seconds,
        "schedule_utilisation": busy / (plan.num_slots * plan.makespan_seconds) if plan.makespan_seconds else None,
        "measured_flops_per_slot": estimator.measured_flops,
    }


def _stage1_money(plan: Plan, projectors: list[Start]) -> float:
    total = 0.0
    for s in projectors:
        gpu = plan.gpus.get(s.placement.choice.kind) or next(iter(plan.gpus.values()))
        total += s.placement.choice.slots * s.placement.choice.seconds / 3600 * (gpu.price_per_hour or 0.0)
    return total
