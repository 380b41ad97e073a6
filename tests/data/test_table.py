"""Tables hold what was read, whatever it was, and are cheap to open, to hand on and to look into."""

import json
import pickle

import pytest

from vvlm_ray.data.examples import Layout, Tally, read_examples
from vvlm_ray.data.table import ROWS_PER_BATCH, Rows, write_table
from vvlm_ray.errors import UserError


def rows(count):
    for number in range(count):
        if number % 100 == 7:
            yield {"id": number, "video": f"{number}.mp4", "q": "?", "a": ""}
        else:
            turns = [("human", "é" * (number % 50)), ("gpt", "x"), ("human", "b"), ("gpt", "y" * (number + 1))]
            turns[0] = ("human", f"<video>\n{turns[0][1]}")
            yield {
                "id": number,
                "video": f"sub/{number}.mp4",
                "conversations": [{"from": who, "value": text} for who, text in turns],
                "start": number / 7 if number % 3 else None,
            }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    content = list(rows(ROWS_PER_BATCH + 500))
    (folder / "a.json").write_text(json.dumps(content[:1000]))
    (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content[1000:]))
    return [folder / "a.json", folder / "b.jsonl"]


def test_a_table_is_its_rows(files, tmp_path):
    tally = write_table(tmp_path / "t.arrow", files, "mine", Layout())
    table, expected = Rows(tmp_path / "t.arrow", "mine", tmp_path / "videos", tmp_path), Tally()
    assert list(table) == list(read_examples(files, "mine", tmp_path / "videos", Layout(), expected))
    assert table.tally == tally == expected
    assert tally.unusable == {"an empty answer": 26} and tally.num_examples == len(table) == ROWS_PER_BATCH + 474
    assert table[-1] == table[len(table) - 1] and table[0].root == tmp_path
    with pytest.raises(IndexError):
        table[len(table)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.arrow", "t.json"]


def test_a_table_is_handed_on_as_its_path(files, tmp_path):
    write_table(tmp_path / "t.arrow", files, "mine", Layout())
    table = Rows(tmp_path / "t.arrow", "mine", tmp_path, fps=2.0)
    assert len(pickle.dumps(table)) < 1000
    again = pickle.loads(pickle.dumps(table))
    assert again[2100] == table[2100] and again[0].fps == 2.0 and again[0].root is None


def test_long_texts_are_found_by_their_bytes(files, tmp_path):
    write_table(tmp_path / "t.arrow", files, "mine", Layout())
    table = Rows(tmp_path / "t.arrow", "mine", tmp_path)
    for limit in (10, 700, 2400, 10_000):
        long = [i for i, example in enumerate(table) if sum(len(t.encode()) for _, t in example.turns) > limit]
        assert list(table.texts_longer_than(limit)) == long


def test_an_interrupted_table_is_not_there(files, tmp_path):
    (tmp_path / "cut.json").write_text(files[0].read_text()[:-10])
    with pytest.raises(UserError, match=r"cut off|is not JSON"):
        write_table(tmp_path / "t.arrow", [files[0], tmp_path / "cut.json"], "mine", Layout())
    assert [path.name for path in tmp_path.iterdir()] == ["cut.json"]


@pytest.mark.parametrize("damage", ["cut", "no tally", "other tally"])
def test_a_damaged_table_is_named(files, tmp_path, damage):
    write_table(tmp_path / "t.arrow", files, "mine", Layout())
    if damage == "cut":
        (tmp_path / "t.arrow").write_bytes((tmp_path / "t.arrow").read_bytes()[:1000])
    elif damage == "no tally":
        (tmp_path / "t.json").unlink()
    else:
        (tmp_path / "t.json").write_text("[]")
    with pytest.raises(UserError, match=r"t\.arrow: cannot be read .* remove it"):
        Rows(tmp_path / "t.arrow", "mine", tmp_path)
