"""Kept answers through lmms-eval's own YAML, prompts and scoring, on small data in the published schemas."""

import json
import math
import random
import re
from dataclasses import asdict

import numpy as np
import pytest
from colour_world import COLOURS
from kept import keep_answers
from miniatures import CALLS, NUM_QUESTIONS, letter_of, rows_of, write_dataset

from vvlm_ray.evaluation.benchmarks import BENCHMARKS, CHOICES, Metric
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.scores import Documents, combined
from vvlm_ray.evaluation.scoring import score_answers
from vvlm_ray.study.evaluation_section import Evaluation, LmmsTask

JUDGED = ("VDC", "AQA", "VCG")
NEXT = dict(zip("ABCDE", "BCDAA", strict=True))  # another option that is there in all five


def scored(names, folder, say, **settings):
    settings = Evaluation(tasks=list(names), **settings)
    keep_answers(settings, folder, say)
    return score_answers(settings, folder)


def says_right(asked, doc):
    return letter_of(doc)


def says_wrong(asked, doc):
    return NEXT[letter_of(doc)] if "answer_id" not in doc else "BCA"[doc["answer_id"]]


def test_an_oracle_has_100_an_anti_oracle_0_and_a_wrong_option_its_share(eight, tmp_path):
    right = scored(CHOICES, tmp_path / "right", says_right)
    assert right.failed == {}
    assert right.scores == dict.fromkeys(CHOICES, 100.0)
    assert {name: task.num_questions for name, task in right.tasks.items()} == {n: NUM_QUESTIONS[n] for n in CHOICES}
    wrong = scored(CHOICES, tmp_path / "wrong", says_wrong)
    assert wrong.scores == dict.fromkeys(CHOICES, 0.0)
    share = scored(
        CHOICES, tmp_path / "share", lambda q, doc: says_wrong(q, doc) if q.doc % 3 == 0 else says_right(q, doc)
    )
    for name, score in share.scores.items():
        num_wrong = 20 if name == "MV" else math.ceil(NUM_QUESTIONS[name] / 3)
        assert score == pytest.approx(100 * (1 - num_wrong / NUM_QUESTIONS[name])), name
        assert share.tasks[name].unparseable_share == 0.0
    assert all(task.standard_error > 0 for task in share.tasks.values())


@pytest.mark.parametrize("said", ["", "perhaps the third of them, whatever that may be"])
def test_an_answer_that_names_no_option_is_wrong_and_counted_whatever_the_seed(said, eight, tmp_path):
    """lmms-eval draws one at random for NExT-QA and LongVideoBench, and leaves empty ones out of MVBench."""

    def say(asked, doc):
        return said if asked.doc % 2 else letter_of(doc)

    keep_answers(Evaluation(tasks=list(CHOICES)), tmp_path, say)
    found = []
    for seed in (1, 2):
        random.seed(seed)
        found.append(score_answers(Evaluation(tasks=list(CHOICES)), tmp_path))
    assert found[0] == found[1]
    for name, task in found[0].tasks.items():
        num_said = 20 if name == "MV" else NUM_QUESTIONS[name] // 2
        assert task.score == pytest.approx(100 * (1 - num_said / NUM_QUESTIONS[name])), name
        assert task.unparseable_share == pytest.approx(num_said / NUM_QUESTIONS[name]), name


def colour_judge(request, number):
    """5 of 5 and yes where every predicted answer is the correct one, else 0 and no."""
    text = request["messages"][1]["content"]
    correct = re.search(r"^Correct Answer: (.*)$", text, re.MULTILINE).group(1)
    said = re.findall(r"^Predicted Answer.*: (.*)$", text, re.MULTILINE)
    right = all(answer == correct for answer in said)
    return {"pred": "yes" if right else "no", "score": 5 if right else 0}


