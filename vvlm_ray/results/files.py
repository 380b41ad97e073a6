"""Any file of results as a `Layout`: text with any separator, Excel, JSON, JSON lines and parquet, told by content.

Nothing here knows what the columns mean. Files are small (a row is a finetuning run), and bounded for that reason.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import re
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vvlm_ray.errors import UserError
from vvlm_ray.results.layout import Layout, layout_of
from vvlm_ray.results.numbers import cell_of

MAX_BYTES = 64 * 2**20
MAX_ROWS = 100_000
MAX_COLUMNS = 4_000
MAX_CELL_CHARACTERS = 131_072  # more between two quotes is a quote left open
MAX_CELLS = 5_000_000
_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Parsed:
    """What a file holds, in which format, and what stood between its cells where it is text."""

    layout: Layout
    format: str
    separator: str | None = None


def parse_file(path: Path) -> Parsed:
    """The table in a file of any known format.

    Raises:
        UserError: no such file, a format that is not known, too large, or nothing in it that is a table.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: not a file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise UserError(f"{path}: not readable: {problem.strerror}") from None
    return parse(content, str(path))


def parse(content: bytes, where: str) -> Parsed:
    """As `parse_file`, for the bytes of a file."""
    packed = next((opened for magic, opened in _PACKED.items() if content.startswith(magic)), None)
    if packed:
        content = _unpack(content, packed, where)
    if len(content) > MAX_BYTES:
        raise UserError(f"{where}: more than {MAX_BYTES >> 20} MiB; a table of results has one row for each run")
    if content.startswith(b"PAR1"):
        return Parsed(_checked(_parquet(content, where), where), "parquet")
    if content.startswith(b"PK\x03\x04"):
        return Parsed(_checked(_excel(content, where), where), "Excel")
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise UserError(f"{where}: an Excel file from before 2007; save it as .xlsx or CSV")
    text, encoding = _decode(content, where)
    if text.lstrip()[:1] in {"[", "{"}:
        return Parsed(_checked(_json(text, where), where), "JSON")
    rows, lines, separator = _split(text, where)
    named = {",": "CSV", "\t": "TSV", " ": "text columns"}.get(separator, f"CSV with {separator!r}")
    known = f"{named}, {encoding}" if encoding else named
    return Parsed(_checked(layout_of(rows, lines, where), where), known, separator)


def _checked(layout: Layout, where: str) -> Layout:
    if len(layout.names) > MAX_COLUMNS or len(layout.rows) > MAX_ROWS:
        raise UserError(
            f"{where}: {len(layout.rows):,} rows and {len(layout.names):,} columns; a table of results has one row for "
            f"each run (at most {MAX_ROWS:,} rows and {MAX_COLUMNS:,} columns)"
        )
    return layout


def _unpack(content: bytes, opened, where: str) -> bytes:
    try:
        with opened(io.BytesIO(content)) as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        raise UserError(f"{where}: packed, and damaged: it cannot be unpacked") from None


# Text


def _decode(content: bytes, where: str) -> tuple[str, str]:
    """The text, and its encoding where that is not UTF-8."""
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32",
             b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # fmt: skip
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), None)
    if encoding is None and content:  # UTF-16 without a mark: every other byte of Latin text is 0
        odd, even = content[1::2].count(0) / len(content), content[::2].count(0) / len(content)
        encoding = "utf-16-le" if odd > 0.3 and even < 0.1 else "utf-16-be" if even > 0.3 and odd < 0.1 else None
    tries = [encoding] if encoding else ["utf-8", "cp1252", "latin-1"]
    for name in tries:
        try:
            text = content.decode(name)
        except UnicodeError:
            continue
        if sum(character < " " and character not in "\t\n\r\f\x1a" for character in text) > len(text) / 1000:
            raise UserError(f"{where}: a binary file of no known format; give CSV, TSV, Excel, JSON or parquet")
        said = {"utf-8": "", "utf-8-sig": "", "cp1252": "latin-1"}.get(name, name.upper()[:6])
        return text.lstrip("\ufeff").replace("\x00", ""), said
    raise UserError(f"{where}: its bytes are not {encoding}, though it says so; save it as UTF-8")


