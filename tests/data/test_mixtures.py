"""Subsets of mixtures as properties, on sizes like the paper's."""

from pathlib import Path

import numpy as np
import pytest

from vvlm_ray.data.examples import Example
from vvlm_ray.data.mixtures import nested_counts, nested_subset
from vvlm_ray.errors import UserError

# Wang et al. 2025, App. B
PAPER = {
    "LLaVA-Hound": 255_000,
    "LLaVA-Video-178K": 1_335_500,
    "ActivityNet-QA": 23_530,
    "NExT-QA": 34_114,
    "PerceptionTest": 2_403,
    "VideoInstruct100K": 100_010,
    "VCG+112K": 112_716,
    "VideoChatGPT": 25_803,
    "VideoChat": 40_807,
    "Kinetics-710": 39_949,
    "Something-Something-v2": 40_000,
    "CLEVRER": 82_620,
    "WebVid": 99_922,
}


def mixture(sizes):
    return {name: [Example(f"{name}/{i}", Path("v"), (), name) for i in range(size)] for name, size in sizes.items()}


def test_subsets_are_nested_and_seeded():
    sources = mixture({"a": 50, "b": 23, "c": 2})
    previous = set()
    for num_examples in range(1, 76):
        subset = {example.example_id for example in nested_subset(sources, num_examples, seed=3)}
        assert len(subset) == num_examples
        assert previous < subset
        previous = subset
    assert list(nested_subset(sources, 30, seed=3)) == list(nested_subset(sources, 30, seed=3))
    assert list(nested_subset(sources, 30, seed=3)) != list(nested_subset(sources, 30, seed=4))


def test_a_source_is_drawn_alike_whatever_stands_beside_it():
    sources = mixture({"a": 40, "b": 40})
    of_a = [e for e in nested_subset(sources, 20, seed=0) if e.source == "a"]
    assert of_a == list(nested_subset({"a": sources["a"]}, 10, seed=0))
    turned = nested_subset(dict(reversed(sources.items())), 20, seed=0)
    assert list(turned) == list(nested_subset(sources, 20, seed=0))  # places too: training shuffles those


def test_a_subset_is_a_sequence():
    subset = nested_subset(mixture({"a": 5, "b": 3}), 8, seed=0)
    assert subset[-1] == subset[7] == list(subset)[7] and subset[0] == next(iter(subset))
    assert {e.source for e in list(subset)[:5]} == {"a"} and {e.source for e in list(subset)[5:]} == {"b"}
    for index in (8, -9):
        with pytest.raises(IndexError):
            subset[index]


@pytest.mark.parametrize("num_examples", [1_000, 250_000, 500_000, 1_000_000, 2_000_000, 2_187_374])
def test_the_papers_mixture_keeps_its_fractions(num_examples):
    counts = nested_counts(PAPER, num_examples)
    assert sum(counts.values()) == num_examples and list(counts) == list(PAPER)
    for name, size in PAPER.items():
        assert abs(counts[name] - num_examples * size / sum(PAPER.values())) < 2  # of 152,291 at n = 250,000


def test_counts_keep_to_the_fraction_and_never_fall():
    rng = np.random.default_rng(0)
    for _ in range(30):
        sizes = {str(i): int(size) for i, size in enumerate(rng.integers(1, 60, rng.integers(1, 6)))}
        total = sum(sizes.values())
        previous = dict.fromkeys(sizes, 0)
        for num_examples in range(1, total + 1):
            counts = nested_counts(sizes, num_examples)
            for name, size in sizes.items():
                assert previous[name] <= counts[name] <= size
                assert abs(counts[name] - num_examples * size / total) < 1
            previous = counts
        assert previous == sizes


def test_largest_remainders_would_not_be_nested():
    """The Alabama paradox, which is why nested_counts does not share out remainders."""

    def largest_remainders(sizes, num_examples):
        exact = np.array(list(sizes.values())) * num_examples / sum(sizes.values())
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact)[: num_examples - counts.sum()]] += 1
        return counts

    sizes = {"a": 6, "b": 6, "c": 2}
    assert largest_remainders(sizes, 10)[2] == 2 and largest_remainders(sizes, 11)[2] == 1
    assert nested_counts(sizes, 10)["c"] <= nested_counts(sizes, 11)["c"]


@pytest.mark.parametrize("num_examples", [0, 76])
def test_more_than_there_is(num_examples):
    with pytest.raises(UserError, match=r"there are 75 examples \(a 50, b 25\)"):
        nested_subset(mixture({"a": 50, "b": 25}), num_examples, seed=0)
