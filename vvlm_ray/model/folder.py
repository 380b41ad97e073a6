"""A finetuned model as a folder: what a trial leaves, and what is asked, served or trained on afterwards.

config.json (pooling, tokens per frame x_V, frames x_T), safetensors, the tokenizer with its template, the image
processor, generation settings, README.md. `AutoModel.from_pretrained` reads it once this module is imported.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vvlm_ray.errors import UserError
from vvlm_ray.model.assembly import Assembly
from vvlm_ray.model.backbones import load_checked, load_tokenizer
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.model.video_vlm import VideoVLM


@dataclass(frozen=True)
class SavedModel(Assembly):
    """A model with the number of frames per video (x_T) that it was finetuned for."""

    num_frames: int


def save_model(folder: Path, parts: Assembly, num_frames: int, meaning: dict[str, Any]) -> None:
    """Write the model's folder, whole or not at all; an earlier one is replaced. `meaning` goes into the card."""
    building = folder.with_name(f".{folder.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    parts.model.config.num_frames = num_frames
    parts.model.save_pretrained(building)
    parts.tokenizer.save_pretrained(building)
    parts.preprocessor.save_pretrained(building)
    (building / "README.md").write_text(_card(parts.model, num_frames, meaning), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)


def load_model(folder: str | Path, dtype: torch.dtype | None = None) -> SavedModel:
    """Read a folder of `save_model`, in the precision it is stored in unless `dtype` says otherwise.

    Raises UserError when it is no such folder, or incomplete.
    """
    model = load_checked(VideoVLM, folder, dtype or "auto", model_type=VideoVLM.config_class.model_type)
    if model.config.num_frames is None:
        raise UserError(f"{folder}: config.json says no num_frames; give a model folder that a trial has left")
    return SavedModel(
        model.eval(), load_tokenizer(folder), ImagePreprocessor.from_pretrained(folder), model.config.num_frames
    )


def _card(model: VideoVLM, num_frames: int, meaning: dict[str, Any]) -> str:
    told = json.dumps(meaning, indent=1, ensure_ascii=False, default=str)
    tokens, pooling = model.config.tokens_per_frame, model.config.pooling
    return (
        "---\nlibrary_name: vvlm_ray\npipeline_tag: video-text-to-text\n---\n\n"
        "# A video VLM finetuned by vvlm_ray\n\n"
        f"{num_frames} frames a video, {tokens} tokens a frame ({pooling} pooling).\n"
        '\n    vvlm-ray answer FOLDER VIDEO "QUESTION"\n\n'
        f"What it was made of and how:\n\n```json\n{told}\n```\n"
    )
