"""What lies in folders: language models, vision towers, training rows and questions with their videos."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from vvlm_ray.data.examples import Example, Layout, Tally, find_video, read_examples
from vvlm_ray.data.rows import SUFFIXES, read_rows
from vvlm_ray.errors import UserError

ROWS_LOOKED_AT = 50
_NOT_ROWS = {"config.json", "preprocessor_config.json", "package.json"}
_TEST = re.compile(r"(^|[^a-z])(test|val|eval|questions?)([^a-z]|$)")


@dataclass(frozen=True)
class FoundModel:
    """A causal LM (`size` without its input embedding) or a vision tower (`size` in all, `patches` per frame)."""

    folder: Path
    kind: str  # "lm" or "vision"
    size: int
    patches: int = 0
    context: int | None = None
    has_template: bool = True


@dataclass(frozen=True)
class FoundRows:
    """An annotation file, its rows, and the folder in which the first of its videos were found."""

    file: Path
    num_rows: int
    video_root: Path | None
    is_benchmark: bool


@dataclass
class Survey:
    """What was found, and sentences about what was passed over."""

    models: list[FoundModel] = field(default_factory=list)
    rows: list[FoundRows] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def survey(folders: Sequence[Path]) -> Survey:
    """Look through folders (and files), and the folders in them; weights are not read, models are not built.

    Raises UserError for a folder that does not exist.
    """
    found = Survey()
    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder}: no such folder; give folders of models and of data")
    places = list(dict.fromkeys(place.resolve() for folder in folders for place in _below(folder)))
    for place in places:
        try:
            if place.is_dir() and (place / "config.json").is_file():
                found.models.append(_model(place))
        except UserError as error:
            found.notes.append(str(error))
    models = {model.folder for model in found.models}
    data = [place for place in places if place not in models and not (place / "config.json").is_file()]
    for file in _annotation_files(data):
        if (rows := _rows(file, data, found.notes)) is not None:
            found.rows.append(rows)
    return found


def _below(folder: Path) -> Iterator[Path]:
    """The folder (or file), and the folders in it and in those."""
    yield folder
    for child in _folders_in(folder):
        yield child
        yield from _folders_in(child)


def _folders_in(folder: Path) -> list[Path]:
    if not folder.is_dir() or (folder / "config.json").is_file():
        return []
    with os.scandir(folder) as entries:  # which does not ask the file system about each of a million videos
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _model(folder: Path) -> FoundModel:
    from vvlm_ray.model.backbones import load_language_model, load_vision_tower

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", "")
    except (OSError, ValueError, AttributeError, RecursionError):
        raise UserError(f"{folder / 'config.json'}: cannot be read; passed over") from None
    if str(kind).startswith("siglip"):
        tower = load_vision_tower(folder, device="meta")
        patches = (tower.config.image_size // tower.config.patch_size) ** 2
        return FoundModel(folder, "vision", sum(p.numel() for p in tower.parameters()), patches)
    lm = load_language_model(folder, device="meta")
    size = sum(p.numel() for p in lm.parameters()) - lm.get_input_embeddings().weight.numel()
    context = getattr(lm.config, "max_position_embeddings", None)
    return FoundModel(folder, "lm", size, context=context, has_template=_has_template(folder))


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _annotation_files(places: Sequence[Path]) -> list[Path]:
    files = [place for place in places if place.is_file()]
    files += [file for place in places if place.is_dir() for file in sorted(place.iterdir())]
    is_rows = (file for file in files if file.suffix.lower() in SUFFIXES and file.name not in _NOT_ROWS)
    return list(dict.fromkeys(file for file in is_rows if file.is_file()))


def _rows(file: Path, places: Sequence[Path], notes: list[str]) -> FoundRows | None:
    """The rows of a file; None, with a note, where they are no examples."""
    tally = Tally()
    try:
        first = list(islice(read_examples([file], file.stem, Path(), Layout(), tally), ROWS_LOOKED_AT))
        if not first:
            raise UserError(f"{file}: no row of it is an example; say by `fields` what its fields are")
        num_rows = sum(1 for _ in read_rows(file))
        shape = next(row for _, row in read_rows(file) if isinstance(row, dict))
    except UserError as error:
        notes.append(f"passed over: {error}")
        return None
    is_flat = isinstance(shape.get("question"), str) and isinstance(shape.get("answer"), str)
    is_benchmark = is_flat and file.suffix == ".jsonl" and bool(_TEST.search(file.stem.lower()))
    return FoundRows(file, num_rows, _root(first, file, places), is_benchmark)


def _root(examples: Sequence[Example], file: Path, places: Sequence[Path]) -> Path | None:
    """The folder below which most of the videos are: beside the file, or among all the folders."""
    candidates = dict.fromkeys([file.parent, *(place for place in places if place.is_dir())])
    there = {root: sum(find_video(root / e.video).exists() for e in examples) for root in candidates}
    best = max(there, key=lambda root: there[root])
    return best if there[best] else None
