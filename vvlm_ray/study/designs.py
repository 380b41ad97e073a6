"""The designs of Wang et al. 2025 (Table 6): which points a star and an isoFLOP sweep consist of."""

from collections.abc import Iterator
from dataclasses import dataclass

from vvlm_ray.study.config import Isoflop, Star, Study


@dataclass(frozen=True)
class Point:
    """One run: factor values x, a data size n, and the sweep that asks for it (with its target, if it has one)."""

    sweep: str
    factors: dict[str, float]
    num_examples: int
    target_flops: float | None = None


def star_points(star: Star) -> Iterator[Point]:
    """The centre, then each factor's levels with the others at the centre, at every data size."""
    for n in star.num_examples:
        yield Point("star", dict(star.centre), n)
        for factor, levels in star.levels.items():
            for level in levels:
                yield Point("star", {**star.centre, factor: level}, n)


def isoflop_points(isoflop: Isoflop) -> Iterator[Point]:
    """Every listed point of every budget, at every data size."""
    for n in isoflop.num_examples:
        for curve in isoflop.curves:
            for row in curve.points:
                yield Point("isoflop", dict(zip(isoflop.factors, row, strict=True)), n, curve.tflops * 1e12)


def distinct_points(study: Study) -> list[Point]:
    """All points of all sweeps; a point that several sweeps ask for stands once, under the first of them."""
    points: dict[tuple, Point] = {}
    for sweep in study.sweeps:
        for point in star_points(sweep) if isinstance(sweep, Star) else isoflop_points(sweep):
            points.setdefault((*sorted(point.factors.items()), point.num_examples), point)
    return list(points.values())
