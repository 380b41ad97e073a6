"""A study's folder, `<storage>/<name>/`: where everything that a study is and has found is kept.

sweep.yaml                  the sweep file as run
identity                    eight letters that tell this folder from others of the same study
ledger.jsonl                one line for everything that happened to a job; lock.json: who runs the study
assets/                     what the study made for itself (synthetic benchmark, backbones, projectors)
trials/<trial_id>/          record.json (or failed.json), logs/, checkpoints while it runs
data/                       tables of the sources' rows, and digests of files
frames/                     the frame store, where data.frame_store asks for one
fingerprints.json           what data, weights and questions were when the study last ran
records.csv, records.parquet   the records collected
fits/, report/              what was computed and drawn from them
"""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vvlm_ray.errors import UserError
from vvlm_ray.study import hub
from vvlm_ray.study.config import STUDY_PREFIX, Study
from vvlm_ray.study.storage import create, local_copy, open_storage, write_atomically
from vvlm_ray.study.sweep_file import load_sweep

__all__ = ["StudyFolder", "open_study", "write_atomically", "write_json"]


@dataclass(frozen=True)
class StudyFolder:
    """The paths below one study's root."""

    root: Path

    @property
    def sweep_file(self) -> Path:
        return self.root / "sweep.yaml"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def assets(self) -> Path:
        return self.root / "assets"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def wandb(self) -> Path:
        return self.root / "wandb"

    @property
    def fits(self) -> Path:
        return self.root / "fits"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def identity(self) -> str:
        """Eight letters that tell this folder from others of the same study, kept in it; made when first asked for."""
        path = self.root / "identity"
        create(path, uuid.uuid4().hex[:8])
        return path.read_text().strip()

    def trial(self, trial_id: str) -> Path:
        return self.trials / trial_id

    def record(self, trial_id: str) -> Path:
        """Of a finished trial: written once."""
        return self.trial(trial_id) / "record.json"

    def partial(self, trial_id: str) -> Path:
        """The record of a trial that has only some of its scores; of no account once there is a finished one."""
        return self.trial(trial_id) / "partial.json"

    def answered(self, trial_id: str) -> Path:
        """Says that a trial has all its answers, and what its workers know of it."""
        return self.trial(trial_id) / "answered.json"

    def failure(self, trial_id: str) -> Path:
        """The record of a trial that was given up; of no account once there is a finished one."""
        return self.trial(trial_id) / "failed.json"

    def resolve(self, path: str, sweep_file: Path) -> Path:
        """A path of the sweep file: `${study}/...` lies below this folder, `hub://...` in the hub's cache.

        A relative one lies beside the sweep file.
        """
        if path.startswith(hub.PREFIX):
            return hub.hub_path(path)
        if path.startswith(STUDY_PREFIX):
            return local_copy(self.root / path.removeprefix(STUDY_PREFIX).lstrip("/"))
        return (sweep_file.parent / Path(path).expanduser()).resolve()

    def adopt(self, sweep_file: Path) -> Study:
        """Check that this folder belongs to the sweep file's study, keep a copy of the file, and return the study.

        An extended or edited sweep of the same name may go on in the folder (trials are told apart by their ids);
        the previous file is kept beside it as sweep.previous.yaml.

        Raises:
            UserError: the sweep file is wrong, or the folder holds another study or assets of other settings.
        """
        study = load_sweep(sweep_file)
        if self.sweep_file.exists():
            existing = load_sweep(self.sweep_file)
            if existing.name != study.name:
                raise UserError(
                    f"{self.root} holds the study {existing.name!r}, not {study.name!r} of {sweep_file}; "
                    "choose another --storage or name. Nothing was changed."
                )
            if existing.synthetic != study.synthetic and self.assets.exists():
                raise UserError(
                    f"{self.assets} was made with other `synthetic` settings than those of {sweep_file}; remove it to "
                    "have it made anew (records stay), or give the study another name. Nothing was changed."
                )
            if existing != study:
                write_atomically(self.root / "sweep.previous.yaml", self.sweep_file.read_bytes())
        elif self.trials.exists():
            raise UserError(
                f"{self.root} has trials but no sweep.yaml, so it is not clear whose they are; move it away"
            )
        if sweep_file.resolve() != self.sweep_file.resolve():
            write_atomically(self.sweep_file, sweep_file.read_text())
        return study


def open_study(path: str | Path) -> tuple[StudyFolder, Study]:
    """An existing study folder and its study, with the fingerprints of what it was last run on.

    Raises:
        UserError: the folder is not one of a study.
    """
    folder = StudyFolder(open_storage(path))
    if not folder.sweep_file.exists():
        raise UserError(f"{path}: not a study's folder (no sweep.yaml in it); `vvlm-ray run SWEEP.yaml` makes one")
    from vvlm_ray.study.fingerprints import kept_fingerprints

    return folder, load_sweep(folder.sweep_file).with_fingerprints(kept_fingerprints(folder))


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` of JSON; NaN is refused, since a number that is not one must not pass for a result."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
