"""Backbones of a study, looked at on the meta device: whole, of the stated size, and large enough for the trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vvlm_ray.data.table import Rows
from vvlm_ray.errors import UserError
from vvlm_ray.study.config import STUDY_PREFIX
from vvlm_ray.study.sections import Cost
from vvlm_ray.study.trials import Trial

if TYPE_CHECKING:
    from vvlm_ray.orchestration.preflight import _Check

# The paper's own constants are nominal (1, 2.8 and 7.5 billion; x_W of 768 for a tower that emits 729).
TOLERANCE = 0.06
MAX_TOKENISED = 2000  # long rows whose tokens are counted


def check_backbone(name: str, check: _Check, trials: Sequence[Trial], sources: Mapping[str, Rows]) -> None:
    """Weights, sizes, template and tokens of one backbone, and whether its longest trial's rows fit its context."""
    made = _assemble(name, check)
    if made is None:
        return
    from vvlm_ray.model.video_vlm import count_parameters

    counts, study, key = count_parameters(made.model), check.study, f"backbones.{name}"
    stated_counts = {f"{key}.lm_params": (study.backbones[name].lm_params, counts["lm_params"])}
    if isinstance(study.cost, Cost):
        stated_counts["cost.vision_params"] = study.cost.vision_params, counts["vision_params"]
        stated_counts["cost.vision_tokens"] = study.cost.vision_tokens, counts["vision_tokens"]
    for own, (stated, true) in stated_counts.items():
        if abs(stated - true) > TOLERANCE * true:
            check.add(own, f"{stated:,.0f} in the sweep file, and the model of {key} has {true:,}; write {true}")
    patches = counts["vision_tokens"]
    _check_tokens("sweeps", max((t.tokens_per_frame or 0 for t in trials), default=0), patches, key, check)
    if study.stage1 and not study.backbones[name].projector:
        _check_tokens("stage1.tokens_per_frame", study.stage1.tokens_per_frame, patches, key, check)
    if trials and made.model.max_length is not None:
        _check_context(name, made, max((t.num_frames or 0) * (t.tokens_per_frame or 0) for t in trials), sources, check)


def _assemble(name: str, check: _Check) -> Any:
    """The model on the meta device, or None where a part is wrong."""
    from vvlm_ray.model.assembly import assemble, backbone_folder
    from vvlm_ray.model.backbones import load_language_model, load_tokenizer, load_vision_tower
    from vvlm_ray.model.preprocess import ImagePreprocessor
    from vvlm_ray.model.prompts import video_token_id

    backbone, folders, is_whole = check.study.backbones[name], {}, True
    template = getattr(backbone, "chat_template", None)
    options: dict[str, Any] = {
        "chat_template": check.resolve(template) if template else None,
        "system": getattr(backbone, "system", None),
        "pad_token": getattr(backbone, "pad_token", None),
    }
    for part, look in (
        (
            "vision",
            lambda folder: (load_vision_tower(folder, device="meta"), ImagePreprocessor.from_pretrained(folder)),
        ),
        ("lm", lambda folder: load_language_model(folder, device="meta")),
        ("lm", lambda folder: video_token_id(load_tokenizer(folder, **options))),
    ):
        named = getattr(backbone, part)
        try:
            folders[part] = backbone_folder(named, check.resolve(named))
            look(folders[part])
        except UserError as error:
            check.add(f"backbones.{name}.{part}", str(error), "give the folder of another model")
            is_whole = False
    if not is_whole:
        return None
    named = backbone.projector
    projector = check.resolve(named) if named and not named.startswith(STUDY_PREFIX) else None
    try:
        return assemble(
            folders["vision"], folders["lm"], tokens_per_frame=1, projector=projector, device="meta", **options
        )
    except UserError as error:
        part = "projector" if projector and str(error).startswith(str(projector)) else "lm"
        check.add(f"backbones.{name}.{part}", str(error), "give parts that fit each other")
        return None


def _check_tokens(key: str, tokens: int, patches: int, backbone: str, check: _Check) -> None:
    if tokens > patches:
        check.add(
            key,
            f"{tokens:,} tokens_per_frame are more than the {patches:,} patches of {backbone}'s vision tower",
            "lower tokens_per_frame, or take a tower with more patches",
        )


def _check_context(name: str, made: Any, visual: int, sources: Mapping[str, Rows], check: _Check) -> None:
    """Rows that are too long for the LM beside the visual tokens of the largest trial."""
    from vvlm_ray.model.prompts import encode_conversation

    context, key = made.model.max_length, f"backbones.{name}"
    shortest = len(encode_conversation(made.tokenizer, (("user", "?"), ("assistant", "a")), 1)[0])
    if visual + shortest > context:
        check.add(
            "sweeps",
            f"{visual:,} visual tokens of a trial of {key} do not fit into its LM's context of {context:,}",
            "lower num_frames or tokens_per_frame, or take an LM with a longer context",
        )
        return
    for source, rows in sources.items():
        turns = max((len(rows[i].turns) for i in range(min(100, len(rows)))), default=2)
        suspects = list(rows.texts_longer_than(max(0, context - visual - shortest * turns)))
        looked_at = suspects[:: max(1, len(suspects) // MAX_TOKENISED)]
        long = [i for i in looked_at if _num_tokens(made.tokenizer, rows[i].turns, visual) > context]
        share = len(long) / max(1, len(looked_at)) * len(suspects) / len(rows)
        if share > check.study.data.max_unreadable_share:
            example = rows[long[0]]
            check.add(
                f"data.sources.{source}",
                f"about {share:.1%} of its rows, such as {example.example_id}, are too long for the context of {key} "
                f"({context:,} tokens) beside {visual:,} visual tokens",
                "lower num_frames or tokens_per_frame, shorten the rows, or raise max_unreadable_share",
            )


def _num_tokens(tokenizer: Any, turns: Sequence[tuple[str, str]], visual: int) -> int:
    from vvlm_ray.model.prompts import encode_conversation

    try:
        return len(encode_conversation(tokenizer, turns, visual)[0])
    except UserError:
        return 0  # counted where the row is read
