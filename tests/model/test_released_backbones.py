"""Backbones as released, and the ways in which a folder is not the model that it is taken for."""

import json
import shutil

import pytest
import torch
from released import llama3_tokenizer, write_released
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from vvlm_ray.errors import UserError
from vvlm_ray.model.backbones import load_language_model, load_tokenizer, load_vision_tower
from vvlm_ray.model.video_vlm import VideoVLM


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return write_released(tmp_path_factory.mktemp("released"))


@pytest.fixture
def copied(released, tmp_path):
    return shutil.copytree(released, tmp_path / "copy")


def test_weights_are_float32_whatever_the_folders_are(released):
    assert json.loads((released / "lm" / "config.json").read_text())["dtype"] == "bfloat16"
    model = VideoVLM.from_backbones(released / "vision", released / "lm", tokens_per_frame=4, video_token_id=2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_padding_takes_llama_3s_own_place_holder_or_the_end_token(released, tmp_path):
    tokenizer = load_tokenizer(released / "lm")
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert len(tokenizer) == len(llama3_tokenizer())
    llama3_tokenizer(without=("<|finetune_right_pad_id|>",)).save_pretrained(tmp_path)
    older = load_tokenizer(tmp_path)
    assert older.pad_token == "<|eot_id|>" and len(older) == len(tokenizer) - 1


def test_a_tokenizer_without_any_end(tmp_path):
    tokenizer = llama3_tokenizer(without=("<|finetune_right_pad_id|>",))
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="neither a pad token nor an end token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("load", "part", "message"),
    [
        (load_vision_tower, "lm", "is a llama model; a SigLIP vision tower is expected"),
        (load_language_model, "vision", "is a siglip model; a causal language model is expected"),
        (load_tokenizer, "vision", "no tokenizer"),
    ],
)
def test_the_wrong_folder(released, load, part, message):
    with pytest.raises(UserError, match=message):
        load(released / part)


def edit(folder, change):
    """Apply `change` to the tensors of the file that holds the final norm."""
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if any(name.endswith(("model.norm.weight", "vision_model.post_layernorm.weight")) for name in tensors):
            change(tensors)
            save_file(tensors, path, metadata={"format": "pt"})
            return
    raise AssertionError("no such tensor")


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named(copied):
    def change(tensors):
        tensors["model.norm.weight"] = torch.zeros(3)
        tensors["model.layers.9.extra.weight"] = torch.zeros(2)

    edit(copied / "lm", change)
    with pytest.raises(
        UserError, match=r"does not know model.layers.9.extra.*another shape model.norm.*\(3,\).*\(32,\)"
    ):
        load_language_model(copied / "lm")
    edit(copied / "vision", lambda tensors: tensors.pop("vision_model.post_layernorm.weight"))
    with pytest.raises(UserError, match=r"misses post_layernorm.weight"):
        load_vision_tower(copied / "vision")


def test_a_config_with_more_layers_than_weights(copied):
    path = copied / "lm" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"misses model.layers.2.*and 4 more"):
        load_language_model(copied / "lm")


def test_an_untied_head_that_is_not_there(tmp_path):
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"misses lm_head.weight"):
        load_language_model(tmp_path)


def test_broken_and_dangerous_folders(copied, tmp_path):
    lm = copied / "lm"
    shard = sorted(lm.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_language_model(lm)
    shard.unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        load_language_model(lm)
    for path in lm.glob("*.safetensors"):
        path.unlink()
    (lm / "pytorch_model.bin").write_bytes(b"whatever")
    with pytest.raises(UserError, match=r"only pytorch_model.bin, and pickles are not loaded; save it as safetensors"):
        load_language_model(lm)
    (lm / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        load_language_model(lm)
    with pytest.raises(UserError, match=r"holds no config.json"):
        load_language_model(tmp_path / "nowhere")


def test_code_in_a_folder_is_not_run(copied, tmp_path):
    for part, name, load in (
        ("lm", "AutoModelForCausalLM", load_language_model),
        ("vision", "AutoModel", load_vision_tower),
    ):
        path = copied / part / "config.json"
        config = json.loads(path.read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", name: "code.Model"}}
        path.write_text(json.dumps(config))
        (copied / part / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        with pytest.raises(UserError, match=r"config.json: cannot be read"):
            load(copied / part)
    assert not (tmp_path / "ran").exists()
