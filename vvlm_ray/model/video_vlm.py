"""A video VLM as one PreTrainedModel: vision tower, projector, pooling, LM (Wang et al. 2025, App. B).

Each frame is encoded alone by SigLIP; a two-layer MLP maps its patches to the LM's width; the patch grid is
then interpolated to sqrt(V) x sqrt(V). The visual part of the sequence is exactly T * V tokens long: no
newline or separator tokens, so that inference costs 2 T (x_M x_W + x_N V) as Eq. 1 says.

Shapes: B examples, T frames (x_T), V tokens per frame (x_V), W patches per frame (x_W), D width of the LM,
L tokens.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from vvlm_ray.errors import UserError
from vvlm_ray.model.backbones import load_language_model, load_vision_tower
from vvlm_ray.model.prompts import IGNORED_LABEL

POOLING_MODES = ("bilinear", "bilinear-antialias", "average")


class VideoVLMConfig(PreTrainedConfig):
    """Sizes of the parts, and how a frame's patches become `tokens_per_frame` tokens.

    `pooling`: "bilinear" without antialias as LLaVA-NeXT does (it reads only the patches next to its sampling
    points), "bilinear-antialias", or "average" (adaptive average pooling).
    `num_frames`: x_T, what the model was finetuned for; None before.
    `vision_select_layer` indexes the hidden states (embeddings first): -2 leaves out the last layer.
    """

    model_type = "video_vlm"
    sub_configs = {"vision_config": SiglipVisionConfig, "text_config": AutoConfig}  # noqa: RUF012

    def __init__(  # noqa: PLR0917 (a configuration lists what it holds)
        self,
        vision_config: SiglipVisionConfig | dict | None = None,
        text_config: PreTrainedConfig | dict | None = None,
        tokens_per_frame: int = 196,
        pooling: str = "bilinear",
        vision_select_layer: int = -2,
        video_token_id: int | None = None,
        num_frames: int | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(vision_config, dict):
            vision_config = SiglipVisionConfig(**vision_config)
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        if pooling not in POOLING_MODES:
            raise UserError(f"pooling: {pooling!r} is not one of {', '.join(POOLING_MODES)}")
        if math.isqrt(tokens_per_frame) ** 2 != tokens_per_frame or tokens_per_frame < 1:
            raise UserError(f"tokens_per_frame: {tokens_per_frame} is not a perfect square (1, 4, 9, 16, ...)")
        self.vision_config = vision_config
        self.text_config = text_config
        self.tokens_per_frame = tokens_per_frame
        self.pooling = pooling
        self.vision_select_layer = vision_select_layer
        self.video_token_id = video_token_id
        self.num_frames = num_frames
        kwargs.setdefault("tie_word_embeddings", getattr(text_config, "tie_word_embeddings", False))
        super().__init__(**kwargs)


class Projector(nn.Sequential):
    """Two-layer MLP with GELU: vision width -> LM width -> LM width, as in LLaVA."""

    def __init__(self, vision_width: int, lm_width: int) -> None:
        super().__init__(nn.Linear(vision_width, lm_width), nn.GELU(), nn.Linear(lm_width, lm_width))


class VideoVLM(PreTrainedModel, GenerationMixin):
    """SigLIP tower, projector and causal LM; `input_ids` hold T * V copies of the video token."""

    config_class = VideoVLMConfig
    main_input_name = "input_ids"
    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["SiglipEncoderLayer", "LlamaDecoderLayer"]  # noqa: RUF012 (transformers' way)
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: VideoVLMConfig) -> None:
        super().__init__(config)
        self.vision_tower = SiglipVisionModel(config.vision_config)
        self.projector = Projector(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self._freeze_unused_vision_parameters()
        self.post_init()

    @classmethod
    def from_backbones(
        cls,
        vision: str | Path,
        lm: str | Path,
        *,
        tokens_per_frame: int,
        video_token_id: int,
        projector: str | Path | None = None,
        pooling: str = "bilinear",
        vision_select_layer: int = -2,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> VideoVLM:
        """Assemble pretrained parts; without `projector` (a safetensors file) it is drawn at random.

        `vision` may hold a SiglipVisionModel or a whole SiglipModel; `lm` any causal LM of transformers. Weights
        become `dtype` whatever they are stored in; on the device "meta" they are only checked. Raises UserError for
        parts that are not whole or of another kind.
        """
        vision_tower = load_vision_tower(vision, dtype, device)
        language_model = load_language_model(lm, dtype, device)
        config = VideoVLMConfig(
            vision_config=vision_tower.config,
            text_config=language_model.config,
            tokens_per_frame=tokens_per_frame,
            pooling=pooling,
            vision_select_layer=vision_select_layer,
            video_token_id=video_token_id,
        )
        with torch.device("meta"):  # the parts are in memory already: allocate nothing twice
            model = cls(config)
        model.vision_tower = vision_tower
        model.language_model = language_model
        with torch.device(device):
            projector_part = Projector(config.vision_config.hidden_size, config.text_config.hidden_size)
        model.projector = projector_part.to(language_model.dtype)
        model._freeze_unused_vision_parameters()
        model.generation_config = GenerationConfig.from_model_config(config)
        model.generation_config.eos_token_id = language_model.generation_config.eos_token_id
        model.generation_config.pad_token_id = language_model.generation_config.pad_token_id
        if projector is not None:
            model.load_projector(projector)
        return model.eval()

    def cast_weights(self, dtype: torch.dtype) -> None:
        """Put the weights, and nothing else, into `dtype`.

        `to(dtype)` rounds the rotary embedding's frequencies too, which a model that is loaded in bfloat16 keeps in
        float32: it would answer differently from its own saved folder.
        """
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)

    def save_projector(self, path: str | Path) -> None:
        """Write the projector alone as safetensors: stage 1's result, shared by every trial of one LM."""
        tensors = {name: value.detach().contiguous().cpu() for name, value in self.projector.state_dict().items()}
        save_file(tensors, str(path))

    def load_projector(self, path: str | Path) -> None:
        """Read a file of `save_projector`; raises UserError when its shapes do not fit these backbones."""
        try:
            tensors = load_file(str(path))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: cannot be read as safetensors ({error}); pretrain the projector again") from None
        expected = {name: tuple(value.shape) for name, value in self.projector.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        if found != expected:
            raise UserError(
                f"{path}: projector tensors {found} do not fit this model's {expected}; "
                "pretrain a projector for this pair of vision tower and LM"
            )
        self.projector.load_state_dict(tensors)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    @property
    def num_vision_layers(self) -> int:
        """Encoder layers that run: hidden states are counted with the embeddings as number 0."""
        total, select = self.config.vision_config.num_hidden_layers, self.config.vision_select_layer
        if not -(total + 1) <= select <= total:
            raise UserError(f"vision_select_layer: {select} does not exist in a tower of {total} layers")
        return select % (total + 1)

    def encode_video(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Frames (B, T, 3, H, W) -> visual tokens (B, T * V, D), frame by frame and row by row."""
        B, T = pixel_values.shape[:2]
        # Only the layers that are read run, which also spares their memory; the pooling head never does.
        hidden = self.vision_tower.embeddings(pixel_values.flatten(0, 1).to(self.vision_tower.dtype))
        for layer in self.vision_tower.encoder.layers[: self.num_vision_layers]:
            hidden = layer(hidden, None)
        features = pool_patches(self.projector(hidden), self.config.tokens_per_frame, self.config.pooling)
        return features.reshape(B, T * self.config.tokens_per_frame, -1)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        label_weights: torch.Tensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token logits, and the mean cross-entropy over `labels` that are not -100.

        input_ids, attention_mask, labels: (B, L); pixel_values: (B, T, 3, H, W), absent once a KV cache holds
        the video. label_weights: (B, L), then the loss is the sum of each label's cross-entropy times its weight;
        num_items_in_batch: what the sum is divided by instead of their number, as transformers' Trainer asks.
        With labels, logits are those of the P positions before a label in any row, (B, P, vocabulary): all others
        carry no loss, and a large vocabulary would need gigabytes for them.
        Raises ValueError when a row's number of video tokens is not T * V, or more tokens than the LM's context.
        """
        self._check_length(input_ids.shape[1])
        is_video = input_ids == self.config.video_token_id
        # The video token is only a place holder: its id may lie outside of the LM's embedding.
        inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(is_video, 0))
        if pixel_values is not None:
            num_visual_tokens = pixel_values.shape[1] * self.config.tokens_per_frame
            counts = is_video.sum(dim=1)
            if (counts != num_visual_tokens).any():
                raise ValueError(
                    f"input_ids hold {counts.tolist()} video tokens, but {pixel_values.shape[1]} frames x "
                    f"{self.config.tokens_per_frame} tokens per frame make {num_visual_tokens}"
                )
            video = self.encode_video(pixel_values).to(inputs_embeds.dtype)
            inputs_embeds = inputs_embeds.masked_scatter(is_video.unsqueeze(-1), video)
        if labels is not None:
            logits_to_keep = _positions_with_loss(labels)
        out = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, logits_to_keep=logits_to_keep, **kwargs
        )
        if labels is not None:
            if label_weights is None and num_items_in_batch is not None:
                label_weights = torch.full_like(labels, 1.0, dtype=torch.float32) / num_items_in_batch
            weights = None if label_weights is None else label_weights[:, logits_to_keep + 1]
            out["loss"] = _loss(out.logits, labels[:, logits_to_keep + 1], weights)
        return out

    @property
    def max_length(self) -> int | None:
        """Positions that the LM was trained for, where its configuration says so."""
        return getattr(self.config.text_config, "max_position_embeddings", None)

    def _check_length(self, num_tokens: int) -> None:
        if self.max_length is not None and num_tokens > self.max_length:
            raise ValueError(f"a sequence of {num_tokens} tokens is longer than the LM's context of {self.max_length}")

    def _freeze_unused_vision_parameters(self) -> None:
        # DistributedDataParallel waits for a gradient of every trainable parameter, and these never get one.
        unused = [
            self.vision_tower.post_layernorm,
            *self.vision_tower.encoder.layers[self.num_vision_layers :],
        ]
        if self.vision_tower.use_head:
            unused.append(self.vision_tower.head)
        for module in unused:
            module.requires_grad_(False)


