"""Fingerprints of what a study names: read from its files, as far as they are there."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from vvlm_ray.data.digests import Digests, NotHashed, sampled_videos
from vvlm_ray.data.rows import read_rows
from vvlm_ray.data.sources import STAGE1, Resolve, open_rows, rows_digest, source_key, table_path
from vvlm_ray.errors import UserError
from vvlm_ray.study.config import Study
from vvlm_ray.study.fingerprints import kept_fingerprints, keys_of_files
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sections import Source

QUICK_BYTES = 256e6  # what planning reads at most of files whose digests are not known yet


@dataclass
class Taken:
    """`digests` by key; `unread`: why others have none; `changed`: keys that had another when the study last ran."""

    digests: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What a user should know of it before trials run, as sentences."""
        notes = [
            f"{key} holds other content than when the study last ran: its trials are new ones" for key in self.changed
        ]
        if self.unread:
            notes.append(
                f"ids of trials are provisional until their files are there and read: {', '.join(self.unread)}"
            )
        return notes


def take_fingerprints(study: Study, folder: StudyFolder, resolve: Resolve, *, thorough: bool) -> Taken:
    """The digests of everything that the study names and that is there.

    Not `thorough`: nothing is written, and of files whose digests the study does not keep yet only QUICK_BYTES are
    read, so that planning stays quick. A key whose files are gone keeps the digest of the last run.
    """
    kept, taken = kept_fingerprints(folder), Taken()
    with tempfile.TemporaryDirectory(prefix="vvlm-ray-") as scratch:
        digests = Digests(folder.root / "data" / "digests.json", float("inf") if thorough else QUICK_BYTES)
        taker = _Taker(study, folder, folder if thorough else StudyFolder(Path(scratch)), resolve, digests)
        for key in keys_of_files(study):
            try:
                taken.digests[key] = taker.take(key, taken.digests)
            except NotHashed:
                taken.unread[key] = "not read yet; `vvlm-ray check` reads it once"
            except (OSError, UserError) as error:
                if key in kept:
                    taken.digests[key] = kept[key]
                else:
                    taken.unread[key] = str(error)
        if thorough:
            digests.save()
    taken.changed = [key for key in taken.digests if kept.get(key, taken.digests[key]) != taken.digests[key]]
    return taken


def fingerprinted(study: Study, sweep_file: Path, folder: StudyFolder, *, thorough: bool) -> tuple[Study, Taken]:
    """The study, knowing its fingerprints; ids of its trials depend on them."""
    taken = take_fingerprints(study, folder, lambda path: folder.resolve(path, sweep_file), thorough=thorough)
    return study.with_fingerprints(taken.digests), taken


@dataclass(frozen=True)
class _Taker:
    """`tables`: the folder in which tables of rows may be made, where the study has none."""

    study: Study
    folder: StudyFolder
    tables: StudyFolder
    resolve: Resolve
    digests: Digests

    def take(self, key: str, known: dict[str, str]) -> str:
        section, rest = key.split(".", 1)
        name, _, part = rest.rpartition(".")
        if section == "backbones":
            named = getattr(self.study.backbones[name], part)
            return self.digests.of_model(_model_folder(named, self.resolve(named)))
        if section == "evaluation":
            task = self.study.evaluation.local[name.removeprefix("local.")]
            questions = self.resolve(task.questions)
            if part == "questions":
                return self.digests.of(questions)
            return self.digests.of_videos(_videos_of_questions(questions, self.resolve(task.video_root)))
        name = STAGE1 if section == STAGE1 else name.removeprefix("sources.")
        stage1 = self.study.stage1
        source = stage1.source if stage1 and section == STAGE1 else self.study.data.sources[name]
        if part == "path":
            return rows_digest(source, self.resolve, self.digests)
        return self.digests.of_videos(self._videos_of_rows(name, source, known.get(f"{source_key(name)}.path")))

    def _videos_of_rows(self, name: str, source: Source, digest: str | None) -> list[Path]:
        root = self.resolve(source.video_root)
        if digest is None:
            raise UserError("its rows cannot be read")
        if not root.is_dir():
            raise UserError(f"{root} does not exist")
        has_table = table_path(self.folder, name, digest).exists()
        folder = self.folder if has_table else self.tables
        return sampled_videos(open_rows(name, source, folder, self.resolve, digest=digest))


def _model_folder(name: str, folder: Path) -> Path:
    """The folder, or, where it is a hub id, the snapshot in the hub's cache."""
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "~", "/")):
        return folder
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or no hub id
        raise UserError(f"{folder} does not exist, and {name} is not in the hub's cache") from None


def _videos_of_questions(questions: Path, root: Path) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"{root} does not exist")
    rows = [row for _, row in read_rows(questions) if isinstance(row, dict) and isinstance(row.get("video"), str)]
    names = sorted({row["video"] for row in rows if "\0" not in row["video"]})
    step = max(1, len(names) // 256)
    return [root / name for name in names[::step]]
