"""Points that were added to a study after it began (by refinement), and all its trials, these among them."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from vvlm_ray.errors import UserError
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder, write_json
from vvlm_ray.study.points import Point
from vvlm_ray.study.trials import Trial, expand, make_trials


def all_trials(study: Study, folder: StudyFolder) -> list[Trial]:
    """The trials of the sweep file, then those that refinement has added."""
    trials = expand(study)
    known = {t.trial_id for t in trials}
    return trials + [t for t in make_trials(study, read_added(folder)) if t.trial_id not in known]


def read_added(folder: StudyFolder) -> list[Point]:
    """The points that refinement has added to a study.

    Raises:
        UserError: the file is there but is not a list of points.
    """
    path = folder.root / "refinement.json"
    if not path.exists():
        return []
    try:
        return [Point(**row) for row in json.loads(path.read_text())]
    except (json.JSONDecodeError, TypeError) as err:
        raise UserError(f"{path}: not a list of points ({err}); remove it to propose them anew") from err


def add_points(folder: StudyFolder, points: Sequence[Point]) -> None:
    """Keep further points, so that a resumed study goes on with them."""
    write_json(folder.root / "refinement.json", [asdict(p) for p in (*read_added(folder), *points)])
