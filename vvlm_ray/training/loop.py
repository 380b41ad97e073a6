"""The loop of one finetuning run: the same in a plain process, under torchrun, and in a Ray Train worker.

A step: this worker's micro-batches go forward and backward with their *summed* loss, of examples (each the mean over
its answer tokens) or of tokens; counts and losses of all workers are added up; the summed gradients are divided by the
number of examples with an answer, or of answer tokens, in the whole global batch, clipped, and applied. So the result
does not depend on how a batch is cut into workers and micro-batches.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from vvlm_ray.data.dataset import Collator
from vvlm_ray.errors import UserError
from vvlm_ray.model.prompts import IGNORED_LABEL
from vvlm_ray.training.batches import BatchPlan, load_micro_batches
from vvlm_ray.training.checkpoint import Progress, RunState
from vvlm_ray.training.divergence import History
from vvlm_ray.training.optimizer import build_optimizer, lr_factor, scale_and_clip, set_lr
from vvlm_ray.training.results import Diverged, FinetuneResult, StepReport, unreadable_videos
from vvlm_ray.training.settings import FinetuneSettings
from vvlm_ray.training.sharding import accumulating, gather_model, make_accelerator, place_model

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vvlm_ray.model.video_vlm import VideoVLM

MAX_LISTED_UNREADABLE = 1000
MAX_NAMED_EXAMPLES = 16


def finetune(
    model: VideoVLM,
    dataset: Dataset,
    collator: Collator,
    settings: FinetuneSettings,
    *,
    accelerator: Accelerator | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    save_checkpoint: Callable[[Path], None] | None = None,
    resume_from: Path | None = None,
) -> FinetuneResult:
    """Finetune `model` in place: AdamW, cosine schedule with warm-up (Wang et al. 2025, Table 4).

    on_step: called on every worker after every optimiser step.
    save_checkpoint: called on every worker with a folder of this worker's files, at times that worker 0's clock
        decides; put the files of all workers into one folder, which is what `resume_from` takes. The folder given is
        deleted after the call. A run long enough to have saved also saves its end.
    Afterwards the model is whole on every worker, on the worker's device and in evaluation mode; its weights are in
    the precision they came in, or, where they were split, in the one that was computed in.

    Raises UnreadableVideos (a UserError) when too many videos cannot be read, UserError for a checkpoint of another
    run, Diverged when the loss is not finite, or goes far beyond its own history.
    """
    accelerator = accelerator or make_accelerator()
    if settings.recipe.batch_size < accelerator.num_processes:
        raise UserError(
            f"batch_size: {settings.recipe.batch_size} is less than the {accelerator.num_processes} workers"
        )
    if len(dataset) == 0:
        raise UserError("the dataset is empty: there is nothing to finetune on")
    torch.manual_seed(settings.seed + accelerator.process_index)
    with _training_mode(model, settings):
        run = _Run(model, dataset, collator, settings, accelerator)
        if resume_from is not None:
            run.state.load(resume_from)
        run.train(on_step, save_checkpoint)
        result = run.result()
        if settings.resources.sharding == "fsdp":
            run.optimizer.state.clear()  # its memory is needed for the whole model
            gather_model(run.model, model, settings)
    return result


@contextlib.contextmanager
def _training_mode(model: VideoVLM, settings: FinetuneSettings) -> Iterator[None]:
    """Training mode, gradient checkpointing and frozen parts for the time of a run."""
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    for name, part in model.named_children():
        if name not in settings.recipe.peak_lrs:
            part.requires_grad_(False)
    if settings.resources.gradient_checkpointing:
        # transformers renamed the method in 5.x and warns about the old name.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        model.disable_input_require_grads()  # a hook that only reentrant checkpointing needs, and that would stay
    model.train()
    try:
        yield
    finally:
        model.eval()
        if settings.resources.gradient_checkpointing:
            disable = getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable
            disable()
        for name, p in model.named_parameters():
            p.requires_grad_(trainable[name])
            p.grad = None


class _Run:
    """One run's parts, and its state between steps."""

    def __init__(
        self,
        model: VideoVLM,
        dataset: Dataset,
        collator: Collator,
        settings: FinetuneSettings,
        accelerator: Accelerator,
    ) -> None:
        self.dataset, self.collator = dataset, collator
        self.settings, self.accelerator = settings, accelerator
        self.flops = _FlopsPerStep.of(model, settings)  # sizes are counted before they are split
        self.model, self.module = place_model(model, settings, accelerator)
        self.optimizer = build_optimizer(self.model, settings)
        rank, world_size = accelerator.process_index, accelerator.num_processes
        self.plan = BatchPlan(
            num_examples=len(dataset),
            batch_size=settings.recipe.batch_size,
            epochs=settings.recipe.epochs,
            seed=settings.seed,
            rank=rank,
            world_size=world_size,
            micro_batch_size=settings.resources.micro_batch_size,
        )
        self.progress = Progress()
        self.state = RunState(self.model, self.optimizer, self.progress, settings, len(dataset), rank, world_size)

    def train(
        self, on_step: Callable[[StepReport], None] | None, save_checkpoint: Callable[[Path], None] | None
    ) -> None:
        """Take all steps that are left."""
        progress, settings = self.progress, self.settings
        batches = load_micro_batches(
            self.dataset, self.collator, self.plan, progress.step, settings.resources.num_loader_workers
        )
        self.history = History(progress.losses)
        spent, start = progress.seconds, time.perf_counter()
        reported = saved = start
        has_saved = False
        while progress.step < self.plan.num_steps:
            is_due = time.perf_counter() - saved > settings.resources.checkpoint_every_seconds
            totals, lr, grad_norm = self._step(batches, is_due)
            now = time.perf_counter()
            progress.seconds = spent + now - start
            if on_step is not None:
                on_step(self._report(totals, lr, grad_norm, now - reported))
            reported = now
            is_last = progress.step == self.plan.num_steps
            if save_checkpoint is not None and (totals.is_checkpoint_due or (has_saved and is_last)):
                self.state.hand_over(save_checkpoint)
                saved, has_saved = time.perf_counter(), True

    def _step(self, batches: Iterator[dict[str, Any]], is_checkpoint_due: bool) -> tuple[_Totals, float, float]:
        """One optimiser step; returns its sums over all workers, the learning rate and the gradient's norm."""
        progress, step = self.progress, self.progress.step
        totals, unreadable = self._forward_backward(batches, self.plan.num_micro_batches(step))
        totals.is_checkpoint_due = is_checkpoint_due
        totals = totals.over_workers(self.accelerator)
        self._note(totals, unreadable)
        factor = lr_factor(step, self.plan.num_steps, self.settings.recipe.warmup_fraction)
        set_lr(self.optimizer, factor)
        grad_norm = 0.0
        if totals.num_terms:  # otherwise no video of the step could be read
            loss = totals.loss / totals.num_terms
            # Workers' gradients come as their mean, and the loss is the mean over the terms of them all.
            scale = self.accelerator.num_processes / totals.num_terms
            grad_norm = scale_and_clip(self.optimizer, scale)
            if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                raise self._diverged(step, f"loss {loss}, gradient norm {grad_norm}")
            self.history.add(loss, grad_norm)
            is_last = step + 1 == self.plan.num_steps
            if self.history.has_diverged or (is_last and self.history.num_far):
                raise self._diverged(step, f"{self.history.last}, for {self.history.num_far} steps")
            self.optimizer.step()
            progress.losses.append(loss)
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        return totals, self.optimizer.param_groups[0]["lr"], grad_norm

    def _diverged(self, step: int, what: str) -> Diverged:
        """The error with the step and the examples that it was made of."""
        batch = self.plan.batch(step)
        examples = getattr(self.dataset, "examples", None)
        ids = [str(examples[i].example_id if examples is not None else i) for i in batch[:MAX_NAMED_EXAMPLES]]
        more = f" and {len(batch) - len(ids)} more" if len(batch) > len(ids) else ""
        return Diverged(
            f"{what} in step {step + 1} of {self.plan.num_steps}; lower the learning rate "
            f"({self.settings.recipe.lr:g}), or look at that step's examples: {', '.join(ids)}{more}"
        )

    def _forward_backward(
        self, batches: Iterator[dict[str, Any]], num_micro_batches: int
    ) -> tuple[_Totals, list[tuple[str, str]]]:
        """Gradients of the summed loss over this worker's micro-batches of a step, and what they held."""
        totals, unreadable = _Totals(), []
        for index in range(num_micro_batches):
            batch = next(batches)
            unreadable += batch.pop("unreadable")
            if batch:
                batch["label_weights"], num_terms = label_weights(batch["labels"], self.settings.recipe.loss)
                totals.count(batch, num_terms)
            elif self.accelerator.num_processes > 1:
                batch = _blank_batch(self.model)  # the others wait for this worker's part in the exchange
            else:
                continue
            is_last = index == num_micro_batches - 1
            with contextlib.nullcontext() if is_last else accumulating(self.module, self.accelerator):
                loss = self._summed_loss(batch)
                self.accelerator.backward(loss)
            totals.loss += loss.detach()
        totals.num_unreadable = len(unreadable)
        return totals, unreadable

    def _summed_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        device = self.accelerator.device
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        low = (
            self.settings.recipe.precision == "bf16" and self.settings.resources.sharding == "none"
        )  # FSDP casts by itself
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            return self.module(**batch, use_cache=False).loss

    def _note(self, totals: _Totals, unreadable: list[tuple[str, str]]) -> None:
        """Add a step's counts to the run's; raises UnreadableVideos as soon as too many videos have failed."""
        progress, allowed = self.progress, self.settings.data.max_unreadable_share
        progress.num_examples_seen += totals.num_examples
        progress.num_tokens += totals.num_tokens
        progress.num_unreadable += totals.num_unreadable
        if not totals.num_unreadable:
            return
        progress.unreadable = (progress.unreadable + _from_all_workers(unreadable))[:MAX_LISTED_UNREADABLE]
        num_all = self.plan.num_examples * self.settings.recipe.epochs
        if progress.num_unreadable > allowed * num_all:
            raise unreadable_videos(progress.num_unreadable, num_all, allowed, progress.unreadable)

    def _report(self, totals: _Totals, lr: float, grad_norm: float, seconds: float) -> StepReport:
        return StepReport(
            step=self.progress.step,
            num_steps=self.plan.num_steps,
            loss=self.progress.losses[-1] if totals.num_terms else math.nan,
            lr=lr,
            grad_norm=grad_norm,
            examples_per_second=totals.num_examples / seconds,
            tokens_per_second=totals.num_tokens / seconds,
            tflops_per_second=self.flops.of_step(totals) / seconds / 1e12,
        )

    def result(self) -> FinetuneResult:
        progress = self.progress
        if not progress.losses:
            raise unreadable_videos(progress.num_unreadable, progress.num_unreadable, 1.0, progress.unreadable)
        tail = progress.losses[-max(1, len(progress.losses) // 10) :]
        return FinetuneResult(
            num_steps=progress.step,
            num_examples_seen=progress.num_examples_seen,
            num_unreadable=progress.num_unreadable,
            unreadable=tuple(progress.unreadable),
            final_loss=progress.losses[-1],
            mean_loss_last_tenth=sum(tail) / len(tail),
            seconds=progress.seconds,
            examples_per_second=progress.num_examples_seen / progress.seconds,
            tokens_per_second=progress.num_tokens / progress.seconds,
        )


@dataclass
class _Totals:
    """Sums over a step's micro-batches: of one worker, then of all."""

    loss: float | torch.Tensor = 0.0
    num_terms: int = 0  # of the loss: examples, or answer tokens
    num_examples: int = 0
    num_frames: int = 0
    num_tokens: int = 0
    num_unreadable: int = 0
    is_checkpoint_due: bool = False

    def count(self, batch: dict[str, torch.Tensor], num_terms: int) -> None:
        self.num_terms += num_terms
        self.num_examples += len(batch["input_ids"])
        self.num_frames += math.prod(batch["pixel_values"].shape[:2])
        self.num_tokens += int(batch["attention_mask"].sum())

    def over_workers(self, accelerator: Accelerator) -> _Totals:
        """Sums over all workers; whether a checkpoint is due is worker 0's to say."""
        self.loss = float(self.loss)
        if accelerator.num_processes == 1:
            return self
        self.is_checkpoint_due &= accelerator.is_main_process
        values = torch.tensor(astuple(self), dtype=torch.float64, device=accelerator.device)
        loss, *counts = accelerator.reduce(values, "sum").tolist()
        return _Totals(loss, *(int(count) for count in counts))


@dataclass(frozen=True)
class _FlopsPerStep:
    """Training FLOPs of a step from its tokens: Eq. 1 of Wang et al. 2025, 2 per weight and token and pass."""

    per_frame: float
    per_token: float

    @classmethod
    def of(cls, model: VideoVLM, settings: FinetuneSettings) -> _FlopsPerStep:
        from vvlm_ray.model.video_vlm import count_parameters

        counts, vision = count_parameters(model), model.config.vision_config
        num_patches = (vision.image_size // vision.patch_size) ** 2
        # Backward takes two passes, one for activations and one for weights; frozen parts need fewer.
        vision_passes, lm_passes = (3, 3) if "language_model" in settings.recipe.peak_lrs else (1, 2)
        return cls(
            per_frame=2 * vision_passes * counts["vision_params"] * num_patches,
            per_token=2 * lm_passes * counts["lm_params"],
        )

    def of_step(self, totals: _Totals) -> float:
        return self.per_frame * totals.num_frames + self.per_token * totals.num_tokens


def label_weights(labels: torch.Tensor, loss: str) -> tuple[torch.Tensor, int]:
    """Weights (B, L) with which labels enter the summed loss, and the number of terms that it is the sum of.

    "per_token": 1 each. "per_example": 1 / the answer tokens of its row. Nothing predicts a row's first token.
    """
    is_answer = labels != IGNORED_LABEL
    is_answer[:, 0] = False
    if loss == "per_token":
        return is_answer.float(), int(is_answer.sum())
    counts = is_answer.sum(dim=1, keepdim=True)
    return is_answer / counts.clamp(min=1), int((counts > 0).sum())


def _blank_batch(model: VideoVLM) -> dict[str, torch.Tensor]:
    """One black frame and no answer: no loss, gradients of zero."""
    config = model.config
    side = config.vision_config.image_size
    input_ids = torch.tensor([[config.video_token_id] * config.tokens_per_frame + [0]])
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": torch.full_like(input_ids, IGNORED_LABEL),
        "label_weights": torch.zeros_like(input_ids, dtype=torch.float32),
        "pixel_values": torch.zeros(1, 1, 3, side, side),
    }


def _from_all_workers(unreadable: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if not torch.distributed.is_initialized():
        return unreadable
    gathered = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, unreadable)
    return [entry for part in gathered for entry in part]
