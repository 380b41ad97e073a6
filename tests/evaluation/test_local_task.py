"""A study's own questions: exact, multiple choice and judged; a trained model, real mp4 files, JSONL."""

import json
import random
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from colour_world import COLOURS, write_clip
from kept import keep_answers

from vvlm_ray.errors import UserError
from vvlm_ray.evaluation.evaluate import evaluate
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.local_scoring import chosen_letter, is_right
from vvlm_ray.evaluation.local_tasks import read_questions
from vvlm_ray.evaluation.scoring import score_answers
from vvlm_ray.evaluation.tasks import task_problems
from vvlm_ray.study.evaluation_section import Evaluation, LmmsTask, LocalTask


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def colours(questions, clips):
    """Settings of one task over the questions."""
    return settings_of(questions, clips[0][0].parent)


def settings_of(questions, videos, scoring="exact", **changes):
    task = LocalTask(questions=str(questions), video_root=str(videos), scoring=scoring)
    return Evaluation(**{"tasks": ["colours"], "local": {"colours": task}} | changes)


def seed_and_draw(between=lambda: None):
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 (the global generator is what lmms-eval seeds)
    between()
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_a_model_that_knows_scores_100_and_wrong_references_take_their_share(answerer, questions, clips):
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    for row in rows[:6]:
        row["answer"] = "never said"
    wrong = questions.with_name("wrong.jsonl")
    wrong.write_text("\n".join(json.dumps(row) for row in rows))
    tasks = {
        name: LocalTask(questions=str(path), video_root=str(clips[0][0].parent))
        for name, path in (("colours", questions), ("a-quarter-wrong", wrong))
    }
    scored, answered = evaluate(answerer, Evaluation(tasks=list(tasks), local=tasks))
    assert scored.scores == {"colours": 100.0, "a-quarter-wrong": 75.0}
    assert (scored.avg, answered.num_questions, answered.num_unreadable) == (87.5, 48, 0)


def test_nothing_is_said_written_or_asked_of_the_network_and_the_training_goes_on(answerer, colours, tmp_path, capfd):
    answerer.model.train()
    before = {path.name for path in tmp_path.iterdir()}

    def refuse(self, address):
        raise AssertionError(f"asked {address}")

    def run():
        connect = socket.socket.connect
        socket.socket.connect = refuse
        try:
            evaluate(answerer, colours)
        finally:
            socket.socket.connect = connect

    drawn = seed_and_draw(between=run)
    assert answerer.model.training
    answerer.model.eval()
    assert drawn == seed_and_draw()
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_edited_questions_are_read_anew(answerer, questions, colours, tmp_path):
    assert evaluate(answerer, colours, answers=tmp_path / "answers")[0].scores == {"colours": 100.0}
    questions.write_text(questions.read_text().replace('"answer": "A"', '"answer": "B"'))  # of the same length
    assert score_answers(colours, tmp_path / "answers").scores == {"colours": 87.5}


def test_limit_asks_only_the_first_questions(answerer, questions, clips):
    settings = settings_of(questions, clips[0][0].parent, limit=5)
    assert evaluate(answerer, settings)[1].num_questions == 5


