"""The command init: a commented study for folders of models and data."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vvlm_ray.commands.errors import Command

if TYPE_CHECKING:
    from vvlm_ray.orchestration.survey import FoundModel, FoundRows, Survey


@click.command(cls=Command)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("sweep.yaml"), show_default=True
)
@click.option("--name", default="my-study", show_default=True, help="of the study; its folder's name")
@click.option("--gpus", type=click.IntRange(min=0), default=1, show_default=True, help="GPUs of a worker; 0: on CPUs")
def init(folders: tuple[Path, ...], output: Path, name: str, gpus: int) -> None:
    """Write a study for what lies in FOLDERS: language models, vision towers, annotation files and their videos.

    Parameters are counted from configurations; no weight is read and nothing is downloaded.
    """
    from vvlm_ray.errors import UserError
    from vvlm_ray.orchestration.survey import survey
    from vvlm_ray.study.folder import write_atomically
    from vvlm_ray.study.sweep_file import load_sweep

    if output.exists():
        raise UserError(f"{output}: is there already; name another --output")
    found = survey(folders)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    write_atomically(output, write_sweep(found, output.absolute().parent, name, gpus))
    try:
        load_sweep(output)
    except UserError:
        output.unlink()
        raise
    click.echo(f"Wrote {output}: {_told(found)}.\nNext: vvlm-ray check {output}")


def write_sweep(found: "Survey", beside: Path, name: str, gpus: int) -> str:
    """The text of a sweep file; paths are relative to the folder `beside`.

    Raises UserError where there is no language model, no vision tower, or no training row.
    """
    from vvlm_ray.errors import UserError

    lms = sorted({m.size: m for m in found.models if m.kind == "lm"}.values(), key=lambda m: m.size)
    towers = [m for m in found.models if m.kind == "vision"]
    training = [rows for rows in found.rows if not rows.is_benchmark]
    tests = [rows for rows in found.rows if rows.is_benchmark]
    for what, there in (
        ("language model (a folder with config.json and safetensors)", lms),
        ("SigLIP vision tower (a folder with config.json and safetensors)", towers),
        ("annotation file (docs/data.md)", training),
    ):
        if not there:
            raise UserError(f"FOLDERS: no {what} among them; name its folder too")
    tower, total = towers[0], sum(rows.num_rows for rows in training)
    lines = [
        "# Written by `vvlm-ray init`; sweeps/template.yaml shows every key. Next: vvlm-ray check, plan, run.",
        f"name: {name}",
        "seed: 0",
        "",
        "backbones:",
        *_backbones(lms, towers, beside),
        "",
        "# Eq. 1: x_M and x_W, counted in the tower",
        f"cost: {{vision_params: {tower.size}, vision_tokens: {tower.patches}}}",
        "",
        "data:",
        "  sources:                    # their fractions are kept in every subset",
        *_sources(training, beside),
        "  max_unusable_share: 0.01    # of a source's rows; past it the study is refused",
        "  max_unreadable_share: 0.01  # of a trial's videos; past it the trial fails",
        "",
        "# Stage 2 as in the paper (Wang et al. 2025, Table 4); tiny models and little data want higher rates.",
        f"finetune: {{batch_size: {min(256, max(1, total // 8))}, lr: 1.0e-5, vision_lr: 2.0e-6}}",
        "",
        *_evaluation(tests, beside),
        "",
        "resources:",
        f"  workers: {'auto' if gpus else 1}",
        f"  gpus_per_worker: {gpus}",
        *(["  sharding: fsdp", "  gradient_checkpointing: true"] if gpus else []),
        "",
        *_sweeps(lms, tower, total),
        "",
        "tracking: {mode: auto}       # W&B where there is a login",
    ]
    return "\n".join(lines) + "\n"


def _backbones(lms: "Sequence[FoundModel]", towers: "Sequence[FoundModel]", beside: Path) -> list[str]:
    lines = []
    if len(towers) > 1:
        others = ", ".join(str(tower.folder) for tower in towers[1:])
        lines.append(f"  # one tower for all of them: {towers[0].folder}; also found: {others}")
    for lm, key in zip(lms, _keys([lm.folder.name for lm in lms]), strict=True):
        lines += [
            f"  {key}:",
            f"    lm_params: {lm.size}  # counted, without the input embedding",
            f"    lm: {_path(lm.folder, beside)}",
            f"    vision: {_path(towers[0].folder, beside)}",
            "    # projector: FILE.safetensors, or a section `stage1` that trains it; else it starts untrained",
        ]
        if not lm.has_template:
            lines.append("    # chat_template: FILE       this LM's folder has none; take its Instruct model's")
    return lines


def _sources(training: "Sequence[FoundRows]", beside: Path) -> list[str]:
    lines = []
    for rows, key in zip(training, _keys([rows.file.stem for rows in training]), strict=True):
        root = _path(rows.video_root or rows.file.parent, beside)
        lines += [
            f"    {key}:",
            f"      path: {_path(rows.file, beside)}",
            f"      video_root: {root}" + ("" if rows.video_root else "  # none of its videos was found: correct this"),
            f"      num_examples: {rows.num_rows}",
        ]
    return lines


def _evaluation(tests: "Sequence[FoundRows]", beside: Path) -> list[str]:
    if not tests:
        return [
            "# No questions of your own were found (JSONL of id, video, question, answer, named test or questions).",
            "# VDC AQA VCG LVB PT MV VMME NQA are the paper's; they need HF_HOME, the first three a judge's key.",
            "evaluation: {tasks: [VMME, NQA]}",
        ]
    keys = _keys([rows.file.stem for rows in tests])
    lines = ["evaluation:", f"  tasks: [{', '.join(keys)}]    # and of VDC AQA VCG LVB PT MV VMME NQA", "  local:"]
    for rows, key in zip(tests, keys, strict=True):
        lines += [
            f"    {key}:",
            f"      questions: {_path(rows.file, beside)}",
            f"      video_root: {_path(rows.video_root or rows.file.parent, beside)}",
        ]
    return lines


def _sweeps(lms: "Sequence[FoundModel]", tower: "FoundModel", total: int) -> list[str]:
    """A star around the largest LM, within its context and the tower's patches."""
    tokens = [side**2 for side in (1, 2, 3, 4, 7, 10, 14) if side**2 <= tower.patches]
    room = (min(lm.context or 32_768 for lm in lms) - 512) // tokens[-1]
    frames = [count for count in (1, 2, 4, 8, 16, 32) if count <= max(1, room)]
    sizes = sorted({max(1, total // 4), max(1, total // 2), total})
    return [
        "sweeps:",
        "  - kind: star                # one factor at a time around the centre, at every data size",
        f"    centre: {{lm_params: {lms[-1].size}, num_frames: {frames[-1]}, tokens_per_frame: {tokens[-1]}}}",
        "    levels:",
        f"      lm_params: {[lm.size for lm in lms]}",
        f"      num_frames: {frames}",
        f"      tokens_per_frame: {tokens}",
        f"    num_examples: {sizes}",
        "  # an isoFLOP sweep says more about the frontier; budgets in TFLOPs per video (sweeps/template.yaml)",
    ]


def _keys(names: Sequence[str]) -> list[str]:
    """Names that may be keys, each once."""
    keys: list[str] = []
    for name in names:
        key = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).lstrip("._-") or "part"
        keys.append(key if key not in keys else f"{key}-{len(keys)}")
    return keys


def _path(path: Path, beside: Path) -> str:
    """Relative where that is short, in quotes that YAML understands."""
    relative = os.path.relpath(path, beside)
    return json.dumps(relative if relative.count("..") < 3 else str(path), ensure_ascii=False)


def _told(found: "Survey") -> str:
    count = sum(model.kind == "lm" for model in found.models)
    rows = sum(rows.num_rows for rows in found.rows if not rows.is_benchmark)
    tests = sum(rows.num_rows for rows in found.rows if rows.is_benchmark)
    return f"{count} language models, {rows:,} training rows, {tests:,} questions"
