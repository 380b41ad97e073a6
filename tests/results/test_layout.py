"""Which rows of a file are runs, and which name the columns."""

import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.results.layout import layout_of

HEADER = ["lm_params", "num_frames", "avg"]
ROWS = [["1e9", "4", "40.1"], ["1e9", "8", "41.2"], ["3e9", "4", "43.9"]]


def table(*rows):
    return layout_of(rows, range(1, len(rows) + 1), "a.csv")


@pytest.mark.parametrize(("rows", "said"), [
    ([HEADER, *ROWS], []),
    ([["Results of the sweep"], [""], HEADER, *ROWS], ["a title (line 1)"]),
    ([["# made by hand"], HEADER, *ROWS], ["a comment (line 1)"]),
    ([["# lm_params", "num_frames", "avg"], *ROWS], []),
    ([["# by hand", "", ""], ["# lm_params", "num_frames", "avg"], *ROWS], ["a comment (line 1)"]),
    ([["Configuration", "", "Result"], HEADER, *ROWS], ["a row above the header (line 1)"]),
    ([HEADER, ["(B)", "-", "%"], *ROWS], ["a line without numbers (line 2: (B) %)"]),
    ([HEADER, *ROWS[:2], HEADER, ROWS[2]], ["a repeated header (line 4)"]),
    ([HEADER, *ROWS, ["Total", "", ""]], ["a total or footnote (line 5)"]),
    ([HEADER, *ROWS, ["Mean:", "5.3", "41.7"], ["std", "2.3", "1.9"]], ["2 totals or footnotes (lines 5, 6)"]),
    ([HEADER, *ROWS, ["", "", ""], ["* two epochs", "", ""]], ["a total or footnote (line 6)"]),
    ([["", *HEADER], *([str(i), *row] for i, row in enumerate(ROWS))], ["a column without a name"]),
    ([["Unnamed: 0", *HEADER], *([str(i), *row] for i, row in enumerate(ROWS))], ["a column without a name"]),
    ([HEADER, *([str(i + 1), *row] for i, row in enumerate(ROWS))], ["a column without a name"]),  # as R writes
    ([[*HEADER, ""], *([*row, ""] for row in ROWS)], []),  # a comma at the end
    ([HEADER, *([*row, "", ""] for row in ROWS)], []),
    ([["", *HEADER, ""], ["", "---", "---", "---", ""], *(["", *row, ""] for row in ROWS)], []),  # Markdown
])  # fmt: skip
def test_what_is_left_out_and_said(rows, said):
    found = table(*rows)
    assert found.names == HEADER
    assert found.rows == ROWS
    assert found.left_out == said


def test_a_column_of_words_for_totals_is_no_footer():
    rows = [[*row, "mean"] for row in ROWS]
    assert len(table([*HEADER, "aggregate"], *rows).rows) == 3


def test_lines_stay_those_of_the_file():
    assert table(["# title"], HEADER, ROWS[0], [""], HEADER, ROWS[1]).lines == [3, 6]


@pytest.mark.parametrize(("rows", "message"), [
    ([], "empty"),
    ([["", ""]], "empty"),
    (ROWS, r"line 1: the first row holds numbers where names should be \(1e9, 4, 40.1\)"),
    ([HEADER, ["1e9", "4", "40", "1"], ["1e9", "8", "41", "2"]], r"line 2: 4 cells, but the header names 3 columns"),
])  # fmt: skip
def test_what_is_refused(rows, message):
    with pytest.raises(UserError, match=message):
        table(*rows)
