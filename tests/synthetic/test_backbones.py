"""The base training, with a hundredth of its steps: what is written, and that it loads like any backbone."""

import json

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, SiglipVisionModel

from vvlm_ray.errors import UserError
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.model.prompts import encode_conversation, encode_prompt, video_token_id
from vvlm_ray.model.video_vlm import VideoVLM, count_parameters
from vvlm_ray.synthetic import benchmark as synthetic
from vvlm_ray.synthetic.backbones import (
    LM_PARAMS,
    VISION_PARAMS,
    VISION_TOKENS,
    BackboneSettings,
    build_backbone,
    build_model,
    build_tokenizer,
)

SHORT = BackboneSettings(scale=0.01)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbones")
    build_backbone(folder, "small", SHORT)
    return folder


def load(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "lm")
    model = VideoVLM.from_backbones(
        folder / "vision",
        folder / "lm",
        projector=folder / "projector.safetensors",
        tokens_per_frame=9,
        video_token_id=video_token_id(tokenizer),
    )
    return model, tokenizer


@pytest.mark.parametrize("name", LM_PARAMS)
def test_stated_sizes_are_the_models_sizes(name):
    counts = count_parameters(build_model(name, build_tokenizer()))
    assert counts["lm_params"] == LM_PARAMS[name]
    assert (counts["vision_params"], counts["vision_tokens"]) == (VISION_PARAMS, VISION_TOKENS)


def test_parts_load_like_any_backbone_and_answer_questions(backbones):
    folder = backbones / "small"
    assert {path.suffix for path in folder.rglob("*.*")} == {".safetensors", ".json", ".jinja"}
    LlamaForCausalLM.from_pretrained(folder / "lm")
    SiglipVisionModel.from_pretrained(folder / "vision")
    model, tokenizer = load(folder)
    preprocessor = ImagePreprocessor.from_pretrained(folder / "vision")
    pixels = preprocessor(torch.zeros(2, 32, 32, 3, dtype=torch.uint8).numpy())[None]
    ids = torch.tensor([encode_prompt(tokenizer, "Colour in L007 ?", 2 * 9)])
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, max_new_tokens=2)
    assert out.shape[1] <= ids.shape[1] + 2


def test_tokenizer_knows_every_word_and_ends_answers():
    tokenizer = build_tokenizer()
    assert tokenizer.unk_token_id not in tokenizer(" ".join(synthetic.all_words()))["input_ids"]
    turns = [("user", "<video>\nColour in English ?"), ("assistant", "red")]
    ids, labels = encode_conversation(tokenizer, turns, 2)
    text = tokenizer.convert_ids_to_tokens(ids)
    assert text == [
        "<user>",
        "<video>",
        "<video>",
        "Colour",
        "in",
        "English",
        "?",
        "<end>",
        "<assistant>",
        "red",
        "<end>",
    ]
    assert labels[-2:] == ids[-2:]
    assert tokenizer.decode(ids[-2:], skip_special_tokens=True) == "red"


def test_no_patch_knows_another(backbones):
    """Else tokens per frame would not matter: changing one patch changes that patch's features only."""
    model, _ = load(backbones / "small")
    model.config.tokens_per_frame = VISION_TOKENS
    frames = torch.zeros(1, 1, 3, 32, 32)
    changed = frames.clone()
    changed[..., 4:8, 8:12] = 1.0
    differs = (model.encode_video(frames) != model.encode_video(changed)).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == [8 + 2]


def test_equal_settings_give_equal_weights_and_what_is_there_is_left_alone(backbones, tmp_path):
    torch.manual_seed(5)  # the global generator has no influence, and is left as it was
    before = torch.get_rng_state()
    build_backbone(tmp_path, "small", SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    for first, second in zip(
        load(backbones / "small")[0].parameters(), load(tmp_path / "small")[0].parameters(), strict=True
    ):
        torch.testing.assert_close(first, second)
    (tmp_path / "small" / "mark").touch()
    build_backbone(tmp_path, "small", SHORT)
    assert (tmp_path / "small" / "mark").exists()


def test_progress_and_failure(tmp_path):
    calls = []
    build_backbone(tmp_path, "medium", SHORT, lambda fraction, text: calls.append((fraction, text)))
    assert calls[0][0] == 0.0
    assert calls[-1] == (1.0, "medium: done")
    assert [fraction for fraction, _ in calls] == sorted(fraction for fraction, _ in calls)

    def fail(fraction, text):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        build_backbone(tmp_path, "small", SHORT, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["medium"]
    with pytest.raises(UserError, match="'huge' is not one of small, medium, large"):
        build_backbone(tmp_path, "huge", SHORT)


def test_base_training_teaches(tmp_path):
    """A twentieth of the curriculum already names the colour of a flat image; guessing gives 12.5 %."""
    losses = []
    build_backbone(tmp_path, "small", BackboneSettings(scale=0.1), lambda _, text: losses.append(text))
    facts = [float(text.rsplit(" ", 1)[1]) for text in losses if "facts" in text]
    assert facts[-1] < 0.6 * facts[0]
    config = json.loads((tmp_path / "small" / "lm" / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
