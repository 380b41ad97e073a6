"""Fits kept in fits/: the same meaning is not computed twice, and a damaged file is made anew."""

import random

from vvlm_ray.results.cache import remember

MEANING = {"runs": {"lm_params": [1e9, 3e9]}, "form": "add"}
VALUE = {"predicted": [41.25, 0.1 + 0.2], "by size": {10: "a", 9: None}}
AS_JSON = {"predicted": [41.25, 0.1 + 0.2], "by size": {"10": "a", "9": None}}


def test_it_is_computed_once_for_each_meaning(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return VALUE

    remember(tmp_path, "avg.bag", MEANING, make)
    assert remember(tmp_path, "avg.bag", MEANING, make) == AS_JSON
    assert len(calls) == 1
    remember(tmp_path, "avg.bag", MEANING | {"form": "mult"}, make)
    assert len(calls) == 2


def test_a_damaged_file_is_made_anew(tmp_path):
    remember(tmp_path, "avg.bag", MEANING, lambda: VALUE)
    path = tmp_path / "avg.bag.json"
    whole, rng = path.read_bytes(), random.Random(0)
    damages = [b"", b"[]", b"[" * 100_000, b"\xff\xfe", whole[:-30], whole.replace(b"41.25", b"14.25")]
    for _ in range(300):
        at = rng.randrange(len(whole))
        damages.append(whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :])
    for damaged in damages:
        path.write_bytes(damaged)
        assert remember(tmp_path, "avg.bag", MEANING, lambda: VALUE) in (VALUE, AS_JSON)
