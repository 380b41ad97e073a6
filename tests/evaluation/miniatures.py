"""The eight benchmarks in small, in the schemas that lmms-eval's tasks read, and what a model that knows would say.

`load_dataset("lmms-eval/NExTQA", "MC")` takes a folder of that name where there is one, so the tasks run as they
are, without the network. Videos lie in HF_HOME where the tasks look for them.
"""

import json
import shutil
from pathlib import Path

from colour_world import COLOURS, LETTERS

OPTIONS = list(COLOURS)
NUM_VIDEOS = 12


class Miniatures:
    """All eight below one folder: `home` is HF_HOME, the data sets lie beside it."""

    def __init__(self, folder, clips):
        self.folder, self.home, self.clips = folder, folder / "hf", clips
        for build in BUILDERS.values():
            build(self)

    def video(self, clip, folder, name):
        target = self.home / folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, target)

    def dataset(self, path, split, rows, config="default"):
        """Rows of one configuration; several calls add up to one data set."""
        write_dataset(self.folder / path, split, rows, config)


def write_dataset(folder, split, rows, config="default"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{config}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    configs = "".join(
        f"- config_name: {file.stem}\n  data_files:\n  - split: {split}\n    path: {file.name}\n"
        for file in sorted(folder.glob("*.jsonl"))
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")


def rows_of(folder, path, config="default"):
    return [json.loads(line) for line in Path(folder, path, f"{config}.jsonl").read_text().splitlines()]


def next_qa(mini):
    rows = []
    for index, (clip, colour) in enumerate(mini.clips):
        mini.video(clip, "nextqa/NExTVideo", f"{index}.mp4")
        options = {f"a{number}": name for number, name in enumerate([*OPTIONS, "else"])}
        row = {"video": index, "frame_count": 8, "width": 32, "height": 32, "question": "which colour ?"}
        rows.append(row | {"answer": OPTIONS.index(colour), "qid": index, "type": "DC"} | options)
    mini.dataset("lmms-eval/NExTQA", "test", rows, "MC")


def video_mme(mini):
    """Three questions about each of four videos, as published: they are not independent."""
    rows = []
    for index in range(12):
        clip, colour = mini.clips[index // 3]
        mini.video(clip, "videomme/data", f"v{index // 3}.mp4")
        rows.append(
            {
                "video_id": f"{index // 3:03d}",
                "videoID": f"v{index // 3}",
                "url": "",
                "question_id": f"{index // 3:03d}-{index % 3 + 1}",
                "duration": ("short", "medium", "long")[index % 3],
                "domain": "Knowledge",
                "sub_category": "Astronomy",
                "task_type": "Attribute Perception",
                "question": f"{'which ' * (1 + index % 3)}colour ?",
                "options": [f"{letter}. {name}" for letter, name in zip("ABCD", OPTIONS, strict=True)],
                "answer": LETTERS[colour],
            }
        )
    mini.dataset("lmms-eval/Video-MME", "test", rows)


def perception_test(mini):
    rows = []
    for index, (clip, colour) in enumerate(mini.clips):
        if colour == OPTIONS[3]:
            continue  # three options a question
        mini.video(clip, "perceptiontest_val/videos", f"p{index}.mp4")
        answer = {"answer_id": OPTIONS.index(colour), "options": OPTIONS[:3]}
        row = {"video_name": f"p{index}", "question": "which colour ?", "question_id": str(index)}
        rows.append(row | answer | {"area": "semantics", "reasoning": "descriptive", "tag": ["colour"]})
    mini.dataset("lmms-eval/PerceptionTest_Val", "validation", rows, "mc_question_val")


def long_video_bench(mini):
    rows = []
    for index, (clip, colour) in enumerate(mini.clips):
        mini.video(clip, "datasets/longvideobench/videos", f"l{index}.mp4")
        options = {f"option{number}": name for number, name in enumerate([*OPTIONS, "N/A"])}
        row = {"video_id": f"l{index}", "id": f"l{index}_0", "video_path": f"l{index}.mp4", "duration": 9.0}
        row |= {"question": "which colour ?", "correct_choice": OPTIONS.index(colour), "subtitle_path": ""}
        row |= {"duration_group": 15 * (1 + index % 2), "starting_timestamp_for_subtitles": 0.0}
        rows.append(row | options | {"question_category": ("S2A", "E2O")[index % 2]})
    mini.dataset("longvideobench/LongVideoBench", "validation", rows)


def mv_bench(mini):
    from lmms_eval.tasks.mvbench.utils import DATA_LIST

    for number, (part, folder) in enumerate(DATA_LIST.items()):
        rows = []
        for index in (number % 4, (number + 1) % 4):
            clip, colour = mini.clips[index]
            mini.video(clip, f"mvbench_video/{folder}", f"m{index}.mp4")
            rows.append(
                {"video": f"m{index}.mp4", "question": "which colour ?", "candidates": OPTIONS, "answer": colour}
            )
        mini.dataset("OpenGVLab/MVBench", "train", rows, part)


def detailed_captions(mini):
    rows = []
    for index, (clip, colour) in enumerate(mini.clips[:5]):
        mini.video(clip, "videochatgpt/Test_Videos", f"c{index}.mp4")
        rows.append({"video_name": f"c{index}", "question": "name it", "answer": colour})
    mini.dataset("lmms-lab/VideoDetailDescription", "test", rows)


def activitynet_qa(mini):
    rows = []
    for index, (clip, colour) in enumerate(mini.clips[:5]):
        mini.video(clip, "activitynetqa/all_test", f"v_a{index}.mp4")
        row = {"video_name": f"a{index}", "question": "name it", "answer": colour}
        rows.append(row | {"question_id": f"a{index}_1", "type": "4"})
    mini.dataset("lmms-eval/ActivityNetQA", "test", rows)


def vcg_bench(mini):
    single, pairs = [], []
    for index, (clip, colour) in enumerate(mini.clips[:4]):
        mini.video(clip, "videochatgpt/Test_Videos", f"g{index}.mp4")
        row = {"video_name": f"g{index}", "answer": colour}
        single.append(row | {"question": "name it", "question_1": "None", "question_2": "None"})
        pairs.append(row | {"question": "None", "question_1": "name it", "question_2": "None"})
        pairs.append(row | {"question": "None", "question_1": "None", "question_2": "which colour"})
    for config, rows in {"Generic": single, "Temporal": single, "Consistency": pairs}.items():
        mini.dataset("lmms-eval/VideoChatGPT", "test", rows, config)


BUILDERS = {
    "VDC": detailed_captions,
    "AQA": activitynet_qa,
    "VCG": vcg_bench,
    "LVB": long_video_bench,
    "PT": perception_test,
    "MV": mv_bench,
    "VMME": video_mme,
    "NQA": next_qa,
}
NUM_QUESTIONS = {"VDC": 5, "AQA": 5, "VCG": 16, "LVB": 12, "PT": 9, "MV": 40, "VMME": 12, "NQA": 12}
CALLS = {"VDC": 5, "AQA": 5, "VCG": 3 * 4 + 4 + 4}


def letter_of(doc):
    """The right letter of a multiple-choice document of any of the five."""
    for key in ("correct_choice", "answer_id"):
        if key in doc:
            return "ABCD"[doc[key]]
    answer = doc["answer"]
    return "ABCDE"[answer] if isinstance(answer, int) else answer if answer in "ABCD" else LETTERS[answer]
