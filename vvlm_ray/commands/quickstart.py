"""`vvlm-ray quickstart`: the whole pipeline on this machine."""

from pathlib import Path

import click

from vvlm_ray.commands.errors import Command
from vvlm_ray.commands.run import run_and_answer, storage_option


@click.command(cls=Command)
@storage_option
def quickstart(storage: Path) -> None:
    """The whole pipeline, small and real, on this machine: 42 finetuning runs and the frontier they give."""
    run_and_answer(Path(__file__).parents[2] / "sweeps" / "quickstart.yaml", storage, None, None)
