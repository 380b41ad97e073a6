"""The rows of a source as an Arrow table on disk: made once per study, memory-mapped by every rank.

<study>/data/<source>-<hash>.arrow holds id, video, turns (texts; the user's and the assistant's by turns), start, end
of every usable row, and <source>-<hash>.json what was dropped and why. The hash is of the annotation files' contents
and of how they are read, so that a table is never of other data.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vvlm_ray.data.examples import Example, Layout, Tally, read_examples
from vvlm_ray.errors import UserError

ROWS_PER_BATCH = 2048
_ROLES = ("user", "assistant")
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "video": pa.string(),
        "turns": pa.list_(pa.string()),
        "start": pa.float64(),
        "end": pa.float64(),
    }
)


class Rows(Sequence[Example]):
    """The examples of a table, read from the mapped file one at a time; pickled as its path, so cheap to hand on.

    `tally` says how many rows were read and used. Videos lie below `root`; nothing is opened for them outside of
    `confined_to`, unless that is None.
    """

    def __init__(
        self, path: Path, source: str, root: Path, confined_to: Path | None = None, fps: float | None = None
    ) -> None:
        self._arguments = (path, source, root, confined_to, fps)
        self._source, self._root, self._fps, self._confined_to = source, root, fps, confined_to
        try:
            self.tally = _read_tally(path)
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove it to have it made anew") from None
        self._batch: tuple[int, pa.RecordBatch | None] = (-1, None)

    def __reduce__(self) -> tuple:
        return Rows, self._arguments

    def __len__(self) -> int:
        return self.tally.num_examples

    def __getitem__(self, index: int) -> Example:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        number, row = divmod(place, ROWS_PER_BATCH)
        if self._batch[0] != number:
            self._batch = (number, self._reader.get_batch(number))
        values = {name: column[row].as_py() for name, column in zip(_SCHEMA.names, self._batch[1].columns, strict=True)}
        return Example(
            example_id=values["id"],
            video=self._root / values["video"],
            turns=tuple((_ROLES[turn % 2], text) for turn, text in enumerate(values["turns"])),
            source=self._source,
            start=values["start"],
            end=values["end"],
            root=self._confined_to,
            fps=self._fps,
        )

    def texts_longer_than(self, num_bytes: int) -> Iterator[int]:
        """Indices of examples whose turns take more UTF-8 bytes; tokens of a byte-level tokenizer are never more."""
        for number in range(self._reader.num_record_batches):
            turns = self._reader.get_batch(number).column("turns")
            ends = np.concatenate([[0], np.cumsum(pc.binary_length(turns.flatten()).to_numpy())])
            places = turns.offsets.to_numpy() - turns.offsets[0].as_py()
            yield from (number * ROWS_PER_BATCH + np.flatnonzero(np.diff(ends[places]) > num_bytes)).tolist()


def write_table(path: Path, files: Iterable[Path], source: str, layout: Layout) -> Tally:
    """Read a source's files and write their table to `path`; it appears when it is complete.

    Raises UserError for a file that cannot be read on from. Too many unusable rows are the caller's to judge.
    """
    tally = Tally()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            pending: list[Example] = []
            for example in read_examples(files, source, Path(), layout, tally):
                pending.append(example)
                if len(pending) == ROWS_PER_BATCH:
                    writer.write_batch(_batch(pending))
                    pending = []
            if pending:
                writer.write_batch(_batch(pending))
        _write_tally(path, tally)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return tally


def _batch(examples: Sequence[Example]) -> pa.RecordBatch:
    columns = (
        [e.example_id for e in examples],
        [str(e.video) for e in examples],
        [[text for _, text in e.turns] for e in examples],
        [e.start for e in examples],
        [e.end for e in examples],
    )
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=_SCHEMA)


def _write_tally(path: Path, tally: Tally) -> None:
    target = path.with_suffix(".json")
    stored = {"num_rows": tally.num_rows, "unusable": dict(tally.unusable), "first": tally.first}
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    temporary.write_text(json.dumps(stored, indent=2) + "\n")
    os.replace(temporary, target)


def _read_tally(path: Path) -> Tally:
    stored = json.loads(path.with_suffix(".json").read_text())
    return Tally(int(stored["num_rows"]), Counter(stored["unusable"]), dict(stored["first"]))
