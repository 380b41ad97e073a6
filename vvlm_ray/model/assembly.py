"""Everything of one model: the network, its tokenizer, and what turns frames into its input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vvlm_ray.errors import UserError
from vvlm_ray.model.backbones import load_tokenizer
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.model.prompts import video_token_id
from vvlm_ray.model.video_vlm import VideoVLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# organisation/model, with or without a revision: meta-llama/Llama-3.2-1B@4e20de362430cd3b72f300e6b0f18e50e7166e08
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]


@dataclass(frozen=True)
class Assembly:
    """What is needed to train a model, or to ask it."""

    model: VideoVLM
    tokenizer: PreTrainedTokenizerBase
    preprocessor: ImagePreprocessor


def assemble(
    vision: str | Path,
    lm: str | Path,
    *,
    tokens_per_frame: int,
    pooling: str = "bilinear",
    projector: str | Path | None = None,
    chat_template: str | Path | None = None,
    system: str | None = None,
    pad_token: str | None = None,
    **options: Any,
) -> Assembly:
    """A model from two folders, with the tokenizer of its LM; `options` go to `VideoVLM.from_backbones`.

    Raises UserError where the parts are not whole, or do not fit each other.
    """
    tokenizer = load_tokenizer(lm, chat_template=chat_template, system=system, pad_token=pad_token)
    preprocessor = ImagePreprocessor.from_pretrained(vision)
    model = VideoVLM.from_backbones(
        vision,
        lm,
        tokens_per_frame=tokens_per_frame,
        pooling=pooling,
        projector=projector,
        video_token_id=video_token_id(tokenizer),
        **options,
    )
    _check_fit(model, tokenizer, preprocessor, str(lm), str(vision))
    own_ends = model.generation_config.eos_token_id
    ends = {*(own_ends if isinstance(own_ends, list) else [own_ends]), tokenizer.eos_token_id} - {None}
    model.generation_config.eos_token_id = sorted(ends) or None
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return Assembly(model, tokenizer, preprocessor)


def backbone_folder(name: str, folder: Path) -> Path:
    """Where a backbone's part lies: `folder`, which its name was resolved to, or else the hub's cache.

    `name` may be a hub id with a revision: `organisation/model@revision`. What the cache holds is not asked for
    again when there is no network; a token is read from the environment or the login.
    Raises UserError where there is neither.
    """
    if folder.is_dir():
        return folder
    match = _HUB_ID.fullmatch(name)
    if match is None:
        raise UserError(f"{folder}: no such folder, and {name!r} is no id of the Hugging Face hub (organisation/model)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, revision = match["repo"], match["revision"]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{name}: there is no folder {folder}, the hub's cache does not hold it, and the hub cannot be reached; "
            f"on a machine with a network: hf download {repo}" + (f" --revision {revision}" if revision else "")
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name}: there is no folder {folder}, and the hub refuses it ({reason})") from None


def _check_fit(
    model: VideoVLM, tokenizer: PreTrainedTokenizerBase, preprocessor: ImagePreprocessor, lm: str, vision: str
) -> None:
    """The tokenizer's ids lie within the LM's embedding, and the frames have the tower's size."""
    num_embeddings = model.get_input_embeddings().num_embeddings
    video = model.config.video_token_id  # a place holder that is never looked up
    beyond = [token for token, index in tokenizer.get_vocab().items() if index >= num_embeddings and index != video]
    if beyond:
        raise UserError(
            f"{lm}: the tokenizer knows tokens that the LM has no embedding for ({num_embeddings:,} rows): "
            f"{', '.join(map(repr, sorted(beyond)[:3]))}; take the LM's own tokenizer"
        )
    size = model.config.vision_config.image_size
    if preprocessor.size != size:
        raise UserError(
            f"{vision}: preprocessor_config.json makes images of {preprocessor.size} pixels, and the tower takes {size}"
        )
