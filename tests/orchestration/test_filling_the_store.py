"""Filling a store with Ray Data: the real thing, on two CPUs."""

import json

import numpy as np
import pytest
import yaml

from vvlm_ray.data.frame_store import decode_video
from vvlm_ray.data.sources import open_mixture
from vvlm_ray.orchestration.frame_store import Level, choose_levels, fill_store, open_store
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.sweep_file import load_sweep
from vvlm_ray.study.trials import expand


def level(num_frames, num_clips=100, reads=1000, seconds_saved=1.0, bytes_per_clip=10.0):
    return Level(num_frames, num_clips, reads, seconds_saved, bytes_per_clip)


def test_the_disk_goes_to_what_saves_most_per_byte():
    many_reads = level(4, reads=5000)
    small = level(8, bytes_per_clip=1.0)
    large = level(32, bytes_per_clip=1000.0)
    assert choose_levels([large, many_reads, small], 2_100) == [1, 100, 100]
    assert choose_levels([large, many_reads, small], 600) == [0, 50, 100]
    assert choose_levels([level(4, seconds_saved=-0.1), level(8, reads=100)], 1e9) == [0, 0]  # no gain; read once


@pytest.fixture(scope="module")
def ray():
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield ray
    ray.shutdown()


@pytest.mark.timeout(280)
def test_what_trials_read_is_stored_once(ray, tmp_path, tiny_backbone, tiny_llava_json):
    sweep = tmp_path / "study.yaml"
    source = {"path": str(tiny_llava_json), "video_root": str(tiny_llava_json.parent)}
    sweep.write_text(
        yaml.safe_dump(
            {
                "name": "stored",
                "backbones": {
                    "tiny": {
                        "lm_params": 10_000,
                        "lm": str(tiny_backbone.lm),
                        "vision": str(tiny_backbone.vision),
                        "projector": "projector.safetensors",
                    }
                },
                "data": {"sources": {"tiny": source}, "frame_store": {"gigabytes": 0.5, "jpeg_quality": 90}},
                "evaluation": {"tasks": ["videomme"]},
                "finetune": {"epochs": 2},
                "sweeps": [
                    {
                        "kind": "star",
                        "centre": {"lm_params": 10_000, "num_frames": 4, "tokens_per_frame": 4},
                        "levels": {"num_frames": [4, 8], "tokens_per_frame": [4, 16]},
                        "num_examples": [12, 24],
                    }
                ],
            }
        )
    )
    study = load_sweep(sweep)
    folder = StudyFolder(tmp_path / "studies" / "stored")
    report = fill_store(study, folder, sweep, expand(study))
    assert {entry["num_frames"] for entry in report["levels"]} == {4, 8}
    assert report["clips_written"] == sum(report["stored_clips"]) > 0 and report["unreadable"] == 0
    assert report["bytes"] < 0.5e9

    rows = open_mixture(
        study.data.sources, folder, lambda raw: folder.resolve(raw, sweep), max_unusable_share=0, digests={}
    )["tiny"]
    store = open_store(study, folder, 32)
    for example in rows:
        frames = store.read(example, 4)
        assert np.abs(frames.astype(int) - decode_video(example, 4, 32)).max() < 12
    stored = dict(zip((entry["num_frames"] for entry in report["levels"]), report["stored_clips"], strict=True))
    assert stored[4] == 12 and store.num_stored == len(rows) == 24  # two questions about each of twelve clips

    again = fill_store(study, folder, sweep, expand(study))
    assert again["shards_written"] == 0 and again["stored_clips"] == report["stored_clips"]
    damaged = sorted((folder.root / "frames").glob("*.arrow"))[0]
    damaged.write_bytes(damaged.read_bytes()[:500])
    assert fill_store(study, folder, sweep, expand(study))["shards_written"] == 1
    assert json.loads((folder.root / "frames" / "filled.json").read_text())["shards_written"] == 1
