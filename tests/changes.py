"""A shipped sweep file with keys replaced."""

from pathlib import Path

import yaml

from vvlm_ray.study.config import Study


def changed(sweep_file: Path, **paths) -> Study:
    """The study of a sweep file with keys replaced: resources__workers=4."""
    raw = yaml.safe_load(sweep_file.read_text())
    for path, value in paths.items():
        *parents, key = path.split("__")
        node = raw
        for parent in parents:
            node = node[parent]
        node[key] = value
    return Study.model_validate(raw)
