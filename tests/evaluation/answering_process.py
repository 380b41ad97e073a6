"""Run by test_answers.py, once per rank: answers with a whole, a sharded or a slow model.

Arguments: the folder of the test, and what to do. Environment: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
"""

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from colour_world import NUM_FRAMES, WORDS
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vvlm_ray.evaluation.answering import VideoAnswerer
from vvlm_ray.evaluation.answers import answer_tasks
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.model.video_vlm import VideoVLM
from vvlm_ray.study.evaluation_section import Evaluation
from vvlm_ray.synthetic.backbones import build_tokenizer


def main(folder, what):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    settings = Evaluation.model_validate_json((folder / "settings.json").read_text())
    model = VideoVLM.from_pretrained(folder / "wild").eval()
    if what == "sharded":
        shard(model)
    answerer = VideoAnswerer(
        model, build_tokenizer(WORDS), ImagePreprocessor(size=16), num_frames=NUM_FRAMES, batch_size=3
    )
    pause = 0.3 if what == "sharded" else 0.0  # to be killed on the way
    answer_tasks(answerer, settings, folder / f"{what}-{dist.get_world_size()}", on_batch=lambda *_: time.sleep(pause))
    dist.destroy_process_group()


def shard(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.language_model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
