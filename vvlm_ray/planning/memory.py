"""How much memory of a GPU a trial takes, from the shapes of its models; and the fewest GPUs that hold it.

Bytes per parameter: weights 4, gradients 4, AdamW's two moments 8, all in fp32 (Rajbhandari et al. 2020, ZeRO, with
fp32 master weights that are the weights themselves, as FSDP2 keeps them); FSDP divides them by the GPUs. Computing
in bf16 gathers two layers at a time, and the unit that holds embedding and head for the whole step. Activations with
gradient checkpointing: one hidden state per layer and token (Chen et al. 2016; Korthikanti et al. 2022), one layer
recomputed in full, and the logits of the text. Attention is taken to need memory linear in the sequence (flash).
Formulas, not measurements: good to about 20 %.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from vvlm_ray.planning.gpus import Gpu, usable_bytes
from vvlm_ray.study.sections import Resources


@dataclass(frozen=True)
class Shape:
    """A transformer: widths of its hidden state, feed-forward layer and keys; `vocab` 0 for a vision tower."""

    hidden: int
    layers: int
    ffn: int
    kv: int
    vocab: int = 0
    is_gated: bool = True
    is_tied: bool = False

    @property
    def layer_params(self) -> float:
        """Parameters of one layer: query and output, key and value, two or three feed-forward matrices."""
        return 2 * self.hidden**2 + 2 * self.hidden * self.kv + (3 if self.is_gated else 2) * self.hidden * self.ffn

    @property
    def embedding_params(self) -> float:
        return self.vocab * self.hidden

    @property
    def activations_per_token(self) -> float:
        """Numbers kept of one token for the backward pass of one layer: norms, q, k, v, attention, feed-forward."""
        return 8 * self.hidden + 2 * self.kv + (4 if self.is_gated else 2) * self.ffn


# config.json of the public models, by parameters without the input embedding
KNOWN_LMS = {
    973_146_112: Shape(2048, 16, 8192, 512, 128_256, is_tied=True),  # Llama-3.2-1B
    2_818_747_392: Shape(3072, 28, 8192, 1024, 128_256, is_tied=True),  # Llama-3.2-3B
    7_504_924_672: Shape(4096, 32, 14_336, 1024, 128_256),  # Llama-3.1-8B
}
SIGLIP_SO400M = Shape(1152, 26, 4304, 1152, is_gated=False)  # the layers that are read, all but the last
NUM_VISION_PARAMS, NUM_PATCHES = 428_225_600, 729


@dataclass(frozen=True)
class Model:
    """What a trial trains: shapes of LM and vision tower, all parameters, vision features per frame."""

    lm: Shape
    vision: Shape
    num_params: float
    num_patches: int

    @property
    def root_params(self) -> float:
        """Parameters outside the layers: input and output embedding, projector."""
        heads = 1 if self.lm.is_tied else 2
        return heads * self.lm.embedding_params + self.projector_params

    @property
    def projector_params(self) -> float:
        return self.vision.hidden * self.lm.hidden + self.lm.hidden**2


def model_of(lm_params: float, lm_folder: Path | None, vision_folder: Path | None) -> Model:
    """The model of a backbone: from the config.json files where they are, else from what is known of its size."""
    lm = _read_shape(lm_folder) or _guess_shape(lm_params)
    vision = _read_shape(vision_folder)
    num_vision, num_patches = NUM_VISION_PARAMS, NUM_PATCHES
    if vision:
        num_vision = vision.layers * vision.layer_params
        config = _read_config(vision_folder)
        num_patches = (config.get("image_size", 384) // config.get("patch_size", 14)) ** 2
    vision = vision or SIGLIP_SO400M
    projector = vision.hidden * lm.hidden + lm.hidden**2
    return Model(lm, vision, lm_params + lm.embedding_params + num_vision + projector, num_patches)


def memory_bytes(
    model: Model,
    num_frames: int,
    tokens_per_frame: int,
    *,
    num_gpus: int,
    micro_batch_size: int,
    text_tokens: int,
    resources: Resources,
    is_bf16: bool = True,
    trains_projector_only: bool = False,
) -> float:
    """Peak bytes of one GPU: states + gathered parameters + activations, see the top of this file."""
    width = 2 if is_bf16 else 4
    trained = model.projector_params if trains_projector_only else model.num_params
    states = 4 * model.num_params + 12 * trained
    layer = max(model.lm.layer_params, model.vision.layer_params)
    gradient = 0 if trains_projector_only else width + 4  # of a unit, before and in its exchange
    if resources.sharding == "fsdp" and num_gpus > 1:
        states /= num_gpus
        gathered = layer * (2 * width + gradient) + model.root_params * (width + gradient)
    else:
        gathered = model.num_params * width if is_bf16 else 0.0
    tokens = micro_batch_size * (num_frames * tokens_per_frame + text_tokens)
    patches = micro_batch_size * num_frames * model.num_patches
    lm = _activations(model.lm, tokens, width, resources.gradient_checkpointing)
    # A frozen tower in front of a projector keeps nothing for a backward pass.
    kept = 0 if trains_projector_only else _activations(model.vision, patches, width, resources.gradient_checkpointing)
    vision = kept or 2 * patches * model.vision.activations_per_token * width
    projector = 3 * patches * model.lm.hidden * width
    logits = micro_batch_size * text_tokens * model.lm.vocab * (width + 8)  # as computed, in fp32, and its gradient
    return states + gathered + lm + vision + projector + logits


def _activations(shape: Shape, tokens: float, width: int, is_checkpointed: bool) -> float:
    one_layer = tokens * shape.activations_per_token * width
    if not is_checkpointed:
        return shape.layers * one_layer
    return shape.layers * tokens * shape.hidden * width + 1.5 * one_layer  # with the gradients of that layer


def gang_sizes(gpus_per_node: int, max_gpus: int) -> list[int]:
    """The counts worth trying: powers of two within a node, the node, and doublings of whole nodes."""
    sizes = [2**i for i in range(gpus_per_node.bit_length()) if 2**i < gpus_per_node] + [gpus_per_node]
    while sizes[-1] * 2 <= max_gpus:
        sizes.append(sizes[-1] * 2)
    return [size for size in sizes if size <= max_gpus]


def smallest_feasible(bytes_at, gpu: Gpu, sizes: list[int]) -> int | None:
    """The first of `sizes` at which `bytes_at(size)` fits into the GPU, or None."""
    return next((size for size in sizes if bytes_at(size) <= usable_bytes(gpu)), None)


def _read_config(folder: Path | None) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text()) if folder else {}
    except (OSError, json.JSONDecodeError):
        return {}  # a missing or broken backbone is a problem that `find_problems` names
    return config.get("text_config", config) if isinstance(config, dict) else {}


def _read_shape(folder: Path | None) -> Shape | None:
    c = _read_config(folder)
    if not {"hidden_size", "num_hidden_layers", "intermediate_size"} <= c.keys():
        return None
    heads = c.get("num_attention_heads", 1)
    head_width = c.get("head_dim") or c["hidden_size"] // heads
    is_vision = "patch_size" in c
    return Shape(
        hidden=c["hidden_size"],
        layers=c["num_hidden_layers"],
        ffn=c["intermediate_size"],
        kv=c.get("num_key_value_heads", heads) * head_width,
        vocab=0 if is_vision else c.get("vocab_size", 0),
        is_gated=not is_vision,
        is_tied=bool(c.get("tie_word_embeddings", False)),
    )


def _guess_shape(lm_params: float) -> Shape:
    """The known model of that size (within 15 %), else a plain one: N = 12 L h^2 with h = 128 L."""
    nearest = min(KNOWN_LMS, key=lambda n: abs(n / lm_params - 1))
    if abs(nearest / lm_params - 1) < 0.15:
        return KNOWN_LMS[nearest]
    layers = max(1, round((lm_params / (12 * 128**2)) ** (1 / 3)))
    hidden = 128 * layers
    return Shape(hidden, layers, 4 * hidden, hidden, 128_256)
