"""Finetuning what is stored in bfloat16 without a pad token, as released LMs are."""

import pytest
import torch
from released import write_released
from workbench import Workbench

from vvlm_ray.training.optimizer import build_optimizer
from vvlm_ray.training.settings import FinetuneSettings


def test_every_tensor_moves_and_the_loss_is_that_of_float32(tiny_llava_json, tmp_path):
    settings = {"lr": 1e-5, "vision_lr": 2e-6, "batch_size": 4, "epochs": 5, "precision": "bf16"}
    losses = {}
    for dtype in ("bfloat16", "float32"):
        bench = Workbench(write_released(tmp_path / dtype, lm_dtype=dtype), tiny_llava_json)
        before = {name: p.detach().clone() for name, p in bench.model().named_parameters() if p.requires_grad}
        reports = []
        _, result, after = bench.run(settings=settings, on_step=reports.append)
        assert result.num_steps == 30
        still = [name for name, value in before.items() if torch.equal(value, after[name])]
        assert still == []
        losses[dtype] = [report.loss for report in reports]
    assert losses["bfloat16"] == losses["float32"]
    assert losses["bfloat16"][-1] != losses["bfloat16"][0]


def test_weights_in_bfloat16_are_refused(bench):
    with pytest.raises(TypeError, match=r"float32: .*bfloat16"):
        build_optimizer(bench.model().to(torch.bfloat16), FinetuneSettings())
