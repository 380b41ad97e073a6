"""A small synthetic video benchmark whose scores depend on LM size, frames, tokens per frame and data size.

Every clip shows still grey noise and, for a while, one square in one of eight colours. A question asks for the
colour's name, in English or in one of 256 made-up languages; guessing scores 12.5 %. Each scaling factor has its
own reason to matter:

  num_frames        the square may be there for a sixteenth of the clip only, and few frames miss it
  tokens_per_frame  the square may be one cell of 8 x 8, and coarse pooling skips or blurs it
  lm_params         the languages' words are facts, learned in base training, of which a small LM keeps fewer;
                    some languages are rarer than others (Zipf)
  num_examples      the benchmark's camera turns all hues most of the way to the next colour and weakens
                    contrast: the backbones name colours wrongly until finetuning has taught them anew

Clips are real H.264 files of different lengths and frame rates. The base training of the backbones
(vvlm_ray/synthetic/backbones.py) draws from the same generator, through a plain camera and without files.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from vvlm_ray.errors import UserError
from vvlm_ray.synthetic.clips import COLOURS, Camera, Clips, draw_clips, render, take

WORDS = ("ba", "de", "gi", "ko", "lu", "mi", "no", "pu")
NUM_LANGUAGES = 256
ENGLISH = -1  # the language whose words are the colours' own names
ENGLISH_SHARE = 0.3
ZIPF_EXPONENT = 0.6  # language i is asked for with probability ~ (i + 1)^-0.6
BASE_CAMERA = Camera()
BENCHMARK_CAMERA = Camera(hue_degrees=36.0, contrast=0.7)
_CLIPS_PER_JOB = 50

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class SyntheticSettings:
    """What the files depend on: equal settings give equal clips, questions and answers."""

    num_train: int = 1200
    num_test: int = 512
    seed: int = 0
    min_frames: int = 24
    max_frames: int = 48
    frame_rates: tuple[int, ...] = (8, 12, 16, 24)


def build_synthetic(folder: Path, settings: SyntheticSettings, progress: Progress | None = None) -> None:
    """Write videos/*.mp4, train.json (LLaVA's format), test.jsonl (id, video, question, answer), settings.json.

    Paths of videos in both lists are relative to `folder`/videos. The folder appears when it is complete; one that
    holds a benchmark of equal settings is left alone. Raises UserError for one of other settings.
    """
    folder = Path(folder)
    described = json.loads(json.dumps(asdict(settings)))
    if folder.exists():
        _require_equal_settings(folder, described)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (building / "videos").mkdir()
        # Training and test clips come from streams of their own, so that one's number does not change the other.
        train = _draw_questions(np.random.default_rng([settings.seed, 0]), "train", settings.num_train, settings)
        test = _draw_questions(np.random.default_rng([settings.seed, 1]), "test", settings.num_test, settings)
        _write_videos(building / "videos", [train, test], progress)
        (building / "train.json").write_text(json.dumps(list(map(_llava_row, train.rows())), indent=1) + "\n")
        (building / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test.rows()))
        (building / "settings.json").write_text(json.dumps(described, indent=2) + "\n")
        building.chmod(0o755)  # mkdtemp makes it private
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


@cache
def languages() -> np.ndarray:
    """The word of each colour in each language, (NUM_LANGUAGES, 8) indices into WORDS; the same for every seed."""
    rng = np.random.default_rng(17)
    return np.stack([rng.permutation(len(WORDS)) for _ in range(NUM_LANGUAGES)])


def draw_languages(rng: np.random.Generator, count: int, english_share: float = ENGLISH_SHARE) -> np.ndarray:
    """(count,) languages to ask in: ENGLISH or 0..NUM_LANGUAGES - 1."""
    frequency = np.arange(1, NUM_LANGUAGES + 1) ** -ZIPF_EXPONENT
    language = rng.choice(NUM_LANGUAGES, count, p=frequency / frequency.sum())
    return np.where(rng.random(count) < english_share, ENGLISH, language)


def question_and_answer(language: int, colour: int) -> tuple[str, str]:
    """The texts, words parted by blanks."""
    if language == ENGLISH:
        return "Colour in English ?", COLOURS[colour]
    return f"Colour in {_language_name(language)} ?", WORDS[languages()[language, colour]]


def _language_name(language: int) -> str:
    return f"L{language:03d}"


def all_words() -> list[str]:
    """Every word that questions and answers are made of."""
    return ["Colour", "in", "English", "?", *COLOURS, *WORDS, *map(_language_name, range(NUM_LANGUAGES))]


def encode_mp4(path: Path, frames: np.ndarray, frame_rate: int) -> None:
    """Write uint8 frames (N, H, W, 3) as H.264; keyframes are close together, so that seeking is cheap."""
    import av

    options = {"preset": "ultrafast", "crf": "18", "g": "12", "threads": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=frame_rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@dataclass(frozen=True)
class _Questions:
    """One split: a clip and a question each, and how the clip is filmed."""

    split: str
    clips: Clips
    language: np.ndarray
    num_frames: np.ndarray
    frame_rate: np.ndarray

    def names(self) -> list[str]:
        return [f"{self.split}_{index:05d}" for index in range(len(self.language))]

    def rows(self) -> list[dict[str, str]]:
        texts = map(question_and_answer, self.language.tolist(), self.clips.colour.tolist())
        return [
            {"id": name, "video": f"{name}.mp4", "question": question, "answer": answer}
            for name, (question, answer) in zip(self.names(), texts, strict=True)
        ]


def _draw_questions(rng: np.random.Generator, split: str, count: int, settings: SyntheticSettings) -> _Questions:
    return _Questions(
        split=split,
        clips=draw_clips(rng, count),
        language=draw_languages(rng, count),
        num_frames=rng.integers(settings.min_frames, settings.max_frames + 1, count),
        frame_rate=rng.choice(settings.frame_rates, count),
    )


def _llava_row(row: dict[str, str]) -> dict[str, object]:
    turns = [
        {"from": "human", "value": f"<video>\n{row['question']}"},
        {"from": "gpt", "value": row["answer"]},
    ]
    return {"id": row["id"], "video": row["video"], "conversations": turns}


def _write_videos(folder: Path, splits: list[_Questions], progress: Progress | None) -> None:
    jobs = []
    total = sum(len(split.language) for split in splits)
    # Spawned, because a fork of a process that already runs threads (Ray, torch) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        for split in splits:
            paths = [folder / f"{name}.mp4" for name in split.names()]
            for first in range(0, len(paths), _CLIPS_PER_JOB):
                part = np.arange(first, min(first + _CLIPS_PER_JOB, len(paths)))
                arguments = (paths[first : first + len(part)], take(split.clips, part))
                jobs.append(pool.submit(_film, *arguments, split.num_frames[part], split.frame_rate[part]))
        for done, job in enumerate(jobs, 1):
            job.result()
            if progress is not None:
                progress(done / len(jobs), f"{min(done * _CLIPS_PER_JOB, total)} of {total} clips")


def _film(paths: list[Path], clips: Clips, num_frames: np.ndarray, frame_rate: np.ndarray) -> None:
    for index, path in enumerate(paths):
        times = np.linspace(0, 1, num_frames[index])
        frames = render(take(clips, np.array([index])), times, BENCHMARK_CAMERA)
        encode_mp4(path, frames[0], int(frame_rate[index]))


def _require_equal_settings(folder: Path, described: dict[str, object]) -> None:
    path = folder / "settings.json"
    if not path.is_file() or json.loads(path.read_text()) != described:
        raise UserError(f"{folder}: is not this benchmark with these settings; remove it or name another folder")
