"""The sources of a study: from what its sweep file says to files, and to tables of examples."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from pathlib import Path

from vvlm_ray.data.digests import Digests
from vvlm_ray.data.examples import CAPTION_PROMPT, Layout
from vvlm_ray.data.published import Published, published_source
from vvlm_ray.data.rows import SUFFIXES
from vvlm_ray.data.table import Rows, write_table
from vvlm_ray.errors import UserError
from vvlm_ray.study.folder import StudyFolder
from vvlm_ray.study.hub import PREFIX, hub_root
from vvlm_ray.study.identity import identity
from vvlm_ray.study.sections import Source
from vvlm_ray.study.storage import local_place

Resolve = Callable[[str], Path]  # a path of the sweep file -> where it is
STAGE1 = "stage1"
READER_VERSION = 1  # raised when the same files give other examples


def source_files(source: Source, resolve: Resolve) -> list[Path]:
    """The annotation files of a source, sorted by path: its paths, its globs, and what its data set has in a folder.

    Raises UserError for a path that does not exist, a glob without a match, or a folder of unknown content.
    """
    files: set[Path] = set()
    for pattern in source.patterns:
        path = resolve(pattern)
        if path.is_dir():
            files |= _files_below(path, source)
        elif glob.has_magic(pattern):
            found = {Path(name) for name in glob.glob(str(path), recursive=True)}
            if not found:
                raise UserError(f"path: nothing matches {path}; correct the pattern or put the files there")
            files |= {file for file in found if file.is_file()}
        elif path.exists():
            files.add(path)
        else:
            raise UserError(f"path: {path} does not exist; correct the path or put it there")
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise UserError(f"path: {file} is none of {', '.join(SUFFIXES)}; name files of these kinds")
    return sorted(files)


def _files_below(folder: Path, source: Source) -> set[Path]:
    if not source.published:
        raise UserError(
            f"path: {folder} is a folder; name its files, such as {folder}/*.json, or say by `published` what it holds"
        )
    entry = published_source(source.published)
    files = {file for pattern in entry.files for file in folder.glob(pattern)}
    if not files:
        raise UserError(
            f"path: {folder} holds none of {', '.join(entry.files)}, the files of {source.published} in "
            f"{entry.repository}; give the folder of a copy of it"
        )
    return files


def layout_of(source: Source) -> Layout:
    """How a source's rows are read: what its data set is known for, and what the sweep file says over it."""
    entry = published_source(source.published) if source.published else None
    fields = (entry.fields if entry else {}) | source.fields
    return Layout(fields, source.video or (entry.video if entry else None), source.prompt or CAPTION_PROMPT)


def fps_of(source: Source) -> float | None:
    """Frames a second of a source's folders of frames."""
    entry: Published | None = published_source(source.published) if source.published else None
    return source.fps or (entry.fps if entry else None)


def rows_digest(source: Source, resolve: Resolve, digests: Digests) -> str:
    """What a source's rows are: the contents of its files, whatever their names, and how they are read."""
    layout = layout_of(source)
    return identity(
        {
            "version": READER_VERSION,
            "files": [digests.of(path) for path in source_files(source, resolve)],
            "fields": dict(layout.fields),
            "video": layout.video,
            "prompt": layout.prompt,
            "fps": fps_of(source),
            "allow_outside_root": source.allow_outside_root,
        }
    )


def table_path(folder: StudyFolder, name: str, digest: str) -> Path:
    """Where the table of a source's rows is, or will be; beside an object store, on each machine."""
    return local_place(folder.root) / "data" / f"{name}-{digest}.arrow"


def open_rows(name: str, source: Source, folder: StudyFolder, resolve: Resolve, *, digest: str | None = None) -> Rows:
    """The table of a source, written first where the study has none yet.

    `digest` is that of `rows_digest`, where it is known: working it out reads the files.
    """
    if digest is None:
        digest = rows_digest(source, resolve, Digests())
    path = table_path(folder, name, digest)
    if not (path.exists() and path.with_suffix(".json").exists()):
        write_table(path, source_files(source, resolve), name, layout_of(source))
    root = resolve(source.video_root)
    confined_to = hub_root(source.video_root) if source.video_root.startswith(PREFIX) else root
    return Rows(path, name, root, None if source.allow_outside_root else confined_to, fps_of(source))


def source_key(name: str) -> str:
    """A source's key in the sweep file; stage 1's images are the source of that name."""
    return STAGE1 if name == STAGE1 else f"data.sources.{name}"


def open_mixture(
    sources: Mapping[str, Source],
    folder: StudyFolder,
    resolve: Resolve,
    *,
    max_unusable_share: float,
    digests: Mapping[str, str],
) -> dict[str, Rows]:
    """The tables of all sources; `digests` are known ones by key (`data.sources.chat.path`).

    Raises UserError, naming the key: too many rows of a source cannot be used, or it holds fewer than the file says.
    """
    mixture = {}
    for name, source in sources.items():
        key = source_key(name)
        try:
            rows = open_rows(name, source, folder, resolve, digest=digests.get(f"{key}.path"))
        except UserError as error:
            raise UserError(f"{key}.{error}" if str(error).startswith("path: ") else f"{key}: {error}") from None
        check_rows(key, source, rows, max_unusable_share)
        mixture[name] = rows
    return mixture


def check_rows(key: str, source: Source, rows: Rows, max_unusable_share: float) -> None:
    """Raises UserError, naming the key: too many rows cannot be used, or there are fewer than the file says."""
    rows.tally.check(key, max_unusable_share)
    if source.num_examples is not None and rows.tally.num_rows < source.num_examples:
        raise UserError(
            f"{key}.num_examples: {source.num_examples:,} in the sweep file, but its files hold "
            f"{rows.tally.num_rows:,} rows; add what is missing or correct the number"
        )
