"""Numbers as people write them: what a cell is, and which mark a column's decimals have."""

import math
import time
from datetime import datetime
from decimal import Decimal

import pytest

from vvlm_ray.results.numbers import DECIMAL_COMMA, PERCENT, SUFFIXES, THOUSANDS, cell_of, columns_of, number


@pytest.mark.parametrize(("text", "decimal", "expected"), [
    ("490,000,000", ".", 490_000_000), ("490.000.000", ",", 490_000_000), ("0.49B", ".", 490_000_000),
    ("0,57 B", ",", 570_000_000), ("100k", ".", 100_000), ("1.5 million", ".", 1_500_000), ("39.4 %", ".", 39.4),
    ("39,4%", ",", 39.4), ("1.234,5", ",", 1234.5), ("1,234.5", ".", 1234.5), ("4.9e8", ".", 4.9e8),
    ("1E6", ".", 1e6), ("-3", ".", -3), ("\N{MINUS SIGN}3", ".", -3), (".5", ".", 0.5), ("5.", ".", 5),
    ("1 000 000", ".", 1e6), ("1\N{NARROW NO-BREAK SPACE}000,5", ",", 1000.5), ("1'000", ".", 1000),
    ("1_000", ".", 1000), ("inf", ".", math.inf), ("-Infinity", ".", -math.inf), ("1e400", ".", math.inf),
])  # fmt: skip
def test_numbers(text, decimal, expected):
    assert number(text, decimal) == expected


@pytest.mark.parametrize("text", [
    "", "abc", "$39.40", "39 EUR", "~7B", "7B params", "39.4 (0.3)", "39.4 +- 0.3", "2026-01-01", "12:30", "1.2.3",
    "4,90,00,000", "0,394", "1,,000", "1,000.000,5", "0x1F", "1e5e5", "--3", "%", "k", "(3.2)", "9" * 5000,
    "1" + " " * 100_000 + "x", "1" + ",000" * 50_000, "TRUE",
])  # fmt: skip
def test_what_is_no_number(text):
    begin = time.process_time()
    assert number(text) is None
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(("value", "expected"), [
    (" a ", "a"), ("N/A", None), ("#DIV/0!", None), ("-", None), (True, "True"), (10**400, math.inf), (-(10**400), -math.inf),
    (float("nan"), None), (Decimal("39.413"), 39.413), (datetime(2026, 1, 2), "2026-01-02T00:00:00"), (None, None),
    ("\ufefflm_params", "lm_params"), (3, 3.0),
])  # fmt: skip
def test_cells(value, expected):
    assert cell_of(value) == expected


@pytest.mark.parametrize(("columns", "separator", "expected"), [
    # proven by the column itself
    ([["39,413", "43,45"]], ";", [[39.413, 43.45]]),
    ([["490,000,000", "1,540,000,000"]], ",", [[490e6, 1540e6]]),
    ([["1.234,5", "39,413"]], "\t", [[1234.5, 39.413]]),
    # an open column follows those that are proven
    ([["100,000", "400,000"], ["39.41", "43.45"]], "\t", [[100_000, 400_000], [39.41, 43.45]]),
    ([["100.000", "400.000"], ["39,41", "43,45"]], ";", [[100_000, 400_000], [39.41, 43.45]]),
    # versions prove nothing
    ([["1.2.3", "1.2.4"], ["100.000", "400.000"]], ",", [None, [100, 400]]),
    # nothing proves it: the separator decides, and where that would be a guess nothing does
    ([["39,413", "43,456"]], ";", [[39.413, 43.456]]),
    ([["100,000", "400,000"]], ",", [[100_000, 400_000]]),
    ([["100,000", "400,000"]], ";", [None]),
    ([["39,413", "43,456"]], "\t", [None]),
    ([["39,413", "43,456"]], None, [None]),
    # no numbers
    ([["39,4", "41.2"]], ";", [None]),
    ([["39.4 %", "41.2"]], ",", [None]),
    ([["3", "many"]], ",", [None]),
    ([[None, None]], ",", [None]),
])  # fmt: skip
def test_decimal_marks(columns, separator, expected):
    found = columns_of(columns, separator)
    assert [column.values if column.is_number else None for column in found] == expected


def test_it_is_said_how_numbers_were_written():
    columns = [["0,49B", "1,5B"], ["39,4%", None], ["100.000", "1.000.000"], ["4", "8"]]
    how = [column.how for column in columns_of(columns, ";")]
    assert how == [(DECIMAL_COMMA, SUFFIXES), (PERCENT, DECIMAL_COMMA), (DECIMAL_COMMA, THOUSANDS), ()]


@pytest.mark.parametrize(("cells", "why"), [
    (["39,4", "41.2"], "mixes decimal commas and decimal points"),
    (["39,413", "41,212"], r"two ways \(39,413: thousands or decimals\?\)"),
    (["39 %", "41"], "in some rows only"),
])  # fmt: skip
def test_why_a_column_of_numbers_cannot_be_read(cells, why):
    import re

    assert re.search(why, columns_of([cells], "\t")[0].problem)
