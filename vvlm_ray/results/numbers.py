"""Columns of cells as people write numbers: 490,000,000 or 0.49B or 39,4 % become floats, and it is said how.

Whether a comma is a decimal mark or groups thousands is decided for each column, by cells that can only be read one
way, then by the other columns of the file, then by the separator of its cells. A column that stays open is no number.
"""

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

Cell = str | float | None  # None is a missing value

MISSING = {"", "-", "--", "\N{EN DASH}", "\N{EM DASH}", "?", ".", "na", "n/a", "n.a.", "nan", "nil", "null", "none",
           "missing", "<na>", "#n/a", "#na", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"}  # fmt: skip
SIZES = {"k": 1e3, "m": 1e6, "mn": 1e6, "g": 1e9, "b": 1e9, "bn": 1e9, "t": 1e12,
         "thousand": 1e3, "million": 1e6, "billion": 1e9}  # fmt: skip

PERCENT = "% signs"
DECIMAL_COMMA = "decimal commas"
THOUSANDS = "thousands separators"
SUFFIXES = "suffixes k, M, B"

_SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_GROUPING = "'_\N{RIGHT SINGLE QUOTATION MARK}" + _SPACES  # beside . and , which may also be decimal marks
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?P<body>[0-9]+(?:[.,{_GROUPING}][0-9]+)*[.,]?|[.,][0-9]+)(?P<exponent>e[+-]?[0-9]+)?"
    rf"[{_SPACES}]?(?P<size>%|k|mn?|g|bn?|t|thousand|million|billion)?",
    re.IGNORECASE,
)
_INFINITE = re.compile(r"[+-]?inf(inity)?|[+-]?\N{INFINITY}", re.IGNORECASE)
_OPEN = re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}")  # thousands or decimals
_LONGEST = 400  # no float needs more characters


@dataclass(frozen=True)
class Column:
    """The cells of a column: floats (NaN where missing) if `is_number`, else text. `how` says how they were written,
    `problem` why a column of numbers could not be read as such."""

    values: list
    is_number: bool
    how: tuple[str, ...] = ()
    problem: str | None = None


def cell_of(value: object) -> Cell:
    """A value as a file gave it: text without its edges, a float, or None where it says that nothing is there."""
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip().strip("\ufeff\u200b").strip()
        return None if text.casefold() in MISSING else text
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float | Decimal):
        try:
            number = float(value)
        except OverflowError:  # an integer of more than 308 digits
            return math.inf if value > 0 else -math.inf
        return None if math.isnan(number) else number
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def columns_of(columns: Sequence[Sequence[Cell]], separator: str | None = None) -> list[Column]:
    """Numbers where a column is all numbers, text elsewhere; `separator` stood between the cells of a text file."""
    votes = [_votes(column) for column in columns]
    proven = {mark for vote in votes if len(vote) == 1 for mark in vote & {".", ","}}
    return [_column(column, vote, proven, separator) for column, vote in zip(columns, votes, strict=True)]


def number(text: str, decimal: str = ".") -> float | None:
    """The number that a text stands for, or None; 39.4 % is 39.4, and 0.49B is 490000000."""
    parts = _parts(text)
    if parts is None:
        infinite = _INFINITE.fullmatch(text)
        return (-math.inf if text[0] in "-\N{MINUS SIGN}" else math.inf) if infinite else None
    whole, _, fraction = parts["body"].partition(decimal)
    groups = re.split(rf"[.,{_GROUPING}]", whole)
    if len(groups) > 1:
        marks = set(re.sub("[0-9]", "", whole))
        if len(marks) > 1 or not re.fullmatch("[1-9][0-9]{0,2}", groups[0]) or any(len(g) != 3 for g in groups[1:]):
            return None
    if not re.fullmatch("[0-9]*", fraction):
        return None
    value = float(f"{parts['sign']}{''.join(groups) or '0'}.{fraction or '0'}{parts['exponent'] or ''}")
    size = SIZES.get((parts["size"] or "").casefold(), 1.0)
    return value if size == 1.0 else clean(value * size)


def clean(value: float) -> float:
    """Without the rounding error of a product of decimals: 0.57 * 1e9 is 570000000. Text holds 15 digits for sure."""
    return float(f"{value:.15g}")


def _parts(text: str) -> re.Match | None:
    return _NUMBER.fullmatch(text.replace("\N{MINUS SIGN}", "-")) if len(text) <= _LONGEST else None


def _votes(column: Sequence[Cell]) -> set[str]:
    """The decimal marks that the cells prove; "?" where they can be read both ways; nothing if they are no numbers."""
    votes, is_open = set(), False
    for cell in column:
        if not isinstance(cell, str):
            continue
        parts = _parts(cell)
        if parts is None and not _INFINITE.fullmatch(cell):
            return set()
        body = parts["body"] if parts else ""
        marks = [mark for mark in body if mark in ".,"]
        if len(set(marks)) == 2:
            votes.add(marks[-1])
        elif len(marks) > 1:
            votes.add("." if marks[0] == "," else ",")
        elif _OPEN.fullmatch(body):
            is_open = True
        elif marks:
            votes.add(marks[0])
    if len(votes) == 1 and not _understood(column, *votes):
        return set()  # versions, say: 1.2.3
    return votes or ({"?"} if is_open else set())


def _understood(column: Sequence[Cell], decimal: str) -> bool:
    return all(number(cell, decimal) is not None for cell in column if isinstance(cell, str))


def _column(cells: Sequence[Cell], votes: set[str], proven: set[str], separator: str | None) -> Column:
    texts = [cell for cell in cells if isinstance(cell, str)]
    filled = sum(cell is not None for cell in cells)
    if votes == {".", ","}:
        return Column(list(cells), False, problem="mixes decimal commas and decimal points: write one of them")
    decimal = next(iter(votes), ".")
    if decimal == "?":
        decimal = _decide(texts, proven, separator)
    if decimal is None:
        example = next(text for text in texts if "," in text)
        return Column(list(cells), False, problem=f"can be read in two ways ({example}: thousands or decimals?): "
                      "write decimal points and no thousands separators")  # fmt: skip
    if not filled or not _understood(cells, decimal):
        return Column(list(cells), False)
    with_percent = sum(text.endswith("%") for text in texts)
    if 0 < with_percent < filled:
        return Column(list(cells), False, problem="has a % sign in some rows only")
    values = [number(cell, decimal) if isinstance(cell, str) else math.nan if cell is None else cell for cell in cells]
    found = {
        PERCENT: with_percent > 0,
        DECIMAL_COMMA: decimal == ",",
        THOUSANDS: any(_is_grouped(text, decimal) for text in texts),
        SUFFIXES: any((parts := _parts(text)) and parts["size"] not in {None, "%"} for text in texts),
    }
    return Column(values, True, tuple(name for name, there in found.items() if there))


def _decide(texts: Sequence[str], proven: set[str], separator: str | None) -> str | None:
    """The decimal mark of a column like 39,413 or 39.413, which could be thousands too; None if nothing tells."""
    if len(proven) == 1:
        return next(iter(proven))
    if not any("," in text for text in texts):
        return "."
    if separator == ",":
        return "."  # the cells had to be quoted: nobody writes decimals so
    if separator == ";" and not all(re.search(",[0-9]00(?![0-9])", text) for text in texts if "," in text):
        return ","  # as Excel writes it where the decimal mark is a comma
    return None


def _is_grouped(text: str, decimal: str) -> bool:
    parts = _parts(text)
    return bool(parts) and not parts["body"].partition(decimal)[0].isdigit()
