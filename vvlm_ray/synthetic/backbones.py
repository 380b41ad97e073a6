"""Three small backbones for the synthetic benchmark, made by a short base training (one CPU thread each).

They are real SigLIP towers and Llama LMs with a tokenizer of their own, saved by save_pretrained and loaded like
any other backbone. What base training leaves in them is what finetuning starts from in practice: a tower and a
projector that show the LM what is in a frame, an LM that can read several frames, and facts (the words of the
benchmark's languages), of which a small LM keeps fewer.

The tower has one encoder layer, which the model's default `vision_select_layer=-2` leaves out: with attention
between patches, every patch would know the whole frame and a frame's number of tokens would not matter.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.synthetic import benchmark as synthetic
from vvlm_ray.synthetic.clips import CELL, DURATIONS, IMAGE_SIZE, SIZES, draw_clips, render

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from vvlm_ray.model.video_vlm import VideoVLM

Progress = Callable[[float, str], None]

# Counted by model.count_parameters; a test holds them to the models.
VISION_PARAMS = 3_140  # x_M, the same for all three
VISION_TOKENS = 64  # x_W, patches per frame
LM_PARAMS = {"small": 3_088, "medium": 24_672, "large": 98_368}  # x_N

_VISION_WIDTH = 16
_WHOLE_CLIP = (100.0,)
_ENGLISH_SHARE = 0.1  # lower than in the benchmark: facts take longer to learn than colours


@dataclass(frozen=True)
class BackboneSettings:
    """`scale` multiplies the number of steps (tests use a small one); `seed` draws weights and clips."""

    scale: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class _Size:
    """An LM's shape, and how fast and how long it learns the facts."""

    width: int
    layers: int
    heads: int
    lr: float
    facts_steps: int


_SIZES = {
    "small": _Size(width=16, layers=1, heads=2, lr=5.0e-3, facts_steps=600),
    "medium": _Size(width=32, layers=2, heads=2, lr=6.0e-3, facts_steps=500),
    "large": _Size(width=64, layers=2, heads=4, lr=4.0e-3, facts_steps=550),
}


@dataclass(frozen=True)
class _Stage:
    """A part of the curriculum: what the clips show, and how they are put to the model."""

    name: str
    num_steps: int
    batch_size: int
    sizes: tuple[int, ...]
    durations: tuple[float, ...]
    num_frames: tuple[int, ...]
    tokens_per_frame: tuple[int, ...]
    lr_factor: float = 0.5
    facts_share: float = 0.2  # share of steps that go back to the first stage, against forgetting


def _curriculum(size: _Size) -> tuple[_Stage, ...]:
    """From large squares that are always there, where facts are what is left to learn, to the benchmark's clips."""
    return (
        _Stage("facts", size.facts_steps, 128, (4, 6, 8), _WHOLE_CLIP, (1,), (4,), lr_factor=1.0),
        _Stage("search a few frames", 140, 64, (1, 2, 3, 4), (0.25, 0.5, 1.0), (2, 4), (4, 9, 16)),
        _Stage("find anything", 420, 48, SIZES, DURATIONS, (1, 2, 4, 8), (1, 4, 9, 16)),
    )


