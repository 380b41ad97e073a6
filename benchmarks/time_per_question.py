"""Time of an evaluation per question, batched against one by one, in one run; and what of it is not the model's.

    python benchmarks/time_per_question.py [--questions 240]

Local questions about ordinary mp4 files (H.264, 320 x 180), an untrained model of 30 thousand parameters that answers
up to 16 tokens: the smaller the model, the more everything around it counts. CPU time, one thread; decoding is in
processes of its own.
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

import psutil
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
        print("| batch | the model | beyond it | decoding | scoring |\n|---|---|---|---|---|")
        for name, batch_size in (("(warm-up)", 16), ("1", 1), ("16", 16)):
            answerer = Timed(model, tokenizer, ImagePreprocessor(size=16), num_frames=NUM_FRAMES, batch_size=batch_size)
            answers = Path(folder) / f"answers-{name}"
            start, decoded = time.process_time(), decoding_seconds()
            answer_tasks(answerer, settings, answers)
            answered, decoded = time.process_time(), decoding_seconds() - decoded
            score_answers(settings, answers)
            scored = time.process_time()
            parts = (answerer.model_seconds, answered - start - answerer.model_seconds, decoded, scored - answered)
            if name != "(warm-up)":
                print(f"| {name} | " + " | ".join(f"{1000 * part / num:.1f} ms" for part in parts) + " |")


class Timed(VideoAnswerer):
    """Counts the CPU time of the model's answers."""

    model_seconds = 0.0

    def _answer(self, *arguments):
        start = time.process_time()
        answers = super()._answer(*arguments)
        self.model_seconds += time.process_time() - start
        return answers


def decoding_seconds() -> float:
    """CPU time of all child processes so far."""
    own = psutil.Process()
    gone = own.cpu_times()
    alive = [child.cpu_times() for child in own.children(recursive=True)]
    return gone.children_user + gone.children_system + sum(times.user + times.system for times in alive)


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
