"""Local tasks through lmms-eval itself: a trained model, real mp4 files, questions in JSONL."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_world import COLOURS, NUM_FRAMES, write_clip

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.evaluate import check_tasks, evaluate
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.local_scoring import is_right
from vvlm_ray.evaluation.local_tasks import find_local_tasks, write_local_task


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)


def task_of(questions, clips, name="colours"):
    folder = questions.parent / "tasks"
    write_local_task(folder, name, questions, clips[0][0].parent)
    return folder


def run(parts, folder, **changes):
    arguments = {"tasks": ["colours"], "num_frames": NUM_FRAMES, "task_folders": [folder]} | changes
    return evaluate(*parts, **arguments)


def seed_and_draw(between=lambda: None):
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 (the global generator is what lmms-eval seeds)
    between()
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_a_model_that_knows_scores_100_and_wrong_references_take_their_share(parts, questions, clips):
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    for row in rows[:6]:
        row["answer"] = "never said"
    wrong = questions.with_name("wrong.jsonl")
    wrong.write_text("\n".join(json.dumps(row) for row in rows))
    folder = task_of(questions, clips)
    write_local_task(folder, "a quarter wrong", wrong, clips[0][0].parent)
    result = run(parts, folder, tasks=["colours", "a quarter wrong"], batch_size=5)
    assert result.scores == {"colours": 100.0, "a quarter wrong": 75.0}
    assert (result.avg, result.num_questions, result.num_unreadable) == (87.5, 48, 0)


def test_nothing_is_said_or_written_and_the_training_around_it_goes_on_as_before(parts, questions, clips, capfd):
    folder = task_of(questions, clips)
    parts[0].train()
    drawn = seed_and_draw(between=lambda: run(parts, folder))
    assert parts[0].training
    parts[0].eval()
    assert drawn == seed_and_draw()
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in Path.cwd().iterdir()} <= {"hf", "questions.jsonl", "tasks"}


def test_edited_questions_are_read_anew(parts, questions, clips):
    folder = task_of(questions, clips)
    assert run(parts, folder).scores == {"colours": 100.0}
    questions.write_text(questions.read_text().replace('"answer": "A"', '"answer": "B"'))  # of the same length
    assert run(parts, folder).scores == {"colours": 87.5}


def test_limit_asks_only_the_first_questions(parts, questions, clips):
    assert run(parts, task_of(questions, clips), limit=5).num_questions == 5


def test_another_video_root_replaces_the_tasks_own(parts, questions, clips, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(clips[0][0].parent, moved)
    folder = questions.parent / "tasks"
    write_local_task(folder, "colours", questions, tmp_path / "gone")
    assert "video folder" in check_tasks(["colours"], task_folders=[folder])[0]
    assert run(parts, folder, video_root=moved).scores == {"colours": 100.0}


def test_unreadable_videos_are_left_out_when_tolerated_and_named_when_not(parts, questions, clips, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(clips[0][0].parent, videos)
    (videos / "3.mp4").write_bytes(b"not a video")
    (videos / "5.mp4").unlink()
    folder = tmp_path / "tasks"
    write_local_task(folder, "colours", questions, videos)
    result = run(parts, folder, max_unreadable_share=0.2)
    assert (result.scores, result.num_questions, result.num_unreadable) == ({"colours": 100.0}, 24, 4)
    with pytest.raises(EvaluationFailed, match=r"colours: 4 of 24 questions .*3\.mp4 .*5\.mp4"):
        run(parts, folder, max_unreadable_share=0.1)
    (videos / "5.mp4").unlink(missing_ok=True)
    for path in videos.iterdir():
        path.write_bytes(b"not a video")
    with pytest.raises(EvaluationFailed, match="exact_match"):  # all tolerated: still no score out of nothing
        run(parts, folder, max_unreadable_share=1.0)


def test_options_can_be_ranked_by_likelihood(parts, questions, clips):
    folder = questions.parent / "tasks"
    folder.mkdir()
    rows = [json.loads(line) for line in questions.read_text().splitlines()][::2]
    for row in rows:
        row["options"] = list("DCBA")
    questions.write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "ranked.yaml").write_text(
        f"""
task: ranked
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{questions}"}}}}
test_split: test
output_type: multiple_choice
doc_to_visual: !function vvlm_ray.evaluation.local_scoring.doc_to_visual
doc_to_text: question
doc_to_choice: options
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
lmms_eval_specific_kwargs: {{default: {{video_root: "{clips[0][0].parent}"}}}}
"""
    )
    # acc takes the likeliest option; exact_match, whether greedy decoding gives the reference.
    assert run(parts, folder, tasks=["ranked"]).scores == {"ranked": 100.0}


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("B", "B", True),
        ("(b)", "B", True),
        ("B. a red car", "B", True),
        ("A", "B", False),
        ("A red car", "A", False),
        ("", "B", False),
        ("Two  dogs.", "two dogs", True),
        ("two dog", "two dogs", False),
        ("", "two dogs", False),
    ],
)
def test_what_counts_as_right(answer, reference, right):
    assert is_right(answer, reference) is right


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "1", "video": "a.mp4", "question": "q"}', "row 2: answer missing"),
        ('{"id": "1", "video": "a.mp4", "question": "q", "answer": 3}', "row 2: answer missing or not text"),
        ("[1]", "row 2: id, video, question, answer"),
        ("{", "row 2: not JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, said):
    good = json.dumps({"id": "0", "video": "a.mp4", "question": "q", "answer": "a"})
    path = tmp_path / "test.jsonl"
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(UserError, match=said):
        write_local_task(tmp_path, "x", path, tmp_path)


def test_problems_are_found_before_anything_runs(tmp_path, questions, clips, monkeypatch):
    folder = task_of(questions, clips)
    monkeypatch.delenv("HF_HOME")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert check_tasks(["colours"], task_folders=[folder]) == []
    found = check_tasks(["colours", "colours", "typo", "VDC", "NQA"], task_folders=[folder, tmp_path / "no"])
    assert [problem.split(":")[0] for problem in found] == [
        "colours", str(tmp_path / "no"), "typo", "VDC", "VDC", "NQA",
    ]  # fmt: skip
    assert "OPENAI_API_KEY" in found[4]
    assert "HF_HOME" in found[5]
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert "nextqa/NExTVideo" in check_tasks(["NQA"])[0]
    write_clip(tmp_path / "nextqa/NExTVideo/1.mp4", next(iter(COLOURS)))
    assert check_tasks(["NQA"]) == []
    questions.unlink()
    assert "questions.jsonl does not exist" in check_tasks(["colours"], task_folders=[folder])[0]
    with pytest.raises(UserError, match="also defined in"):
        find_local_tasks([folder, shutil.copytree(folder, tmp_path / "again")])


def test_planning_needs_neither_torch_nor_lmms_eval():
    code = (
        "import sys; from vvlm_ray.evaluation.evaluate import check_tasks; check_tasks(['VDC', 'x']); "
        "print(sorted({'torch', 'lmms_eval', 'transformers', 'datasets', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
