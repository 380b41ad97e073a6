"""What `finetune` takes, made from the shared fixtures' files; also used in the processes of the distributed tests."""

from dataclasses import dataclass
from pathlib import Path

import torch

from vvlm_ray.data.dataset import Collator, VideoInstructionDataset
from vvlm_ray.data.examples import load_examples
from vvlm_ray.model.backbones import load_tokenizer
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.model.prompts import video_token_id
from vvlm_ray.model.video_vlm import VideoVLM
from vvlm_ray.study.sections import Data, Finetune, Resources, Stage1
from vvlm_ray.training.loop import finetune
from vvlm_ray.training.settings import FinetuneSettings

SETTINGS = {"batch_size": 16, "lr": 1e-2, "precision": "fp32"}
VISION_LR = 1e-3
STAGE1 = {"stage": Stage1, "path": "images.json", "image_root": "."}  # trains the projector alone


@dataclass(frozen=True)
class Workbench:
    """backbone: folder with vision/ and lm/; train_json: LLaVA JSON of 24 examples, beside its videos."""

    backbone: Path
    train_json: Path
    tokens_per_frame: int = 4

    def tokenizer(self):
        return load_tokenizer(self.backbone / "lm")

    def model(self, dtype=torch.float32):
        torch.manual_seed(0)  # the projector's
        return VideoVLM.from_backbones(
            self.backbone / "vision",
            self.backbone / "lm",
            tokens_per_frame=self.tokens_per_frame,
            video_token_id=video_token_id(self.tokenizer()),
            dtype=dtype,
        )

    def dataset(self, num_examples=24, num_frames=3):
        return VideoInstructionDataset(
            load_examples(self.train_json, self.train_json.parent)[:num_examples],
            tokenizer=self.tokenizer(),
            preprocessor=ImagePreprocessor.from_pretrained(self.backbone / "vision"),
            num_frames=num_frames,
            tokens_per_frame=self.tokens_per_frame,
        )

    def run(self, model=None, dataset=None, *, settings=None, **options):
        """(model, result, weights by name) of a run with `SETTINGS`, and `settings` over them."""
        model = model or self.model()
        result = finetune(
            model,
            self.dataset() if dataset is None else dataset,
            Collator(self.tokenizer().pad_token_id),
            settings_of(**SETTINGS | (settings or {})),
            **options,
        )
        return model, result, {name: p.detach().clone() for name, p in model.named_parameters()}


def settings_of(stage=Finetune, **flat):
    """Settings from the keys of all sections, each put where it belongs."""
    if stage is Finetune:
        flat = {"vision_lr": VISION_LR} | flat
    sections = {"recipe": stage, "resources": Resources, "data": Data}
    parts = {name: {k: flat.pop(k) for k in list(flat) if k in s.model_fields} for name, s in sections.items()}
    seed = flat.pop("seed", 0)
    assert not flat, flat
    return FinetuneSettings(**{name: sections[name](**part) for name, part in parts.items()}, seed=seed)


def same(left, right, **tolerance):
    """Assert that two sets of weights are equal: bit for bit, or within a tolerance."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        if tolerance:
            torch.testing.assert_close(right[name], value, **tolerance, msg=lambda m, name=name: f"{name}: {m}")
        else:
            assert torch.equal(right[name], value), name
