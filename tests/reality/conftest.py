"""The corpus, written once for all tests."""

from __future__ import annotations

import pytest
from corpus import KINDS, Video


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> dict[str, Video]:
    """Every kind of video by its name."""
    folder = tmp_path_factory.mktemp("corpus")
    return {kind.name: Video(folder / kind.name, kind.write(folder / kind.name), kind.fps) for kind in KINDS}
