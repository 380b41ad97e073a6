"""Two processes on gloo evaluate together, whole and sharded, and agree with one."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from colour_world import NUM_FRAMES

from vvlm_ray.evaluation.evaluate import evaluate
from vvlm_ray.evaluation.local_tasks import write_local_task


@pytest.fixture
def folder(parts, untrained, questions, clips, tmp_path, monkeypatch):  # noqa: PLR0917
    """23 questions (an odd number); two of the videos are broken in a second task."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    parts[0].save_pretrained(tmp_path / "model")
    untrained.save_pretrained(tmp_path / "wild")
    rows = [json.loads(line) for line in questions.read_text().splitlines()][:23]
    for row in rows[::5]:
        row["answer"] = "never said"
    questions.write_text("\n".join(json.dumps(row) for row in rows))
    videos = tmp_path / "broken"
    shutil.copytree(clips[0][0].parent, videos)
    (videos / "1.mp4").write_bytes(b"")
    (videos / "8.mp4").unlink()
    write_local_task(tmp_path / "tasks", "colours", questions, clips[0][0].parent)
    write_local_task(tmp_path / "tasks", "partly broken", questions, videos)
    return tmp_path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_agree_with_one(folder, parts, untrained):
    script = Path(__file__).with_name("two_processes.py")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    tasks = {"tasks": ["colours", "partly broken"], "task_folders": [folder / "tasks"], "num_frames": NUM_FRAMES}
    alone = evaluate(*parts, **tasks, max_unreadable_share=0.2)
    for name in ("whole", "sharded"):
        assert found[0][name]["scores"] == pytest.approx(alone.scores)
        assert (found[0][name]["num_questions"], found[0][name]["num_unreadable"]) == (46, 4)
    assert found[0]["single"] == 1
    wild = evaluate(untrained, *parts[1:], **tasks, max_unreadable_share=0.2)
    assert found[0]["wild"]["scores"] == pytest.approx(wild.scores)
    assert "2 of 23 questions" in found[0]["failure"]  # the missing file is noticed before the broken one
