"""Phase one with a real model on ordinary mp4 files: what is asked, kept, gone on from, and refused."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from colour_world import NUM_FRAMES, build_model
from miniatures import NUM_QUESTIONS

from vvlm_ray.evaluation.answer_files import read_answers
from vvlm_ray.evaluation.answering import VideoAnswerer
from vvlm_ray.evaluation.answers import answer_tasks, data_problems, questions_of_plan
from vvlm_ray.evaluation.benchmarks import CHOICES
from vvlm_ray.evaluation.evaluate import evaluate
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.scoring import score_answers
from vvlm_ray.evaluation.tasks import plan_of
from vvlm_ray.study.evaluation_section import Evaluation, LmmsTask, LocalTask

NQA = Evaluation(tasks=["NQA"])


def texts(folder):
    """{file name: what was answered}, whatever it took."""
    lines = {path.name: path.read_text().splitlines() for path in sorted(Path(folder).glob("*.jsonl"))}
    return {name: [{**json.loads(line), "seconds": 0} for line in found] for name, found in lines.items()}


@pytest.mark.parametrize("judged", [False, True])
def test_a_model_that_knows_the_colours_scores_100_on_all_eight(judged, eight, answerer, tmp_path, judge):
    if judged:
        settings = Evaluation(tasks=["VDC", "AQA", "VCG"], judge=judge.settings())
        scored, _ = evaluate(answerer, settings, answers=tmp_path)
        assert scored.scores == {"VDC": 80.0, "AQA": 100.0, "VCG": 80.0}
        asked = [request["messages"][1]["content"] for request in judge.requests]
        named = [text for text in asked if "detail orientation score" in text and "Correct Answer: red" in text]
        assert named
        assert all("Predicted Answer: red" in text for text in named)
        return
    scored, answered = evaluate(answerer, Evaluation(tasks=list(CHOICES)), answers=tmp_path)
    assert scored.scores == dict.fromkeys(CHOICES, 100.0)
    assert answered.num_questions == sum(NUM_QUESTIONS[name] for name in CHOICES)


def test_only_what_is_missing_is_asked_and_the_answers_stay_the_same(
    eight, untrained, tokenizer, preprocessor, tmp_path
):
    """An untrained model's answers depend on every bit of its batch: the same batches are made again."""
    answerer = VideoAnswerer(untrained, tokenizer, preprocessor, num_frames=NUM_FRAMES, batch_size=5)
    answer_tasks(answerer, NQA, tmp_path / "whole")
    whole = texts(tmp_path / "whole")
    assert len({row["answer"] for row in whole["nextqa_mc_test.jsonl"]}) > 1
    part = tmp_path / "part" / "nextqa_mc_test.part-3.jsonl"
    part.parent.mkdir()
    lines = (tmp_path / "whole/nextqa_mc_test.jsonl").read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:7]) + lines[7][:40])  # a kill in the middle of a line, by one of other workers
    steps = []
    answer_tasks(answerer, NQA, tmp_path / "part", on_batch=lambda *step: steps.append(step))
    assert texts(tmp_path / "part") == whole
    assert [step[1:] for step in steps][-1] == (3, 3)
    assert len(steps) < 4
    steps.clear()
    answer_tasks(answerer, NQA, tmp_path / "part", on_batch=lambda *step: steps.append(step))
    assert steps == []


def test_answers_to_another_wording_are_asked_again(own_eight, answerer, tmp_path):
    answer_tasks(answerer, NQA, tmp_path / "answers")
    path = tmp_path / "answers/nextqa_mc_test.jsonl"
    path.write_text(path.read_text().replace('"doc": 3', '"doc": 3, "fingerprint": "of another wording"', 1))
    questions = questions_of_plan(plan_of(NQA, "NQA"), None)[0]
    assert {key[0] for key in read_answers(tmp_path / "answers", questions)} == set(
        range(12)
    )  # the file's own comes last
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[3]["fingerprint"] = "of another wording"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert {key[0] for key in read_answers(tmp_path / "answers", questions)} == set(range(12)) - {3}
    answer_tasks(answerer, NQA, tmp_path / "answers")
    assert set(read_answers(tmp_path / "answers", questions)) == {(doc, 0) for doc in range(12)}


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_broken_model_fails_and_is_not_scored_by_chance(weight, eight, tokenizer, preprocessor, tmp_path):
    model = build_model(tokenizer).eval()
    with torch.no_grad():
        model.language_model.model.norm.weight[0] = weight
    answerer = VideoAnswerer(model, tokenizer, preprocessor, num_frames=NUM_FRAMES, batch_size=5)
    with pytest.raises(EvaluationFailed, match="not finite"):
        answer_tasks(answerer, NQA, tmp_path)


