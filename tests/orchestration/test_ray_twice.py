"""Two studies one after the other in one process, as a notebook runs them."""

import subprocess
import sys

import pytest

TWICE = """
import ray
from vvlm_ray.orchestration.ray_session import ray_session
for _ in range(2):
    with ray_session(None):
        import ray
        print(ray.get(ray.remote(lambda: "here").remote()))
"""


@pytest.mark.parametrize("program", [TWICE, TWICE.replace("\nimport ray\n", "\n", 1)], ids=["imported", "not yet"])
def test_ray_starts_again_whether_it_was_imported_before_or_not(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=200)
    assert done.stdout.split() == ["here", "here"], done.stderr[-2000:]
