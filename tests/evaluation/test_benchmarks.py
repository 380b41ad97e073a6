"""The eight benchmarks through lmms-eval's own YAML, prompts and scoring, on small data in the published schemas.

`load_dataset("lmms-eval/NExTQA", "MC")` takes a folder of that name where there is one, so the tasks run as they
are, without the network. Videos lie in HF_HOME where the tasks look for them; the model knows every answer.
"""

import shutil
from pathlib import Path

import pytest
import yaml
from colour_world import COLOURS, LETTERS, NUM_FRAMES
from lmms_eval import tasks as lmms_tasks

from vvlm_ray.evaluation.benchmarks import BENCHMARKS
from vvlm_ray.evaluation.evaluate import check_data, check_tasks, evaluate
from vvlm_ray.evaluation.failures import EvaluationFailed
from vvlm_ray.evaluation.scores import checked_score, normalised_score

OPTIONS = list(COLOURS)


def next_qa(published, answers=OPTIONS):
    rows = []
    for index, (clip, colour) in enumerate(published.clips):
        published.video(clip, "nextqa/NExTVideo", f"{index}.mp4")
        options = {f"a{number}": name for number, name in enumerate([*OPTIONS, "else"])}
        rows.append({"video": index, "question": "which colour ?", "answer": answers.index(colour)} | options)
    published.dataset("lmms-eval/NExTQA", "test", rows, "MC")


def video_mme(published):
    rows = []
    for index, (clip, colour) in enumerate(published.clips):
        published.video(clip, "videomme/data", f"v{index}.mp4")
        rows.append(
            {
                "videoID": f"v{index}",
                "question_id": f"{index}-1",
                "duration": ("short", "medium", "long")[index % 3],
                "domain": "Knowledge",
                "sub_category": "Astronomy",
                "task_type": "Attribute Perception",
                "question": "which colour ?",
                "options": [f"{letter}. {name}" for letter, name in zip("ABCD", OPTIONS, strict=True)],
                "answer": LETTERS[colour],
            }
        )
    published.dataset("lmms-eval/Video-MME", "test", rows)


def perception_test(published):
    rows = []
    for index, (clip, colour) in enumerate(published.clips):
        published.video(clip, "perceptiontest_val/videos", f"p{index}.mp4")
        answer = {"answer_id": OPTIONS.index(colour), "options": OPTIONS[:3]}
        rows.append({"video_name": f"p{index}", "question": "which colour ?", "question_id": index} | answer)
    published.dataset("lmms-eval/PerceptionTest_Val", "validation", rows, "mc_question_val")


def long_video_bench(published):
    rows = []
    for index, (clip, colour) in enumerate(published.clips):
        published.video(clip, "datasets/longvideobench/videos", f"l{index}.mp4")
        options = {f"option{number}": name for number, name in enumerate([*OPTIONS, "N/A"])}
        row = {"id": f"l{index}_0", "video_path": f"l{index}.mp4", "question": "which colour ?"}
        row |= {"correct_choice": OPTIONS.index(colour), "duration_group": 15 * (1 + index % 2)}
        rows.append(row | options | {"question_category": "S2A"})
    published.dataset("longvideobench/LongVideoBench", "validation", rows)


def mv_bench(published):
    from lmms_eval.tasks.mvbench.utils import DATA_LIST

    clip, colour = published.clips[2]
    for part, folder in DATA_LIST.items():
        published.video(clip, f"mvbench_video/{folder}", "m.mp4")
        row = {"video": "m.mp4", "question": "which colour ?", "candidates": OPTIONS, "answer": colour}
        published.dataset("OpenGVLab/MVBench", "train", [row], part)


BUILDERS = {"NQA": next_qa, "VMME": video_mme, "PT": perception_test, "LVB": long_video_bench, "MV": mv_bench}


@pytest.mark.parametrize("name", BUILDERS)
def test_multiple_choice_benchmarks_give_100_to_a_model_that_knows(name, published, parts):
    assert "HF_HOME" in check_tasks([name])[0] or "no videos" in check_tasks([name])[0]
    BUILDERS[name](published)
    before = {path.name for path in published.home.parent.iterdir()}
    result = evaluate(*parts, tasks=[name], num_frames=NUM_FRAMES)
    assert result.scores == {name: 100.0}
    assert result.num_questions == (20 if name == "MV" else 12)
    assert {path.name for path in published.home.parent.iterdir()} == before


