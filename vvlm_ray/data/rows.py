"""Rows from files that others made: JSON, JSON Lines, CSV, TSV and parquet, one at a time, whatever they hold.

A row that is no row (a line that is not JSON, bytes that are not UTF-8) comes out as `BadRow`, so that the reader
behind can count it; a file that cannot be read on from (cut off, another format) is a UserError.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from vvlm_ray.errors import UserError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_CHARACTERS_AT_ONCE = 1 << 22
_MAX_DIGITS = 300  # of an integer; Python itself refuses to read more than 4,300
_LONGEST_CELL = 1 << 24


@dataclass(frozen=True)
class BadRow:
    """Stands where a row would: why it could not be read."""

    reason: str


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, row or BadRow) in the file's order; a place is "row 3" or "line 3", counted from 1.

    A JSON file is a list of rows, or an object that holds one, or an object of rows by name (the name then stands
    for a video that a row does not have). Raises UserError naming the file, and the place where it breaks.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; correct the path or put it there")
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(path)
        elif suffix in {".csv", ".tsv"}:
            yield from _table_rows(path)
        elif _is_json_lines(path):
            yield from _line_rows(path)
        else:
            yield from _json_rows(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason}); convert it, such as with iconv") from None


def parse_json(text: str) -> Any:
    """One JSON value.

    Raises ValueError, for text that nests too deeply too; integers of more than 300 digits become infinity.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_DECODER = json.JSONDecoder(parse_int=_parse_int)


def _is_json_lines(path: Path) -> bool:
    """By the name, or because the first line is a whole object by itself."""
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        return True
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start.startswith(b"{"):
            return False
        file.seek(0)
        first = next((line for line in file if line.strip(b"\xef\xbb\xbf \t\r\n")), b"")
        another = any(line.strip() for line in file)
    try:
        whole = isinstance(parse_json(first.decode("utf-8-sig")), dict)
    except ValueError:
        return False
    return whole and another


def _line_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UserError(f"{path}: is UTF-16 text; convert it to UTF-8, such as with iconv")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield f"line {number}", parse_json(text)
            except UnicodeDecodeError:
                yield f"line {number}", BadRow("not UTF-8 text")
            except ValueError:
                yield f"line {number}", BadRow("not JSON")


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        text = _Ahead(path, file)
        if text.next_character() == "[":
            yield from _list_rows(path, text)
            return
        value = text.value("the file")
        if text.next_character():
            raise UserError(f"{path}: goes on after its end ({text.next_character()!r}); is it JSON Lines named .json?")
    yield from _rows_of_object(path, value)


def _list_rows(path: Path, text: _Ahead) -> Iterator[tuple[str, Any]]:
    text.take_character()
    number = 0
    while text.next_character() != "]":
        number += 1
        yield f"row {number}", text.value(f"row {number}")
        if text.next_character() == ",":
            text.take_character()
        elif text.next_character() != "]":
            raise UserError(
                f"{path}: after row {number} there is neither ',' nor ']', as if the file were cut off; get it again"
            )


def _rows_of_object(path: Path, value: Any) -> Iterator[tuple[str, Any]]:
    """Rows of a JSON object: the one list of objects in it, else its values by name, else itself."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: is a {type(value).__name__}; a list of rows is expected")
    lists = [rows for rows in value.values() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if value and all(isinstance(row, dict) for row in value.values()):
        for number, (name, row) in enumerate(value.items(), start=1):
            yield f"row {number}", {"video": name, **row}
    elif len(lists) == 1 and not {"video", "image", "conversations"} & set(value):
        yield from ((f"row {number}", row) for number, row in enumerate(lists[0], start=1))
    else:
        yield "row 1", value


class _Ahead:
    """Text read in pieces, so that a list of millions of rows never lies in memory as a whole."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._is_all = "", 0, False

    def next_character(self) -> str:
        """The next that is no white space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text) or self._is_all:
                return self._text[self._at : self._at + 1]
            self._read_on()

    def take_character(self) -> None:
        self.next_character()
        self._at += 1

    def value(self, place: str) -> Any:
        """The JSON value that comes next."""
        self.next_character()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_all or not self._may_go_on(error):
                    raise UserError(
                        f"{self._path}: {place} is not JSON: {error.msg} (near {self._near(error.pos)!r})"
                    ) from None
            except RecursionError:
                raise UserError(f"{self._path}: {place} is nested too deeply") from None
            else:
                if end < len(self._text) or self._is_all:  # a number may go on in the next piece
                    self._at = end
                    return value
            self._read_on()

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether the error is only that a value ends in the next piece."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 16

    def _near(self, position: int) -> str:
        return self._text[max(position - 20, 0) : position + 20]

    def _read_on(self) -> None:
        rest = self._text[self._at :]
        more = self._file.read(max(_CHARACTERS_AT_ONCE, len(rest)))  # doubling, so that a huge row is read in time
        self._text, self._at, self._is_all = rest + more, 0, not more


def _table_rows(path: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        delimiter = max("\t,;|", key=header.count)
        reader = csv.DictReader(file, delimiter=delimiter, restval="")
        try:
            for number, row in enumerate(reader, start=1):
                yield f"row {number}", BadRow("more cells than the header has") if None in row else row
        except csv.Error as error:
            raise UserError(f"{path}: line {reader.line_num} is not {path.suffix[1:].upper()}: {error}") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # pyarrow's ways to say it is damaged
        first = str(error).strip().split("\n")[0]
        raise UserError(f"{path}: cannot be read as parquet after row {number} ({first})") from None
