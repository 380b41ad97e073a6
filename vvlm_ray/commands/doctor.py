"""`vvlm-ray doctor`: what is installed, what is broken, what to do."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import click

from vvlm_ray.commands.printing import print_table

# Imported one by one in a process of its own, since a broken package can take the interpreter with it.
PACKAGES = {
    "torch": "torch",
    "transformers": "transformers.models.siglip.modeling_siglip",
    "accelerate": "accelerate",
    "decord": "decord",
    "av": "av",
    "lmms-eval": "lmms_eval.evaluator",
    "ray": "ray.train.torch, ray.tune",
    "wandb": "wandb",
    "scipy": "scipy.optimize",
    "numba": "numba",
}
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `ok`, `note` (works, with a limit) or `broken`, and what to do about it."""

    what: str
    status: Literal["ok", "note", "broken"]
    text: str
    advice: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def doctor(as_json: bool) -> None:
    """What is installed, what is broken, what to do. Exit code 1 if something is broken."""
    findings = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=2))
    else:
        print_table(
            "",
            ("", "what", "found", "what to do"),
            [(f.status, f.what, f.text, f.advice) for f in findings],
            text=("", "what", "found", "what to do"),
        )
    if any(f.status == "broken" for f in findings):
        raise SystemExit(1)


def examine() -> Iterator[Finding]:
    yield _python()
    for package, module in PACKAGES.items():
        yield _package(package, module)
    yield _torchvision()
    yield _gpu()
    yield _disk()
    yield _key("WANDB_API_KEY", "runs are logged offline below the study's folder; `wandb sync` uploads them later")
    yield _key("OPENAI_API_KEY", "the judged benchmarks (VDC, AQA, VCG) cannot be scored")
    yield _hf_home()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Finding("python", "ok", version)
    return Finding("python", "broken", version, "use Python 3.11 or 3.12")


def _package(package: str, module: str) -> Finding:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "broken", "not installed", "run `make venv`, or pip install -e .")
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding(package, "ok", version)
    lines = done.stderr.strip().splitlines() or [f"the import ended with code {done.returncode}"]
    return Finding(package, "broken", f"{version}: {lines[-1][:200]}", _advice(done.stderr))


def _advice(error: str) -> str:
    if "torchvision" in error:
        return "pip uninstall torchvision (its wheel does not fit this build of torch), or install a matching pair"
    return "reinstall it: remove .venv and run `make venv`"


def _torchvision() -> Finding:
    try:
        version = importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return Finding("torchvision", "ok", "not installed; images are processed without it")
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Finding("torchvision", "ok", version)
    return Finding("torchvision", "broken", f"{version} does not fit this build of torch", "pip uninstall torchvision")


def _gpu() -> Finding:
    if not shutil.which("nvidia-smi"):
        return Finding("GPU", "note", "no NVIDIA driver", "real studies need a GPU cluster; the quickstart does not")
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout.splitlines()
    code = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.stdout.strip() == "True":
        return Finding("GPU", "ok", f"{len(listed)} found")
    return Finding(
        "GPU", "broken", f"{len(listed)} found, but torch cannot use them", "install the CUDA build of torch"
    )


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / GIB
    if free > 10:
        return Finding("disk", "ok", f"{free:.0f} GiB free here")
    return Finding("disk", "note", f"{free:.1f} GiB free here", "the quickstart needs 1 GiB; checkpoints need more")


def _key(name: str, without: str) -> Finding:
    """Only whether a key is set; its value is never read out."""
    return Finding(name, "ok", "set") if os.environ.get(name) else Finding(name, "note", "not set", without)


def _hf_home() -> Finding:
    if folder := os.environ.get("HF_HOME"):
        return Finding("HF_HOME", "ok", folder)
    return Finding("HF_HOME", "note", "not set", "set it to where the benchmarks' videos and annotations are")