def _split(text: str, where: str) -> tuple[list[list[str]], list[int], str]:
    """Rows of cells, the line of each, and the separator that splits most rows alike."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    said = re.match(r"sep=(.)\n", text)  # for Excel
    if said:
        rows, lines = _rows(text[said.end() :], said[1], where)
        return rows, [line + 1 for line in lines], said[1]
    sample = text if len(text) < 2**16 else text[: text.rfind("\n", 0, 2**16) + 1] or text
    scores = {separator: _fit(sample, separator, where) for separator in _SEPARATORS}
    separator = max(scores, key=scores.get)
    if not scores[separator]:
        separator = " " if _fit(sample, " ", where) else ","
    return *_rows(text, separator, where), separator


def _rows(text: str, separator: str, where: str) -> tuple[list[list[str]], list[int]]:
    if separator == " ":
        split = [line.split() for line in text.split("\n")]
        return split, list(range(1, len(split) + 1))
    rows, lines, cells, start = [], [], 0, 1
    usual = csv.field_size_limit(MAX_CELL_CHARACTERS)  # process-wide, and other libraries lift it
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t")
    try:
        for row in reader:
            rows.append(row)
            lines.append(start)
            start = reader.line_num + 1
            cells += len(row)
            if cells > MAX_CELLS:
                raise UserError(f"{where}: more than {MAX_CELLS:,} cells; a table of results has one row for each run")
    except csv.Error as problem:
        raise UserError(f"{where}, line {start}: {problem}; is a quote left open?") from None
    finally:
        csv.field_size_limit(usual)
    return rows, lines


def _fit(sample: str, separator: str, where: str) -> float:
    """How many rows a separator splits into equally many cells, and into how many; 0 where it splits nothing."""
    try:
        rows, _ = _rows(sample, separator, where)
    except UserError:
        return 0.0
    widths = Counter(len(row) for row in rows if any(map(str.strip, row)))
    return max((count * math.log(width) for width, count in widths.items()), default=0.0)


# JSON


def _json(text: str, where: str) -> Layout:
    records, lines = _json_lines(text, where) if _is_lines(text) else (_json_records(text, where), None)
    names: dict[str, None] = {}
    flat = [_flat(record, where) for record in records]
    for record in flat:
        names.update(dict.fromkeys(record))
        if len(names) > MAX_COLUMNS:
            raise UserError(f"{where}: more than {MAX_COLUMNS:,} different keys; give a table with a row for each run")
    if len(names) * len(flat) > MAX_CELLS:
        raise UserError(f"{where}: more than {MAX_CELLS:,} cells; a table of results has one row for each run")
    rows = [[cell_of(record.get(name)) for name in names] for record in flat]
    return Layout([" ".join(name.split()) for name in names], rows, lines or list(range(1, len(rows) + 1)))


def _is_lines(text: str) -> bool:
    first, _, rest = text.strip().partition("\n")
    return first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip().startswith("{")


def _json_lines(text: str, where: str) -> tuple[list[dict], list[int]]:
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    records = [_load(line, f"{where}, line {n}") for n, line in lines]
    for (n, _), record in zip(lines, records, strict=True):
        if not isinstance(record, dict):
            raise UserError(f"{where}, line {n}: not an object; JSON lines hold one object for each run")
    return records, [n for n, _ in lines]


def _json_records(text: str, where: str) -> list[dict]:
    """[{column: value}], {column: [values]}, {"columns": [...], "data": [[...]]}, or one of these under one key."""
    value = _load(text, where)
    for _ in range(2):
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            return value
        if not isinstance(value, dict):
            break
        columns, data = value.get("columns"), value.get("data")
        if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
            if any(len(row) != len(columns) for row in data):
                raise UserError(f"{where}: a row of 'data' is not as long as 'columns'")
            return [dict(zip(map(str, columns), row, strict=True)) for row in data]
        lists = {key: item for key, item in value.items() if isinstance(item, list)}
        if len(lists) > 1 and len(lists) == len(value) and len({len(item) for item in lists.values()}) == 1:
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        inner = [item for item in value.values() if isinstance(item, list | dict)]
        if len(inner) != 1:
            break
        value = inner[0]
    raise UserError(
        f'{where}: JSON, but no table: give a list of objects, [{{"lm_params": 1e9, ..., "avg": 51.3}}, ...], '
        f"or one object a line"
    )


def _load(text: str, where: str):
    def whole(digits: str) -> float:
        return float(digits) if len(digits) > 15 else int(digits)

    def once(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            again = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{where}: the key {again[:60]!r} stands twice in one object")
        return dict(pairs)

    try:
        return json.loads(text, parse_int=whole, object_pairs_hook=once)
    except UserError:
        raise
    except ValueError as problem:
        raise UserError(f"{where}: not readable as JSON: {problem}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be a table of results") from None


def _flat(record: dict, where: str) -> dict[str, object]:
    """{"config": {"lm_params": 1}} as {"config.lm_params": 1}; W&B's {"value": ...} is the value."""
    flat: dict[str, object] = {}
    waiting = [("", record)]
    while waiting:
        prefix, value = waiting.pop()
        if isinstance(value, dict) and set(value) == {"value"} and prefix:
            value = value["value"]
        if isinstance(value, dict):
            waiting.extend((f"{prefix}.{key}" if prefix else str(key), item) for key, item in reversed(value.items()))
            continue
        if prefix in flat:
            raise UserError(f"{where}: the key {prefix[:60]!r} stands twice in one object")
        if len(flat) > MAX_COLUMNS:
            raise UserError(f"{where}: more than {MAX_COLUMNS:,} keys in one object")
        flat[prefix] = json.dumps(value) if isinstance(value, list) else value
    return flat