def pool_patches(patches: torch.Tensor, tokens_per_frame: int, mode: str) -> torch.Tensor:
    """Square patch grid (F, W, D) -> square token grid (F, V, D), both row by row."""
    F, W, D = patches.shape
    patch_side, token_side = math.isqrt(W), math.isqrt(tokens_per_frame)
    grid = patches.transpose(1, 2).reshape(F, D, patch_side, patch_side)
    if mode == "average":
        grid = functional.adaptive_avg_pool2d(grid, token_side)
    else:
        antialias = mode == "bilinear-antialias"
        size = (token_side, token_side)
        grid = functional.interpolate(grid, size, mode="bilinear", align_corners=False, antialias=antialias)
    return grid.flatten(2).transpose(1, 2)


def count_parameters(model: VideoVLM) -> dict[str, int]:
    """The counts that Eq. 1 is made of (Wang et al. 2025); works on the meta device too.

    `lm_params` (x_N) leaves out the input embedding: 973,146,112 for Llama-3.2-1B, 7,504,924,672 for
    Llama-3.1-8B, the paper's 1 and 7.5 billion. A tied output embedding is the same tensor and thus left
    out with it. `vision_params` (x_M) is the whole tower, `vision_tokens` (x_W) its patches per frame.
    """
    lm_total = _num_elements(model.language_model)
    vision = model.config.vision_config
    return {
        "lm_params": lm_total - model.get_input_embeddings().weight.numel(),
        "lm_total": lm_total,
        "vision_params": _num_elements(model.vision_tower),
        "vision_tokens": (vision.image_size // vision.patch_size) ** 2,
        "projector_params": _num_elements(model.projector),
    }


def _num_elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())  # yields a tied tensor once


def _positions_with_loss(labels: torch.Tensor) -> torch.Tensor:
    """Positions whose next token is a label in any row; where there is none, one whose loss is nothing."""
    is_labelled = (labels[:, 1:] != IGNORED_LABEL).any(dim=0)
    positions = is_labelled.nonzero().flatten()
    return positions if len(positions) else positions.new_zeros(1)


def _loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Cross-entropy in float32 over targets (B, P) that are not -100: weighted sum, or mean without weights."""
    logits, targets = logits.float().flatten(0, 1), targets.flatten()
    if weights is None:
        return functional.cross_entropy(logits, targets, ignore_index=IGNORED_LABEL)
    losses = functional.cross_entropy(logits, targets, ignore_index=IGNORED_LABEL, reduction="none")
    return (losses * weights.flatten()).sum()


AutoConfig.register(VideoVLMConfig.model_type, VideoVLMConfig)
AutoModel.register(VideoVLMConfig, VideoVLM)
