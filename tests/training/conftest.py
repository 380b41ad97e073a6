"""What the tests of a finetuning run share: a dataset of real files for the tiny backbone, and short settings."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from vvlm_ray.data.dataset import Collator, VideoInstructionDataset
from vvlm_ray.data.examples import load_examples
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.training.settings import FinetuneSettings

SETTINGS = {"batch_size": 16, "lr": 1e-2, "vision_lr": 1e-3, "precision": "fp32"}


@dataclass(frozen=True)
class Workbench:
    """Everything `finetune` takes; also built in the processes of the distributed tests, hence no fixture inside."""

    backbone: object
    train_json: Path
    tokens_per_frame: int = 4

    def model(self, **options):
        return self.backbone.model(self.tokens_per_frame, **options)

    def dataset(self, num_examples=24, num_frames=3):
        examples = load_examples(self.train_json, self.train_json.parent)[:num_examples]
        return VideoInstructionDataset(
            examples,
            tokenizer=self.backbone.tokenizer(),
            preprocessor=ImagePreprocessor.from_pretrained(self.backbone.vision),
            num_frames=num_frames,
            tokens_per_frame=self.tokens_per_frame,
        )

    def run(self, model=None, dataset=None, *, settings=None, **options):
        """(model, result, weights by name) of a run with `SETTINGS` and `settings` over it."""
        from vvlm_ray.training.loop import finetune

        model = model or self.model()
        result = finetune(
            model, dataset or self.dataset(), Collator(0), FinetuneSettings(**SETTINGS | (settings or {})), **options
        )
        return model, result, {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture
def bench(tiny_backbone, tiny_llava_json):
    return Workbench(tiny_backbone, tiny_llava_json)
