"""Two gloo workers against one, copied (DDP) and split (FSDP2): the same weights, the same counts."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from workbench import STAGE1, same

from vvlm_ray.data.dataset import Unreadable
from vvlm_ray.errors import UserError

HERE = Path(__file__).parent
# float64 weights, but the loss itself is computed in float32, whose sums depend on their order.
CLOSE = {"atol": 1e-6, "rtol": 0}
TIMEOUT = 540  # seconds; 20 suffice on an idle machine
pytestmark = pytest.mark.timeout(TIMEOUT + 60)


@pytest.fixture(scope="module")
def results(tiny_backbone, tiny_llava_json, tmp_path_factory):
    """name -> (result, weights) of rank 0, after checking that rank 1 has the same."""
    folder = tmp_path_factory.mktemp("two_workers")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, HERE / "two_workers.py", tiny_backbone.folder, tiny_llava_json, folder]
    workers = [
        subprocess.Popen(
            list(map(str, command)),
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n---\n".join(outputs)
    return folder


def read(folder, name):
    weights = load_file(folder / f"{name}.0.safetensors")
    same(weights, load_file(folder / f"{name}.1.safetensors"))
    return json.loads((folder / f"{name}.0.json").read_text()), weights


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [("", {}), ("_short_last", {"batch_size": 23}), ("_projector", STAGE1)],
)
def test_two_workers_equal_one(bench, results, sharding, name, settings):
    """24 examples: batches of 16 and 8, or of 23 and 1, so that a worker has nothing to do in the last."""
    result, weights = read(results, sharding + name)
    _, expected, expected_weights = bench.run(bench.model(torch.float64), settings=settings)
    same(expected_weights, weights, **CLOSE)
    assert result["final_loss"] == pytest.approx(expected.final_loss, rel=1e-6)
    assert result["num_examples_seen"] == 24 and result["num_steps"] == 2


def test_split_in_bf16(bench, results):
    result, weights = read(results, "fsdp_bf16")
    _, expected, _ = bench.run()
    assert result["final_loss"] == pytest.approx(expected.final_loss, rel=0.05)
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}  # what it computed in


def test_every_worker_stores_its_part_alone(results):
    """FSDP's two files together hold each weight once (biases of odd length are padded, if at all, in memory)."""
    files = [load_file(path) for path in sorted((results / "fsdp_checkpoint").glob("*.safetensors"))]
    _, whole = read(results, "fsdp")
    trained = {name.removeprefix("model.") for name in files[0] if name.startswith("model.")}
    for name in trained:
        assert sum(file[f"model.{name}"].numel() for file in files) == whole[name].numel()
    copied = [load_file(path) for path in sorted((results / "ddp_checkpoint").glob("*.safetensors"))]
    assert {name.removeprefix("model.") for name in copied[0] if name.startswith("model.")} == trained
    assert set(copied[1]) == {"random.cpu"}


def test_a_checkpoint_of_two_workers_goes_on_with_one(bench, results):
    settings = {"micro_batch_size": 3}
    _, weights = read(results, "ddp")
    _, result, alone = bench.run(bench.model(torch.float64), settings=settings, resume_from=results / "ddp_checkpoint")
    same(weights, alone, **CLOSE)
    assert result.num_examples_seen == 24
    with pytest.raises(UserError, match="sharded True then, False now"):
        bench.run(settings=settings | {"batch_size": 5}, resume_from=results / "fsdp_checkpoint")


def test_split_interrupted_and_resumed_is_uninterrupted(results):
    result, weights = read(results, "fsdp_resumed")
    expected, expected_weights = read(results, "fsdp_uninterrupted")
    same(expected_weights, weights)
    assert result["final_loss"] == expected["final_loss"]


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_unreadable_videos_of_one_worker(bench, results, sharding):
    result, weights = read(results, f"unreadable_{sharding}")
    assert (result["num_examples_seen"], result["num_unreadable"]) == (18, 6)
    dataset = bench.dataset()
    unreadable = (1, 3, 5, 7, 9, 11)
    items = [Unreadable(f"{i}.mp4", "missing") if i in unreadable else dataset[i] for i in range(24)]
    _, expected, expected_weights = bench.run(
        bench.model(torch.float64), items, settings={"max_unreadable_share": 0.25}
    )
    same(expected_weights, weights, **CLOSE)
    assert sorted(map(tuple, result["unreadable"])) == sorted(expected.unreadable)
    for rank in range(2):
        assert "of 24 videos" in (results / f"too_many.{rank}").read_text()