def test_unreadable_videos_are_left_out_when_tolerated_and_named_when_not(answerer, questions, clips, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(clips[0][0].parent, videos)
    (videos / "3.mp4").write_bytes(b"not a video")
    (videos / "5.mp4").unlink()
    scored, answered = evaluate(answerer, settings_of(questions, videos, max_unreadable_share=0.2))
    assert (scored.scores, answered.num_questions, answered.num_unreadable) == ({"colours": 100.0}, 24, 4)
    with pytest.raises(EvaluationFailed, match=r"colours: 4 of 24 questions .*3\.mp4 .*5\.mp4"):
        evaluate(answerer, settings_of(questions, videos, max_unreadable_share=0.1))
    shutil.copy(clips[3][0], videos / "3.mp4")
    shutil.copy(clips[5][0], videos / "5.mp4")  # repaired: asked again, the others are not
    assert evaluate(answerer, settings_of(questions, videos))[1].num_unreadable == 0


def test_nothing_readable_is_no_score(answerer, questions, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    with pytest.raises(EvaluationFailed, match="24 of 24"):
        evaluate(answerer, settings_of(questions, videos, max_unreadable_share=0.99))


def choices(path, clips):
    rows = [
        {"id": str(n), "video": clip.name, "question": "which colour ?", "options": list(COLOURS), "answer": colour}
        for n, (clip, colour) in enumerate(clips)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return settings_of(path, clips[0][0].parent, "choice")


def test_multiple_choice_counts_what_names_no_option(answerer, clips, tmp_path):
    settings = choices(tmp_path / "choice.jsonl", clips)
    assert evaluate(answerer, settings)[0].scores == {"colours": 100.0}
    said = ("A", "(B)", "The answer is C.", "D. grey", "red", "Red!", "A or B", "", "a red car", "(A) or (B)", "e", "B")
    keep_answers(settings, tmp_path / "kept", lambda q, doc: said[q.doc])
    found = score_answers(settings, tmp_path / "kept").tasks["colours"]
    #       A  B  C  D  A     -     -        -   -        -         -    D->B wrong
    right = [True, True, True, True, True, False, False, False, False, False, False, False]
    assert found.score == pytest.approx(100 * sum(right) / 12)
    assert found.unparseable_share == pytest.approx(5 / 12)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("A", "A"), ("b.", "B"), ("(C)", "C"), ("The answer is D", "D"), ("Red", "A"), ("answer: (b)", None),
     ("A red car", None), ("A or B", None), ("(A) (A)", "A"), ("E", None), ("", None), ("option B", "B")],
)  # fmt: skip
def test_which_option_is_chosen(answer, letter):
    assert chosen_letter(answer, list(COLOURS)) == letter


def test_judged_questions_ask_the_judge_and_count_its_yes(questions, clips, tmp_path, judge):
    judge.say = lambda request, number: {
        "pred": "yes" if "Correct Answer: A" in request["messages"][1]["content"] else "no",
        "score": 3,
    }
    settings = settings_of(questions, clips[0][0].parent, "judged", judge=judge.settings())
    keep_answers(settings, tmp_path / "kept", lambda q, doc: "something")
    found = score_answers(settings, tmp_path / "kept")
    assert found.scores == {"colours": 100 * 3 / 24}
    assert found.tasks["colours"].standard_error > 0
    assert found.judge["model"] == judge.settings().model


def test_options_can_be_ranked_by_likelihood(answerer, questions, clips, tmp_path):
    rows = [json.loads(line) for line in questions.read_text().splitlines()][::2]
    for row in rows:
        row["options"] = list("DCBA")
    questions.write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "ranked.yaml").write_text(
        f"""
task: ranked
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{questions}"}}}}
test_split: test
output_type: multiple_choice
doc_to_visual: !function helpers.visual
doc_to_text: question
doc_to_choice: options
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
    )
    (tmp_path / "helpers.py").write_text(f'def visual(doc):\n    return ["{clips[0][0].parent}/" + doc["video"]]\n')
    tasks = {  # acc takes the likeliest option; exact_match, whether greedy decoding gives the reference.
        name: LmmsTask(task=str(tmp_path / "ranked.yaml"), metric=name, full_mark=1) for name in ("acc", "exact_match")
    }
    scored, _ = evaluate(answerer, Evaluation(tasks=list(tasks), lmms_eval=tasks), answers=tmp_path / "answers")
    assert (scored.failed, scored.scores) == ({}, {"acc": 100.0, "exact_match": 100.0})


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


GOOD = {"id": "0", "video": "a.mp4", "question": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "1", "video": "a.mp4", "question": "q"}', "row 2: answer missing"),
        ('{"id": "1", "video": "a.mp4", "question": "q", "answer": 3}', "row 2: answer missing or not text"),
        ("[1]", "row 2: id, video, question, answer"),
        ("{", "row 2: not JSON"),
        ("[" * 100_000, "row 2: not JSON"),
        (json.dumps(GOOD), "row 2: id '0' is another row's too"),
        (json.dumps(GOOD | {"id": "1", "video": "../a.mp4"}), "does not lie below"),
        (json.dumps(GOOD | {"id": "1", "video": "/etc/a.mp4"}), "does not lie below"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, said):
    path = tmp_path / "test.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(UserError, match=said):
        read_questions(path, "exact")


@pytest.mark.parametrize("options", [None, "ABC", ["x"], ["x", 3], ["x", "y"]])
def test_a_choice_needs_options_that_hold_the_answer(tmp_path, options):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(GOOD | {"answer": "z"} | ({"options": options} if options else {})))
    with pytest.raises(UserError, match=r"row 1: (options|answer 'z')"):
        read_questions(path, "choice")


def test_problems_are_found_before_anything_runs(tmp_path, questions, clips, monkeypatch):
    monkeypatch.delenv("HF_HOME")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = settings_of(questions, clips[0][0].parent)
    assert task_problems(settings) == []
    lmms = {"other": LmmsTask(task="mlvu_devv", metric="x", full_mark=1)}
    names = ["colours", "colours", "typo", "VDC", "NQA", "other"]
    found = task_problems(settings.model_copy(update={"tasks": names, "lmms_eval": lmms}))
    assert [problem.split(":")[0] for problem in found] == [
        "colours", "evaluation.tasks", "VDC", "VDC", "NQA", "evaluation.lmms_eval.other.task",
    ]  # fmt: skip
    assert "'typo'" in found[1]
    assert "OPENAI_API_KEY" in found[3]
    assert "HF_HOME" in found[4]
    assert "near: mlvu_dev" in found[5]
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert "nextqa/NExTVideo" in task_problems(Evaluation(tasks=["NQA"]))[0]
    write_clip(tmp_path / "nextqa/NExTVideo/1.mp4", next(iter(COLOURS)))
    assert task_problems(Evaluation(tasks=["NQA"])) == []
    questions.unlink()
    assert "questions.jsonl: No such file" in task_problems(settings)[0]


def test_planning_needs_neither_torch_nor_lmms_eval():
    code = (
        "import sys; from vvlm_ray.evaluation.tasks import task_problems; "
        "from vvlm_ray.study.evaluation_section import Evaluation; "
        "task_problems(Evaluation(tasks=['VDC', 'x'])); "
        "print(sorted({'torch', 'lmms_eval', 'transformers', 'datasets', 'requests'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
