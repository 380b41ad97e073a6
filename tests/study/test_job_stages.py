"""How far a job is: written seldom, read by `status`, and never in the way of the job."""

import json
import time
from pathlib import Path

from click.testing import CliRunner

from vvlm_ray.commands.status import status
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.stages import StageWriter, read_stage
from vvlm_ray.study.trials import expand

QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def test_each_stage_is_written_at_once_and_then_seldom(tmp_path):
    write = StageWriter(tmp_path)
    for step in range(1, 200):
        write("finetuning", step, 200)
    assert read_stage(tmp_path).done == 1
    write("evaluating MV", 3, 12)
    assert read_stage(tmp_path).text == "evaluating MV, 3 of 12"
    write.end()
    assert read_stage(tmp_path) is None


def test_only_the_first_worker_writes(tmp_path):
    write = StageWriter(tmp_path, is_writer=False)
    write("finetuning", 1, 2)
    write.end()
    assert list(tmp_path.iterdir()) == []


def test_a_job_goes_on_where_its_stage_cannot_be_written(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    write = StageWriter(tmp_path / "run")
    write("finetuning", 1, 2)
    write("evaluating", 1, 2)
    write.end()


def test_a_broken_file_is_no_stage(tmp_path):
    for text in ("", "{", "[]", '{"name": "x"}'):
        (tmp_path / "stage.json").write_text(text)
        assert read_stage(tmp_path) is None


def test_status_says_how_far_a_trial_without_a_record_has_come(tmp_path):
    folder = StudyFolder(tmp_path / "quickstart")
    study = folder.adopt(QUICKSTART)
    trial = expand(study)[3]
    StageWriter(folder.trial(trial.trial_id))("finetuning", 5, 40)
    done = CliRunner().invoke(status, [str(folder.root), "--json"])
    rows = {row["trial_id"]: row for row in json.loads(done.stdout)["trials"]}
    stage = rows[trial.trial_id]["stage"]
    assert (stage["name"], stage["done"], stage["total"]) == ("finetuning", 5, 40)
    assert abs(stage["time"] - time.time()) < 30
    assert sum(row["stage"] is not None for row in rows.values()) == 1
    assert "finetuning, 5 of 40" in CliRunner().invoke(status, [str(folder.root)], env={"COLUMNS": "200"}).output
