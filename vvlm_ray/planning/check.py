"""What would stop a study, found before a GPU is taken."""

import re
from pathlib import Path

from vvlm_ray.planning.estimates import QUESTIONS
from vvlm_ray.planning.jobs import BASE_TRAINING_SECONDS
from vvlm_ray.study.config import FACTORS, STUDY_PREFIX, Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.problems import Problem

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?")


def find_problems(study: Study, sweep_file: Path, folder: StudyFolder) -> list[Problem]:
    """What would stop the study, found without a GPU: missing paths, data sets smaller than n, unknown benchmarks."""
    problems = []

    def add(key: str, what: str, remedy: str) -> None:
        problems.append(Problem(str(sweep_file), key, what, remedy))

    def need(key: str, path: str, or_hub_id: bool = False) -> None:
        if study.synthetic and path.startswith(STUDY_PREFIX):
            return  # made by the study itself
        is_hub_id = or_hub_id and _HUB_ID.fullmatch(path)
        if is_hub_id and not folder.resolve(path.split("/", maxsplit=1)[0], sweep_file).exists():
            return  # read through the hub's cache, which is looked into when the model is
        if not (resolved := folder.resolve(path, sweep_file)).exists():
            add(key, f"{resolved} does not exist", "correct the path or put it there")

    if not study.trains_video_vlm:
        add(
            "factors",
            f"the built-in model has the factors {', '.join(FACTORS)} and no others",
            "this study can be planned here and its records analysed, but its trials must be run elsewhere",
        )
    for name, backbone in study.backbones.items():
        need(f"backbones.{name}.lm", backbone.lm, or_hub_id=True)
        need(f"backbones.{name}.vision", backbone.vision, or_hub_id=True)
        if backbone.projector:
            need(f"backbones.{name}.projector", backbone.projector)
        if study.synthetic and name not in BASE_TRAINING_SECONDS and backbone.lm.startswith(STUDY_PREFIX):
            known = ", ".join(BASE_TRAINING_SECONDS)
            add(f"backbones.{name}", f"a synthetic study makes the backbones {known} only", "take one of them")
    for name, source in study.data.sources.items():
        for pattern in source.patterns:
            if not any(character in pattern for character in "*?["):  # what matches a glob is the reader's to say
                need(f"data.sources.{name}.path", pattern)
        need(f"data.sources.{name}.video_root", source.video_root)
    if study.stage1:
        need("stage1.path", study.stage1.path)
        need("stage1.image_root", study.stage1.image_root)
    for name, task in study.evaluation.local.items():
        need(f"evaluation.local.{name}.questions", task.questions)
        need(f"evaluation.local.{name}.video_root", task.video_root)
    for task in study.evaluation.tasks:
        if task not in {*QUESTIONS, *study.evaluation.local, *study.evaluation.lmms_eval}:
            add(
                "evaluation.tasks",
                f"{task!r} is none of {', '.join(QUESTIONS)} and in neither evaluation.local nor .lmms_eval",
                "correct it or describe it there",
            )
    if study.refinement and study.refinement.score not in {"avg", *study.evaluation.tasks}:
        add(
            "refinement.score",
            f"{study.refinement.score!r} is neither avg nor one of evaluation.tasks",
            "name one of them",
        )
    sizes = [s.num_examples for s in study.data.sources.values()]
    if study.synthetic:
        sizes = [study.synthetic.num_train]
    if sizes and all(sizes) and sum(sizes) < study.max_num_examples:
        add(
            "sweeps",
            f"the sweeps need {study.max_num_examples:,} examples and data.sources hold {sum(sizes):,}",
            "lower num_examples or add data",
        )
    return problems
