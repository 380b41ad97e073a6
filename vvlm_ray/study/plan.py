"""The plan of a study: every trial with its cost, the jobs it takes, and the problems that can be seen beforehand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vvlm_ray.scaling.cost import inference_flops_parts, training_flops
from vvlm_ray.study.config import STUDY_PREFIX, Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.records import is_finished
from vvlm_ray.study.schedule import Job, simulate
from vvlm_ray.study.trials import Trial, expand

BENCHMARK_JOB = "benchmark"
BASE_TRAINING_SECONDS = {"small": 30.0, "medium": 40.0, "large": 90.0}  # one CPU core
BENCHMARK_SECONDS = 20.0


@dataclass(frozen=True)
class Plan:
    """Trials in order, the jobs still to run, the simulated makespan, and problems (empty when it can start)."""

    trials: list[Trial]
    jobs: list[Job]
    finished: frozenset[str]
    num_slots: float
    makespan_seconds: float
    problems: list[str]


def trial_slots(study: Study) -> float:
    """Slots of one trial: its GPUs, or its CPUs where it uses no GPU."""
    r = study.resources
    return r.workers * (r.gpus_per_worker or r.cpus_per_worker)


def trial_training_flops(study: Study, trial: Trial) -> float:
    return float(training_flops(trial.inference_flops, trial.num_examples, study.finetune.epochs))


def trial_seconds(study: Study, trial: Trial) -> float:
    """Expected wall seconds: overhead + training FLOPs at the planned throughput."""
    throughput = study.planning.tflops_per_slot * 1e12 * trial_slots(study)
    return study.planning.overhead_seconds + trial_training_flops(study, trial) / throughput


def make_plan(study: Study, sweep_file: Path, folder: StudyFolder, num_slots: float) -> Plan:
    """Expand a study and find out what is left to run, how long it takes on `num_slots` slots, and what is wrong."""
    trials = expand(study)
    finished = frozenset(t.trial_id for t in trials if is_finished(folder, t.trial_id))
    problems = find_problems(study, sweep_file, folder)
    jobs = remaining_jobs(study, folder, trials, finished)
    if widest := max((j.slots for j in jobs), default=0):
        num_slots = max(num_slots, widest)
    makespan = max((s.end for s in simulate(jobs, num_slots)), default=0.0)
    return Plan(trials, jobs, finished, num_slots, makespan, problems)


def remaining_jobs(study: Study, folder: StudyFolder, trials: list[Trial], finished: frozenset[str]) -> list[Job]:
    """The jobs that are not done: what the study makes for itself, then the trials that wait for it."""
    waiting = [t for t in trials if t.trial_id not in finished]
    jobs, made = [], set()
    if study.synthetic and waiting:
        if not (folder.assets / "benchmark" / "settings.json").exists():
            jobs.append(Job(BENCHMARK_JOB, BENCHMARK_SECONDS, kind="benchmark"))
            made.add(BENCHMARK_JOB)
        for name in sorted({t.backbone for t in waiting}):
            if not (folder.assets / "backbones" / name).exists():
                jobs.append(Job(name, BASE_TRAINING_SECONDS[name], kind="backbone"))
                made.add(name)
    for trial in waiting:
        after = frozenset({BENCHMARK_JOB, trial.backbone} & made)
        jobs.append(Job(trial.trial_id, trial_seconds(study, trial), trial_slots(study), after))
    return jobs


def find_problems(study: Study, sweep_file: Path, folder: StudyFolder) -> list[str]:
    """What would stop the study, found without a GPU: missing paths, data sets smaller than n, unknown benchmarks."""
    problems = []

    def need(key: str, path: str) -> None:
        if study.synthetic and path.startswith(STUDY_PREFIX):
            return  # made by the study itself
        if not (resolved := folder.resolve(path, sweep_file)).exists():
            problems.append(f"{sweep_file}: {key}: {resolved} does not exist; correct the path or put it there")

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
    for name, task in study.evaluation.local.items():
        need(f"evaluation.local.{name}.questions", task.questions)
        need(f"evaluation.local.{name}.video_root", task.video_root)
    sizes = [s.num_examples for s in study.data.sources.values()]
    if study.synthetic:
        sizes = [study.synthetic.num_train]
    if all(sizes) and sum(sizes) < study.max_num_examples:
        problems.append(
            f"{sweep_file}: the sweeps need {study.max_num_examples:,} examples and data.sources hold {sum(sizes):,}; "
            "lower num_examples or add data"
        )
    return problems


def plan_table(study: Study, plan: Plan) -> list[dict[str, Any]]:
    """One row per trial, with plain counts: x, n, c(x) in its vision and LM parts, training FLOPs, slots, hours."""
    rows = []
    for t in plan.trials:
        vision, language = inference_flops_parts(
            t.lm_params, t.num_frames, t.tokens_per_frame, **study.cost.model_dump()
        )
        slots = trial_slots(study)
        gpus = study.resources.workers * study.resources.gpus_per_worker
        rows.append(
            {
                "trial_id": t.trial_id,
                "sweep": t.sweep,
                "lm_params": t.lm_params,
                "num_frames": t.num_frames,
                "tokens_per_frame": t.tokens_per_frame,
                "num_examples": t.num_examples,
                "inference_flops": t.inference_flops,
                "vision_flops": float(vision),
                "lm_flops": float(language),
                "training_flops": trial_training_flops(study, t),
                "gpus": gpus,
                "gpu_hours": trial_seconds(study, t) * (gpus or slots) / 3600,
                "finished": t.trial_id in plan.finished,
            }
        )
    return rows
