"""Schedule and clipping against transformers and torch."""

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from vvlm_ray.training.optimizer import build_optimizer, lr_factor, scale_and_clip
from vvlm_ray.training.settings import FinetuneSettings


@pytest.mark.parametrize(("num_steps", "fraction", "warmup"), [(100, 0.03, 3), (7813, 0.03, 235), (10, 0, 0)])
def test_the_schedule_is_transformers_but_for_its_idle_first_step(num_steps, fraction, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, num_steps)
    for step in range(min(num_steps, 300)):
        theirs = schedule.lr_lambdas[0](step + 1 if step < warmup else step)
        assert lr_factor(step, num_steps, fraction) == pytest.approx(theirs, abs=1e-12)
    factors = [lr_factor(step, num_steps, fraction) for step in range(num_steps)]
    assert min(factors) > 0 and max(factors) == 1


def test_short_runs_have_a_schedule_too():
    assert lr_factor(0, 1, 0.03) == 1
    assert [lr_factor(step, 2, 0.0) for step in range(2)] == [1, 0.5]
    assert [lr_factor(step, 2, 1.0) for step in range(2)] == [0.5, 1]


@pytest.mark.parametrize("scale", [1e-3, 0.5, 1e3])
def test_scaling_and_clipping_at_once(bench, scale):
    model = bench.model()
    optimizer = build_optimizer(model, FinetuneSettings())
    twin = bench.model()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(0)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        if mine.requires_grad:
            mine.grad = torch.randn(mine.shape, generator=generator)
            theirs.grad = scale * mine.grad
    norm = scale_and_clip(optimizer, scale)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0).item(), rel=1e-5)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, theirs.grad)
