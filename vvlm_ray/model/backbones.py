"""Pretrained parts as they are released: SigLIP towers, causal LMs and their tokenizers, checked as they are loaded.

Weights are read as float32 whatever they are stored in: AdamW at 1e-5 moves next to nothing in bfloat16. Only
safetensors are read and no code of a folder is run; a part with a missing, unexpected or misshapen tensor is refused
by that tensor's name, where transformers would draw it at random.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, SiglipVisionModel
from transformers.utils import logging

from vvlm_ray.errors import UserError
from vvlm_ray.model.templates import set_chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_TOWERS = ("siglip", "siglip_vision_model")
# What may stand in a file beside the wanted tensors: the text half of a whole SigLIP, and tables made from the config.
_PASSED_OVER = ("text_model.", "logit_scale", "logit_bias")
_MADE_FROM_CONFIG = ("rotary_emb.inv_freq", "embeddings.position_ids")
# Llama 3 has no pad token, but a token that is meant for it.
_PAD_TOKEN = "<|finetune_right_pad_id|>"
_NUM_NAMED = 5


def load_vision_tower(folder: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> SiglipVisionModel:
    """The tower of a folder that holds a SiglipVisionModel or a whole SiglipModel.

    On the device "meta" its weights are checked by name and shape, and not read.
    Raises UserError when it is another kind of model, incomplete, or not stored as safetensors.
    """
    config = _read_config(folder)
    if config.model_type not in _TOWERS:
        raise UserError(
            f"{folder}: is a {config.model_type} model; a SigLIP vision tower is expected (model type siglip)"
        )
    return _load(SiglipVisionModel, folder, dtype, device)


def load_language_model(folder: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> PreTrainedModel:
    """Any causal LM of transformers; device and errors as `load_vision_tower`."""
    config = _read_config(folder)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise UserError(f"{folder}: is a {config.model_type} model; a causal language model is expected")
    return _load(AutoModelForCausalLM, folder, dtype, device)


def load_tokenizer(
    folder: str | Path,
    *,
    chat_template: str | Path | None = None,
    system: str | None = None,
    pad_token: str | None = None,
) -> PreTrainedTokenizerBase:
    """The tokenizer beside a language model, with a chat template and a pad token, as training needs it.

    chat_template: a file, for LMs whose folder holds none; system: a sentence before every conversation.
    pad_token: default the tokenizer's own, else the place holder that Llama 3 has for it, else the end token (the
    attention mask and the labels tell the two apart). No token is added.
    Raises UserError where there is no tokenizer, no template, no end, or a token that it does not know.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: no tokenizer can be read ({_first_line(error)})") from error
    set_chat_template(tokenizer, chat_template, system)
    known = tokenizer.get_vocab()
    pad = pad_token or tokenizer.pad_token or (_PAD_TOKEN if _PAD_TOKEN in known else tokenizer.eos_token)
    if pad is None:
        raise UserError(f"{folder}: the tokenizer has neither a pad token nor an end token; name a pad_token")
    if pad not in known:
        raise UserError(f"{folder}: the tokenizer does not know the pad token {pad!r}; name one of its tokens")
    tokenizer.pad_token = pad
    return tokenizer


def load_checked(kind: Any, folder: str | Path, dtype: torch.dtype | str, *, model_type: str) -> Any:
    """A model of the class `kind` from a folder whose config.json names `model_type`; errors as the others'."""
    path = Path(folder) / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no model's configuration ({_first_line(error)})") from error
    if found != model_type:
        raise UserError(
            f"{folder}: is a {found} model; a model folder that a trial has left is expected ({model_type})"
        )
    return _load(kind, folder, dtype, "cpu")


def _read_config(folder: str | Path) -> PreTrainedConfig:
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: holds no config.json; give the folder of a model as transformers saves it")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{Path(folder) / 'config.json'}: cannot be read ({_first_line(error)})") from error


def _load(kind: Any, folder: str | Path, dtype: torch.dtype | str, device: str) -> Any:
    if not any(Path(folder).glob("*.safetensors")):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in Path(folder).glob(pattern))
        found = f"only {', '.join(pickles[:_NUM_NAMED])}, and pickles are not loaded" if pickles else "no weights"
        raise UserError(
            f"{folder}: holds {found}; save it as safetensors (model.save_pretrained in transformers 5 does)"
        )
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                folder,
                dtype=dtype,
                device_map=None if device == "cpu" else device,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
    except Exception as error:  # whatever is wrong with a file: OSError, ValueError, RuntimeError, SafetensorError
        raise UserError(f"{folder}: cannot be loaded ({_first_line(error)})") from error
    _refuse_gaps(folder, report)
    return model


def _refuse_gaps(folder: str | Path, report: dict[str, Any]) -> None:
    """Raise UserError unless every tensor of the model came from the file, and every one of the file was used."""
    unexpected = [
        name
        for name in report["unexpected_keys"]
        if not name.startswith(_PASSED_OVER) and not name.endswith(_MADE_FROM_CONFIG)
    ]
    mismatched = [
        f"{name} (stored {tuple(stored)}, needed {tuple(needed)})" for name, stored, needed in report["mismatched_keys"]
    ]
    problems = [
        f"{kind} {', '.join(sorted(names)[:_NUM_NAMED])}"
        + (f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else "")
        for kind, names in (
            ("misses", report["missing_keys"]),
            ("does not know", unexpected),
            ("has in another shape", mismatched),
            ("fails on", report["error_msgs"]),
        )
        if names
    ]
    if problems:
        raise UserError(f"{folder}: its weights do not fit its config.json: it {'; it '.join(problems)}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers' progress bar and its report on weights stay silent: what matters is raised."""
    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
