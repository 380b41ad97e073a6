"""Data sets of the Hugging Face hub by name: `hub://organisation/name@revision/path`, in the hub's cache.

Nothing is downloaded: `hf download --repo-type dataset organisation/name` puts a data set there.
"""

import os
import re
from pathlib import Path

from vvlm_ray.errors import UserError

PREFIX = "hub://"
_ADDRESS = re.compile(r"hub://([A-Za-z0-9][\w.-]*)/([A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w./-]*?))?(?:/(.*))?")


def hub_path(address: str) -> Path:
    """Where a file of a data set lies in the hub's cache, or would lie; without a revision that of `main`.

    Raises:
        UserError: no such address.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address}: is no address in the hub; write hub://organisation/name@revision/path")
    organisation, name, revision, rest = match.groups()
    repository = _cache() / f"datasets--{organisation}--{name}"
    revision = revision or "main"
    reference = repository / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    return repository / "snapshots" / commit / (rest or "")


def hub_root(address: str) -> Path:
    """The data set's folder in the cache: its files are links to blobs beside the snapshots."""
    return next(folder for folder in hub_path(address).parents if folder.name.startswith("datasets--"))


def _cache() -> Path:
    """As huggingface_hub finds it."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"
