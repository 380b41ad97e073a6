"""Rows in every layout, and their mistakes."""

import json
import re
from dataclasses import replace

import pytest

from vvlm_ray.data.examples import (
    CAPTION_PROMPT,
    CHOICE_PROMPT,
    Example,
    Layout,
    Tally,
    load_examples,
    read_examples,
)
from vvlm_ray.data.rows import read_rows
from vvlm_ray.errors import UserError


def row(**changes):
    turns = [{"from": "human", "value": "<video>\nwhat?"}, {"from": "gpt", "value": 'a [cat], "red" {1}'}]
    return {"id": 7, "video": "a/b.mp4", "conversations": turns} | changes


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n\n" for r in rows))
    else:
        path.write_text(json.dumps(rows, indent=1))
    return path


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_both_formats(tmp_path, name):
    rows = [row(), row(id="x", image="i.jpg", video=None) | {"image": "i.jpg"}]
    del rows[1]["video"]
    examples = load_examples(write(tmp_path / name, rows), tmp_path / "videos")
    assert examples[0] == Example(
        example_id="7",
        video=tmp_path / "videos/a/b.mp4",
        turns=(("user", "<video>\nwhat?"), ("assistant", 'a [cat], "red" {1}')),
        source="data",
    )
    assert examples[1].video == tmp_path / "videos/i.jpg"
    assert load_examples(tmp_path / name, "", source="mine")[0].source == "mine"


def turns(*pairs):
    return [{"from": speaker, "value": text} for speaker, text in pairs]


BAD = [
    ("text", "not an object"),
    ({"id": 1, "conversations": turns(("human", "a"), ("gpt", "b"))}, "no video or image"),
    (row(video=["a.mp4", "b.mp4"]), "several videos or images"),
    (row(video="/etc/passwd"), "outside video_root"),
    (row(video="a/../../b.mp4"), "outside video_root"),
    (row(video="a\0.mp4"), "no file name"),
    (row(video="x" * 300), "no file name"),
    (row(video="."), "no file name"),
    (row(conversations=[]), "neither a conversation nor"),
    (row(conversations=["a", "b"]), "a turn is no object"),
    (row(conversations=turns(("human", "a"), ("system", "b"))), "neither from 'human' nor from 'gpt'"),
    (row(conversations=turns(("human", "a"), (["gpt"], "b"))), "neither from 'human' nor from 'gpt'"),
    (row(conversations=turns(("human", "a"), ("gpt", " "))), "an empty answer"),
    (row(conversations=turns(("human", ""), ("gpt", "b"))), "an empty question"),
    (row(conversations=turns(("human", "a"), ("gpt", 7))), "an empty answer"),
    (row(conversations=turns(("human", "a"), ("gpt", "\ud800"))), "not valid Unicode"),
    (row(conversations=turns(("gpt", "a"), ("human", "b"))), "do not take turns"),
    (row(conversations=turns(("human", "a"))), "the last turn is 'human'"),
    (row(conversations=turns(("human", "<image><image>a"), ("gpt", "b"))), "a second <image>"),
    (row(conversations=turns(("human", "a"), ("gpt", "b <video>"))), "a second <image>"),
    (row(start=3, end=2), "start and end enclose nothing"),
    (row(start="soon"), "no number of seconds"),
    (row(start=float("nan")), "no number of seconds"),
    ({"video": "a.mp4", "question": "which?", "options": ["x", "y"], "answer": "z"}, "none of the options"),
    ({"video": "a.mp4", "question": "which?", "options": "xy", "answer": "x"}, "options that are no list"),
    ({"video": "a.mp4", "QA": []}, "no questions"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_bad_rows_are_counted_and_named(tmp_path, bad, reason):
    path = write(tmp_path / "data.json", [row(), bad, row()])
    with pytest.raises(UserError, match=f"data.json: 1 of 3 rows cannot be used(.|\n)*{re.escape(reason)}.*row 2"):
        load_examples(path, tmp_path)
    assert len(load_examples(path, tmp_path, max_unusable_share=0.34)) == 2
    path = write(tmp_path / "data.jsonl", [row(), bad])
    with pytest.raises(UserError, match=f"data.jsonl: 1 of 2 rows cannot be used(.|\n)*{re.escape(reason)}.*line 3"):
        load_examples(path, tmp_path)


GOOD = [
    (row(video=None, image="i.jpg"), "i.jpg", ["<video>\nwhat?", 'a [cat], "red" {1}']),
    (row(video=["b.mp4"]), "b.mp4", ["<video>\nwhat?", 'a [cat], "red" {1}']),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}], "video": "v"}, "v", "qr"),
    ({"q": "who?", "a": "she", "video_id": "v_x"}, "v_x", ["who?", "she"]),
    ({"video": "c.mp4", "QA": [{"i": "Look.", "q": "", "a": "x"}, {"q": "2?", "a": "y"}]}, "c.mp4",
     ["Look.", "x", "2?", "y"]),
    ({"video": "c.mp4", "question": "how?", "a0": "so", "a1": "thus", "answer": "1"}, "c.mp4",
     [f"how?\nA. so\nB. thus\n{CHOICE_PROMPT}", "B"]),
    ({"video": "c.mp4", "question": "how?", "choices": ["A. so", "B. thus"], "answer": "(b)"}, "c.mp4",
     [f"how?\nA. so\nB. thus\n{CHOICE_PROMPT}", "B"]),
    ({"video": "c.mp4", "caption": "A cat."}, "c.mp4", [CAPTION_PROMPT, "A cat."]),
]  # fmt: skip


