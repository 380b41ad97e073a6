"""A small world for tests of evaluation: clips of one plain colour as mp4 files, and models that can see colours.

A right pipeline scores 100 with a trained model; the wrong video, prompt or answer's place does not.
"""

import av
import numpy as np
import torch
from transformers import LlamaConfig, SiglipVisionConfig

from vvlm_ray.model.prompts import encode_conversation, video_token_id
from vvlm_ray.model.video_vlm import VideoVLM, VideoVLMConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128, 128, 128)}
LETTERS = dict(zip(COLOURS, "ABCD", strict=True))
NUM_FRAMES = 3
IMAGE_SIZE = 16
CLIP_SIZE = (180, 320)  # height, width
QUESTIONS = {"which colour ?": LETTERS, "name it": {name: name for name in COLOURS}}


WORDS = ("which", "colour", "?", "name", "it", "yes", "no", *"ABCDE", *COLOURS)


def write_clip(path, colour, num_frames=40, rate=24):
    """An ordinary mp4: H.264 with libx264's own settings, B-frames and long groups of pictures included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = np.full((*CLIP_SIZE, 3), COLOURS[colour], dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"threads": "1"})
        stream.height, stream.width = CLIP_SIZE
        stream.pix_fmt = "yuv420p"
        for _ in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def build_model(tokenizer, seed=0):
    torch.manual_seed(seed)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=8,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = VideoVLMConfig(
        vision_config=vision,
        text_config=text,
        tokens_per_frame=4,
        video_token_id=video_token_id(tokenizer),
        vision_select_layer=-1,
    )
    return VideoVLM(config)


def training_batch(tokenizer, preprocessor, asked, answers, shown, rng):  # noqa: PLR0917
    encoded = [
        encode_conversation(tokenizer, [("user", text), ("assistant", answer)], NUM_FRAMES * 4)
        for text, answer in zip(asked, answers, strict=True)
    ]
    length = max(len(ids) for ids, _ in encoded)
    pad = tokenizer.pad_token_id
    frames = np.zeros((len(shown), NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3)) + [[[[COLOURS[name]]]] for name in shown]
    frames = np.clip(frames + rng.integers(-12, 13, (len(shown), 1, 1, 1, 3)), 0, 255).astype(np.uint8)
    return {
        "input_ids": torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in encoded]),
        "labels": torch.tensor([labels + [-100] * (length - len(labels)) for _, labels in encoded]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in encoded]),
        "pixel_values": torch.stack([preprocessor(clip) for clip in frames]),
    }
