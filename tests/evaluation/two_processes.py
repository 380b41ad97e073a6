"""Run by test_two_processes.py, once per rank: evaluates whole and sharded models, writes what came out.

Arguments: the folder of the test. Environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, as torchrun sets them.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from colour_world import NUM_FRAMES, WORDS
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vvlm_ray.evaluation.evaluate import evaluate
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.model.video_vlm import VideoVLM
from vvlm_ray.synthetic.backbones import build_tokenizer


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    parts = build_tokenizer(WORDS), ImagePreprocessor(size=16)
    arguments = {"num_frames": NUM_FRAMES, "batch_size": 3, "task_folders": [folder / "tasks"]}
    found = {}
    # The untrained model's answers have all lengths: ranks that took different numbers of steps would hang.
    for name, checkpoint, is_sharded in (("whole", "model", False), ("sharded", "model", True), ("wild", "wild", True)):
        model = VideoVLM.from_pretrained(folder / checkpoint).eval()
        if is_sharded:
            shard(model)
        result = evaluate(model, *parts, tasks=["colours", "partly broken"], max_unreadable_share=0.2, **arguments)
        found[name] = asdict(result) | {"seconds": None}
    # Fewer questions than processes: one of them only keeps step.
    found["single"] = evaluate(model, *parts, tasks=["colours"], limit=1, **arguments).num_questions
    try:
        evaluate(model, *parts, tasks=["partly broken"], **arguments)
    except EvaluationFailed as failure:
        found["failure"] = str(failure)
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def shard(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.language_model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
