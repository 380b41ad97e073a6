"""Loader processes that are killed, stuck or broken: the batches come all the same, or the reason does."""

import os
import signal
import time

import pytest
import torch
from torch.utils.data import Dataset

from vvlm_ray.training import batches
from vvlm_ray.training.batches import BatchPlan, LoaderLost, load_micro_batches


class Trouble(Dataset):
    """Item i is i; where asked, its process first does something to itself: once, or every time."""

    def __init__(self, folder, place, harm, once=True):
        self.folder, self.place, self.harm, self.once = folder, place, harm, once

    def __len__(self):
        return 24

    def __getitem__(self, index):
        marker = self.folder / "done"
        if index == self.place and not (self.once and marker.exists()):
            marker.touch()
            if self.harm is None:
                raise RuntimeError("exploded by itself")
            if self.harm == "sleep":
                time.sleep(10_000)
            os.kill(os.getpid(), self.harm)
        return index


class Listed:
    def __call__(self, items):
        return {"items": torch.tensor(items)}


def load(dataset):
    plan = BatchPlan(len(dataset), batch_size=4, epochs=1, seed=0, rank=0, world_size=1, micro_batch_size=2)
    return [batch["items"].tolist() for batch in load_micro_batches(dataset, Listed(), plan, 0, 2)]


@pytest.mark.parametrize("harm", [signal.SIGKILL, "sleep"])
def test_dead_and_stuck_loader_processes_are_replaced(tmp_path, monkeypatch, harm):
    dataset = Trouble(tmp_path, -1, harm)
    plan = BatchPlan(24, batch_size=4, epochs=1, seed=0, rank=0, world_size=1, micro_batch_size=2)
    undisturbed = [batch["items"].tolist() for batch in load_micro_batches(dataset, Listed(), plan, 0, 0)]
    if harm == "sleep":
        monkeypatch.setattr(batches, "LOADER_SECONDS", 15)
    assert load(Trouble(tmp_path, 7, harm)) == undisturbed
    assert (tmp_path / "done").exists()


def test_a_loader_that_dies_every_time_ends_with_its_reason(tmp_path):
    with pytest.raises(LoaderLost, match="4 times on the same batch"):
        load(Trouble(tmp_path, 7, signal.SIGKILL, once=False))


def test_an_error_of_the_data_is_no_loss_of_a_process(tmp_path):
    with pytest.raises(RuntimeError, match="exploded by itself"):
        load(Trouble(tmp_path, 7, None, once=False))
