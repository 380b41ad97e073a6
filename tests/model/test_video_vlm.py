"""The model, with real transformers classes of a few hundred parameters saved to and loaded from disk."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vvlm_ray.errors import UserError
from vvlm_ray.model.video_vlm import VideoVLM, VideoVLMConfig, count_parameters, pool_patches

VIDEO_ID = 20  # outside of the vocabulary of 20: the place holder needs no embedding
VISION = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 12,
    "patch_size": 4,
}
TEXT = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def backbones(request, tmp_path):
    torch.manual_seed(0)
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(tmp_path / "vision")
    config = LlamaConfig(**TEXT, tie_word_embeddings=request.param, initializer_range=0.5)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "lm")
    return tmp_path


def build(backbones, **changes):
    torch.manual_seed(1)
    arguments = {"tokens_per_frame": 4, "video_token_id": VIDEO_ID} | changes
    return VideoVLM.from_backbones(backbones / "vision", backbones / "lm", **arguments)


def inputs(num_frames=2, tokens_per_frame=4, batch=2):
    generator = torch.Generator().manual_seed(2)
    ids = [[1, *[VIDEO_ID] * (num_frames * tokens_per_frame), 5, 6, 7 + row] for row in range(batch)]
    pixels = torch.randn(batch, num_frames, 3, 12, 12, generator=generator)
    input_ids = torch.tensor(ids)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "pixel_values": pixels}


def test_video_becomes_exactly_t_times_v_tokens(backbones):
    model = build(backbones, tokens_per_frame=9)
    assert model.encode_video(torch.randn(2, 5, 3, 12, 12)).shape == (2, 45, 16)
    logits = model(**inputs(5, 9)).logits
    assert logits.shape == (2, 1 + 45 + 3, 20)


def test_wrong_number_of_video_tokens_names_both_numbers(backbones):
    batch = inputs(num_frames=2)
    batch["pixel_values"] = torch.randn(2, 3, 3, 12, 12)
    with pytest.raises(ValueError, match=r"\[8, 8\].*3 frames x 4.*12"):
        build(backbones)(**batch)


def test_more_tokens_than_the_lms_context_are_refused(backbones):
    model, batch = build(backbones), inputs()
    model.config.text_config.max_position_embeddings = batch["input_ids"].shape[1]
    model(**batch)
    model.config.text_config.max_position_embeddings -= 1
    with pytest.raises(ValueError, match="12 tokens is longer than the LM's context of 11"):
        model(**batch)


def test_visual_tokens_are_the_selected_layer_projected_then_pooled(backbones):
    model = build(backbones)
    frames = torch.randn(3, 3, 12, 12)
    states = model.vision_tower(frames, output_hidden_states=True).hidden_states
    expected = pool_patches(model.projector(states[-2]), 4, "bilinear").reshape(1, 12, 16)
    torch.testing.assert_close(model.encode_video(frames[None]), expected)
    last = build(backbones, vision_select_layer=-1)
    expected = pool_patches(last.projector(states[-1]), 4, "bilinear").reshape(1, 12, 16)
    torch.testing.assert_close(last.encode_video(frames[None]), expected)


def bilinear_by_hand(grid, side):
    """Half-pixel bilinear sampling without antialias, one output cell at a time; grid (P, P, D)."""
    P = grid.shape[0]
    out = np.zeros((side, side, grid.shape[2]))
    for row in range(side):
        for column in range(side):
            for axis_weights in _corners(row, side, P):
                for other in _corners(column, side, P):
                    out[row, column] += axis_weights[1] * other[1] * grid[axis_weights[0], other[0]]
    return out


def _corners(index, side, P):
    at = min(max((index + 0.5) * P / side - 0.5, 0), P - 1)
    low = math.floor(at)
    return [(low, 1 - (at - low)), (min(low + 1, P - 1), at - low)]


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 7])
def test_bilinear_pooling_equals_brute_force(side):
    P, D = 6, 3
    grid = np.random.default_rng(0).normal(size=(P, P, D))
    pooled = pool_patches(torch.from_numpy(grid.reshape(1, P * P, D)), side * side, "bilinear")
    np.testing.assert_allclose(pooled[0].numpy(), bilinear_by_hand(grid, side).reshape(-1, D), atol=1e-12)


def test_average_pooling_averages_blocks_and_modes_differ():
    patches = torch.arange(16.0).reshape(1, 16, 1)
    assert pool_patches(patches, 4, "average").flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_patches(patches, 1, "bilinear-antialias") == pytest.approx(7.5)
    noise = torch.randn(1, 81, 2)
    assert not torch.allclose(pool_patches(noise, 4, "bilinear"), pool_patches(noise, 4, "bilinear-antialias"))


def test_bad_settings_are_named():
    with pytest.raises(UserError, match="tokens_per_frame: 8"):
        VideoVLMConfig(tokens_per_frame=8)
    with pytest.raises(UserError, match="pooling: 'max'"):
        VideoVLMConfig(pooling="max")


def test_loss_is_the_mean_over_labelled_tokens(backbones):
    model, batch = build(backbones), inputs()
    labels = torch.full_like(batch["input_ids"], -100)
    labels[0, -1] = batch["input_ids"][0, -1]
    labels[1, -2:] = batch["input_ids"][1, -2:]
    log_probabilities = model(**batch).logits.log_softmax(-1)
    by_hand = -sum(log_probabilities[row, at - 1, labels[row, at]] for row, at in ((0, -1), (1, -1), (1, -2)))
    out = model(**batch, labels=labels)
    torch.testing.assert_close(out.loss, by_hand / 3)
    torch.testing.assert_close(out.logits, model(**batch).logits[:, -3:-1])  # before a label of either row
    weights = torch.zeros(labels.shape)
    weights[0, -1], weights[1, -1], weights[1, -2] = 0.5, 2.0, 3.0
    terms = [
        log_probabilities[row, at - 1, labels[row, at]] * weights[row, at] for row, at in ((0, -1), (1, -1), (1, -2))
    ]
    torch.testing.assert_close(model(**batch, labels=labels, label_weights=weights).loss, -sum(terms))
    nothing = model(**batch, labels=torch.full_like(labels, -100), label_weights=weights).loss
    assert nothing == 0 and nothing.requires_grad


def test_every_trainable_parameter_gets_a_gradient(backbones):
    model, batch = build(backbones), inputs()
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == VIDEO_ID, -100)
    model(**batch, labels=labels).loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert model.vision_tower.embeddings.patch_embedding.weight.grad.abs().sum() > 0


def test_generate_is_the_argmax_of_forward_and_sees_the_video_once(backbones):
    model, batch = build(backbones), inputs()
    calls = []
    model.vision_tower.embeddings.register_forward_hook(lambda *_: calls.append(1))
    out = model.generate(**batch, max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert len(calls) == 1
    ids, mask = batch["input_ids"], batch["attention_mask"]
    for _ in range(5):
        logits = model(input_ids=ids, attention_mask=mask, pixel_values=batch["pixel_values"]).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        mask = torch.ones_like(ids)
    assert out.tolist() == ids.tolist()


def test_left_padding_does_not_change_what_is_generated(backbones):
    model, batch = build(backbones), inputs(batch=1)
    plain = model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=None)
    pad = torch.zeros(1, 3, dtype=torch.long)
    batch["input_ids"] = torch.cat([pad, batch["input_ids"]], dim=1)
    batch["attention_mask"] = torch.cat([pad, batch["attention_mask"]], dim=1)
    padded = model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert padded[0, 3:].tolist() == plain[0].tolist()


def test_save_and_load_round_trip(backbones):
    model, batch = build(backbones, pooling="average", vision_select_layer=-1), inputs()
    model.save_pretrained(backbones / "whole")
    again = VideoVLM.from_pretrained(backbones / "whole")
    assert (again.config.pooling, again.config.vision_select_layer) == ("average", -1)
    assert (again.config.tokens_per_frame, again.config.video_token_id) == (4, VIDEO_ID)
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits)
    assert count_parameters(again) == count_parameters(model)


def test_projector_round_trip_and_mismatch(backbones):
    model, batch = build(backbones), inputs()
    model.save_projector(backbones / "projector.safetensors")
    torch.manual_seed(9)
    other = VideoVLM.from_backbones(
        backbones / "vision",
        backbones / "lm",
        tokens_per_frame=4,
        video_token_id=VIDEO_ID,
        projector=backbones / "projector.safetensors",
    )
    torch.testing.assert_close(other(**batch).logits, model(**batch).logits)
    LlamaForCausalLM(LlamaConfig(**TEXT | {"hidden_size": 32})).save_pretrained(backbones / "wider")
    with pytest.raises(UserError, match="projector tensors"):
        VideoVLM.from_backbones(
            backbones / "vision",
            backbones / "wider",
            tokens_per_frame=4,
            video_token_id=VIDEO_ID,
            projector=backbones / "projector.safetensors",
        )


def test_a_whole_siglip_checkpoint_serves_as_vision_tower(backbones):
    torch.manual_seed(3)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    siglip = SiglipModel(SiglipConfig(text_config=text | {"vocab_size": 9}, vision_config=VISION))
    siglip.save_pretrained(backbones / "siglip")
    model = VideoVLM.from_backbones(backbones / "siglip", backbones / "lm", tokens_per_frame=4, video_token_id=VIDEO_ID)
    torch.testing.assert_close(
        model.vision_tower.embeddings.patch_embedding.weight,
        siglip.vision_model.embeddings.patch_embedding.weight,
    )


LLAMA_SIZES = {
    "Llama-3.2-1B": (2048, 8192, 16, 32, True, 973_146_112, 1_235_814_400),
    "Llama-3.2-3B": (3072, 8192, 28, 24, True, 2_818_747_392, 3_212_749_824),
    "Llama-3.1-8B": (4096, 14336, 32, 32, False, 7_504_924_672, 8_030_261_248),
}


@pytest.mark.parametrize("name", LLAMA_SIZES)
def test_counts_of_the_papers_models(name):
    width, intermediate, layers, heads, tied, without_embedding, total = LLAMA_SIZES[name]
    text = LlamaConfig(
        vocab_size=128_256,
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        tie_word_embeddings=tied,
    )
    so400m = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    )
    with torch.device("meta"):
        model = VideoVLM(VideoVLMConfig(vision_config=so400m, text_config=text, video_token_id=128_002))
    counts = count_parameters(model)
    assert counts["lm_params"] == without_embedding
    assert counts["lm_total"] == total
    assert (counts["vision_params"], counts["vision_tokens"]) == (428_225_600, 27 * 27)
