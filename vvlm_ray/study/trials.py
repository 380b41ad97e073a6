"""Trials and their identity: a trial's id is a hash of what it means, not of how it is run.

Two trials with the same backbone, data, factors, data size, finetuning settings, benchmarks and seed are one
trial: a resumed or extended study never repeats it. Changing a learning rate makes another trial; changing
workers, storage or W&B settings does not.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from vvlm_ray.study.config import FACTORS, Study
from vvlm_ray.study.identity import identity
from vvlm_ray.study.points import Point, cost_function, distinct_points, plain_number

MEANING_VERSION = 2  # raised when code changes what the same settings compute, so that old records are not reused
_PARTS = {"lm", "vision", "chat_template", "system", "pad_token"}  # of a backbone, besides its projector


@dataclass(frozen=True)
class Trial:
    """One finetuning run: x = (lm_params, num_frames, tokens_per_frame), n = num_examples, c = inference_flops.

    A study with factors of its own has them in `other_factors`, and None where it lacks one of the three.
    """

    trial_id: str
    sweep: str
    backbone: str | None
    lm_params: int | None
    num_frames: int | None
    tokens_per_frame: int | None
    num_examples: int
    inference_flops: float
    seed: int
    target_flops: float | None = None
    other_factors: dict[str, float] = field(default_factory=dict)

    @property
    def factors(self) -> dict[str, float]:
        """x: the factors by name."""
        mine = {name: getattr(self, name) for name in FACTORS}
        return {name: value for name, value in mine.items() if value is not None} | self.other_factors

    @property
    def label(self) -> str:
        short = {"num_frames": "T", "tokens_per_frame": "V"}
        parts = [self.backbone] if self.backbone else []
        for name, value in self.factors.items():
            if not (self.backbone and name == "lm_params"):
                parts.append(f"{short.get(name, name)}={value:g}")
        return " ".join([*parts, f"n={self.num_examples:,}"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with x under `factors`; `from_dict` restores it."""
        row = asdict(self)
        for name in (*FACTORS, "other_factors"):
            del row[name]
        return row | {"factors": self.factors}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Trial":
        """The trial that `to_dict` wrote; other keys, as a record has them, are passed over."""
        x = dict(row["factors"])
        mine = {name: x.pop(name, None) for name in FACTORS}
        known = {f.name for f in fields(cls)} - {*FACTORS, "other_factors"}
        return cls(**{name: row[name] for name in known if name in row}, **mine, other_factors=x)


def expand(study: Study) -> list[Trial]:
    """Every distinct trial of a study, in the order of its sweeps."""
    return make_trials(study, distinct_points(study))


def make_trials(study: Study, points: list[Point]) -> list[Trial]:
    """The trials that these points are in this study, with their ids and costs."""
    if not points:
        return []
    names = list(points[0].factors)
    costs = cost_function(study)(**{name: np.array([p.factors[name] for p in points], float) for name in names})
    meanings = _Meanings(study)
    return [_trial(study, point, float(cost), meanings) for point, cost in zip(points, costs, strict=True)]


def _trial(study: Study, point: Point, cost: float, meanings: "_Meanings") -> Trial:
    x = {name: plain_number(value) for name, value in point.factors.items()}
    backbone = study.backbone_of(point.factors["lm_params"]) if study.backbones and "lm_params" in x else None
    return Trial(
        trial_id=identity(_meaning(meanings.of(backbone), x, point.num_examples)),
        sweep=point.sweep,
        backbone=backbone,
        num_examples=point.num_examples,
        inference_flops=cost,
        seed=study.seed,
        target_flops=point.target_flops,
        **{name: x.get(name) for name in FACTORS},
        other_factors={name: value for name, value in x.items() if name not in FACTORS},
    )


def meaning_of(study: Study, trial: Trial) -> dict[str, Any]:
    """All that a trial means, which its id is the hash of; it goes into the trial's record."""
    return _meaning(_Meanings(study).of(trial.backbone), trial.factors, trial.num_examples)


def _meaning(of_backbone: dict[str, Any], x: dict[str, float], num_examples: int) -> dict[str, Any]:
    return of_backbone | {"factors": x, "num_examples": num_examples}


class _Meanings:
    """What the trials of one backbone mean apart from x and n; worked out once per backbone."""

    def __init__(self, study: Study):
        self.study = study
        self.by_backbone: dict[str | None, dict[str, Any]] = {}

    def of(self, backbone: str | None) -> dict[str, Any]:
        if backbone not in self.by_backbone:
            self.by_backbone[backbone] = self._meaning(backbone)
        return self.by_backbone[backbone]

    def _meaning(self, backbone: str | None) -> dict[str, Any]:
        """Keys that are added later must be left out at their default, or every old record would be orphaned."""
        study = self.study
        meaning = {
            "version": MEANING_VERSION,
            "data": {
                name: _content(study, f"data.sources.{name}", {"path": source.path, "video_root": None})
                for name, source in study.data.sources.items()
            },
            "synthetic": study.synthetic.model_dump() if study.synthetic else None,
            "finetune": study.recipe_of(backbone).model_dump(),
            "evaluation": study.evaluation.meaning
            | {
                "local": {
                    name: _content(study, f"evaluation.local.{name}", task.meaning)
                    for name, task in study.evaluation.local.items()
                }
            },
            "seed": study.seed,
        }
        if study.data.frame_store and study.data.frame_store.jpeg_quality != "raw":  # raw frames are the decoded ones
            meaning["jpeg_quality"] = study.data.frame_store.jpeg_quality
        if backbone:
            spec = study.backbones[backbone]
            paths = spec.model_dump(include={*_PARTS, "projector"}, exclude_none=True)
            meaning["backbone"] = _content(study, f"backbones.{backbone}", paths)
            if needs_stage1(study, backbone):
                meaning["stage1"] = _stage1_meaning(study)
        return meaning


def _content(study: Study, key: str, paths: dict[str, Any]) -> dict[str, Any]:
    """What the files below a key hold, else where they lie; a part of which neither is known is left out."""
    content = {part: study.fingerprints.get(f"{key}.{part}", path) for part, path in paths.items()}
    return {part: value for part, value in content.items() if value is not None}


def _stage1_meaning(study: Study) -> dict[str, Any]:
    settings = study.stage1.model_dump(exclude={"path", "image_root"})
    return settings | _content(study, "stage1", {"path": study.stage1.path, "image_root": None})


def needs_stage1(study: Study, backbone: str) -> bool:
    """Whether the study trains this backbone's projector itself."""
    return study.stage1 is not None and study.backbones[backbone].projector is None


def projector_id(study: Study, backbone: str) -> str:
    """The identity of a projector of stage 1: backbone, images, settings, seed. Its file bears this name."""
    spec = study.backbones[backbone]
    meaning = {
        "version": MEANING_VERSION,
        "backbone": _content(study, f"backbones.{backbone}", spec.model_dump(include=_PARTS, exclude_none=True)),
        "stage1": _stage1_meaning(study),
        "seed": study.seed,
    }
    return f"{backbone}-{identity(meaning)}"
