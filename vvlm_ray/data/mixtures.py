"""Subsets of a mixture of sources: they keep its fractions, and a smaller one is part of every larger one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vvlm_ray.data.examples import Example
from vvlm_ray.errors import UserError


class Subset(Sequence[Example]):
    """Chosen examples of several sequences, fetched when asked for: 4 bytes an example, however long they are."""

    def __init__(self, sources: Sequence[Sequence[Example]], picks: Sequence[np.ndarray]) -> None:
        self._sources = tuple(sources)
        self._picks = tuple(np.asarray(pick, dtype=np.uint32) for pick in picks)
        self._ends = np.cumsum([len(pick) for pick in self._picks])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Example:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        owner = int(np.searchsorted(self._ends, place, side="right"))
        from_the_end = place - int(self._ends[owner])
        return self._sources[owner][int(self._picks[owner][from_the_end])]


def nested_subset(sources: Mapping[str, Sequence[Example]], num_examples: int, seed: int) -> Subset:
    """`num_examples` of a mixture with its fractions kept; a smaller subset is part of every larger one.

    Every source's examples are put in an order drawn from `seed`, and the first of each are taken: as many as
    `nested_counts` says. The result is grouped by source, in the order of their names, whatever order they are given
    in: training shuffles places, so that another order of sources would be another training.
    Raises UserError when fewer than `num_examples` exist.
    """
    names = sorted(sources)
    counts = nested_counts({name: len(sources[name]) for name in names}, num_examples)
    # The name seeds too: a source's order must not depend on which other sources there are.
    orders = [np.random.default_rng([seed, *name.encode()]).permutation(len(sources[name])) for name in names]
    return Subset(
        [sources[name] for name in names], [order[: counts[name]] for name, order in zip(names, orders, strict=True)]
    )


def nested_counts(sizes: Mapping[str, int], num_examples: int) -> dict[str, int]:
    """How many of `num_examples` each source gives, in proportion to its size and never less for a larger total.

    Webster's rule: all examples are lined up by (position in source + 1/2) / size of source, and the first
    `num_examples` are taken. Each count is within 2 of the exact fraction on mixtures like the paper's. Sharing out the
    largest remainders would be within 1, but not nested: a source can lose an example when the total grows (the
    Alabama paradox).
    """
    total = sum(sizes.values())
    if not 0 < num_examples <= total:
        named = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise UserError(
            f"num_examples: {num_examples:,} asked for, but there are {total:,} examples ({named}); "
            "lower num_examples or add data"
        )
    names = sorted(sizes)  # ties must not depend on the order in which sources are listed
    places = np.concatenate([(np.arange(sizes[name]) + 0.5) / sizes[name] for name in names])
    owners = np.repeat(np.arange(len(names)), [sizes[name] for name in names])
    taken = owners[np.argsort(places, kind="stable")[:num_examples]]
    counts = dict(zip(names, np.bincount(taken, minlength=len(names)).tolist(), strict=True))
    return {name: counts[name] for name in sizes}
