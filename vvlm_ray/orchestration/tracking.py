"""W&B: one run per trial with a stable id, one group per study; offline where there is no key. A copy of the
results, never the only one.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.trials import Trial, meaning_of

Log = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def track(folder: StudyFolder, study: Study, trial: Trial, *, is_writer: bool) -> Iterator[Log]:
    """A W&B run around a trial on rank 0; elsewhere, and where tracking is disabled, the log goes nowhere."""
    mode = tracking_mode(study)
    if not is_writer or mode == "disabled":
        yield lambda values: None
        return
    import wandb

    folder.wandb.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=study.tracking.project,
        entity=study.tracking.entity,
        group=study.name,
        id=f"{study.name}-{trial.trial_id}",
        name=trial.label,
        job_type=trial.sweep,
        config=_config(study, trial),
        dir=str(folder.wandb),
        mode=mode,
        resume="allow" if mode == "online" else None,
        # Metrics only: nothing of the code, the console or the environment leaves the machine.
        settings=wandb.Settings(
            console="off", silent=True, disable_git=True, x_disable_meta=True, x_disable_stats=True
        ),
    )
    try:
        yield run.log
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def _config(study: Study, trial: Trial) -> dict[str, Any]:
    """What W&B shows of a trial: its factors as columns of their own, and all that it means."""
    row = trial.to_dict()
    return {**row.pop("factors"), **row, "meaning": meaning_of(study, trial)}


def tracking_mode(study: Study) -> str:
    """`auto` is online with a key (WANDB_API_KEY or a W&B login), offline without."""
    if study.tracking.mode != "auto":
        return study.tracking.mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    import wandb

    return "online" if wandb.api.api_key else "offline"
