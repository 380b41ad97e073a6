"""Every example exactly once per epoch, whatever the numbers of workers and sizes of batches."""

import numpy as np
import pytest

from vvlm_ray.training.batches import BatchPlan

SIZES = [(1, 4, 1), (5, 1, 2), (24, 8, 1), (25, 8, 2), (24, 100, 2)]


def plans(num_examples, batch_size, world_size, micro, *, epochs, seed=0):
    return [BatchPlan(num_examples, batch_size, epochs, seed, rank, world_size, micro) for rank in range(world_size)]


@pytest.mark.parametrize(("num_examples", "batch_size", "epochs"), SIZES)
@pytest.mark.parametrize("micro", [None, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_nobody_is_left_out_or_repeated(num_examples, batch_size, world_size, micro, epochs):
    workers = plans(num_examples, batch_size, world_size, micro, epochs=epochs)
    seen = []
    for step in range(workers[0].num_steps):
        pieces = [worker.micro_batches(step) for worker in workers]
        assert len({len(piece) for piece in pieces}) == 1  # all exchange gradients equally often
        assert all(len(p) <= (micro or batch_size) for piece in pieces for p in piece)
        together = [index for piece in pieces for p in piece for index in p]
        assert sorted(together) == sorted(workers[0].batch(step))
        seen += together
    assert sorted(seen) == sorted(list(range(num_examples)) * epochs)


def test_order_depends_on_seed_and_epoch_alone():
    one, other = (plans(50, 10, world, 2, epochs=2)[0] for world in (1, 4))
    for step in range(10):
        np.testing.assert_array_equal(one.batch(step), other.batch(step))
    assert one.batch(0).tolist() != one.batch(5).tolist()
    assert one.batch(0).tolist() != plans(50, 10, 1, 2, epochs=2, seed=1)[0].batch(0).tolist()
