"""The manifest of published data sets (published.yaml): where the paper's 13 sources are, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import yaml

from vvlm_ray.errors import UserError


@dataclass(frozen=True)
class Published:
    """One source of Wang et al. 2025, Table 3. `files` are globs below a copy of `repository`."""

    examples: int
    repository: str
    files: tuple[str, ...]
    layout: str
    licence: str
    videos: str
    fields: dict[str, str] = field(default_factory=dict)
    video: str | None = None
    fps: float | None = None
    unverified: str | None = None


@cache
def published() -> dict[str, Published]:
    """The manifest by name, in the paper's order."""
    text = resources.files("vvlm_ray.data").joinpath("published.yaml").read_text(encoding="utf-8")
    return {name: Published(**entry | {"files": tuple(entry["files"])}) for name, entry in yaml.safe_load(text).items()}


def published_source(name: str) -> Published:
    """One entry; UserError for a name that the manifest does not have."""
    if name not in published():
        raise UserError(f"{name!r} is none of the published data sets {', '.join(published())}")
    return published()[name]
