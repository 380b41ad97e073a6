"""LLaVA files and their mistakes; subsets of mixtures as properties, on sizes like the paper's."""

import json
from pathlib import Path

import numpy as np
import pytest

from vvlm_ray.data.examples import Example, load_examples, nested_counts, nested_subset
from vvlm_ray.errors import UserError

# Wang et al. 2025, App. B
PAPER = {
    "LLaVA-Hound": 255_000,
    "LLaVA-Video-178K": 1_335_500,
    "ActivityNet-QA": 23_530,
    "NExT-QA": 34_114,
    "PerceptionTest": 2_403,
    "VideoInstruct100K": 100_010,
    "VCG+112K": 112_716,
    "VideoChatGPT": 25_803,
    "VideoChat": 40_807,
    "Kinetics-710": 39_949,
    "Something-Something-v2": 40_000,
    "CLEVRER": 82_620,
    "WebVid": 99_922,
}


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


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("text", "row 2 is str"),
        ({"id": 1, "conversations": []}, "row 2 has no 'video'"),
        (row(video=["a.mp4"]), "row 2 has no 'video'"),
        (row(conversations=[]), "row 2 has no 'conversations'"),
        (row(conversations=turns(("human", "a"), ("system", "b"))), "row 2, turn 2: 'from' is 'system'"),
        (row(conversations=turns(("human", "a"), ("gpt", " "))), "row 2, turn 2: 'value' is empty"),
        (row(conversations=turns(("gpt", "a"), ("human", "b"))), "row 2, turn 1: .* take turns"),
        (row(conversations=turns(("human", "a"))), "row 2: the last turn is 'human'"),
    ],
)
def test_bad_rows_are_named(tmp_path, bad, message):
    path = write(tmp_path / "data.json", [row(), bad, row()])
    with pytest.raises(UserError, match=f"data.json: {message}"):
        load_examples(path, tmp_path)
    path = write(tmp_path / "data.jsonl", [row(), bad])
    with pytest.raises(UserError, match=f"data.jsonl: {message.replace('row 2', 'line 3')}"):
        load_examples(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cut.json", json.dumps([row(), row()])[:-20], "row 2 is not JSON"),
        ("cut.json", json.dumps([row()])[:-1], "after row 1 .* cut off"),
        ("bad.jsonl", json.dumps(row()) + "\n{'id': 1}\n", "line 2 is not JSON"),
        ("empty.json", "[]", "holds no examples"),
        ("empty.jsonl", "", "holds no examples"),
        ("latin.json", b"[\xe9]", "is not UTF-8"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=f"{name}: {message}"):
        load_examples(tmp_path / name, tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json: cannot be read"):
        load_examples(tmp_path / "nothing.json", tmp_path)


def mixture(sizes):
    return {name: [Example(f"{name}/{i}", Path("v"), (), name) for i in range(size)] for name, size in sizes.items()}


def test_subsets_are_nested_and_seeded():
    sources = mixture({"a": 50, "b": 23, "c": 2})
    previous = set()
    for num_examples in range(1, 76):
        subset = {example.example_id for example in nested_subset(sources, num_examples, seed=3)}
        assert len(subset) == num_examples
        assert previous < subset
        previous = subset
    assert nested_subset(sources, 30, seed=3) == nested_subset(sources, 30, seed=3)
    assert nested_subset(sources, 30, seed=3) != nested_subset(sources, 30, seed=4)


def test_a_source_is_drawn_alike_whatever_stands_beside_it():
    sources = mixture({"a": 40, "b": 40})
    of_a = [e for e in nested_subset(sources, 20, seed=0) if e.source == "a"]
    assert of_a == nested_subset({"a": sources["a"]}, 10, seed=0)
    assert {e.example_id for e in nested_subset(dict(reversed(sources.items())), 20, seed=0)} == {
        e.example_id for e in nested_subset(sources, 20, seed=0)
    }


@pytest.mark.parametrize("num_examples", [1_000, 250_000, 500_000, 1_000_000, 2_000_000, 2_187_374])
def test_the_papers_mixture_keeps_its_fractions(num_examples):
    counts = nested_counts(PAPER, num_examples)
    assert sum(counts.values()) == num_examples and list(counts) == list(PAPER)
    for name, size in PAPER.items():
        assert abs(counts[name] - num_examples * size / sum(PAPER.values())) < 2  # of 152,291 at n = 250,000


def test_counts_keep_to_the_fraction_and_never_fall():
    rng = np.random.default_rng(0)
    for _ in range(30):
        sizes = {str(i): int(size) for i, size in enumerate(rng.integers(1, 60, rng.integers(1, 6)))}
        total = sum(sizes.values())
        previous = dict.fromkeys(sizes, 0)
        for num_examples in range(1, total + 1):
            counts = nested_counts(sizes, num_examples)
            for name, size in sizes.items():
                assert previous[name] <= counts[name] <= size
                assert abs(counts[name] - num_examples * size / total) < 1
            previous = counts
        assert previous == sizes


def test_largest_remainders_would_not_be_nested():
    """The Alabama paradox, which is why nested_counts does not share out remainders."""

    def largest_remainders(sizes, num_examples):
        exact = np.array(list(sizes.values())) * num_examples / sum(sizes.values())
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact)[: num_examples - counts.sum()]] += 1
        return counts

    sizes = {"a": 6, "b": 6, "c": 2}
    assert largest_remainders(sizes, 10)[2] == 2 and largest_remainders(sizes, 11)[2] == 1
    assert nested_counts(sizes, 10)["c"] <= nested_counts(sizes, 11)["c"]


@pytest.mark.parametrize("num_examples", [0, 76])
def test_more_than_there_is(num_examples):
    with pytest.raises(UserError, match=r"there are 75 examples \(a 50, b 25\)"):
        nested_subset(mixture({"a": 50, "b": 25}), num_examples, seed=0)
