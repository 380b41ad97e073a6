"""Shared fixtures: a backbone of a few thousand parameters, real H.264 files, and instructions about them.

All are real formats, written once per session: a SigLIP tower, a Llama LM with a word-level tokenizer, mp4 files
whose frames tell their own number (the red channel is 8 times the frame's index), LLaVA JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny models are slower on more threads

import numpy as np
import pytest

GREY_STEP = 8
COLOURS = {"green": (100, 0), "blue": (0, 100), "both": (100, 100), "none": (0, 0)}
WORDS = ("what", "colour", "is", "it", "?", "and", "now", *COLOURS)


@dataclass(frozen=True)
class TinyBackbone:
    """`vision`: SiglipVisionModel + preprocessor_config.json; `lm`: LlamaForCausalLM + tokenizer."""

    folder: Path
    vision: Path
    lm: Path

    def tokenizer(self):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(self.lm)

    def model(self, tokens_per_frame: int = 4, seed: int = 0, **options):
        """VideoVLM with this session's weights and a projector drawn from `seed`."""
        import torch

        from vvlm_ray.model.prompts import video_token_id
        from vvlm_ray.model.video_vlm import VideoVLM

        torch.manual_seed(seed)
        options = {"video_token_id": video_token_id(self.tokenizer())} | options
        return VideoVLM.from_backbones(self.vision, self.lm, tokens_per_frame=tokens_per_frame, **options)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> TinyBackbone:
    """Folder with vision/ and lm/; 32 px images of 8 px patches, so that V may be 1, 4, 9 or 16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

    from vvlm_ray.model.preprocess import ImagePreprocessor
    from vvlm_ray.synthetic.backbones import build_tokenizer

    folder = tmp_path_factory.mktemp("tiny_backbone")
    tokenizer = build_tokenizer(WORDS)
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    SiglipVisionModel(vision).save_pretrained(folder / "vision")
    ImagePreprocessor(size=32).save_pretrained(folder / "vision")
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    LlamaForCausalLM(text).save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    return TinyBackbone(folder=folder, vision=folder / "vision", lm=folder / "lm")


def write_video(path: Path, frames: np.ndarray, fps: int = 8) -> Path:
    """Encode uint8 frames (N, H, W, 3) with libx264, B-frames included, as downloaded videos have them."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10", "bf": "2"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory) -> dict[str, Path]:
    """Twelve clips of 32 x 32 pixels by name, `<colour>_<number of frames>`, all in one folder."""
    folder = tmp_path_factory.mktemp("tiny_videos")
    videos = {}
    for colour, (green, blue) in COLOURS.items():
        for num_frames in (1, 9, 24):
            frames = np.zeros((num_frames, 32, 32, 3), dtype=np.uint8)
            frames[..., 0] = GREY_STEP * np.arange(num_frames)[:, None, None]
            frames[..., 1:] = green, blue
            name = f"{colour}_{num_frames}"
            videos[name] = write_video(folder / f"{name}.mp4", frames)
    return videos


@pytest.fixture(scope="session")
def tiny_llava_json(tiny_videos) -> Path:
    """LLaVA JSON beside the clips, 24 rows: every clip is asked about twice."""
    folder = next(iter(tiny_videos.values())).parent
    rows = []
    for index, name in enumerate([*tiny_videos, *tiny_videos]):
        colour = name.split("_")[0]
        turns = [("human", "<video>\nwhat colour is it ?"), ("gpt", colour)]
        if index >= len(tiny_videos):  # a longer conversation, so that lengths differ
            turns += [("human", "and now ?"), ("gpt", f"{colour} and {colour}")]
        rows.append(
            {
                "id": f"row{index}",
                "video": f"{name}.mp4",
                "conversations": [{"from": speaker, "value": text} for speaker, text in turns],
            }
        )
    path = folder / "train.json"
    path.write_text(json.dumps(rows))
    return path
