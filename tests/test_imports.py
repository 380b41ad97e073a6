"""The direction of imports, and that light things stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vvlm_ray"
SHARED = {"errors", "units"}  # modules at the top that anything may use

DESK_ROOMS = {"study", "planning", "designs", "results"}  # everything here works where torch is not installed
WORKING_ROOMS = {"data", "model", "synthetic", "training", "evaluation"}

# room -> rooms that it may import (and itself)
ROOMS = {
    "scaling": set(),
    "study": {"scaling"},
    "planning": {"scaling", "study"},
    "designs": {"scaling", "study"},
    "results": {"scaling", "study"},
    "report": {"scaling", "study", "planning", "designs", "results"},
    "model": set(),
    "data": {"model", "study"},
    "synthetic": {"data", "model"},
    "training": {"data", "model", "study"},
    "evaluation": {"data", "model", "study"},
    "orchestration": {"scaling", "study", "planning", "designs", "results", *WORKING_ROOMS},
    "commands": {"scaling", "study", "planning", "designs", "results", "report", "orchestration", *WORKING_ROOMS},
}
# room -> packages it must never import, not even inside a function
FORBIDDEN = {
    "scaling": {"torch", "ray", "transformers", "wandb", "pandas", "matplotlib", "yaml"},
    **{room: {"torch", "ray", "transformers", "wandb", "matplotlib"} for room in DESK_ROOMS},
    "report": {"torch", "ray", "transformers", "wandb"},
    **{room: {"ray"} for room in WORKING_ROOMS},
}


def imports(path):
    """Top-level names of everything a file imports, with vvlm_ray's rooms as 'vvlm_ray.<room>'."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield f"vvlm_ray.{parts[1]}" if parts[0] == "vvlm_ray" and len(parts) > 1 else parts[0]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_lies_below_them(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert len(files) > 1, f"the room {room} is empty"
    allowed = {f"vvlm_ray.{r}" for r in ROOMS[room] | SHARED | {room}}
    for path in files:
        for name in imports(path):
            if name.startswith("vvlm_ray"):
                assert name in allowed, f"{path} imports {name}"
            if path.name != "display.py":  # how a frontier shows itself in a notebook
                assert name not in FORBIDDEN.get(room, set()), f"{path} imports {name}"


def test_every_room_is_listed_and_nothing_imports_the_scripts():
    assert {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"} == set(ROOMS)
    for path in PACKAGE.rglob("*.py"):
        assert not {"analysis", "benchmarks", "tests"} & set(imports(path))


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], "torch ray pandas matplotlib numba scipy yaml pydantic"),
        (["plan", "sweeps/quickstart.yaml"], "torch ray pandas matplotlib numba"),
    ],
)
def test_light_commands_import_nothing_heavy(arguments, unwanted):
    code = (
        "import sys; from vvlm_ray.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"heavy = set({unwanted.split()!r}) & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
