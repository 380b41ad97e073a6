"""A model's folder: read again in a fresh process through Auto classes, asked by `answer`."""

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from released import write_released

from vvlm_ray.cli import main
from vvlm_ray.data.frames import read_frames
from vvlm_ray.errors import UserError
from vvlm_ray.model.assembly import assemble
from vvlm_ray.model.folder import load_model, save_model
from vvlm_ray.model.prompts import encode_prompt


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = write_released(tmp_path_factory.mktemp("pair"))
    torch.manual_seed(0)
    parts = assemble(folder / "vision", folder / "lm", tokens_per_frame=4, system="Be brief.", pooling="average")
    parts.model.cast_weights(torch.bfloat16)
    save_model(folder / "model", parts, 3, {"seed": 0, "factors": {"num_frames": 3}})
    save_model(folder / "model", parts, 3, {"seed": 0, "factors": {"num_frames": 3}})  # over an earlier one
    return folder / "model", parts


def inputs(parts, video):
    ids = torch.tensor([encode_prompt(parts.tokenizer, "what colour is it ?", 12)])
    pixels = parts.preprocessor(read_frames(video, 3))[None].to(parts.model.dtype)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def test_the_folder_gives_back_the_same_model(saved, tiny_videos):
    folder, parts = saved
    again = load_model(folder)
    assert (again.num_frames, again.model.config.pooling, again.model.dtype) == (3, "average", torch.bfloat16)
    for (name, mine), (_, theirs) in zip(parts.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    batch = inputs(again, tiny_videos["green_24"])
    assert batch["input_ids"].tolist() == inputs(parts, tiny_videos["green_24"])["input_ids"].tolist()
    torch.testing.assert_close(again.model(**batch).logits, parts.model(**batch).logits)
    assert '"num_frames": 3' in (folder / "README.md").read_text()


def test_auto_classes_in_a_fresh_process_and_answer(saved, tiny_videos):
    folder, parts = saved
    code = (
        "import sys, vvlm_ray.model.folder; from transformers import AutoConfig, AutoModel, AutoTokenizer;"
        "m = AutoModel.from_pretrained(sys.argv[1]); t = AutoTokenizer.from_pretrained(sys.argv[1]);"
        "print(type(m).__name__, m.dtype, m.config.num_frames, t.pad_token)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["VideoVLM", "torch.bfloat16", "3", "<|finetune_right_pad_id|>"]
    video = str(tiny_videos["green_24"])
    told = CliRunner().invoke(
        main, ["answer", str(folder), video, "what colour is it ?", "--max-new-tokens", "6", "--json"]
    )
    assert told.exit_code == 0, told.output
    batch = inputs(parts, video)
    ids = parts.model.generate(**batch, max_new_tokens=6, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert json.loads(told.stdout)["answer"] == parts.tokenizer.decode(ids, skip_special_tokens=True)


def test_what_is_no_model_folder(saved, tmp_path):
    folder, _ = saved
    with pytest.raises(UserError, match=r"config.json: is no model's configuration"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="is a llama model; a model folder"):
        load_model(folder.parent / "lm")
    told = CliRunner().invoke(main, ["answer", str(folder), str(folder / "README.md"), "what?"])
    assert told.exit_code == 2 and "cannot be read" in told.output