# Excel and parquet. Their libraries raise whatever a damaged file makes them stumble over, hence `except Exception`.


def _excel(content: bytes, where: str) -> Layout:
    import openpyxl

    try:
        members = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except Exception:  # BadZipFile, but also NotImplementedError, struct.error and others
        raise UserError(f"{where}: damaged: neither a zip nor an Excel file") from None
    names = {member.filename for member in members}
    if "xl/workbook.xml" not in names:
        kind = "an OpenDocument file: save it as .xlsx or CSV" if "content.xml" in names else "a zip: unpack it first"
        raise UserError(f"{where}: {kind}")
    if sum(member.file_size for member in members) > 4 * MAX_BYTES:
        raise UserError(f"{where}: too large when unpacked; a table of results has one row for each run")
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheets = [(sheet.title, _sheet(sheet, where)) for sheet in book.worksheets]
    except UserError:
        raise
    except Exception as problem:
        raise UserError(f"{where}: not readable as an Excel file: {_first_line(problem)}") from None
    filled = [(title, rows) for title, rows in sheets if any(cell is not None for row in rows for cell in row)]
    if not filled:
        raise UserError(f"{where}: the file is empty")
    title, rows = filled[0]
    layout = layout_of(rows, range(1, len(rows) + 1), where, unit="row")
    layout.left_out += [f"sheet {other!r} (the first one, {title!r}, is read)" for other, _ in filled[1:]]
    return layout


def _sheet(sheet, where: str) -> list[list[object]]:
    sheet.reset_dimensions()  # those that a file states may be wrong
    rows, num_cells = [], 0
    for row in sheet.iter_rows():
        cells = [_excel_value(cell) for cell in row]
        num_cells += len(cells)
        if len(rows) > MAX_ROWS or num_cells > MAX_CELLS:
            raise UserError(f"{where}: sheet {sheet.title!r} has more than {MAX_ROWS:,} rows or {MAX_CELLS:,} cells")
        rows.append(cells)
    while rows and all(cell is None for cell in rows[-1]):
        rows.pop()
    return rows


def _excel_value(cell) -> object:
    value = cell.value
    if isinstance(value, int | float) and not isinstance(value, bool) and "%" in str(cell.number_format):
        return f"{value * 100:.15g}%"  # as it is shown
    return value


def _parquet(content: bytes, where: str) -> Layout:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(content))
        shape = file.metadata.num_rows, file.metadata.num_columns
        if shape[0] <= MAX_ROWS and shape[1] <= MAX_COLUMNS:
            table = file.read()
            names, columns = table.column_names, [_arrow_values(column) for column in table.columns]
    except Exception as problem:
        raise UserError(f"{where}: not readable as parquet: {_first_line(problem)}") from None
    if shape[0] > MAX_ROWS or shape[1] > MAX_COLUMNS:
        raise UserError(f"{where}: {shape[0]:,} rows and {shape[1]:,} columns; a table of results has one row a run")
    keep = [c for c, name in enumerate(names) if name.strip() and not re.fullmatch(r"__index_level_\d+__", name)]
    rows = [[columns[c][r] for c in keep] for r in range(shape[0])]
    return Layout([" ".join(names[c].split()) for c in keep], rows, list(range(1, shape[0] + 1)))


def _arrow_values(column) -> list:
    import pyarrow.types as kinds

    values = column.to_pylist()
    if kinds.is_float32(column.type) or kinds.is_float16(column.type):
        # 39.413 kept in 32 bits is 39.41299819946289; its shortest decimal is the number that was meant.
        short = column.to_numpy()
        values = [None if value is None else float(str(short[i])) for i, value in enumerate(values)]
    return [cell_of(value) for value in values]


def _first_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0][:200] if lines else type(problem).__name__