def build_backbone(
    folder: Path, name: str, settings: BackboneSettings | None = None, progress: Progress | None = None
) -> None:
    """Train and write `folder`/`name`/{vision, lm, projector.safetensors}; does nothing when they are there.

    Deterministic for equal settings on one machine. Raises UserError for a name other than small, medium, large.
    """
    settings = settings or BackboneSettings()
    if name not in _SIZES:
        raise UserError(f"backbone: {name!r} is not one of {', '.join(_SIZES)}")
    target = Path(folder) / name
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        tokenizer = build_tokenizer()
        model = _train(name, tokenizer, settings, progress)
        _save(model, tokenizer, building)
        building.chmod(0o755)  # mkdtemp makes it private
        building.rename(target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def build_tokenizer(words: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """Word-level tokenizer over `words` (the benchmark's), with a chat template and a `<video>` token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<unk>", "<video>", "<user>", "<assistant>", "<end>", *(words or synthetic.all_words())]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        additional_special_tokens=["<video>", "<user>", "<assistant>"],
        chat_template=(
            "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + '<end>' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
        ),
    )


def build_model(name: str, tokenizer: PreTrainedTokenizerFast) -> VideoVLM:
    """The untrained model of one size, drawn from torch's global generator."""
    from transformers import LlamaConfig, SiglipVisionConfig

    from vvlm_ray.model.prompts import video_token_id
    from vvlm_ray.model.video_vlm import VideoVLM, VideoVLMConfig

    size = _SIZES[name]
    vision = SiglipVisionConfig(
        hidden_size=_VISION_WIDTH,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=IMAGE_SIZE,
        patch_size=CELL,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=8 * size.width // 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=size.width**-0.5,  # the default suits widths in the thousands
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return VideoVLM(
        VideoVLMConfig(
            vision_config=vision,
            text_config=text,
            tokens_per_frame=16,  # changes from step to step
            video_token_id=video_token_id(tokenizer),
        )
    )


def _train(
    name: str, tokenizer: PreTrainedTokenizerFast, settings: BackboneSettings, progress: Progress | None
) -> VideoVLM:
    import torch

    size, stages = _SIZES[name], _curriculum(_SIZES[name])
    num_steps = [max(1, round(stage.num_steps * settings.scale)) for stage in stages]
    rng = np.random.default_rng([settings.seed, list(_SIZES).index(name)])
    draw_batch = _batches(tokenizer, rng)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = build_model(name, tokenizer).train()
        for index, (stage, steps) in enumerate(zip(stages, num_steps, strict=True)):
            peak = size.lr * stage.lr_factor
            optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_warm_up_then_cosine, steps))
            for step in range(steps):
                shown = stages[0] if rng.random() < stage.facts_share else stage
                model.config.tokens_per_frame = int(rng.choice(shown.tokens_per_frame))
                batch = draw_batch(shown, int(rng.choice(shown.num_frames)), model.config.tokens_per_frame)
                loss = model(**batch).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                if progress is not None and step % 20 == 0:
                    done = sum(num_steps[:index]) + step
                    progress(done / sum(num_steps), f"{name}: {stage.name}, loss {loss.item():.2f}")
    finally:
        torch.set_num_threads(num_threads)
    if progress is not None:
        progress(1.0, f"{name}: done")
    return model.eval()


def _warm_up_then_cosine(num_steps: int, step: int) -> float:
    """Share of the peak learning rate at `step`: a tenth of the steps up, then down to zero."""
    return min(1.0, (step + 1) / (0.1 * num_steps)) * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def _batches(
    tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator
) -> Callable[[_Stage, int, int], dict[str, torch.Tensor]]:
    """A function that draws one batch of a stage; conversations are all of one length, so nothing is padded."""
    import torch

    from vvlm_ray.model.prompts import encode_conversation, video_token_id

    video = video_token_id(tokenizer)

    @cache
    def conversation(language: int, colour: int) -> tuple[list[int], list[int]]:
        question, answer = synthetic.question_and_answer(language, colour)
        return encode_conversation(tokenizer, [("user", question), ("assistant", answer)], num_video_tokens=1)

    def draw(stage: _Stage, num_frames: int, tokens_per_frame: int) -> dict[str, torch.Tensor]:
        clips = draw_clips(rng, stage.batch_size, stage.sizes, stage.durations)
        languages = synthetic.draw_languages(rng, stage.batch_size, _ENGLISH_SHARE)
        frames = render(clips, np.linspace(0, 1, num_frames), synthetic.BASE_CAMERA)
        conversations = map(conversation, languages.tolist(), clips.colour.tolist())
        input_ids, labels = (torch.tensor(part) for part in zip(*conversations, strict=True))
        repeats = torch.where(input_ids[0] == video, num_frames * tokens_per_frame, 1)
        return {
            "input_ids": input_ids.repeat_interleave(repeats, dim=1),
            "labels": labels.repeat_interleave(repeats, dim=1),
            "pixel_values": _pixel_values(frames),
        }

    return draw


def _pixel_values(frames: np.ndarray) -> torch.Tensor:
    """What ImagePreprocessor makes of frames of the right size, for a whole batch: (B, T, 3, H, W)."""
    import torch

    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 127.5 - 1


def _save(model: VideoVLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    from vvlm_ray.model.preprocess import ImagePreprocessor

    model.vision_tower.save_pretrained(folder / "vision")
    ImagePreprocessor(size=IMAGE_SIZE).save_pretrained(folder / "vision")
    model.language_model.save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    model.save_projector(folder / "projector.safetensors")
