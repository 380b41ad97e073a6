"""Trials and their identity: a trial's id is a hash of what it means, not of how it is run.

Two trials with the same backbone, data, factors, data size, finetuning settings, benchmarks and seed are one
trial: a resumed or extended study never repeats it. Changing a learning rate makes another trial; changing
workers, storage or W&B settings does not.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from vvlm_ray.scaling.cost import inference_flops
from vvlm_ray.study.config import Study
from vvlm_ray.study.designs import distinct_points

MEANING_VERSION = 1  # raised when code changes what the same settings compute, so that old records are not reused


@dataclass(frozen=True)
class Trial:
    """One finetuning run: x = (lm_params, num_frames, tokens_per_frame), n = num_examples, c = inference_flops."""

    trial_id: str
    sweep: str
    backbone: str
    lm_params: int
    num_frames: int
    tokens_per_frame: int
    num_examples: int
    inference_flops: float
    seed: int
    target_flops: float | None = None

    @property
    def label(self) -> str:
        return f"{self.backbone} T={self.num_frames} V={self.tokens_per_frame} n={self.num_examples:,}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def expand(study: Study) -> list[Trial]:
    """Every distinct trial of a study, in the order of its sweeps."""
    trials = []
    for point in distinct_points(study):
        x = {k: int(v) for k, v in point.factors.items()}
        backbone = study.backbone_of(point.factors["lm_params"])
        trials.append(
            Trial(
                trial_id=_identity(study, backbone, x, point.num_examples),
                sweep=point.sweep,
                backbone=backbone,
                num_examples=point.num_examples,
                inference_flops=float(inference_flops(**x, **study.cost.model_dump())),
                seed=study.seed,
                target_flops=point.target_flops,
                **x,
            )
        )
    return trials


def _identity(study: Study, backbone: str, x: dict[str, int], num_examples: int) -> str:
    """The first 12 hex digits of the SHA-256 of the canonical JSON of what the trial means."""
    spec = study.backbones[backbone]
    finetune = study.finetune.model_dump()
    finetune["lr"] = spec.lr or finetune["lr"]
    finetune["vision_lr"] = spec.vision_lr or finetune["vision_lr"]
    meaning = {
        "version": MEANING_VERSION,
        "backbone": spec.model_dump(include={"lm", "vision", "projector"}),
        "factors": x,
        "num_examples": num_examples,
        "data": {name: s.model_dump(include={"path"}) for name, s in study.data.sources.items()},
        "synthetic": study.synthetic.model_dump() if study.synthetic else None,
        "finetune": finetune,
        "evaluation": study.evaluation.model_dump(include={"tasks", "limit", "judge"}),
        "seed": study.seed,
    }
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