@pytest.mark.parametrize("name", CHOICES)
def test_a_missing_or_broken_video_fails_a_published_benchmark(name, own_eight, answerer, tmp_path):
    asked = [question for task in questions_of_plan(plan_of(Evaluation(tasks=[name]), name), None) for question in task]
    video = Path(asked[0].video)
    settings = Evaluation(tasks=[name], max_unreadable_share=0.9)  # for local tasks only
    video.write_bytes(b"broken")
    with pytest.raises(EvaluationFailed, match=f"{name}: .*{video.name}"):
        answer_tasks(answerer, settings, tmp_path / "answers")
    video.unlink()
    with pytest.raises(EvaluationFailed, match=f"{name}: .*{video.name}"):
        answer_tasks(answerer, settings, tmp_path / "answers")


@pytest.mark.parametrize("name", ["NQA", "VMME", "LVB"])  # a missing video: OSError, sys.exit, and nothing said
def test_data_are_checked_without_a_model(name, own_eight, capfd):
    settings = Evaluation(tasks=[name])
    assert data_problems(settings) == []
    asked = questions_of_plan(plan_of(settings, name), None)[0]
    videos = sorted({Path(question.video) for question in asked})[:2]
    for video in videos:
        video.unlink()
    problems = data_problems(settings)
    assert len(problems) == 1
    assert f"{name}: 2 videos of 12 questions are missing" in problems[0]
    assert videos[0].name in problems[0]
    assert capfd.readouterr() == ("", "")


def test_batches_do_not_depend_on_the_order_of_questions(eight, answerer):
    asked = questions_of_plan(plan_of(Evaluation(tasks=["VMME"]), "VMME"), None)[0]
    assert answerer.batches(asked) == answerer.batches(asked[::-1])
    videos = [question.video for batch in answerer.batches(asked) for question in batch]
    assert sum(one != other for one, other in pairwise(videos)) == len(set(videos)) - 1


# --- several processes


@pytest.fixture
def folder(eight, model, untrained, questions, clips, tmp_path):  # noqa: PLR0917
    """Models on disk, and local tasks: 23 questions (an odd number), two of whose videos are broken in the second."""
    model.save_pretrained(tmp_path / "model")
    untrained.save_pretrained(tmp_path / "wild")
    rows = [json.loads(line) for line in questions.read_text().splitlines()][:23]
    for row in rows[::5]:
        row["answer"] = "never said"
    questions.write_text("\n".join(json.dumps(row) for row in rows))
    shutil.copytree(clips[0][0].parent, tmp_path / "broken")
    (tmp_path / "broken/1.mp4").write_bytes(b"")
    (tmp_path / "broken/8.mp4").unlink()
    local = {
        "colours": LocalTask(questions=str(questions), video_root=str(clips[0][0].parent)),
        "partly-broken": LocalTask(questions=str(questions), video_root=str(tmp_path / "broken")),
    }
    settings = Evaluation(tasks=["colours", "partly-broken", "VMME", "NQA"], local=local, max_unreadable_share=0.2)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    return tmp_path, settings


def start(folder, num_workers, what):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(num_workers), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    script = Path(__file__).with_name("answering_process.py")
    return [
        subprocess.Popen(
            [sys.executable, str(script), str(folder), what],
            env=os.environ | shared | {"OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_workers)
    ]


@pytest.mark.timeout(600)
def test_one_two_and_three_workers_killed_and_resumed_give_the_same_scores(folder, untrained, tokenizer, preprocessor):
    """Answers of an untrained model, which has no margins, whole and sharded; two workers are killed on the way."""
    path, settings = folder
    answerer = VideoAnswerer(untrained, tokenizer, preprocessor, num_frames=NUM_FRAMES, batch_size=3)
    answer_tasks(answerer, settings, path / "wild-1")
    alone = texts(path / "wild-1")
    scores = score_answers(settings, path / "wild-1")
    processes = start(path, 3, "whole")
    said = [process.communicate(timeout=250)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, said
    assert texts(path / "whole-3") == alone
    killed = path / "sharded-2"
    processes = start(path, 2, "sharded")
    while not any(part.stat().st_size for part in killed.glob("*.part-*.jsonl")):
        assert processes[0].poll() is None, processes[0].communicate()[1]
        time.sleep(0.02)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    kept = sum(len(rows) for rows in texts_of_parts(killed).values())
    assert 0 < kept < sum(map(len, alone.values()))
    answer_tasks(answerer, settings, killed)
    assert texts(killed) == alone
    assert score_answers(settings, killed) == scores
    assert scores.tasks["partly-broken"].num_unreadable == 4


def texts_of_parts(folder):
    found = {}
    for path in folder.glob("*.jsonl"):
        found[path.name] = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return found


def test_a_task_of_images_or_without_data_is_found_by_checking_the_data(eight, monkeypatch):
    """MMMU asks about images; its data is not here, which is as much as can be known."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    other = {"images": LmmsTask(task="mmmu_val", metric="mmmu_acc", full_mark=1)}
    (problem,) = data_problems(Evaluation(tasks=["images"], lmms_eval=other))
    assert problem.startswith("images: lmms-eval cannot load its data")
