"""A study written for folders, which then passes the check."""

import json
import shutil

import pytest
from click.testing import CliRunner
from small_study import write_study

from vvlm_ray.cli import main
from vvlm_ray.study.sweep_file import load_sweep


@pytest.fixture
def folder(tmp_path, tiny_backbone, tiny_videos):
    (tmp_path / "data").mkdir()
    write_study(tmp_path / "data", tiny_backbone.folder, tiny_videos, 4_688)
    (tmp_path / "data/sweep.yaml").unlink()
    return tmp_path


def init(folder, *more):
    arguments = ["init", *more, "--output", str(folder / "new.yaml"), "--gpus", "0"]
    return CliRunner().invoke(main, arguments)


def test_what_it_writes_passes_the_check(folder):
    done = init(folder, str(folder / "data"))
    assert done.exit_code == 0, done.output
    assert "1 language models, 24 training rows, 12 questions" in done.output
    study = load_sweep(folder / "new.yaml")
    assert study.backbones["lm"].lm_params == 4_688 and study.backbones["lm"].lm == "data/models/lm"
    assert study.cost.vision_params == 10_032 and study.cost.vision_tokens == 16
    assert study.data.sources["labels"].num_examples == 24
    assert study.data.sources["labels"].video_root in {"data/videos", "data/test_videos"}
    assert study.evaluation.tasks == ["questions"]
    done = CliRunner().invoke(main, ["check", str(folder / "new.yaml"), "--storage", str(folder / "studies")])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("missing", "message"),
    [("models/lm", "no language model"), ("models/vision", "no SigLIP vision tower"), ("labels.json", "no annotation")],
)
def test_what_is_missing_is_named(folder, missing, message):
    target = folder / "data" / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    done = init(folder, str(folder / "data"))
    assert done.exit_code == 2 and message in done.output
    assert not (folder / "new.yaml").exists()


def test_nothing_is_overwritten_and_folders_must_exist(folder):
    assert "no such folder" in init(folder, str(folder / "nowhere")).output
    (folder / "new.yaml").write_text("mine")
    done = init(folder, str(folder / "data"))
    assert done.exit_code == 2 and (folder / "new.yaml").read_text() == "mine"


def test_odd_names_and_broken_neighbours(folder):
    (folder / "data/models/lm").rename(folder / "data/models/_Llama 3.2: 1B é")
    (folder / "data/broken").mkdir()
    (folder / "data/broken/config.json").write_text("[")
    (folder / "data/notes.json").write_text(json.dumps({"to": "do"}))
    done = init(folder, str(folder / "data"))
    assert done.exit_code == 0, done.output
    assert "config.json: cannot be read" in done.output and "notes.json" in done.output
    assert list(load_sweep(folder / "new.yaml").backbones) == ["Llama-3.2--1B--"]
