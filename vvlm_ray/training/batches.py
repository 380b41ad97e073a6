"""Which examples make up which step, and how they get from disk to the loop.

The order depends on the seed alone. Every example comes up exactly once per epoch, at any number of workers: the
last batch of an epoch is a smaller one, and nobody repeats an example to fill it up. (accelerate's own data loaders
do, so the loop does not use them.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from vvlm_ray.data.dataset import Collator, VideoInstructionDataset

# decord's memory grows from video to video even though readers are closed: loader processes are replaced.
EXAMPLES_PER_LOADER_WORKER = 4_000
_PREFETCHED_PER_WORKER = 2
LOADER_SECONDS = 900  # without a batch; then loader processes are taken to be stuck
_POLL_SECONDS = 5  # how soon a process that died is noticed
MAX_RESTARTS = 3  # of loader processes, without a batch between them


class LoaderLost(Exception):
    """Loader processes fail again and again."""


@dataclass(frozen=True)
class BatchPlan:
    """Steps, and this rank's micro-batches within them."""

    num_examples: int
    batch_size: int
    epochs: int
    seed: int
    rank: int
    world_size: int
    micro_batch_size: int | None

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_examples / self.batch_size)

    @property
    def num_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def batch(self, step: int) -> np.ndarray:
        """Example indices of the global batch of a step (counted from 0)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return _order(self.num_examples, self.seed, epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def num_micro_batches(self, step: int) -> int:
        """Per worker, the same on all of them."""
        return len(self.micro_batches(step))

    def micro_batches(self, step: int) -> list[np.ndarray]:
        """This rank's share of a step; as many micro-batches on every rank, so some may be empty."""
        batch = self.batch(step)
        largest_share = math.ceil(len(batch) / self.world_size)
        size = self.micro_batch_size or largest_share
        mine = batch[self.rank :: self.world_size]
        return [mine[start : start + size] for start in range(0, largest_share, size)]


@lru_cache(maxsize=2)
def _order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def load_micro_batches(
    dataset: Dataset, collator: Collator, plan: BatchPlan, first_step: int, num_workers: int
) -> Iterator[dict[str, Any]]:
    """This rank's collated micro-batches from `first_step` on, one after the other, across steps."""
    if isinstance(dataset, VideoInstructionDataset):
        source, keys = dataset.encoder, dataset.examples  # workers get examples one by one, not all of them
    else:
        source, keys = dataset, range(plan.num_examples)
    chunks = (
        [keys[index] for index in chunk]
        for step in range(first_step, plan.num_steps)
        for chunk in plan.micro_batches(step)
    )
    if num_workers == 0:
        return (collator([source[key] for key in chunk]) for chunk in chunks)
    return _load_in_workers(source, collator, chunks, num_workers)


def _load_in_workers(
    source: Any, collator: Collator, chunks: Iterator[list], num_workers: int
) -> Iterator[dict[str, Any]]:
    """Batches from loader processes, which are replaced in good time without the loop having to wait."""
    ahead = num_workers * _PREFETCHED_PER_WORKER
    generation = _next_generation(chunks, num_workers)
    loader = _Loader(source, collator, generation, num_workers)
    while generation:
        following, successor = [], None
        for index, batch in enumerate(loader, start=1):
            if index == max(1, len(generation) - ahead):  # the old workers have been given all their work
                following = _next_generation(chunks, num_workers)
                successor = _Loader(source, collator, following, num_workers)
            yield batch
        generation, loader = following, successor


class _Loader:
    """Batches of a generation in order; loader processes that were killed or do not answer are replaced."""

    def __init__(self, source: Any, collator: Collator, generation: list[list], num_workers: int) -> None:
        self._generation = generation
        self._start = lambda chunks: _loader(source, collator, chunks, num_workers)
        self._batches = self._start(generation)  # at once, so that they are ready when their turn comes

    def __iter__(self) -> Iterator[dict[str, Any]]:
        given = restarts = 0
        asked = time.monotonic()
        while given < len(self._generation):
            try:
                batch = next(self._batches)
            except (RuntimeError, OSError, EOFError) as error:
                if not _is_lost(error):
                    raise
                processes = self._batches._workers
                is_waiting = "timed out after" in str(error) and all(process.is_alive() for process in processes)
                if is_waiting and time.monotonic() - asked < LOADER_SECONDS:
                    continue
                restarts += 1
                if restarts > MAX_RESTARTS:
                    raise LoaderLost(
                        f"loader processes failed {restarts} times on the same batch ({str(error).splitlines()[0]}); "
                        "is memory short, or the videos' disk gone?"
                    ) from error
                for process in processes:  # torch asks them to end and waits, which a stuck one never does
                    process.kill()
                self._batches = self._start(self._generation[given:])
                asked = time.monotonic()
                continue
            given, restarts = given + 1, 0
            yield batch
            asked = time.monotonic()


def _is_lost(error: Exception) -> bool:
    """Whether loader processes died or are stuck; an error that one of them raised is another matter."""
    text = str(error)
    if isinstance(error, RuntimeError):
        return "exited unexpectedly" in text or "timed out after" in text or "ancdata" in text
    return isinstance(error, (ConnectionError, EOFError)) and "in DataLoader worker" not in text


def _next_generation(chunks: Iterator[list], num_workers: int) -> list[list]:
    generation, count = [], 0
    for chunk in chunks:
        generation.append(chunk)
        count += len(chunk)
        if count >= EXAMPLES_PER_LOADER_WORKER * num_workers:
            break
    return generation


def _loader(source: Any, collator: Collator, generation: Sequence[list], num_workers: int) -> Iterator | None:
    """Started loader processes. They are not forked: Ray's and CUDA's threads do not survive a fork."""
    if not generation:
        return None
    import multiprocessing

    import torch

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vvlm_ray.data.dataset"])  # imported once, not once per worker
    return iter(
        DataLoader(
            source,
            batch_sampler=generation,
            collate_fn=collator,
            num_workers=num_workers,
            prefetch_factor=_PREFETCHED_PER_WORKER,
            timeout=_POLL_SECONDS,
            multiprocessing_context=context,
            pin_memory=torch.cuda.is_available(),
        )
    )
