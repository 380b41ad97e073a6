"""Fixtures of the evaluation's tests: see colour_world.py."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from colour_world import COLOURS, LETTERS, NUM_FRAMES, QUESTIONS, WORDS, build_model, training_batch, write_clip
from judge_server import JudgeServer
from miniatures import Miniatures

from vvlm_ray.evaluation.answering import VideoAnswerer
from vvlm_ray.model.preprocess import ImagePreprocessor
from vvlm_ray.synthetic.backbones import build_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer(WORDS)


@pytest.fixture(scope="session")
def preprocessor():
    return ImagePreprocessor(size=16)


@pytest.fixture(scope="session")
def untrained(tokenizer):
    return build_model(tokenizer).eval()


@pytest.fixture(scope="session")
def model(tokenizer, preprocessor):
    """Trained until it names the colour when asked to "name it", and else, whatever the text, says its letter."""
    model = build_model(tokenizer)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    words = ["which", "colour", "?", "it", "anything", "else", *"ABCDE", *COLOURS]
    num_good = 0
    for _ in range(500):
        asked = [" ".join(rng.choice(words, rng.integers(2, 40))) for _ in range(8)] + list(QUESTIONS) * 2
        shown = rng.choice(list(COLOURS), len(asked))
        answers = [QUESTIONS.get(text, LETTERS)[colour] for text, colour in zip(asked, shown, strict=True)]
        loss = model(**training_batch(tokenizer, preprocessor, asked, answers, shown, rng)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        num_good = num_good + 1 if loss.item() < 0.01 else 0
        if num_good == 10:
            return model.eval()
    pytest.fail("the fixture's training did not converge")


@pytest.fixture
def answerer(model, tokenizer, preprocessor):
    """The trained model, as `evaluate` and `answer_tasks` take it."""
    return VideoAnswerer(model, tokenizer, preprocessor, num_frames=NUM_FRAMES, batch_size=5)


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Twelve clips, `clips[i]` = (path, colour)."""
    folder = tmp_path_factory.mktemp("clips")
    found = []
    for index in range(12):
        colour = list(COLOURS)[index % 4]
        path = folder / f"{index}.mp4"
        write_clip(path, colour, num_frames=30 + index)
        found.append((path, colour))
    return found


@pytest.fixture
def questions(clips, tmp_path):
    """A JSONL of two questions per clip."""
    rows = [
        {"id": f"{path.stem}-{number}", "video": path.name, "question": text, "answer": answers[colour]}
        for path, colour in clips
        for number, (text, answers) in enumerate(QUESTIONS.items())
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="session")
def all_eight(tmp_path_factory, clips):
    """The eight benchmarks in small, built once."""
    os.environ.setdefault("HF_HOME", str(tmp_path_factory.mktemp("import")))  # MVBench's code reads it
    return Miniatures(tmp_path_factory.mktemp("eight"), clips)


@pytest.fixture
def eight(all_eight, monkeypatch):
    """The eight benchmarks, where lmms-eval finds them."""
    enter(all_eight.folder, monkeypatch)
    return all_eight


@pytest.fixture
def own_eight(all_eight, tmp_path, monkeypatch):
    """A copy of them that a test may change."""
    ignored = shutil.ignore_patterns("datasets")  # what the others' data sets were cached as
    shutil.copytree(all_eight.folder, tmp_path / "eight", ignore=ignored)
    shutil.copytree(all_eight.home / "datasets/longvideobench", tmp_path / "eight/hf/datasets/longvideobench")
    enter(tmp_path / "eight", monkeypatch)
    return tmp_path / "eight"


def enter(folder, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    monkeypatch.chdir(folder)
    from lmms_eval.api.task import _resolve_hf_datasets_cache_dir

    # Data sets of several folders have the same (relative) names: none may see another's cached copy.
    _resolve_hf_datasets_cache_dir.cache_clear()


@pytest.fixture
def judge(monkeypatch):
    """A judge on loopback, without a key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as server:
        yield server
