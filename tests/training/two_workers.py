"""Run as two processes by test_distributed.py: every scenario's results go to files that the test compares.

Arguments: the backbone's folder, the training JSON, the folder for results. Rank and address are in the environment,
as torchrun and Ray Train have them.
"""

import contextlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from workbench import STAGE1, Workbench

from vvlm_ray.data.dataset import Unreadable
from vvlm_ray.model.video_vlm import VideoVLM
from vvlm_ray.training.results import UnreadableVideos

RANK = int(os.environ["RANK"])


def main():
    backbone, train_json, folder = map(Path, sys.argv[1:])
    bench = Workbench(backbone, train_json)
    torch.distributed.init_process_group("gloo")  # Ray Train's workers find it made, too
    copied(bench, folder)
    split(bench, folder)
    unreadable(bench, folder)
    torch.distributed.destroy_process_group()


def copied(bench, folder):
    settings = {"micro_batch_size": 3}
    run(bench, folder, "ddp", settings)
    interrupted(bench, settings, 2, folder / "ddp_checkpoint")
    run(bench, folder, "ddp_short_last", {"batch_size": 23})
    run(bench, folder, "ddp_projector", STAGE1 | {"gradient_checkpointing": True})


def split(bench, folder):
    sharded = {"sharding": "fsdp", "micro_batch_size": 3}
    seen = []
    model = bench.model(torch.float64)
    run(bench, folder, "fsdp", sharded, model=model, on_step=lambda _: seen.append(is_empty(model)))
    assert seen == [True, True]  # the weights were elsewhere, in parts
    assert type(model) is VideoVLM
    if RANK == 0:  # alone: a whole copy needs nobody else
        batch = inputs(bench, model)
        out = model.generate(**batch, max_new_tokens=3, do_sample=False)
        assert out.shape[1] > batch["input_ids"].shape[1]
    run(bench, folder, "fsdp_short_last", sharded | {"batch_size": 23, "gradient_checkpointing": True})
    run(bench, folder, "fsdp_projector", sharded | STAGE1)
    run(bench, folder, "fsdp_bf16", sharded | {"precision": "bf16"}, model=bench.model())

    sharded |= {"batch_size": 5}
    run(bench, folder, "fsdp_uninterrupted", sharded)
    interrupted(bench, sharded, 4, folder / "fsdp_checkpoint")
    run(bench, folder, "fsdp_resumed", sharded, resume_from=folder / "fsdp_checkpoint")


def interrupted(bench, settings, step, checkpoint):
    """A run that breaks off in `step`, having saved a checkpoint after each one before."""

    class Interrupted(Exception):
        pass

    def stop(report):
        if report.step == step:
            raise Interrupted

    with contextlib.suppress(Interrupted):
        bench.run(
            bench.model(torch.float64),
            settings=settings | {"checkpoint_every_seconds": 1e-9},
            on_step=stop,
            save_checkpoint=lambda folder: shutil.copytree(folder, checkpoint, dirs_exist_ok=True),
        )
    torch.distributed.barrier()  # both have written


def unreadable(bench, folder):
    """Whole micro-batches without a readable video, on one worker only; then too many of them."""
    dataset = bench.dataset()
    items = [dataset[index] for index in range(24)]
    for index in (1, 3, 5, 7, 9, 11):
        items[index] = Unreadable(f"{index}.mp4", "missing")
    settings = {"micro_batch_size": 1, "max_unreadable_share": 0.25}
    for sharding in ("none", "fsdp"):
        run(bench, folder, f"unreadable_{sharding}", settings | {"sharding": sharding}, dataset=items)
    try:
        run(bench, folder, "", settings | {"max_unreadable_share": 0.2}, dataset=items)
    except UnreadableVideos as error:
        (folder / f"too_many.{RANK}").write_text(str(error))


def run(bench, folder, name, settings, model=None, **options):
    model, result, weights = bench.run(model or bench.model(torch.float64), settings=settings, **options)
    save_file(weights, str(folder / f"{name}.{RANK}.safetensors"))
    (folder / f"{name}.{RANK}.json").write_text(json.dumps(asdict(result)))


def is_empty(model):
    return all(p.is_meta for p in model.parameters())


def inputs(bench, model):
    item = bench.dataset()[0]
    ids = item["input_ids"][None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": item["pixel_values"][None],
    }


if __name__ == "__main__":
    main()
