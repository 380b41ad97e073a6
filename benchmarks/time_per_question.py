"""Time of an evaluation per question, batched against one by one, in one run; and what of it is not the model's.

    python benchmarks/time_per_question.py [--questions 240]

Local questions about ordinary mp4 files (H.264, 320 x 180), an untrained model of 30 thousand parameters that answers
up to 16 tokens: the smaller the model, the more everything around it counts. CPU-seconds of this process, one thread.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "evaluation"))

import torch
from colour_world import COLOURS, NUM_FRAMES, WORDS, build_model, write_clip

from vvlm_ray.evaluation.answering import VideoAnswerer
from vvlm_ray.evaluation.answers import answer_tasks
from vvlm_ray.evaluation.scoring import score_answers
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.study.evaluation_section import Evaluation, LocalTask
from vvlm_ray.synthetic.backbones import build_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=240)
    num = parser.parse_args().questions
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = build(Path(folder), num)
        tokenizer = build_tokenizer(WORDS)
        model = build_model(tokenizer).eval()
        print("| batch | answering | of it the model | beyond it | scoring |\n|---|---|---|---|---|")
        for name, batch_size in (("(warm-up)", 16), ("1", 1), ("16", 16)):
            answerer = VideoAnswerer(
                model, tokenizer, ImagePreprocessor(size=16), num_frames=NUM_FRAMES, batch_size=batch_size
            )
            answers = Path(folder) / f"answers-{name}"
            start = time.process_time()
            answer_tasks(answerer, settings, answers)
            answered = time.process_time()
            score_answers(settings, answers)
            scored = time.process_time()
            lines = (answers / "questions.jsonl").read_text().splitlines()
            model_seconds = sum(json.loads(line)["seconds"] for line in lines)
            parts = (answered - start, model_seconds, answered - start - model_seconds, scored - answered)
            if name != "(warm-up)":
                print(f"| {name} | " + " | ".join(f"{1000 * part / num:.1f} ms" for part in parts) + " |")


def build(folder: Path, num: int) -> Evaluation:
    """The questions, each about a video of its own."""
    rows = []
    for index in range(num):
        colour = list(COLOURS)[index % len(COLOURS)]
        write_clip(folder / "videos" / f"{index}.mp4", colour)
        rows.append({"id": str(index), "video": f"{index}.mp4", "question": "which colour ?", "answer": colour})
    path = folder / "questions.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    task = LocalTask(questions=str(path), video_root=str(folder / "videos"))
    return Evaluation(tasks=["questions"], local={"questions": task})


if __name__ == "__main__":
    main()
