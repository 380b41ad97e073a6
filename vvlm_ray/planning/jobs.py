"""The names of a study's jobs, and where a job keeps what it makes."""

import json
from pathlib import Path

from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.trials import projector_id

BENCHMARK_JOB, PROJECTOR_JOB = "benchmark", "projector-"  # the latter before the name of a backbone
WORKERS_NOTE = "workers.json"  # in a job's folder: how many workers it was started with
BASE_TRAINING_SECONDS = {"small": 25.0, "medium": 38.0, "large": 80.0}  # one CPU core


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


def started_workers(run: Path) -> int | None:
    """How many workers the checkpoints in a job's folder were made by; None where there are none."""
    note = run / WORKERS_NOTE
    if not note.exists() or not any(run.glob("checkpoints/*/manifest.json")):
        return None
    return int(json.loads(note.read_text())["workers"])
