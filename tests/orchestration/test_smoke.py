"""A study run in small for real, and nothing left of it."""

import pytest
from click.testing import CliRunner
from small_study import sweep, write_study, write_yaml

from vvlm_ray.cli import main
from vvlm_ray.orchestration.smoke import smoke_study
from vvlm_ray.study.config import Study
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand

LM_PARAMS = 4_688


@pytest.fixture
def sweep_file(tmp_path, tiny_backbone, tiny_videos):
    (tmp_path / "here").mkdir()
    return write_study(tmp_path / "here", tiny_backbone.folder, tiny_videos, LM_PARAMS)


def test_the_small_study_is_the_largest_trial_of_every_backbone(sweep_file, tmp_path):
    study = load_sweep(sweep_file)
    small = Study.model_validate(smoke_study(study, StudyFolder(tmp_path / "small"), sweep_file))
    (trial,) = expand(small)
    assert (trial.num_frames, trial.tokens_per_frame, trial.num_examples) == (2, 4, 4)
    assert small.finetune.batch_size == 2 and small.evaluation.limit == 5 and small.finetune.lr == study.finetune.lr
    assert small.backbones["tiny"].lm == str(sweep_file.parent / "models/lm")
    assert small.data.sources["clips"].path == str(sweep_file.parent / "labels.json")


@pytest.mark.timeout(280)
def test_it_runs_and_leaves_nothing(sweep_file, tmp_path):
    storage = tmp_path / "studies"
    raw = sweep(LM_PARAMS)
    raw["data"]["sources"]["clips"]["path"] = ["labels.json"]
    write_yaml(sweep_file, raw)
    done = CliRunner().invoke(main, ["run", str(sweep_file), "--storage", str(storage), "--smoke", "--slots", "1"])
    assert done.exit_code == 0, done.output
    assert "1 of 1 backbones ran from end to end" in done.output
    assert [path.name for path in storage.iterdir()] == ["small"]
    assert {path.name for path in (storage / "small").iterdir()} == {"data"}  # the study's own tables and digests