def test_the_judged_ones_ask_the_judge_about_what_was_said(eight, tmp_path, judge):
    judge.say = colour_judge
    settings = Evaluation(tasks=list(JUDGED), judge=judge.settings())
    for folder, say, wanted in (
        ("right", lambda q, doc: doc["answer"], 100.0),
        ("wrong", lambda q, doc: "no idea", 0.0),
    ):
        keep_answers(settings, tmp_path / folder, say)
        found = score_answers(settings, tmp_path / folder)
        assert found.failed == {}
        assert found.scores == dict.fromkeys(JUDGED, wanted)
        assert {name: task.num_questions for name, task in found.tasks.items()} == {n: NUM_QUESTIONS[n] for n in JUDGED}
    assert found.judge["model"] == "gpt-4o-mini-2024-07-18"
    assert found.judge["answered_by"] == ["gpt-4o-mini-2024-07-18"]
    assert len(judge.requests) <= 2 * sum(CALLS.values())
    # One answer of four wrong: consistency loses its pair, the others their question.
    keep_answers(settings, tmp_path / "share", lambda q, doc: "no idea" if q.doc == 0 else doc["answer"])
    found = score_answers(settings, tmp_path / "share")
    assert found.scores == {"VDC": 80.0, "AQA": 80.0, "VCG": 75.0}
    assert found.tasks["VCG"].parts == dict.fromkeys(
        ("correctness", "detailed_orientation", "context", "temporal", "consistency"), 75.0
    )


def test_the_parts_of_mvbench_are_there_in_its_order(eight, tmp_path):
    found = scored(["MV"], tmp_path, lambda q, doc: "A")
    parts = found.tasks["MV"].parts
    assert list(parts) == [metric.part for metric in BENCHMARKS["MV"].metrics]
    assert found.scores["MV"] == pytest.approx(sum(parts.values()) / 20)
    rows = {part: rows_of(eight.folder, "OpenGVLab/MVBench", part) for part in parts}
    red = next(iter(COLOURS))
    assert parts == {part: 100 * sum(row["answer"] == red for row in rows[part]) / len(rows[part]) for part in parts}


def test_limit_counts_pairs_where_pairs_are_judged(eight, tmp_path, judge):
    judge.say = colour_judge
    settings = Evaluation(tasks=["VCG", "NQA"], limit=1, judge=judge.settings())
    total = keep_answers(settings, tmp_path, lambda q, doc: doc["answer"] if "video" not in doc else letter_of(doc))
    found = score_answers(settings, tmp_path)
    assert (total, found.scores) == (1 + 1 + 2 + 1, {"VCG": 100.0, "NQA": 100.0})


def test_a_question_without_its_second_one_fails_by_name_and_the_rest_stays(own_eight, tmp_path, judge):
    rows = rows_of(own_eight, "lmms-eval/VideoChatGPT", "Consistency")
    write_dataset(own_eight / "lmms-eval/VideoChatGPT", "test", rows[:-1], "Consistency")
    settings = Evaluation(tasks=["VCG", "VDC"], judge=judge.settings())
    keep_answers(settings, tmp_path, lambda q, doc: doc["answer"])
    found = score_answers(settings, tmp_path)
    assert found.scores == {"VDC": 80.0}
    assert "without a second" in found.failed["VCG"]
    assert found.avg == 80.0


def test_answers_that_are_missing_or_of_other_questions_fail_their_task_only(eight, tmp_path):
    settings = Evaluation(tasks=["NQA", "PT", "LVB"])
    keep_answers(settings, tmp_path, says_right)
    path = tmp_path / "longvideobench_val_v.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]) + '{"torn')
    path = tmp_path / "nextqa_mc_test.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {"fingerprint": "of another wording"})
    path.write_text("\n".join(lines))
    found = score_answers(settings, tmp_path)
    assert found.scores == {"PT": 100.0}
    assert "1 of 12 questions have no answer" in found.failed["NQA"]
    assert "2 of 12 questions have no answer" in found.failed["LVB"]


def test_standard_errors_are_those_of_a_bootstrap_over_videos(eight, tmp_path):
    """Video-MME asks three questions about a video: a model that knows some videos has fewer independent answers."""
    found = scored(["VMME", "NQA"], tmp_path, lambda q, doc: says_right(q, doc) if q.doc < 6 else says_wrong(q, doc))
    assert found.scores == {"VMME": 50.0, "NQA": 50.0}
    videos = np.repeat([100.0, 0.0], [2, 2])
    assert found.tasks["VMME"].standard_error == pytest.approx(videos.std(ddof=1) / 2)
    answers = np.repeat([100.0, 0.0], [6, 6])
    assert found.tasks["NQA"].standard_error == pytest.approx(answers.std(ddof=1) / math.sqrt(12))
    assert score_answers(Evaluation(tasks=["NQA"]), tmp_path).tasks["NQA"] == found.tasks["NQA"]