@pytest.mark.parametrize(("good", "video", "texts"), GOOD)
def test_layouts(tmp_path, good, video, texts):
    (example,) = load_examples(write(tmp_path / "data.json", [good]), tmp_path)
    assert example.video == tmp_path / video
    assert [text for _, text in example.turns] == list(texts)
    assert [role for role, _ in example.turns] == ["user", "assistant"] * (len(texts) // 2)


def test_fields_and_patterns_of_a_source(tmp_path):
    path = write(tmp_path / "data.json", [{"vid": 12, "ask": "q", "say": "r", "from_s": "1.5", "to_s": 4}])
    layout = Layout({"question": "ask", "answer": "say", "start": "from_s", "end": "to_s"}, "clips/v_{vid}.mp4")
    (example,) = read_examples([path], "mine", tmp_path, layout, Tally())
    assert example.video == tmp_path / "clips/v_12.mp4" and (example.start, example.end) == (1.5, 4.0)
    tally = Tally()
    assert not list(read_examples([path], "mine", tmp_path, replace(layout, video="v_{no_such}.mp4"), tally))
    assert tally.unusable == {"a field of the pattern `video` is missing": 1}


@pytest.mark.parametrize("pattern", ["v.mp4", "{", "{0}", "{vid.__class__}", "{vid[0]}", "{vid:>999}", "{vid!r}"])
def test_patterns_that_are_none(pattern):
    with pytest.raises(UserError, match="video: "):
        Layout(video=pattern)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cut.json", json.dumps([row(), row()])[:-20], "row 2 is not JSON"),
        ("cut.json", json.dumps([row()])[:-1], "after row 1 .* cut off"),
        ("bad.jsonl", json.dumps(row()) + "\n{'id': 1}\n", r"1 of 2 rows(.|\n)*not JSON \(first: .*line 2\)"),
        ("bytes.jsonl", json.dumps(row()).encode() + b'\n{"id": "\xff"}\n', r"1 of 2 rows(.|\n)*not UTF-8 text"),
        ("empty.json", "[]", "holds no examples"),
        ("empty.jsonl", "", "holds no examples"),
        ("latin.json", b"[\xe9]", "is not UTF-8"),
        ("wide.jsonl", json.dumps(row()).encode("utf-16"), "is UTF-16"),
        ("deep.json", "[" * 100_000, "row 1 is nested too deeply"),
        ("deep.jsonl", "[" * 100_000, r"1 of 1 rows(.|\n)*not JSON"),
        ("number.json", "7", "is a int; a list of rows"),
        ("two.json", '{"a": 1} [', "goes on after its end"),
        ("not.parquet", "PAR1", "cannot be read as parquet"),
        ("wide.csv", "video,q,a\nv.mp4,q,a,b\n", r"1 of 1 rows(.|\n)*more cells"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=f"{name}: {message}"):
        load_examples(tmp_path / name, tmp_path)


def test_a_list_longer_than_what_is_read_at_once(tmp_path, monkeypatch):
    """Rows are cut wherever a piece ends: inside a string, an escape, a number, a name."""
    rows = [row(id=10**i, note="\u00e9\\n" * i) for i in range(40)]
    path = write(tmp_path / "data.json", rows)
    monkeypatch.setattr("vvlm_ray.data.rows._CHARACTERS_AT_ONCE", 7)
    assert [read for _, read in read_rows(path)] == rows
    path.write_text(json.dumps([1, 23, 456]))
    assert [read for _, read in read_rows(path)] == [1, 23, 456]


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json: no such file"):
        load_examples(tmp_path / "nothing.json", tmp_path)
