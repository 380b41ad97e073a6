"""What a finetuning run is told: sections of the sweep file, whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from vvlm_ray.study.sections import Data, Finetune, Recipe, Resources


@dataclass(frozen=True)
class FinetuneSettings:
    """How to train (`recipe`: stage 2, or stage 1), on what (`resources`), what data may lack, and the seed."""

    recipe: Recipe = field(default_factory=Finetune)
    resources: Resources = field(default_factory=Resources)
    data: Data = field(default_factory=Data)
    seed: int = 0
