"""Whatever a file holds: runs, or a UserError that names the file, and soon.

`make test-hostile` tries 20 times as many.
"""

import contextlib
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vvlm_ray.errors import UserError
from vvlm_ray.results.columns import Columns, Condition
from vvlm_ray.results.files import parse
from vvlm_ray.results.numbers import cell_of, columns_of, number
from vvlm_ray.results.tables import read_table, runs_of

FOLDER = Path(__file__).parent / "as_people_have_them"
FILES = [path.read_bytes() for path in sorted(FOLDER.iterdir())]
ROWS = [line.split(",") for line in (FOLDER / "plain.csv").read_text().splitlines()]
RECORDS = [dict(zip(ROWS[0], map(float, row), strict=True)) for row in ROWS[1:]]
SECONDS = 5.0  # CPU, for one input of a few kilobytes; usual are milliseconds
NUM = 130 * int(os.environ.get("VVLM_RAY_HOSTILE", "1"))
many = settings(max_examples=NUM, deadline=None, database=None, suppress_health_check=list(HealthCheck))

CELLS = st.one_of(
    st.sampled_from(["", "NA", "-", "inf", "nan", "1e999", "0.49B", "39,4", "39.4", "39.4 %", "1,000", "1.000.000", "-3",
                     "0", "100", "#", "Total", "done", "failed", '"', "'", "=1+1", "2026-01-01", "9" * 5000, "\x00",
                     "TRUE", "490000000", "4", "16", "100000", "lm_params", "1'000", "$3", "None"]),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.text(max_size=12),
)  # fmt: skip
NAMES = st.one_of(st.sampled_from([*ROWS[0], "status", "State", "seed", "sweep", "", "err", "target_flops", "n", "avg"]),
                  st.text(max_size=8))  # fmt: skip
COLUMNS = st.builds(
    dict,
    factors=st.sampled_from(
        [("lm_params", "num_frames", "tokens_per_frame"), ("num_frames",), ("n", "avg"), ("", "x")]
    ),
    data_size=st.sampled_from([None, "none", "num_examples", "n", "avg"]),
    score=st.sampled_from([None, "avg", "err", "avg,err", ",", "status"]),
    error=st.sampled_from([None, None, "err", "avg"]),
    names=st.dictionaries(NAMES, NAMES, max_size=2),
    units=st.dictionaries(NAMES, st.floats(), max_size=2),
    where=st.lists(st.builds(Condition, NAMES, CELLS, st.booleans()), max_size=1),
    num_questions=st.sampled_from([None, 1, 10**12, 0]),
    max_missing=st.floats(),
    keep_duplicates=st.booleans(),
)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["set", "cut", "insert", "swap"]), st.binary(max_size=6)),
                 min_size=1, max_size=8)  # fmt: skip


def edited(content: bytes, edits) -> bytes:
    for where, what, value in edits:
        at = int(where * len(content))
        if what == "set":
            content = content[:at] + value + content[at + len(value) :]
        elif what == "cut":
            content = content[:at] + content[at + 1 + len(value) * 20 :]
        elif what == "insert":
            content = content[:at] + value * 3 + content[at:]
        else:
            content = content[at:] + content[:at]
    return content


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "runs.csv"


def try_to_read(path, content: bytes, wanted=None) -> None:
    path.write_bytes(content)
    begin = time.process_time()
    try:
        columns = Columns(**wanted) if wanted else Columns()
        runs = runs_of(read_table(path, columns)).runs
    except UserError as refused:
        assert len(str(refused)) < 5000
    else:
        assert runs.num_runs >= 1
        for values in runs.columns().values():
            assert np.isfinite(values).all()
            assert (values > 0).all()
    assert time.process_time() - begin < SECONDS


@many
@given(content=st.binary(max_size=2000))
def test_any_bytes(path, content):
    try_to_read(path, content)


@many
@given(content=st.sampled_from(FILES), edits=EDITS, wanted=st.one_of(st.none(), COLUMNS))
def test_tables_with_changed_bytes(path, content, edits, wanted):
    try_to_read(path, edited(content, edits), wanted)


@many
@given(names=st.lists(NAMES, max_size=7), rows=st.lists(st.lists(CELLS, max_size=8), max_size=12),
       separator=st.sampled_from([",", ";", "\t", "|", " ", ", "]), end=st.sampled_from(["\n", "\r\n", "\r"]),
       encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "utf-32"]), wanted=COLUMNS)  # fmt: skip
def test_any_text_table(path, names, rows, separator, end, encoding, wanted):  # noqa: PLR0917
    text = end.join(separator.join(row) for row in [names, *rows])
    try_to_read(path, text.encode(encoding, "replace"), wanted)


@many
@given(changes=st.lists(st.tuples(st.integers(1, 37), st.integers(0, 4), CELLS), max_size=6), wanted=COLUMNS)
def test_the_study_with_other_cells(path, changes, wanted):
    rows = [list(row) for row in ROWS]
    for row, column, cell in changes:
        rows[row][column] = cell
    text = "\n".join(",".join(row) for row in rows)
    try_to_read(path, text.encode("utf-8", "replace"))
    try_to_read(path, text.encode("utf-8", "replace"), wanted)


JSON = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
                    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(NAMES, inner, max_size=6)),
                    max_leaves=25)  # fmt: skip


@many
@given(value=st.one_of(JSON, st.lists(st.dictionaries(NAMES, JSON, max_size=6), max_size=6)), lines=st.booleans())
def test_any_json(path, value, lines):
    text = "\n".join(map(json.dumps, value)) if lines and isinstance(value, list) else json.dumps(value)
    try_to_read(path, text.encode())


@many
@given(edits=EDITS)
def test_json_with_changed_bytes(path, edits):
    try_to_read(path, edited(json.dumps(RECORDS).encode(), edits))


def excel() -> bytes:
    book, content = openpyxl.Workbook(), io.BytesIO()
    for row in [ROWS[0], *([float(cell) for cell in row] for row in ROWS[1:])]:
        book.active.append(row)
    book.save(content)
    return content.getvalue()


def parquet() -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS), content)
    return content.getvalue()


BINARY = [excel(), parquet()]


@many
@given(content=st.sampled_from(BINARY), edits=EDITS)
def test_excel_and_parquet_with_changed_bytes(path, content, edits):
    try_to_read(path, edited(content, edits))


@many
@given(cells=st.lists(st.one_of(CELLS, st.text(alphabet="0123456789.,' -+eEkMB%_", max_size=60)), max_size=12))
def test_any_cells(cells):
    begin = time.process_time()
    for cell in cells:
        for mark in ".,":
            assert number(cell, mark) is None or isinstance(number(cell, mark), float)
    known = [cell_of(cell) for cell in cells]
    for separator in (",", ";", "\t", None):
        (column,) = columns_of([known], separator)
        assert len(column.values) == len(cells)
    assert time.process_time() - begin < SECONDS


def test_long_lines_and_wide_tables_take_seconds_at_most():
    for text in (
        "," * 3_000_000,
        "a\n" * 1_000_000,
        '"' * 100_000,
        "[" * 100_000,
        "1 " * 500_000,
        "a,b\n" + "1,2\n" * 90_000,
    ):
        begin = time.process_time()
        with contextlib.suppress(UserError):
            parse(text.encode(), "a.csv")
        assert time.process_time() - begin < 20