def test_the_standard_error_of_parts_that_share_videos_against_a_bootstrap():
    """Five metrics, three of them about the same questions, uneven videos: the formula against 20,000 resamples."""
    rng = np.random.default_rng(0)
    skill = rng.normal(3, 1, 40)
    parts = []
    for number, repeats in enumerate((1, 1, 1, 2, 3)):
        docs = [
            (f"v{video}", float(np.clip(skill[video] + rng.normal(), 0, 5)))
            for video in range(40)
            for _ in range(repeats)
        ]
        parts.append(Documents(Metric("t", f"m{number}", 5.0), tuple(docs), sum(v for _, v in docs) / len(docs)))
    score, error, points = combined("x", parts)
    assert score == pytest.approx(sum(points) / 5)
    drawn = rng.integers(0, 40, (20000, 40))
    counts = np.stack([(drawn == video).sum(1) for video in range(40)], 1)
    means = []
    for part in parts:
        sums = np.zeros(40)
        sizes = np.zeros(40)
        for video, value in part.values:
            sums[int(video[1:])] += 20 * value
            sizes[int(video[1:])] += 1
        means.append(counts @ sums / (counts @ sizes))
    assert error == pytest.approx(np.mean(means, 0).std() * math.sqrt(40 / 39), rel=0.03)


@pytest.mark.parametrize("bad", [float("nan"), 101.0, -1.0])
def test_an_impossible_value_is_an_error(bad):
    with pytest.raises(EvaluationFailed, match="videomme_perception_score"):
        combined("VMME", [Documents(BENCHMARKS["VMME"].metrics[0], (("a", bad),), bad)])


def test_a_mean_that_is_not_what_lmms_eval_reports_is_an_error():
    with pytest.raises(EvaluationFailed, match=r"reports 60.0, but its documents' mean is 50"):
        combined("VMME", [Documents(BENCHMARKS["VMME"].metrics[0], (("a", 0.0), ("b", 100.0)), 60.0)])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_half_of_the_full_mark_is_50_points(name):
    parts = [
        Documents(m, (("a", m.full_mark / 2), ("b", m.full_mark / 2)), m.full_mark / 2)
        for m in BENCHMARKS[name].metrics
    ]
    assert combined(name, parts)[0] == pytest.approx(50.0)


def three_others(eight):
    """Three tasks of lmms-eval outside the eight, in the schemas that their code reads."""
    folder, colours = eight.folder, list(COLOURS)
    mlvu, lvbench, timescope = [], [], []
    for index, (clip, colour) in enumerate(eight.clips):
        for place in ("mlvu", "lvbench", "timescope"):
            eight.video(clip, place, f"{index}.mp4")
        letter = "ABCD"[colours.index(colour)]
        kind = ("count", "ego", "needle")[index % 3]
        mlvu.append(
            {"video_name": f"{index}.mp4", "question": f"which colour {index} ?", "answer": letter, "task_type": kind}
        )
        lvbench.append(
            {"video_path": f"{index}.mp4", "question": "which colour ?", "options": colours, "answer": letter}
        )
        row = {"id": str(index), "video": f"{index}.mp4", "input": "which colour ?", "answer": letter}
        timescope.append(row | {"type": "QA", "length": 60 * (1 + index % 2)})
    write_dataset(folder / "sy1998/MLVU_dev", "test", mlvu)
    write_dataset(folder / "lmms-eval/LVBench", "train", lvbench)
    write_dataset(folder / "Apollo-LMMs/TimeScope", "test", timescope)


OTHERS = {
    "mlvu": LmmsTask(task="mlvu_dev", metric="mlvu_percetion_score", full_mark=100),
    "lvbench": LmmsTask(task="lvbench", metric="lvbench_score", full_mark=1),
    "timescope": LmmsTask(task="timescope", metric="timescope_perception_score", full_mark=100),
}


