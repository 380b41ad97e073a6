"""Prompts, with a real word-level tokenizer and two chat templates (own, and in Llama-3's manner)."""

import pytest
from released import llama3_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vvlm_ray.errors import UserError
from vvlm_ray.model.prompts import encode_caption, encode_conversation, encode_prompt, video_token_id

OWN = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
LLAMA3 = (
    "{{ '<begin>Today Date: ' + (date_string or strftime_now('%d %b %Y')) }}{% for m in messages %}"
    "{{ '<' + m['role'] + '>' + (m['content'] | trim) + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
REWRITING = (
    "{% for m in messages %}{{ m['content'] if loop.last else 'old' }} <end> {% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tokenizer(template=OWN, video="<video>"):
    words = ["[UNK]", "what", "colour", "is", "it", "red", "blue", "and", "now", "old", "Today", "Date", ":"]
    vocabulary = {word: index for index, word in enumerate(words)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]")
    special = ["<user>", "<assistant>", "<end>", "<begin>", *([video] if video else [])]
    wrapped.add_special_tokens({"additional_special_tokens": special})
    wrapped.chat_template = template
    return wrapped


def words(tok, ids):
    return tok.convert_ids_to_tokens(ids)


def test_video_mark_is_expanded_and_only_answers_are_labelled():
    tok = tokenizer()
    turns = [
        ("user", "<video>\nwhat colour"),
        ("assistant", "red"),
        ("user", "and now"),
        ("assistant", "blue"),
    ]
    ids, labels = encode_conversation(tok, turns, 3)
    assert " ".join(words(tok, ids)) == (
        "<user> <video> <video> <video> what colour <end> <assistant> red <end> "
        "<user> and now <end> <assistant> blue <end>"
    )
    kept = [(at, word) for at, word in enumerate(words(tok, ids)) if labels[at] != -100]
    assert kept == [(8, "red"), (9, "<end>"), (15, "blue"), (16, "<end>")]
    assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))


@pytest.mark.parametrize("text", ["what colour", "<image>\nwhat colour", "<video>\nwhat colour"])
def test_image_mark_and_no_mark_put_the_video_first(text):
    tok = tokenizer()
    assert words(tok, encode_prompt(tok, text, 2)) == [
        *("<user>", "<video>", "<video>", "what", "colour", "<end>", "<assistant>")
    ]


def test_the_mark_may_stand_after_the_question():
    tok = tokenizer()
    assert words(tok, encode_prompt(tok, "what colour\n<video>", 1))[1:4] == ["what", "colour", "<video>"]


def test_prompt_is_the_beginning_of_the_conversation():
    tok = tokenizer()
    ids, labels = encode_conversation(tok, [("user", "what is it"), ("assistant", "red")], 5)
    prompt = encode_prompt(tok, "what is it", 5)
    assert ids[: len(prompt)] == prompt
    assert set(labels[: len(prompt)]) == {-100}
    assert labels[len(prompt) :] == ids[len(prompt) :]


def test_llama3_uses_its_reserved_token_and_a_fixed_date():
    tok = tokenizer(LLAMA3, video="<|reserved_special_token_0|>")
    assert video_token_id(tok) == tok.convert_tokens_to_ids("<|reserved_special_token_0|>")
    ids, labels = encode_conversation(tok, [("user", "<video>\nwhat"), ("assistant", "red")], 4)
    assert ids.count(video_token_id(tok)) == 4
    assert [tok.decode([label]) for label in labels if label != -100] == ["red", "<end>"]
    text = tok.apply_chat_template([{"role": "user", "content": "what"}], tokenize=False, date_string="26 Jul 2024")
    assert "26 Jul 2024" in text  # the template does read what encode_conversation passes


def test_errors_say_what_is_wrong():
    with pytest.raises(UserError, match="neither '<video>' nor"):
        video_token_id(tokenizer(video=None))
    tok = tokenizer()
    with pytest.raises(UserError, match="'system'"):
        encode_conversation(tok, [("system", "what"), ("user", "what")], 1)
    with pytest.raises(UserError, match="video marks"):
        encode_conversation(tok, [("user", "<video> what"), ("assistant", "<video> red")], 1)
    turns = [("user", "what"), ("assistant", "red"), ("user", "now"), ("assistant", "blue")]
    with pytest.raises(UserError, match="changes earlier turns"):
        encode_conversation(tokenizer(REWRITING), turns, 1)


def test_a_plain_caption_is_image_then_text():
    tok = tokenizer(template=None)
    turns = [("user", "<image>\nwhat is it"), ("assistant", "red and blue")]
    ids, labels = encode_caption(tok, turns, 2)
    assert words(tok, ids) == ["<video>", "<video>", "red", "and", "blue"]
    assert labels == [-100, -100, *ids[2:]]
    released = llama3_tokenizer(template=None)
    ids, labels = encode_caption(released, turns, 2)
    assert released.decode(ids) == "<|begin_of_text|>" + "<|reserved_special_token_0|>" * 2 + "red and blue\n"
    assert released.decode([label for label in labels if label != -100]) == "red and blue\n"
    with pytest.raises(UserError, match="no answer"):
        encode_caption(tok, turns[:1], 2)
