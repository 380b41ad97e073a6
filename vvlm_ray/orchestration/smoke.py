"""The whole chain of a study in small: 4 examples, 2 steps and 5 questions for each backbone, thrown away at the end.

What it finds is what only running finds: memory, drivers, the cluster's machines, the judge's answers.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from vvlm_ray.errors import UserError
from vvlm_ray.orchestration.run import Ended, run_study
from vvlm_ray.study.config import STUDY_PREFIX, Study
from vvlm_ray.study.fingerprints import PARTS_OF_BACKBONES
from vvlm_ray.study.folder import StudyFolder, write_atomically
from vvlm_ray.study.storage import is_local, open_storage
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

NUM_EXAMPLES, BATCH_SIZE, NUM_QUESTIONS = 4, 2, 5


def smoke(sweep_file: Path, storage: Path, *, address: str | None = None, num_slots: float | None = None) -> Ended:
    """Run every backbone's largest configuration in small, in a folder of its own that is removed afterwards.

    Tables of rows and digests are those of the study itself, so they are worked out once.
    Raises UserError as `run_study`, and for a study that the built-in model cannot run.
    """
    study, storage = load_sweep(sweep_file), open_storage(storage)
    if not study.trains_video_vlm:
        raise UserError(f"{sweep_file}: its trials are not run here, so there is nothing to try out")
    folder = StudyFolder(storage / study.name)
    scratch = storage / f".smoke-{uuid.uuid4().hex[:8]}"
    content = smoke_study(study, folder, sweep_file)
    try:
        path = scratch / "smoke.yaml"
        write_atomically(path, json.dumps(content, indent=2))  # JSON is YAML
        if is_local(scratch):
            (folder.root / "data").mkdir(parents=True, exist_ok=True)
            (scratch / content["name"]).mkdir()
            (scratch / content["name"] / "data").symlink_to((folder.root / "data").absolute())
        return run_study(path, scratch, address=address, num_slots=num_slots)
    finally:
        if is_local(scratch):
            shutil.rmtree(scratch, ignore_errors=True)
        elif scratch.exists():
            scratch.fs.rm(scratch.path, recursive=True)  # type: ignore[attr-defined]


def smoke_study(study: Study, folder: StudyFolder, sweep_file: Path) -> dict[str, Any]:
    """The sweep file of the study in small, with absolute paths."""
    content = study.model_dump(mode="json", exclude_unset=True)
    _make_absolute(content, folder, sweep_file)
    points = []
    for name in study.backbones:
        mine = [trial for trial in expand(study) if trial.backbone == name]
        if mine:
            x = max(mine, key=lambda trial: trial.inference_flops).factors
            points.append([*(x[factor] for factor in study.factors), NUM_EXAMPLES])
    content["sweeps"] = [{"kind": "points", "name": "smoke", "points": points}]
    content["name"] = "smoke"
    content.setdefault("finetune", {}).update(batch_size=BATCH_SIZE, epochs=1)
    content.setdefault("evaluation", {}).update(limit=NUM_QUESTIONS)
    content.setdefault("resources", {}).update(max_retries=0)
    content["tracking"] = {"mode": "disabled"}
    content.setdefault("data", {})["max_unreadable_share"] = 0.5  # of four videos: the check judges the data
    if content.get("stage1"):
        content["stage1"].update(num_examples=NUM_EXAMPLES, batch_size=BATCH_SIZE, epochs=1)
    if content.get("synthetic"):
        content["synthetic"].update(num_train=8, num_test=8, base_training=0.01)
    for key in ("refinement", "answer", "grid"):
        content.pop(key, None)
    return content


def _make_absolute(content: dict[str, Any], folder: StudyFolder, sweep_file: Path) -> None:
    """Paths of the sweep file from anywhere; those of the study's own assets and hub ids stay as they are."""

    def absolute(section: dict[str, Any], *keys: str) -> None:
        for key in keys:
            value = section.get(key)
            if isinstance(value, list):
                section[key] = [str(folder.resolve(path, sweep_file)) for path in value]
            elif isinstance(value, str) and not value.startswith(STUDY_PREFIX):
                resolved = folder.resolve(value, sweep_file)
                if resolved.exists() or key == "path":
                    section[key] = str(resolved)

    for backbone in content.get("backbones", {}).values():
        absolute(backbone, *PARTS_OF_BACKBONES)
    for source in content.get("data", {}).get("sources", {}).values():
        absolute(source, "path", "video_root")
    for task in content.get("evaluation", {}).get("local", {}).values():
        absolute(task, "questions", "video_root")
    if content.get("stage1"):
        absolute(content["stage1"], "path", "image_root")
