"""An id says what is meant: the same in every process and Python, and nothing but meaning."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vvlm_ray.study import identity as module
from vvlm_ray.study.identity import identity

MEANING = {
    "version": 1,
    "factors": {"tokens_per_frame": 196, "lm_params": 7_500_000_000, "num_frames": 32},
    "finetune": {"lr": 1e-05, "vision_lr": 2e-06, "warmup_fraction": 0.03, "precision": "bf16"},
    "data": {"ü": None, "b": [True, False, 0.1 + 0.2]},
}
# If this changes, no study finds its old records any more.
KNOWN = "16593a4a940e"


def other_pythons():
    found = [sys.executable]
    for name in ("python3.12", "python3.13", "python3.10"):
        candidates = [shutil.which(name), *map(str, Path.home().glob(f".pyenv/versions/{name[6:]}*/bin/python"))]
        for candidate in filter(None, candidates):
            if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
                found.append(candidate)
                break
    return found


@pytest.mark.parametrize("python", other_pythons())
def test_the_known_id_in_other_processes_and_pythons(python):
    code = "import runpy, sys; identity = runpy.run_path(sys.argv[1])['identity']; print(identity(eval(sys.argv[2])))"
    for seed in ("0", "1"):  # the order of sets and dicts must not matter
        done = subprocess.run(
            [python, "-c", code, module.__file__, repr(MEANING)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        assert done.stdout.strip() == KNOWN


def test_order_and_number_types_do_not_matter_and_values_do():
    assert identity(MEANING) == KNOWN
    assert identity(dict(reversed(MEANING.items()))) == KNOWN
    assert identity({"x": 32}) == identity({"x": 32.0})
    assert identity({"x": 32}) != identity({"x": "32"})
    assert identity({"x": 1}) != identity({"x": 1.0000000001})
    assert identity({"x": None}) != identity({})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, object(), {1, 2}])
def test_what_has_no_certain_identity_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        identity({"x": value})
