"""The plan of a study: every trial with its cost, the jobs it takes, their schedule, and what is wrong beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vvlm_ray.planning.check import find_problems
from vvlm_ray.planning.estimates import Estimator, measure_throughput
from vvlm_ray.planning.gpus import Gpu, indistinct_types
from vvlm_ray.planning.jobs import BASE_TRAINING_SECONDS, BENCHMARK_JOB, projector_file, projector_job
from vvlm_ray.planning.order import Start, improve_order, lower_bound, simulate
from vvlm_ray.planning.queue import Choice, Job, Node
from vvlm_ray.planning.sizing import LONGEST_SHARES, Machines, Sizing, plain_estimator
from vvlm_ray.study.additions import all_trials
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import FINISHED, read_records
from vvlm_ray.study.sections import NodeType
from vvlm_ray.study.trials import Trial, needs_stage1

BENCHMARK_SECONDS = 8.0
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
    records = read_records(folder, [t.trial_id for t in trials])
    finished = frozenset(i for i, r in records.items() if isinstance(r, dict) and r["status"] == FINISHED)
    problems = [str(problem) for problem in find_problems(study, sweep_file, folder)]
    estimator = Estimator(study, sweep_file, folder)
    measured = measure_throughput(estimator, [t for t in trials if t.trial_id in finished])
    estimator = Estimator(study, sweep_file, folder, measured)
    machines = Machines(study, num_slots, cluster)
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
    study: Study, folder: StudyFolder, waiting: list[Trial], estimator: Estimator, machines: "Machines"
) -> tuple[list[Node], "Sizing", list[Job], list[Job]]:
    """Nodes, sizes, jobs, and the jobs among them that the nodes can hold, in the best order found."""
    r = study.resources
    is_free = machines.uses_gpus and r.workers == "auto" and not r.max_trial_hours
    best, least = None, float("inf")
    for share in LONGEST_SHARES if is_free else LONGEST_SHARES[:1]:
        sizing = Sizing(estimator, machines, waiting, share)
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


def remaining_jobs(
    study: Study, folder: StudyFolder, trials: list[Trial], finished: frozenset[str], sizing: Sizing | None = None
) -> list[Job]:
    """The jobs that are not done: what the study makes for itself, projectors, then the trials that wait for them."""
    waiting = [t for t in trials if t.trial_id not in finished]
    sizing = sizing or Sizing(plain_estimator(study), Machines(study, None, None), waiting)
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
    sizing = Sizing(Estimator(study, sweep_file, folder), Machines(study, num_slots, cluster), [trial], share=1.0)
    return _job(trial.trial_id, sizing.of_trial(trial), frozenset())


def _job(job_id: str, choices: tuple[Choice, ...], after: frozenset[str], kind: str = "trial") -> Job:
    first = min(choices, key=lambda c: c.seconds)
    return Job(job_id, first.seconds, first.slots, after, kind, choices if first.kind else ())


def _fits(job: Job, nodes: Sequence[Node]) -> bool:
    return any(sum(n.slots for n in nodes if c.kind in (None, n.kind)) >= c.slots for c in job.options)


def _notes(study: Study, machines: Machines, measured: float | None) -> list[str]:
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
