"""What data, weights and questions are decides about a trial's id; where they lie does not."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from small_study import write_study, write_yaml

from vvlm_ray.data.digests import Digests, NotHashed
from vvlm_ray.data.fingerprints import fingerprinted
from vvlm_ray.study.fingerprints import keep_fingerprints, unknown_fingerprints
from vvlm_ray.study.folder import StudyFolder, open_study
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand, meaning_of


@pytest.fixture
def sweep_file(tmp_path, tiny_backbone, tiny_videos):
    folder = tmp_path / "here"
    folder.mkdir()
    return write_study(folder, tiny_backbone.folder, tiny_videos, 5_000)


def read(sweep_file, thorough=True):
    study = load_sweep(sweep_file)
    return fingerprinted(study, sweep_file, StudyFolder(sweep_file.parent / "studies/small"), thorough=thorough)


def ids(sweep_file, thorough=True):
    return [trial.trial_id for trial in expand(read(sweep_file, thorough)[0])]


def other_labels(folder):
    rows = json.loads((folder / "labels.json").read_text())
    rows[3]["answer"] = "none"
    (folder / "labels.json").write_text(json.dumps(rows))


def other_videos(folder):
    for path in (folder / "videos").iterdir():
        shutil.copyfile(folder / "test_videos/both_24.mp4", path)


def other_question(folder):
    path = folder / "questions.jsonl"
    path.write_text(path.read_text().replace('"none"', '"both"', 1))


def other_test_video(folder):
    shutil.copyfile(folder / "videos/none_1.mp4", folder / "test_videos/both_24.mp4")


def other_weights(folder):
    path = folder / "models/lm/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_template(folder):
    path = folder / "models/lm/chat_template.jinja"
    path.write_text(path.read_text() + " ")


@pytest.mark.parametrize(
    ("exchange", "key"),
    [
        (other_labels, "data.sources.clips.path"),
        (other_videos, "data.sources.clips.video_root"),
        (other_question, "evaluation.local.mine.questions"),
        (other_test_video, "evaluation.local.mine.video_root"),
        (other_weights, "backbones.tiny.lm"),
        (other_template, "backbones.tiny.lm"),
    ],
)
def test_exchanged_content_makes_new_trials_and_is_named(sweep_file, exchange, key):
    before, taken = ids(sweep_file), read(sweep_file)[1]
    assert taken.changed == [] and taken.unread == {}
    keep_fingerprints(StudyFolder(sweep_file.parent / "studies/small"), taken.digests)
    exchange(sweep_file.parent)
    after, taken = ids(sweep_file), read(sweep_file)[1]
    assert not set(before) & set(after)
    assert taken.changed == [key]


def test_moved_data_repeat_nothing(sweep_file, tmp_path):
    before = ids(sweep_file)
    shutil.move(sweep_file.parent, tmp_path / "there")
    (tmp_path / "there/labels.json").rename(tmp_path / "there/renamed.json")
    (tmp_path / "there/models").rename(tmp_path / "there/weights")
    raw = yaml.safe_load((tmp_path / "there/sweep.yaml").read_text())
    raw["data"]["sources"]["clips"]["path"] = ["renamed.json"]
    raw["backbones"]["tiny"] |= {"lm": "weights/lm", "vision": "weights/vision"}
    write_yaml(tmp_path / "there/sweep.yaml", raw)
    os.utime(tmp_path / "there/renamed.json", (1, 1))
    assert ids(tmp_path / "there/sweep.yaml") == before


def test_ids_are_provisional_until_the_data_are_there(sweep_file, tmp_path):
    whole = ids(sweep_file)
    (sweep_file.parent / "labels.json").rename(tmp_path / "labels.json")
    shutil.rmtree(sweep_file.parent / "studies")
    study, taken = read(sweep_file)
    assert unknown_fingerprints(study) == ["data.sources.clips.path", "data.sources.clips.video_root"]
    assert "labels.json does not exist" in taken.unread["data.sources.clips.path"]
    assert not set(ids(sweep_file)) & set(whole)
    shutil.copyfile(tmp_path / "labels.json", sweep_file.parent / "labels.json")
    assert ids(sweep_file) == whole


def test_what_is_gone_keeps_the_digest_of_the_last_run(sweep_file):
    before, taken = ids(sweep_file), read(sweep_file)[1]
    keep_fingerprints(StudyFolder(sweep_file.parent / "studies/small"), taken.digests)
    shutil.rmtree(sweep_file.parent / "videos")
    shutil.rmtree(sweep_file.parent / "models")
    assert ids(sweep_file) == before


def test_an_opened_study_has_the_trials_that_were_run(sweep_file):
    folder = StudyFolder(sweep_file.parent / "studies/small")
    study, taken = read(sweep_file)
    keep_fingerprints(folder, taken.digests)
    folder.sweep_file.write_text(sweep_file.read_text())
    other_labels(sweep_file.parent)
    assert [trial.trial_id for trial in expand(open_study(folder.root)[1])] == [t.trial_id for t in expand(study)]
    trial = expand(study)[0]
    assert meaning_of(study, trial)["data"] == {
        "clips": {
            "path": taken.digests["data.sources.clips.path"],
            "video_root": taken.digests["data.sources.clips.video_root"],
        }
    }


def test_planning_writes_nothing_and_agrees_with_the_run(sweep_file):
    assert ids(sweep_file, thorough=False) == (quick := ids(sweep_file, thorough=False))
    assert not (sweep_file.parent / "studies").exists()
    assert ids(sweep_file) == quick


def test_planning_reads_no_large_files_but_knows_what_was_read(sweep_file, monkeypatch):
    monkeypatch.setattr("vvlm_ray.data.fingerprints.QUICK_BYTES", 20_000)
    taken = read(sweep_file, thorough=False)[1]
    assert taken.unread["backbones.tiny.lm"] == "not read yet; `vvlm-ray check` reads it once"
    whole = ids(sweep_file)
    assert ids(sweep_file, thorough=False) == whole
    other_weights(sweep_file.parent)
    assert "backbones.tiny.lm" in read(sweep_file, thorough=False)[1].unread


def test_digests_are_worked_out_once(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * 300_000)
    digests = Digests(tmp_path / "kept.json")
    whole, ends = digests.of(path), digests.of_ends(path)
    assert digests.read_bytes == 300_000
    digests.save()
    again = Digests(tmp_path / "kept.json", max_bytes=0)
    assert (again.of(path), again.of_ends(path)) == (whole, ends) and again.read_bytes == 0
    path.write_bytes(b"x" * 150_000 + b"y" + b"x" * 149_999)
    assert Digests().of(path) != whole and Digests().of_ends(path) == ends  # the middle is not looked at
    with pytest.raises(NotHashed):
        Digests(tmp_path / "kept.json", max_bytes=0).of(path)
    for damaged in ("[]", "{", '{"x": 3}', "[" * 10_000):
        (tmp_path / "kept.json").write_text(damaged)
        assert Digests(tmp_path / "kept.json").of(path) == Digests().of(path)


def test_a_folder_of_frames_is_its_names_and_sizes(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(bytes([index]) * 10)
    before = Digests().of_ends(tmp_path)
    assert Digests().of_ends(tmp_path) == before
    (tmp_path / "1.jpg").write_bytes(b"longer than it was")
    assert Digests().of_ends(tmp_path) != before


def test_settings_of_reading_are_part_of_it(sweep_file):
    before = ids(sweep_file)
    raw = yaml.safe_load(Path(sweep_file).read_text())
    raw["data"]["sources"]["clips"]["prompt"] = "Say what you see."
    write_yaml(sweep_file, raw)
    assert not set(ids(sweep_file)) & set(before)
