"""What `finetune` takes, made from the shared fixtures' files; also used in the processes of the distributed tests."""

from dataclasses import dataclass
from functools import lru_cache
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
from vvlm_ray.training.optimizer import scale_and_clip
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

    @lru_cache(maxsize=1)  # noqa: B019 (a handful of benches)
    def items(self):
        """The examples, decoded once."""
        dataset = self.dataset()
        return [dataset[index] for index in range(len(dataset))]

    def plain_gradients(self, loss, num_examples=24):
        """(loss, gradients by name) of one batch in float64: each example alone, then summed and divided."""
        model, total, terms = self.model(torch.float64).train(), 0.0, 0
        for item in self.items()[:num_examples]:
            labels = item["labels"]
            logits = model(item["input_ids"][None], pixel_values=item["pixel_values"][None]).logits[0]
            losses = torch.nn.functional.cross_entropy(logits[:-1].float(), labels[1:], reduction="none")
            losses = losses[labels[1:] != -100]
            total, terms = (
                (total + losses.mean(), terms + 1)
                if loss == "per_example"
                else (total + losses.sum(), terms + len(losses))
            )
        (total / terms).backward()
        return (total / terms).item(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}

    def watch_gradients(self, monkeypatch):
        """A dictionary that the next step's gradients, not clipped, will be put into."""
        found = {}

        def keep(optimizer, scale):
            monkeypatch.setattr("vvlm_ray.training.optimizer.MAX_GRAD_NORM", float("inf"))
            norm = scale_and_clip(optimizer, scale)
            names = {id(p): name for name, p in self.last_model.named_parameters()}
            found.update({names[id(p)]: p.grad.clone() for g in optimizer.param_groups for p in g["params"]})
            return norm

        monkeypatch.setattr("vvlm_ray.training.loop.scale_and_clip", keep)
        return found

    def run(self, model=None, dataset=None, *, settings=None, **options):
        """(model, result, weights by name) of a run with `SETTINGS`, and `settings` over them."""
        model = model or self.model()
        object.__setattr__(self, "last_model", model)
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
