"""Chat templates from elsewhere, with a system sentence, missing, broken, or made to hang."""

import json

import pytest
from released import TEMPLATE, llama3_tokenizer, write_released

from vvlm_ray.errors import UserError
from vvlm_ray.model.assembly import assemble, backbone_folder
from vvlm_ray.model.backbones import load_tokenizer
from vvlm_ray.model.prompts import encode_conversation, encode_prompt
from vvlm_ray.model.templates import check_template

TURNS = [("user", "<video>\nwhat colour"), ("assistant", "green"), ("user", "and now"), ("assistant", "blue")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model's folder: no template, and the end of text as its end token."""
    tokenizer = llama3_tokenizer(template=None)
    tokenizer.eos_token = "<|end_of_text|>"
    return write_released(tmp_path_factory.mktemp("base"), tokenizer=tokenizer)


@pytest.fixture(params=["chat_template.jinja", "tokenizer_config.json", "named.json"])
def template(request, tmp_path):
    path = tmp_path / request.param
    stored = {
        "chat_template.jinja": TEMPLATE,
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}),
        "named.json": json.dumps({"chat_template": [{"name": "default", "template": TEMPLATE}]}),
    }
    path.write_text(stored[request.param])
    return path


def test_a_base_lm_takes_the_instruct_models_template_and_its_end_of_turn(base, template):
    tokenizer = load_tokenizer(base / "lm", chat_template=template)
    expected = llama3_tokenizer()
    assert encode_conversation(tokenizer, TURNS, 3) == encode_conversation(expected, TURNS, 3)
    assert tokenizer.eos_token == "<|eot_id|>" and tokenizer.pad_token == "<|finetune_right_pad_id|>"


def test_generation_ends_with_a_turn_and_with_the_text(base, tmp_path):
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    made = assemble(base / "vision", base / "lm", tokens_per_frame=4, chat_template=tmp_path / "t.jinja")
    ends = made.tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|eot_id|>"])
    assert sorted(made.model.generation_config.eos_token_id) == sorted(ends)
    assert made.model.generation_config.pad_token_id == made.tokenizer.pad_token_id
    assert made.model.config.video_token_id == made.tokenizer.convert_tokens_to_ids("<|reserved_special_token_0|>")


def test_no_template_says_how_to_name_one(base):
    with pytest.raises(UserError, match=r"base models.*backbones.<name>.chat_template"):
        load_tokenizer(base / "lm")


@pytest.mark.parametrize("system", ["You see a video.", 'Say "so"\n\\ and {{ 1 }} {% for %} été 🎬'])
def test_a_system_sentence_becomes_part_of_the_template(base, tmp_path, system):
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    tokenizer = load_tokenizer(base / "lm", chat_template=tmp_path / "t.jinja", system=system)
    asked = [{"role": "user", "content": "what"}]
    expected = llama3_tokenizer().apply_chat_template([{"role": "system", "content": system}, *asked], tokenize=False)
    assert tokenizer.apply_chat_template(asked, tokenize=False) == expected
    own = [{"role": "system", "content": "Other."}, *asked]
    assert system not in tokenizer.apply_chat_template(own, tokenize=False)
    ids, labels = encode_conversation(tokenizer, TURNS, 3)
    assert system in tokenizer.decode(ids)
    assert [tokenizer.decode([label]) for label in labels if label != -100][-1] == "<|eot_id|>"
    tokenizer.save_pretrained(tmp_path / "kept")
    assert encode_prompt(load_tokenizer(tmp_path / "kept"), "what", 2) == encode_prompt(tokenizer, "what", 2)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "come to an end"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "takes too much memory"),
        ("{{ 'a' * 10**10 }}", "takes too much memory"),
        ("{{ '%99999999d' % 1 }}", "makes 99,999,999 characters"),
        ("{{ messages[0].__class__.__mro__ }}", "fails on turns of user"),
        ("{{ raise_exception('only one turn') }}", "only one turn"),
        ("{% for m in messages %}", "is no Jinja template"),
        ("{{ nothing.at.all }}", "fails on turns"),
        ("{{ open('/etc/passwd') }}", "'open' is undefined"),
    ],
)
def test_templates_that_are_no_good(template, message):
    with pytest.raises(UserError, match=f"here.jinja: the chat template .*{message}"):
        check_template("here.jinja", template)


def test_a_template_that_leaves_out_what_is_said(base, tmp_path):
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(UserError, match=r"t.jinja: the chat template leaves out 'What is it\?'"):
        load_tokenizer(base / "lm", chat_template=tmp_path / "t.jinja")
    (tmp_path / "t.jinja").write_text("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}")
    with pytest.raises(UserError, match=r"leaves out 'Be brief.'"):
        load_tokenizer(base / "lm", chat_template=tmp_path / "t.jinja", system="Be brief.")
    for content in ("{}", "[1]", "{", '{"chat_template": 5}'):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(UserError, match="holds no chat_template"):
            load_tokenizer(base / "lm", chat_template=tmp_path / "t.json")
    for path in (tmp_path / "none.jinja", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            load_tokenizer(base / "lm", chat_template=path)


def test_a_pad_token_may_be_named(base, tmp_path):
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    tokenizer = load_tokenizer(base / "lm", chat_template=tmp_path / "t.jinja", pad_token="<|end_of_text|>")
    assert tokenizer.pad_token == "<|end_of_text|>"
    with pytest.raises(UserError, match=r"does not know the pad token '\[PAD\]'"):
        load_tokenizer(base / "lm", chat_template=tmp_path / "t.jinja", pad_token="[PAD]")


def test_parts_that_do_not_fit(tmp_path):
    tokenizer = llama3_tokenizer()
    folder = write_released(tmp_path, tokenizer=tokenizer)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder / "lm")
    with pytest.raises(UserError, match=r"no embedding for .*'<new>'"):
        assemble(folder / "vision", folder / "lm", tokens_per_frame=4)
    llama3_tokenizer().save_pretrained(folder / "lm")
    path = folder / "vision" / "preprocessor_config.json"
    path.write_text(path.read_text().replace("32", "64"))
    with pytest.raises(UserError, match=r"images of 64 pixels, and the tower takes 32"):
        assemble(folder / "vision", folder / "lm", tokens_per_frame=4)


def test_hub_ids_are_read_from_the_cache(tmp_path, monkeypatch):
    """A cache as `hf download` leaves it; no network is needed, and none is there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sha = "4e20de362430cd3b72f300e6b0f18e50e7166e08"
    repo = tmp_path / "models--someone--Tiny-1B"
    (repo / "snapshots" / sha).mkdir(parents=True)
    (repo / "snapshots" / sha / "config.json").write_text("{}")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(sha)
    for name in ("someone/Tiny-1B", f"someone/Tiny-1B@{sha}", "someone/Tiny-1B@main"):
        assert backbone_folder(name, tmp_path / name) == repo / "snapshots" / sha
    with pytest.raises(UserError, match=r"hub cannot be reached.*hf download someone/Other --revision v2"):
        backbone_folder("someone/Other@v2", tmp_path / "Other")
    with pytest.raises(UserError, match=r"no such folder, and '../models/x' is no id"):
        backbone_folder("../models/x", tmp_path / "x")
    assert backbone_folder("models--someone--Tiny-1B", repo) == repo
