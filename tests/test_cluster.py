"""cluster.yaml passes Ray's own validation, and a submitted job takes along what it needs and nothing large."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def test_ray_accepts_the_cluster():
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(cluster))
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"]["GPU"] == 0  # the head runs drivers and trains nothing


def test_ray_refuses_an_unknown_key():
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    cluster["max_wrokers"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        validate_config(prepare_config(cluster))


def test_a_job_takes_the_package_and_the_sweeps_along():
    import ray

    excludes = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())["excludes"]
    left_out = {e.strip("/") for e in excludes}
    assert ray.runtime_env.RuntimeEnv(working_dir=str(ROOT), excludes=excludes)
    assert not {"vvlm_ray", "sweeps", "pyproject.toml"} & left_out
    assert {".venv", "studies", ".git"} <= left_out
