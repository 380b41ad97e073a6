"""A study held against reality before a GPU is taken: weights, rows, videos, benchmarks, keys, versions, storage.

Nothing is trained and no weight is read: models are built on the meta device, from their configurations and the
names and shapes in their files. What costs time (hashing files, tables of rows) is kept in the study's folder.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from vvlm_ray.data.examples import Example
from vvlm_ray.data.fingerprints import Taken, fingerprinted
from vvlm_ray.data.table import Rows
from vvlm_ray.errors import UserError
from vvlm_ray.orchestration.preflight_data import check_questions, check_source
from vvlm_ray.orchestration.preflight_models import check_backbone
from vvlm_ray.planning.plan import Plan, make_plan
from vvlm_ray.study.config import STUDY_PREFIX, Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.problems import Problem, problem_of
from vvlm_ray.study.storage import is_local
from vvlm_ray.study.sweep_file import load_sweep

Decode = Callable[[Sequence[Example]], list[str | None]]  # videos' examples -> what is wrong with each
CORRECT_IT = "correct it"


@dataclass
class Checked:
    """All that is wrong, and sentences about what was looked at; `study` knows its fingerprints."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    study: Study | None = None
    plan: Plan | None = None
    taken: Taken = field(default_factory=Taken)


def check_study(
    sweep_file: Path, storage: Path, *, decode_all: Decode | None = None, num_slots: float | None = None
) -> Checked:
    """Every problem that can be found without a GPU; `decode_all` decodes every video instead of a sample.

    `num_slots`: as in `make_plan`.
    """
    checked = Checked()
    try:
        study = load_sweep(sweep_file)
    except UserError as error:
        checked.problems.append(problem_of(sweep_file, "", str(error).removeprefix(f"{sweep_file}:"), CORRECT_IT))
        return checked
    folder = StudyFolder(storage / study.name)
    if problem := _storage_problem(folder):
        checked.problems.append(problem)
        return checked  # tables of rows could not be kept
    study, checked.taken = fingerprinted(study, sweep_file, folder, thorough=True)
    checked.notes += checked.taken.notes()
    checked.study = study
    try:
        checked.plan = make_plan(study, sweep_file, folder, num_slots)
    except UserError as error:
        checked.problems.append(problem_of(sweep_file, "sweeps", str(error), CORRECT_IT))
        return checked
    checked.problems += [_of_plan(sweep_file, line) for line in checked.plan.problems]
    _Check(study, sweep_file, folder, checked, decode_all).run()
    return checked


def _of_plan(sweep_file: Path, line: str) -> Problem:
    """A line of the plan, "file: key: what is wrong; remedy", as a problem."""
    text = line.removeprefix(f"{sweep_file}: ")
    key, found, rest = text.partition(": ")
    is_key = bool(found) and " " not in key
    return problem_of(sweep_file, key if is_key else "", rest if is_key else text, CORRECT_IT)


def _storage_problem(folder: StudyFolder) -> Problem | None:
    there = folder.root
    try:
        if is_local(folder.root):  # nothing is made before something is kept
            there = next(path for path in (there.absolute(), *there.absolute().parents) if path.exists())
        probe = there / f".vvlm-ray-{uuid.uuid4().hex}"
        probe.write_text("x")
        probe.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Problem(str(folder.root), "--storage", f"cannot be written ({reason})", "choose another --storage")
    return None


@dataclass
class _Check:
    study: Study
    sweep_file: Path
    folder: StudyFolder
    checked: Checked
    decode_all: Decode | None

    def run(self) -> None:
        self._versions()
        self._tracking()
        sources = self._sources()
        if self.study.trains_video_vlm:
            for name in self.study.backbones:
                self._backbone(name, sources)
        self._evaluation()

    def add(self, key: str, message: str, remedy: str = CORRECT_IT) -> None:
        problem = problem_of(self.sweep_file, key, message, remedy)
        is_missing = any(known.key == key and "does not exist" in known.what for known in self.checked.problems)
        if problem not in self.checked.problems and not is_missing:
            self.checked.problems.append(problem)

    def resolve(self, path: str) -> Path:
        return self.folder.resolve(path, self.sweep_file)

    def _versions(self) -> None:
        from packaging.requirements import Requirement

        for line in metadata.requires("vvlm-ray") or ():
            needed = Requirement(line)
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            try:
                found = metadata.version(needed.name)
            except metadata.PackageNotFoundError:
                found = None
            if found is None or not needed.specifier.contains(found, prereleases=True):
                have = f"{found} is installed" if found else "it is not installed"
                remedy = f"pip install '{needed.name}{needed.specifier}'"
                self.add("", f"this needs {needed.name}{needed.specifier}, and {have}; {remedy}")

    def _tracking(self) -> None:
        tracking = self.study.tracking
        has_login = any((Path.home() / name).is_file() for name in (".netrc", "_netrc"))
        if tracking.mode == "online" and not os.environ.get("WANDB_API_KEY") and not has_login:
            self.add("tracking.mode", "online, and there is no W&B key; set WANDB_API_KEY or run `wandb login`")

    def _sources(self) -> dict[str, Rows]:
        """The tables that could be opened, by key."""
        tables: dict[str, Rows] = {}
        for name, source in self.study.data.sources.items():
            if not source.patterns[0].startswith(STUDY_PREFIX):
                check_source(name, source, self, tables)
        available = sum(map(len, tables.values()))
        if len(tables) == len(self.study.data.sources) and available < self.study.max_num_examples:
            self.add(
                "sweeps",
                f"num_examples: the sweeps need {self.study.max_num_examples:,} examples and data.sources hold "
                f"{available:,} that can be used; lower num_examples or add data",
            )
        if self.study.stage1 and not self.study.stage1.path.startswith(STUDY_PREFIX):
            check_source("stage1", self.study.stage1.source, self, tables)
        return tables

    def _backbone(self, name: str, sources: dict[str, Rows]) -> None:
        backbone = self.study.backbones[name]
        if backbone.lm.startswith(STUDY_PREFIX):
            return
        plan = self.checked.plan
        trials = [trial for trial in plan.trials if trial.backbone == name] if plan else []
        check_backbone(name, self, trials, {key: rows for key, rows in sources.items() if key != "stage1"})

    def _evaluation(self) -> None:
        from vvlm_ray.evaluation.answers import data_problems
        from vvlm_ray.evaluation.judge_client import key_problem
        from vvlm_ray.evaluation.lmms import version_problem
        from vvlm_ray.evaluation.tasks import task_problems

        evaluation = self.study.evaluation
        names = list(dict.fromkeys(evaluation.tasks))
        for task in names:
            if evaluation.tasks.count(task) > 1:
                self.add("evaluation.tasks", f"{task} is named twice; name it once")
        known = [task for task in names if task not in evaluation.local]  # those are looked at below
        found = [version_problem(), key_problem(evaluation.judge) if evaluation.is_judged else None]
        if known:
            found += task_problems(
                evaluation.model_copy(update={"tasks": known}), lambda raw: self.folder.resolve(raw, self.sweep_file)
            )
        told = [message for message in dict.fromkeys(found) if message]
        for message in told:
            if not any(message != other and message in other for other in told):
                self.add("evaluation.tasks", message)
        if known and not told:  # annotations are fetched, and every question's video is looked for
            asked = evaluation.model_copy(update={"tasks": known})
            for message in data_problems(asked, lambda raw: self.folder.resolve(raw, self.sweep_file)):
                self.add("evaluation.tasks", message)
        for name, local in evaluation.local.items():
            if not local.questions.startswith(STUDY_PREFIX):
                check_questions(name, local, self)
