"""What the finetuning loop costs on top of a bare PyTorch loop, for the quickstart's sizes: CPU-ms per step.

    python benchmarks/loop_overhead.py

The bare loop is forward, backward, clip_grad_norm_ and AdamW over batches that are already padded; its optimiser is
torch's default once, and once fused, as ours is. Ours includes padding, setting up the run, and all reports. Batches
of 16, in-memory frames of 32 x 32, float32, one thread; the best of `--repeats`.
"""

import argparse
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before torch

import torch
from transformers import LlamaConfig, SiglipVisionConfig

from vvlm_ray.data.dataset import Collator
from vvlm_ray.model.video_vlm import VideoVLM, VideoVLMConfig
from vvlm_ray.study.sections import Finetune
from vvlm_ray.training.loop import finetune
from vvlm_ray.training.settings import FinetuneSettings

BATCH_SIZE = 16
VIDEO_TOKEN = 2
SIZES = ((16, 1, 2, 2, 4), (32, 2, 2, 4, 9), (64, 2, 4, 8, 16))  # LM width, layers, heads; frames, tokens per frame


def build(width: int, layers: int, heads: int, tokens_per_frame: int) -> VideoVLM:
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=32,
        patch_size=4,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=300,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        tie_word_embeddings=True,
    )
    return VideoVLM(
        VideoVLMConfig(
            vision_config=vision, text_config=text, tokens_per_frame=tokens_per_frame, video_token_id=VIDEO_TOKEN
        )
    )


def examples(count: int, num_frames: int, tokens_per_frame: int) -> list[dict[str, torch.Tensor]]:
    input_ids = torch.tensor([5, *[VIDEO_TOKEN] * (num_frames * tokens_per_frame), 6, 7, 8])
    labels = torch.where(torch.arange(len(input_ids)) < len(input_ids) - 2, -100, input_ids)
    return [
        {"input_ids": input_ids, "labels": labels, "pixel_values": torch.randn(num_frames, 3, 32, 32)}
        for _ in range(count)
    ]


def bare(model: VideoVLM, data: list, fused: bool) -> float:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=fused)
    batches = [Collator(0)(data[at : at + BATCH_SIZE]) for at in range(0, len(data), BATCH_SIZE)]
    start = time.process_time()
    for batch in batches:
        model(**{k: v for k, v in batch.items() if k != "unreadable"}, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return 1e3 * (time.process_time() - start) / len(batches)


def ours(model: VideoVLM, data: list) -> float:
    settings = FinetuneSettings(Finetune(batch_size=BATCH_SIZE, lr=1e-3, vision_lr=1e-3, precision="fp32"))
    start = time.process_time()
    result = finetune(model, data, Collator(0), settings)
    return 1e3 * (time.process_time() - start) / result.num_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=75, help="per run; the quickstart's largest trials take 75")
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("width layers  T   V |  bare  bare fused  ours   CPU-ms per step | ours / bare, ours / bare fused")
    for width, layers, heads, T, V in SIZES:
        data = examples(BATCH_SIZE * arguments.steps, T, V)
        best = [
            min(times)
            for times in zip(
                *(
                    (
                        bare(build(width, layers, heads, V), data, fused=False),
                        bare(build(width, layers, heads, V), data, fused=True),
                        ours(build(width, layers, heads, V), data),
                    )
                    for _ in range(arguments.repeats)
                ),
                strict=True,
            )
        ]
        print(
            f"{width:5} {layers:6} {T:2} {V:3} | {best[0]:5.2f} {best[1]:11.2f} {best[2]:5.2f} {'':17}| "
            f"{best[2] / best[0]:.2f}, {best[2] / best[1]:.2f}"
        )


if __name__ == "__main__":
    main()
