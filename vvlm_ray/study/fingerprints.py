"""What a study's data, weights and questions are, apart from where they lie: a digest for each key that names files.

Digests stand in a trial's meaning in place of paths, so that moved data repeat nothing and exchanged data make new
trials. Where files are not there yet (a study may be planned before its data exist) the path stands in for them, and
ids are provisional. What the study makes for itself (`${study}/...`) has no digest: its settings are its meaning.
"""

import json
from typing import TYPE_CHECKING

from vvlm_ray.errors import UserError
from vvlm_ray.study.folder import StudyFolder, write_json

if TYPE_CHECKING:
    from vvlm_ray.study.config import Study

PARTS_OF_BACKBONES = ("lm", "vision", "projector", "chat_template")  # those that are files


def keys_of_files(study: "Study") -> list[str]:
    """The keys of the sweep file whose files have a fingerprint, in the file's order."""
    named: dict[str, str] = {}
    for name, backbone in study.backbones.items():
        parts = {part: getattr(backbone, part, None) for part in PARTS_OF_BACKBONES}
        named |= {f"backbones.{name}.{part}": path for part, path in parts.items() if path}
    for name, source in study.data.sources.items():
        named |= {f"data.sources.{name}.path": source.patterns[0], f"data.sources.{name}.video_root": source.video_root}
    if study.stage1:
        named |= {"stage1.path": study.stage1.path, "stage1.image_root": study.stage1.image_root}
    for name, task in study.evaluation.local.items():
        named |= {
            f"evaluation.local.{name}.questions": task.questions,
            f"evaluation.local.{name}.video_root": task.video_root,
        }
    from vvlm_ray.study.config import STUDY_PREFIX

    return [key for key, path in named.items() if not path.startswith(STUDY_PREFIX)]


def unknown_fingerprints(study: "Study") -> list[str]:
    """Keys whose files were not read: ids of trials are provisional while there are any."""
    return [key for key in keys_of_files(study) if key not in study.fingerprints]


def kept_fingerprints(folder: StudyFolder) -> dict[str, str]:
    """The digests of the study's last run; empty before the first.

    Raises:
        UserError: the file is there but holds no digests.
    """
    path = folder.root / "fingerprints.json"
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it to have it made anew") from None
    if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
        raise UserError(f"{path}: holds no fingerprints; remove it to have it made anew")
    return kept


def keep_fingerprints(folder: StudyFolder, fingerprints: dict[str, str]) -> None:
    write_json(folder.root / "fingerprints.json", fingerprints)