def test_wrong_answers_take_their_share(published, parts):
    next_qa(published, answers=["red", "green", "grey", "blue"])  # two of four options exchanged
    assert evaluate(*parts, tasks=["NQA"], num_frames=NUM_FRAMES).scores == {"NQA": 50.0}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_missing_or_broken_video_fails_a_published_benchmark(name, published, parts):
    BUILDERS[name](published)
    video = next(path for path in (published.home / BENCHMARKS[name].videos).rglob("*.mp4"))
    video.write_bytes(b"broken")
    arguments = {"tasks": [name], "num_frames": NUM_FRAMES, "max_unreadable_share": 1.0}  # for local tasks only
    with pytest.raises(EvaluationFailed, match=video.name):
        evaluate(*parts, **arguments)
    video.unlink()
    with pytest.raises(EvaluationFailed, match=video.name):
        evaluate(*parts, **arguments)


@pytest.mark.parametrize("name", ["NQA", "VMME", "LVB"])  # a missing video: OSError, sys.exit, and nothing said
def test_data_are_checked_without_a_model(name, published, capfd):
    BUILDERS[name](published)
    assert check_data([name]) == []
    videos = sorted((published.home / BENCHMARKS[name].videos).rglob("*.mp4"))[:2]
    for video in videos:
        video.unlink()
    problems = check_data([name])
    assert len(problems) == 1
    assert f"{name}: 2 videos of 12 questions are missing" in problems[0]
    assert videos[0].name in problems[0]
    assert capfd.readouterr() == ("", "")


def test_a_missing_login_is_found_by_checking_the_data(published, monkeypatch):
    """Not there locally, so lmms-eval asks the hub, which these tasks only do with a token."""
    next_qa(published)
    shutil.rmtree("lmms-eval")
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: None)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    assert "oken" in check_data(["NQA"])[0]


def test_the_table_names_what_lmms_eval_has():
    """Tasks, metric keys, folders of videos and kinds of answers, against the installed YAML files."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    for benchmark in BENCHMARKS.values():
        root = Path(lmms_tasks.__file__).parent / benchmark.folder
        files = [yaml.load(path.read_text(), loader) for path in root.glob("*.yaml")]
        files = {content["task"]: content for content in files if isinstance(content.get("task"), str)}
        for metric in benchmark.metrics:
            content = files[metric.task]
            if "include" in content:
                content |= yaml.load((root / content["include"]).read_text(), loader)
            assert metric.key in [entry["metric"] for entry in content["metric_list"]]
            assert content.get("output_type", "generate_until") == "generate_until"
            assert benchmark.videos.startswith(content["dataset_kwargs"]["cache_dir"])
    assert {name for name, benchmark in BENCHMARKS.items() if benchmark.is_judged} == {"VDC", "AQA", "VCG"}
    assert len(BENCHMARKS["MV"].metrics) == 20


def results_of(name, value=lambda metric: metric.full_mark / 2):
    results = {metric.task: {} for metric in BENCHMARKS[name].metrics}
    for metric in BENCHMARKS[name].metrics:
        results[metric.task][f"{metric.key},none"] = value(metric)
    return results


@pytest.mark.parametrize("name", BENCHMARKS)
def test_half_of_the_full_mark_is_50_points(name):
    assert normalised_score(BENCHMARKS[name], results_of(name)) == pytest.approx(50.0)


def test_vcg_is_the_plain_mean_of_its_five_metrics():
    marks = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    assert normalised_score(BENCHMARKS["VCG"], results_of("VCG", lambda _: next(marks))) == pytest.approx(60.0)


@pytest.mark.parametrize("bad", [float("nan"), None, "N/A", 101.0, -1.0])
def test_a_missing_or_impossible_value_is_an_error(bad):
    with pytest.raises(EvaluationFailed, match="videomme_perception_score"):
        normalised_score(BENCHMARKS["VMME"], results_of("VMME", lambda _: bad))
    with pytest.raises(EvaluationFailed, match="None"):
        normalised_score(BENCHMARKS["VMME"], {})


def test_empty_answers_count_as_wrong_in_mvbench_too():
    """lmms-eval leaves them out of the mean: 80 % right of the answered three quarters are 60 of 100."""
    results = results_of("MV", lambda _: 80.0)
    shares = {metric.task: 0.75 for metric in BENCHMARKS["MV"].metrics}
    assert normalised_score(BENCHMARKS["MV"], results, shares) == pytest.approx(60.0)


def test_lost_questions_are_an_error():
    samples = [{"doc_id": number, "filtered_resps": ["A"]} for number in (0, 1, 1)]
    results = results_of("NQA")
    found = {"samples": {"nextqa_mc_test": samples}, "n-samples": {"nextqa_mc_test": {"effective": 3}}}
    with pytest.raises(EvaluationFailed, match="has 3 questions, but lmms-eval returned 2"):
        checked_score(BENCHMARKS["NQA"], found | {"results": results}, None)
    found["n-samples"]["nextqa_mc_test"]["effective"] = 2
    assert checked_score(BENCHMARKS["NQA"], found | {"results": results}, None) == (pytest.approx(50.0), 2)
