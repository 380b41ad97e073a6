"""From the rows of a text file or a sheet to a table: which row names the columns, and which rows are no runs.

Titles above the header, comments, lines of units, repeated headers, totals and footnotes are left out and said.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from vvlm_ray.errors import UserError
from vvlm_ray.results.numbers import Cell, cell_of, number

TOTALS = {"total", "totals", "grand total", "sum", "subtotal", "mean", "average", "avg", "median", "std", "stdev",
          "min", "max", "count", "summe", "gesamt", "mittelwert", "moyenne", "somme"}  # fmt: skip


@dataclass
class Layout:
    """Rows (R) of cells (C) under `names` (C); `lines` (R) where a row stands in its file; `left_out` says the rest."""

    names: list[str]
    rows: list[list[Cell]]
    lines: list[int]
    left_out: list[str] = field(default_factory=list)


def layout_of(rows: Sequence[Sequence[object]], lines: Sequence[int], where: str, unit: str = "line") -> Layout:
    """The table in rows of raw cells, each at its line of the file.

    Raises:
        UserError: no rows, no header, or a row with more cells than the header.
    """
    cells = [[cell_of(value) for value in row] for row in rows]
    table = Layout([], cells, list(lines))
    _drop(table, [not any(cell is not None for cell in row) or _is_rule(row) for row in cells])
    if not table.rows:
        raise UserError(f"{where}: the file is empty")
    _comments(table, unit)
    _titles(table, unit)
    _header(table, where, unit)
    _widths(table, where, unit)
    repeated = [[str(cell or "") for cell in row] == table.names for row in table.rows]
    _drop(table, repeated, f"a repeated header ({unit} {{}})", f"repeated headers ({unit}s {{}})")
    _units(table, unit)
    _footers(table, unit)
    _columns_without_names(table)
    return table


def _drop(table: Layout, out: Sequence[bool], one: str = "", more: str = "") -> None:
    gone = [line for line, is_out in zip(table.lines, out, strict=True) if is_out]
    if gone and one:
        shown = ", ".join(map(str, gone[:4])) + (", ..." if len(gone) > 4 else "")
        table.left_out.append((one if len(gone) == 1 else f"{len(gone)} {more}").format(shown))
    table.rows = [row for row, is_out in zip(table.rows, out, strict=True) if not is_out]
    table.lines = [line for line, is_out in zip(table.lines, out, strict=True) if not is_out]


def _is_rule(row: Sequence[Cell]) -> bool:
    """A line of a drawn table: |---|:--:| or ====."""
    return all(cell is None or (isinstance(cell, str) and re.fullmatch(r"[-:=+_ ]{3,}", cell)) for cell in row)


def _comments(table: Layout, unit: str) -> None:
    is_comment = [str(next(cell for cell in row if cell is not None)).startswith(("#", "//")) for row in table.rows]
    if all(is_comment):
        is_comment = [False] * len(is_comment)
    first = table.rows[0]
    below = next((row for row, out in zip(table.rows, is_comment, strict=True) if not out), first)
    if is_comment[0] and _mostly_numbers(below):  # the header itself is written as a comment
        *_, last = (i for i in range(len(is_comment)) if all(is_comment[: i + 1]))
        if len(table.rows[last]) == len(below) > 1:
            is_comment[last] = False
            table.rows[last] = [re.sub(r"^(#|//)\s*", "", str(cell or "")) for cell in table.rows[last]]
    _drop(table, is_comment, f"a comment ({unit} {{}})", f"comments ({unit}s {{}})")


def _titles(table: Layout, unit: str) -> None:
    """Leading rows with one cell, where the table has more."""
    width = Counter(_filled(row) for row in table.rows).most_common(1)[0][0]
    num_titles = next((i for i, row in enumerate(table.rows) if _filled(row) > 1 or width < 2), 0)
    _drop(table, [i < num_titles for i in range(len(table.rows))], f"a title ({unit} {{}})", f"titles ({unit}s {{}})")


def _header(table: Layout, where: str, unit: str) -> None:
    """The first complete row of text is the header; rows of text above it (merged cells) are left out."""
    if _mostly_numbers(table.rows[0]):
        shown = ", ".join(_short(cell) for cell in table.rows[0][:5])
        raise UserError(
            f"{where}, {unit} {table.lines[0]}: the first row holds numbers where names should be ({shown}): write a "
            f"header above it, for example lm_params,num_frames,tokens_per_frame,num_examples,avg; a table with a "
            f"column for each size must be brought to one row for each run"
        )
    texts = next((i for i, row in enumerate(table.rows) if _has_number(row)), 1)
    fullest = max(_filled(row) for row in table.rows[: max(texts, 1)])
    at = 0 if None not in table.rows[0][1:] else next(i for i, row in enumerate(table.rows) if _filled(row) == fullest)
    above = [i < at for i in range(len(table.rows))]
    names = [" ".join(str(cell).split()) if cell is not None else "" for cell in table.rows[at]]
    _drop(table, above, f"a row above the header ({unit} {{}})", f"rows above the header ({unit}s {{}})")
    while names and not names[-1]:
        names.pop()
    table.names, table.rows, table.lines = names, table.rows[1:], table.lines[1:]


def _widths(table: Layout, where: str, unit: str) -> None:
    """Every row as wide as the header: short rows end in missing cells, empty cells beyond the header go."""
    wanted = len(table.names)
    for row in table.rows:
        while len(row) > wanted and row[-1] is None:
            row.pop()
    if table.rows and all(len(row) == wanted + 1 for row in table.rows) and _are_row_names([r[0] for r in table.rows]):
        table.names.insert(0, "")
        wanted += 1
    for row, line in zip(table.rows, table.lines, strict=True):
        if len(row) > wanted:
            raise UserError(
                f"{where}, {unit} {line}: {len(row)} cells, but the header names {wanted} columns: "
                f"put a value that holds the separator in quotes, or write decimal points instead of commas"
            )
        row.extend([None] * (wanted - len(row)))


def _units(table: Layout, unit: str) -> None:
    """A first row without a number, under a header with numbers below it: (B), count, %."""
    is_units = len(table.rows) > 1 and not _has_number(table.rows[0]) and _has_number(table.rows[1])
    if is_units and any(_has_number([row[c]]) for row in table.rows[1:] for c in _texts(table.rows[0])):
        shown = " ".join(_short(cell) for cell in table.rows[0] if cell is not None)
        out = [i == 0 for i in range(len(table.rows))]
        _drop(table, out, f"a line without numbers ({unit} {{}}: {shown[:60].replace('{', '(').replace('}', ')')})")


def _footers(table: Layout, unit: str) -> None:
    """Totals and footnotes: the last rows with such a word, or with nothing but a text where others have numbers."""
    body = table.rows
    keep = len(body)
    numeric = [c for c in range(len(table.names)) if sum(_has_number([row[c]]) for row in body) > len(body) / 2]
    while keep > 1:
        row = body[keep - 1]
        texts = _texts(row)
        is_total = any(
            str(row[c]).strip(" :*").casefold() in TOTALS and row[c] != body[0][c]
            for c in texts
            if c in numeric or all(cell is None for cell in row[:c])
        )
        is_note = len(texts) == _filled(row) == 1 and len(numeric) > 1 and row[texts[0]] != body[0][texts[0]]
        if not is_total and not is_note:
            break
        keep -= 1
    out = [i >= keep for i in range(len(body))]
    _drop(table, out, f"a total or footnote ({unit} {{}})", f"totals or footnotes ({unit}s {{}})")


def _columns_without_names(table: Layout) -> None:
    empty = [c for c, name in enumerate(table.names) if not name or re.fullmatch(r"Unnamed: \d+", name)]
    filled = [c for c in empty if any(row[c] is not None for row in table.rows)]
    if filled:
        table.left_out.append(
            "a column without a name" if len(filled) == 1 else f"{len(filled)} columns without a name"
        )
    keep = [c for c in range(len(table.names)) if c not in set(empty)]
    if len(keep) < len(table.names):
        table.names = [table.names[c] for c in keep]
        table.rows = [[row[c] for c in keep] for row in table.rows]


def _are_row_names(cells: Sequence[Cell]) -> bool:
    """As R writes them before the first column, without a name: a count, or texts that are all different."""
    numbers = [number(cell) if isinstance(cell, str) else cell for cell in cells]
    if all(value is None for value in numbers):
        return None not in cells and len(set(cells)) == len(cells)
    return None not in numbers and numbers[0] in {0.0, 1.0} and all(b - a == 1 for a, b in pairwise(numbers))


def _filled(row: Sequence[Cell]) -> int:
    return sum(cell is not None for cell in row)


def _texts(row: Sequence[Cell]) -> list[int]:
    return [c for c, cell in enumerate(row) if isinstance(cell, str) and not _has_number([cell])]


def _has_number(row: Sequence[Cell]) -> bool:
    return any(
        isinstance(cell, float)
        or (isinstance(cell, str) and (number(cell) is not None or number(cell, ",") is not None))
        for cell in row
    )


def _mostly_numbers(row: Sequence[Cell]) -> bool:
    return sum(_has_number([cell]) for cell in row) > _filled(row) / 2


def _short(cell: Cell) -> str:
    text = f"{cell:g}" if isinstance(cell, float) else str(cell)
    return text if len(text) <= 40 else text[:37] + "..."
