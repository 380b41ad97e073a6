"""A whole study of real, tiny files: two backbones' folders, clips, labels and questions; every part can be broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

NUM_ROWS = 24


def write_study(folder: Path, backbone: Path, clips: dict[str, Path], lm_params: int) -> Path:
    """`folder`/sweep.yaml with its data; `backbone` has lm/ and vision/, `clips` are files by name (colour_frames)."""
    shutil.copytree(backbone / "lm", folder / "models/lm")
    shutil.copytree(backbone / "vision", folder / "models/vision")
    for videos in ("videos", "test_videos"):
        (folder / videos).mkdir()
        for name, clip in clips.items():
            shutil.copyfile(clip, folder / videos / f"{name}.mp4")
    names = list(clips)
    rows = [
        {"video": f"{name}.mp4", "question": "what colour is it ?", "answer": name.split("_")[0]}
        for name in (names * NUM_ROWS)[:NUM_ROWS]
    ]
    (folder / "labels.json").write_text(json.dumps(rows))
    questions = [
        {"id": str(i), "video": f"{name}.mp4", "question": "what colour is it ?", "answer": name.split("_")[0]}
        for i, name in enumerate(names)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    path = folder / "sweep.yaml"
    write_yaml(path, sweep(lm_params))
    return path


def sweep(lm_params: int) -> dict[str, Any]:
    return {
        "name": "small",
        "backbones": {"tiny": {"lm_params": lm_params, "lm": "models/lm", "vision": "models/vision"}},
        "cost": {"vision_params": 10_032, "vision_tokens": 16},
        "data": {"sources": {"clips": {"path": "labels.json", "video_root": "videos", "num_examples": NUM_ROWS}}},
        "evaluation": {
            "tasks": ["mine"],
            "local": {"mine": {"questions": "questions.jsonl", "video_root": "test_videos"}},
        },
        "finetune": {"batch_size": 4, "precision": "fp32", "lr": 1.0e-3, "vision_lr": 1.0e-3},
        "tracking": {"mode": "disabled"},
        "sweeps": [
            {
                "kind": "star",
                "centre": {"lm_params": lm_params, "num_frames": 2, "tokens_per_frame": 4},
                "levels": {"num_frames": [1, 2]},
                "num_examples": [8, 16],
            }
        ],
    }


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content))