def test_other_tasks_of_lmms_eval_run_by_name(eight, tmp_path):
    three_others(eight)
    # MLVU's score is a mean over seven kinds of tasks, of which the miniature has three.
    for say, wanted in ((says_right, (300 / 7, 100, 100)), (says_wrong, (0, 0, 0))):
        found = scored(OTHERS, tmp_path / say.__name__, say, lmms_eval=OTHERS)
        assert found.failed == {}
        assert list(found.scores.values()) == pytest.approx(wanted)
    found = scored(
        OTHERS, tmp_path / "half", lambda q, d: says_right(q, d) if q.doc < 6 else says_wrong(q, d), lmms_eval=OTHERS
    )
    assert found.scores["lvbench"] == 50.0
    assert found.tasks["lvbench"].standard_error == pytest.approx(found.tasks["timescope"].standard_error, rel=0.2)


def test_direction_scale_and_metric_are_the_users(eight, tmp_path):
    three_others(eight)
    tasks = {
        "worse": LmmsTask(task="lvbench", metric="lvbench_score", full_mark=1, higher_is_better=False),
        "typo": LmmsTask(task="lvbench", metric="lvbench_scores", full_mark=1),
        "scale": LmmsTask(task="timescope", metric="timescope_perception_score", full_mark=1),
        "group": LmmsTask(task="mvbench", metric="mvbench_accuracy", full_mark=100),
    }
    found = scored(tasks, tmp_path, says_right, lmms_eval=tasks)
    assert found.scores == {"worse": 0.0, "group": 100.0}
    assert len(found.tasks["group"].parts) == 20
    assert "it gives lvbench_score" in found.failed["typo"]
    assert "beyond its scale of 0..1" in found.failed["scale"]


def test_a_task_that_asks_a_judge_has_to_say_so(eight, tmp_path, judge):
    task = LmmsTask(task="video_dc499", metric="gpt_eval_score", full_mark=5)
    settings = Evaluation(tasks=["captions"], lmms_eval={"captions": task}, judge=judge.settings())
    keep_answers(settings, tmp_path, lambda q, doc: doc["answer"])
    assert "judged: true" in score_answers(settings, tmp_path).failed["captions"]
    assert judge.requests == []
    live = settings.model_copy(update={"lmms_eval": {"captions": task.model_copy(update={"judged": True})}})
    assert score_answers(live, tmp_path).scores == {"captions": 80.0}


def test_scores_equal_a_hand_count_over_lmms_evals_own_samples(eight, tmp_path):
    from lmms_eval.evaluator import simple_evaluate

    from vvlm_ray.evaluation.lmms import _replay, _task_manager, load
    from vvlm_ray.evaluation.tasks import plan_of

    def say(asked, doc):
        return says_right(asked, doc) if asked.doc % 4 else says_wrong(asked, doc)

    found = scored(CHOICES, tmp_path, say)
    for name in CHOICES:
        plan = plan_of(Evaluation(tasks=[name]), name)
        for loaded in load(plan, None):
            said = dict(enumerate(json.loads(line)["answer"] for line in (tmp_path / f"{loaded.name}.jsonl").open()))
            own = simple_evaluate(
                model=_replay(lambda doc, option, said=said: said[doc]),
                tasks=[loaded.task],
                task_manager=_task_manager(plan.folder),
                bootstrap_iters=0,
            )
            samples = own["samples"][loaded.name]
            right = sum(sample["filtered_resps"][0] == letter_of(sample["doc"]) for sample in samples)
            part = found.tasks[name].parts.get(loaded.name.removeprefix("mvbench_"), found.scores[name])
            assert part == pytest.approx(100 * right / len(samples))


def test_scoring_again_gives_the_same_and_asks_nobody_again(eight, tmp_path, judge):
    names = [*CHOICES, *JUDGED]
    before = {path.name for path in eight.folder.iterdir()}
    settings = Evaluation(tasks=names, judge=judge.settings())
    keep_answers(settings, tmp_path / "answers", lambda q, doc: "A" if "video_name" not in doc else doc["question"])
    first = score_answers(settings, tmp_path / "answers", judge_store=tmp_path / "judge.sqlite")
    num_asked = len(judge.requests)
    again = score_answers(settings, tmp_path / "answers", judge_store=tmp_path / "judge.sqlite")
    assert asdict(first) == asdict(again)
    assert (first.failed, len(judge.requests)) == ({}, num_asked)
    assert {path.name for path in eight.folder.iterdir()} == before  # no submission files here
