"""One planted study of 37 runs in the disguises in which people have their tables, and many more made here.

Each must give the same runs to the digit, or be refused with what to do.
"""

import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.results.columns import Columns, Condition
from vvlm_ray.results.tables import read_table, runs_of

FOLDER = Path(__file__).parent / "as_people_have_them"
PLAIN = pd.read_csv(FOLDER / "plain.csv")
TEXT = (FOLDER / "plain.csv").read_text()
ROWS = [line.split(",") for line in TEXT.splitlines()]
FACTORS = {"lm_params": "LM_Params", "num_frames": "Num_Frames", "tokens_per_frame": "Tokens_Per_Frame"}
NAMED = Columns(names={"lm_params": "model_size", "num_frames": "frames", "tokens_per_frame": "tok",
                       "num_examples": "samples"}, score="accuracy")  # fmt: skip


def observed(path, columns=None):
    return runs_of(read_table(path, columns))


def same_runs(found, runs):
    assert list(found.factors) == list(runs.factors)
    for name, values in runs.columns().items():
        assert np.array_equal(found.columns()[name], values), name  # to the digit, in the same order


@pytest.fixture(scope="module")
def plain():
    return observed(FOLDER / "plain.csv").runs


# As people have them


@pytest.mark.parametrize(("file", "said"), [
    ("bom.csv", "(CSV): error = 100 - avg over lm_params, num_frames, tokens_per_frame, num_examples"),
    ("crlf.csv", "Read 37 runs"),
    ("cr.csv", "Read 37 runs"),
    ("index.csv", "left out: a column without a name"),
    ("data.tsv", "(TSV)"),
    ("excel.csv", "(CSV with ';'): error = 100 - avg over lm_params, num_frames, tokens_per_frame, num_examples; "
                  "understood: decimal commas"),
    ("utf16.csv", "(CSV, UTF-16)"),
    ("thousands.csv", "understood: thousands separators"),
    ("suffix.csv", "understood: suffixes k, M, B"),
    ("footer.csv", "left out: a total or footnote (line 39)"),
    ("units_comment.csv", "left out: a comment (line 2)"),
    ("frac.csv", "error = 100 - avg (0..1, taken as shares and multiplied by 100)"),
    ("dupcols.csv", "left out: column 'avg' the second time, which is the same"),
])  # fmt: skip
def test_read_without_flags(file, said, plain):
    found = observed(FOLDER / file)
    same_runs(found.runs, plain)
    assert said in found.read


@pytest.mark.parametrize(("file", "columns", "said"), [
    ("capital.csv", Columns(names={**FACTORS, "num_examples": "Num_Examples", "avg": "Avg"}), "lm_params = LM_Params"),
    ("names.csv", NAMED, "num_examples = samples"),
    ("excel_latin.csv", Columns(names={"lm_params": "Modellgröße", "num_frames": "Bilder", "tokens_per_frame": "Marken",
                                       "num_examples": "Beispiele"}, score="Güte"), "(CSV with ';', latin-1)"),
    ("onetask.csv", Columns(score="videomme"), "error = 100 - videomme"),
    ("billions.csv", Columns(units={"lm_params": 1e9, "num_examples": 1e6}), "lm_params x 1e+09"),
    ("errfrac.csv", Columns(error="err"), "error = err (0..1, taken as shares and multiplied by 100)"),
    ("statebool.csv", Columns(where=(Condition("status", "1"),)), "Read 37 runs"),
    ("statusodd.csv", Columns(where=(Condition("status", "COMPLETED_OK"),)), "Read 37 runs"),
])  # fmt: skip
def test_read_with_the_columns_named(file, columns, said, plain):
    found = observed(FOLDER / file, columns)
    same_runs(found.runs, plain)
    assert said in found.read


def test_crashed_runs_of_an_export_are_left_out(plain):
    found = observed(FOLDER / "wandb.csv", Columns(score="eval/avg"))
    assert "left out: 3 rows that are not done" in found.read and "not used: Name, State, User" in found.read
    there = {tuple(row) for row in found.runs.inputs().T}
    same_runs(found.runs, plain.select(np.array([tuple(row) in there for row in plain.inputs().T])))
    assert found.runs.num_runs == 34


def test_percent_are_the_scores_as_rounded_there(plain):
    found = observed(FOLDER / "percent.csv")
    assert np.abs(found.runs.error - plain.error).max() <= 0.0050001
    assert "understood: % signs" in found.read


def test_the_mean_of_nine_tasks(plain):
    tasks = "VDC,AQA,VCG,LVB,PT,MV,VMME,NQA,EgoSchema"
    found = observed(FOLDER / "ninetasks_noavg.csv", Columns(score=tasks))
    assert np.abs(found.runs.error - plain.error).max() < 0.5  # each task has noise of its own
    expected = 100 - pd.read_csv(FOLDER / "ninetasks_noavg.csv")[tasks.split(",")].mean(axis=1)
    assert np.allclose(np.sort(found.runs.error), np.sort(expected), atol=1e-9)
    assert "error = 100 - the mean of VDC, AQA, VCG" in found.read


@pytest.mark.parametrize(("file", "messages"), [
    ("capital.csv", ["there is no column 'lm_params'", "the columns are LM_Params, Num_Frames",
                     "--map lm_params=LM_Params --map num_frames=Num_Frames --map tokens_per_frame=Tokens_Per_Frame "
                     "--map num_examples=Num_Examples --score Avg"]),
    ("names.csv", ["--map lm_params=model_size --map num_frames=frames --map tokens_per_frame=tok "
                   "--map num_examples=samples --score accuracy"]),
    ("excel_latin.csv", ["--map lm_params=Modellgröße --map num_frames=Bilder --map tokens_per_frame=Marken "
                         "--map num_examples=Beispiele --score Güte"]),
    ("onetask.csv", ["there is no column 'avg'", "--score videomme"]),
    ("ninetasks_noavg.csv", ["--score VDC,AQA,VCG,LVB,PT,MV,VMME,NQA,EgoSchema"]),
    ("wandb.csv", ["--score eval/avg"]),
    ("errfrac.csv", ["--error err"]),
    ("billions.csv", ["row 1 (line 2)", "0.49 parameters are no LM", "--unit lm_params=1e9"]),
    ("statusodd.csv", ["COMPLETED_OK is not known", "finished are complete, completed", "--where status=COMPLETED_OK"]),
    ("statebool.csv", ["1 is not known", "--where status=1"]),
    ("two.csv", ["the columns are params, tokens, accuracy", "--factors params,tokens --score accuracy --cost"]),
    ("noheader.csv", ["line 1: the first row holds numbers where names should be", "write a header above it"]),
    ("headeronly.csv", ["there are no rows in it"]),
    ("empty.csv", ["the file is empty"]),
])  # fmt: skip
def test_refused_with_what_to_do(file, messages):
    with pytest.raises(UserError) as refused:
        observed(FOLDER / file)
    assert file in str(refused.value)
    for message in messages:
        assert message in str(refused.value)


def test_half_of_the_units_are_not_enough():
    with pytest.raises(UserError, match=r"column 'num_examples': 0.1 is no count.*--unit num_examples=1e6"):
        observed(FOLDER / "billions.csv", Columns(units={"lm_params": 1e9}))


@pytest.mark.parametrize("file", ["seeds.csv", "seeds_nocol.csv"])
def test_seeds_are_replicates_of_a_configuration(file):
    found = observed(FOLDER / file)
    assert found.read.startswith("Read 111 runs of 37 configurations")
    assert len(np.unique(found.runs.inputs(), axis=1).T) == 37


@pytest.mark.parametrize(("file", "said"), [
    ("missing.csv", "Read 35 runs from .*left out: 2 rows without avg \\(row 6 \\(line 7\\), row 10 \\(line 11\\)\\)"),
    ("missingfactor.csv", "Read 36 runs from .*left out: 1 row without num_frames \\(row 6 \\(line 7\\)\\)"),
])  # fmt: skip
def test_missing_values_are_named_and_left_out_up_to_a_share(file, said, plain):
    found = observed(FOLDER / file)
    assert re.search(said, found.read)
    kept = {tuple(run) for run in np.vstack([found.runs.inputs(), found.runs.error]).T}
    assert kept < {tuple(run) for run in np.vstack([plain.inputs(), plain.error]).T}
    with pytest.raises(UserError, match=r"row 6 \(line 7\), column .* is missing.*--max-missing 0.0[36]"):
        observed(FOLDER / file, Columns(max_missing=0.01))


def test_a_constant_score_is_said():
    assert observed(FOLDER / "constant.csv").notes == (
        "the error is 45 in every run, so nothing can be said about any factor",
    )


def test_two_factors(plain):
    found = observed(FOLDER / "two.csv", Columns(factors=("params", "tokens"), score="accuracy"))
    assert list(found.runs.factors) == ["params", "tokens"]
    assert found.runs.num_examples is None
    assert "no data size" in found.read


# Made here: the same study again. (what, its bytes, columns, what is said)


def csv_of(rows, separator=",", quote="", end="\n"):
    return end.join(separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows) + end


def changed(column, change):
    at = ROWS[0].index(column)
    return [ROWS[0]] + [[change(cell) if c == at else cell for c, cell in enumerate(row)] for row in ROWS[1:]]


def numbers():
    return [[float(cell) if "." in cell else int(cell) for cell in row] for row in ROWS[1:]]


def excel(*sheets, formats=None):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
        for column, number_format in (formats or {}).items():
            for cell in sheet[column][1:]:
                cell.number_format = number_format
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def merged_excel():
    book = openpyxl.load_workbook(
        io.BytesIO(excel(("a", [["Configuration", *[None] * 3, "Result"], ROWS[0], *numbers()])))
    )
    book.active.merge_cells("A1:D1")
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def parquet(table):
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def records():
    return [dict(zip(ROWS[0], row, strict=True)) for row in numbers()]


ARROW = pa.Table.from_pylist(records())
SHUFFLED = [ROWS[0]] + [ROWS[1:][i] for i in np.random.default_rng(0).permutation(len(ROWS) - 1)]
THEIRS = [NAMED.names[name] if name in NAMED.names else "accuracy" for name in ROWS[0]]

SAME = {
    "rows in another order": (csv_of(SHUFFLED), None, "Read 37 runs"),
    "columns in another order": (csv_of([row[::-1] for row in ROWS]), None, "Read 37 runs"),
    "factors named in another order": (
        TEXT, Columns(factors=("tokens_per_frame", "lm_params", "num_frames")), "tokens_per_frame, num_examples"),
    "spaces around everything": (csv_of(ROWS, " , "), None, ""),
    "quoted": (csv_of(ROWS, quote='"'), None, ""),
    "pipes": (csv_of(ROWS, "|"), None, "(CSV with '|')"),
    "Markdown": (
        "\n".join(f"| {' | '.join(row)} |" for row in [ROWS[0], ["---"] * 5, *ROWS[1:]]), None, ""),
    "aligned by spaces": ("\n".join("".join(f"{cell:>18}" for cell in row) for row in ROWS), None, "text columns"),
    "sep=; for Excel": ("sep=;\r\n" + csv_of(ROWS, ";", end="\r\n"), None, ""),
    "semicolons, points": (csv_of(ROWS, ";"), None, "CSV with ';'"),
    "semicolons, commas, dots for thousands": (
        csv_of([[cell if not r else f"{float(cell):,}".translate(str.maketrans(",.", ".,")).removesuffix(",0")
                 for cell in row] for r, row in enumerate(ROWS)], ";"), None, "decimal commas, thousands separators"),
    "tabs and decimal commas": (csv_of([[cell.replace(".", ",") for cell in row] for row in ROWS], "\t"), None, "commas"),
    "commas, quoted decimal commas": (
        csv_of([[cell if "," not in cell else f'"{cell}"' for cell in row]
                for row in changed("avg", lambda cell: cell.replace(".", ","))]), None, "decimal commas"),
    "commas at the end": (csv_of([[*row, "", ""] for row in ROWS]), None, ""),
    "blank lines": (TEXT.replace("\n", "\n\n\n"), None, ""),
    "a title, a date and a blank line above": ("Sweep of March\n2026-03-01\n\n" + TEXT, None, "2 titles (lines 1, 2)"),
    "two files in one": (TEXT + TEXT.splitlines()[0] + "\n", None, "a repeated header (line 39)"),
    "mean and std below": (TEXT + "mean,15,70,3e5,51.2\nstd,10,60,1e5,4.7\n", None, "2 totals or footnotes"),
    "a footnote below": (TEXT + "\n* all with seed 0,,,,\n", None, "a total or footnote (line 40)"),
    "R's row names": (csv_of([ROWS[0], *([str(i), *row] for i, row in enumerate(ROWS[1:], 1))]), None, "without a name"),
    "a line of units": (csv_of([ROWS[0], ["-", "-", "-", "-", "(%)"], *ROWS[1:]]), None, "a line without numbers"),
    "UTF-16 big endian without a mark": (TEXT.encode("utf-16-be"), None, "UTF-16"),
    "UTF-32": (TEXT.encode("utf-32"), None, "UTF-32"),
    "gzip": (gzip.compress(TEXT.encode()), None, "(CSV)"),
    "bzip2": (bz2.compress(TEXT.encode()), None, "(CSV)"),
    "xz": (lzma.compress(TEXT.encode()), None, "(CSV)"),
    "exponents": (csv_of(changed("lm_params", lambda cell: f"{float(cell):.6e}")), None, ""),
    "Swiss thousands": (csv_of(changed("num_examples", lambda cell: f"{int(cell):,}".replace(",", "'"))), None, "thousands"),
    "thousands by thin spaces": (
        csv_of(changed("lm_params", lambda c: f"{int(c):,}".replace(",", "\N{NARROW NO-BREAK SPACE}"))), None, "thousands"),
    "bn and million": (
        csv_of([row if not r else [f"{float(row[0]) / 1e9:g} bn", *row[1:3], f"{float(row[3]) / 1e6:g} million", row[4]]
                for r, row in enumerate(ROWS)]), None, "suffixes"),
    "percent with a space and three digits": (csv_of(changed("avg", lambda cell: f"{cell} %")), None, "% signs"),
    "errors in points": (
        csv_of([[*ROWS[0][:4], "miss"], *([*row[:4], f"{100 - float(row[4]):.3f}"] for row in ROWS[1:])]),
        Columns(error="miss"), "error = miss over"),
    "failed and running runs": (
        csv_of([[*ROWS[0], "status"], *([*row, "done"] for row in ROWS[1:]), ["1e9", "4", "16", "1e5", "", "failed"],
                ["1e9", "4", "16", "1e5", "", "RUNNING"]]), None, "2 rows that are not done"),
    "runs of another project beside": (
        csv_of([[*ROWS[0], "project"], *([*row, "ours"] for row in ROWS[1:]), [*ROWS[1][:4], "99", "theirs"]]),
        Columns(where=(Condition("project", "ours"),)), "1 row that does not have project=ours"),
    "the same, left out": (
        csv_of([[*ROWS[0], "project"], *([*row, "ours"] for row in ROWS[1:]), [*ROWS[1][:4], "99", "theirs"]]),
        Columns(where=(Condition("project", "theirs", negated=True),)), "project!=theirs"),
    "a row written down twice": (TEXT + ",".join(ROWS[3]) + "\n", None, "a row that repeats another in every column (row 38"),
    "other names by --factors": (
        csv_of([THEIRS, *ROWS[1:]]),
        Columns(factors=("tok", "model_size", "frames"), data_size="samples", names=NAMED.names, score="accuracy"), ""),
    "a stated unit for what looks like shares": (
        csv_of(changed("avg", lambda c: f"{float(c) / 100:.5f}")), Columns(units={"avg": 100}), "avg (x 100)"),
    "Excel": (excel(("runs", [ROWS[0], *numbers()])), None, "(Excel)"),
    "Excel, two sheets": (excel(("runs", [ROWS[0], *numbers()]), ("notes", [["hello"]])), None, "sheet 'notes' (the first"),
    "Excel, an empty sheet first": (excel(("Sheet1", []), ("runs", [ROWS[0], *numbers()])), None, "(Excel)"),
    "Excel, percent cells": (
        excel(("a", [ROWS[0], *([*row[:4], row[4] / 100] for row in numbers())]), formats={"E": "0.0%"}), None, "% signs"),
    "Excel, numbers as text": (excel(("a", ROWS)), None, ""),
    "Excel, a merged header": (merged_excel(), None, "a row above the header (row 1)"),
    "Excel, dates beside": (
        excel(("a", [[*ROWS[0], "when"], *([*row, datetime(2026, 3, 1)] for row in numbers())])), None, "not used: when"),
    "JSON": (json.dumps(records()), None, "(JSON)"),
    "JSON by column": (json.dumps(PLAIN.to_dict("list")), None, ""),
    "JSON as pandas splits it": (PLAIN.to_json(orient="split"), None, ""),
    "JSON under a key": (json.dumps({"runs": records()}), None, ""),
    "JSON lines": ("\n".join(map(json.dumps, records())), None, "(JSON)"),
    "JSON lines, nested": (
        "\n".join(json.dumps({"config": {k: {"value": v} for k, v in r.items() if k != "avg"}, "summary": {"avg": r["avg"]}})
                  for r in records()),
        Columns(names={**{name: f"config.{name}" for name in ROWS[0][:4]}, "avg": "summary.avg"}), "config.lm_params"),
    "parquet": (parquet(ARROW), None, "(parquet)"),
    "parquet in 32 bits": (
        parquet(ARROW.set_column(4, "avg", ARROW["avg"].cast(pa.float32()))), None, ""),
    "parquet with decimals": (parquet(ARROW.set_column(4, "avg", ARROW["avg"].cast(pa.decimal128(6, 3)))), None, ""),
    "parquet with words": (parquet(ARROW.append_column("tags", pa.array([["a", "b"]] * 37))), None, "not used: tags"),
    "parquet, dictionary": (
        parquet(ARROW.set_column(1, "num_frames", ARROW["num_frames"].cast(pa.string()).dictionary_encode())), None, ""),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_the_same_study_in_another_form(what, tmp_path, plain):
    content, columns, said = SAME[what]
    path = tmp_path / "runs.dat"  # the name says nothing: formats are told by content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = observed(path, columns)
    same_runs(found.runs, plain)
    assert said in found.read


# Made here: what is refused, and with which words


def mutated(row, column, value):
    rows = [list(cells) for cells in ROWS]
    rows[row][rows[0].index(column)] = value
    return csv_of(rows)


REFUSED = {
    "a binary": (bytes(range(256)) * 40, None, "a binary file of no known format"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(2000), None, "a binary file"),
    "a PDF": (b"%PDF-1.7\n" + bytes(range(256)) * 20, None, "binary file"),
    "old Excel": (b"\xd0\xcf\x11\xe0" + bytes(600), None, "save it as .xlsx or CSV"),
    "a zip": (None, None, "a zip: unpack it first"),
    "an Excel file with a damaged directory": (
        SAME["Excel"][0].replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\x40"), None, "damaged"),
    "a name of 5,000 digits": (csv_of([["a", "9" * 5000], ["1", "2"], ["3", "4"]]), None, "there is no column 'lm_params'"),
    "half an Excel file": (SAME["Excel"][0][:3000], None, "damaged"),
    "half a parquet file": (SAME["parquet"][0][:900], None, "not readable as parquet"),
    "half a gzip file": (SAME["gzip"][0][:200], None, "cannot be unpacked"),
    "UTF-16 cut within a character": (TEXT.encode("utf-16")[:-1], None, "its bytes are not utf-16"),
    "JSON cut off": (json.dumps(records())[:-20], None, "not readable as JSON"),
    "JSON that is no table": (json.dumps({"a": {"b": 1}}), None, "JSON, but no table"),
    "JSON with a key twice": ('[{"avg": 3, "avg": 4}]', None, "the key 'avg' stands twice"),
    "JSON, deep": ("[" * 200_000, None, "nested too deeply|not readable as JSON"),
    "JSON lines that are no objects": ('{"avg": 3}\n{"avg": 4}\n[5]\n', None, "line 3: not an object"),
    "a quote left open": (TEXT.replace("490000000", '"490000000', 1) + "x" * 200_000, None, "is a quote left open"),
    "decimal commas without quotes": (
        csv_of([[cell.replace(".", ",") for cell in row] for row in ROWS]), None, "write decimal points instead of commas"),
    "a cell too many": (TEXT.replace("490000000,4,16", "490000000,4,16,7", 1), None, r"line 2: 6 cells, .* 5 columns"),
    "decimals in two ways": (mutated(4, "avg", '"47,5"'), None, "mixes decimal commas and decimal points"),
    "open thousands": (
        csv_of(changed("avg", lambda c: f"{float(c):.3f}".replace(".", ",")), "\t"), None, "can be read in two ways"),
    "percent in one row": (mutated(4, "avg", "47.5%"), None, "% sign in some rows only"),
    "currency": (mutated(3, "avg", "$41.3"), None, r"row 3 \(line 4\), column 'avg': \$41.3 is not a number"),
    "a date": (mutated(3, "num_frames", "2026-04-16"), None, "2026-04-16 is not a number"),
    "words": (mutated(3, "num_frames", "four"), None, "four is not a number"),
    "infinite": (mutated(3, "lm_params", "inf"), None, "inf is not finite"),
    "5,000 digits": (mutated(3, "lm_params", "9" * 5000), None, r"99999\.\.\. is not a number"),
    "negative": (mutated(3, "num_frames", "-4"), None, "-4 must be positive"),
    "zero": (mutated(3, "tokens_per_frame", "0"), None, "0 must be positive"),
    "a negative score": (mutated(3, "avg", "-1"), None, "no score on 0..100"),
    "a score of 130": (mutated(3, "avg", "130"), None, r"row 3 \(line 4\), column 'avg': 130 is no score on 0..100"),
    "no value anywhere": (csv_of(changed("avg", lambda _: "NaN")), None, "no finished run has all values"),
    "half of the values": (
        csv_of([row if r % 2 else [*row[:4], "" if r else "avg"] for r, row in enumerate(ROWS)]), None,
        "column 'avg': is missing .and in 17 more rows.*--max-missing 0.49"),
    "two columns of one name": (csv_of([[*row, "1" if r else "avg"] for r, row in enumerate(ROWS)]), None,
                                "column 'avg' stands twice with different values"),
    "an LM of seven": (csv_of(changed("lm_params", lambda cell: str(round(float(cell) / 1e9) or 1))), None,
                       "1 parameters are no LM; .*lm_params=1e9"),
    "examples in millions": (csv_of(changed("num_examples", lambda c: {"100000": "1", "400000": "4"}[c])), None,
                             "no run has more than 4 examples; .*--unit num_examples=1e6.*--unit num_examples=1"),
    "all runs crashed": (csv_of([[*row, "crashed" if r else "State"] for r, row in enumerate(ROWS)]), None,
                         "no row has status done .*crashed"),
    "a misspelt column": (TEXT, Columns(names={"num_frames": "num_frame"}), "did you mean 'num_frames'"),
    "a misspelt condition": (TEXT, Columns(where=(Condition("avgs", "1"),)), "did you mean 'avg'"),
    "a condition that nothing meets": (
        TEXT, Columns(where=(Condition("num_frames", "5"),)), "leaves no row; the values of 'num_frames' are 16, 32, 4, 8"),
    "a data size under another name": (
        csv_of([["samples" if c == "num_examples" else c for c in ROWS[0]], *ROWS[1:]]), None,
        "'samples' may be it: say --map num_examples=samples, or --data-size none"),
    "columns that are only numbers": (csv_of([["1", "2", "3"], ["4", "5", "6"]]), None, "write a header"),
    "one word": ("hello", None, "no rows"),
    "only blanks": ("\n \n,,,\n", None, "empty"),
    "a sheet without cells": (excel(("a", [])), None, "empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_says_what_to_do(what, tmp_path):
    content, columns, message = REFUSED[what]
    path = tmp_path / "runs.dat"
    if content is None:
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("runs.csv", TEXT)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as refused:
        observed(path, columns)
    assert len(str(refused.value)) < 2500
    assert str(path) in str(refused.value)


def test_there_are_at_least_sixty_odd_tables():
    assert len(SAME) + len(REFUSED) + len(list(FOLDER.iterdir())) >= 35 + 60


def test_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.csv", Path("/dev/zero")):
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_table(path)


def test_bombs_are_bounded(tmp_path):
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(bytes(200 * 2**20)))
    with pytest.raises(UserError, match="more than 64 MiB"):
        read_table(path)
    pq.write_table(pa.table({"avg": pa.array(np.zeros(200_000))}), tmp_path / "long.parquet")
    with pytest.raises(UserError, match="200,000 rows"):
        read_table(tmp_path / "long.parquet")


# What is answered with a doubt


def test_a_perfect_score_has_half_a_question_as_its_error(tmp_path, plain):
    path = tmp_path / "runs.csv"
    path.write_text(mutated(37, "avg", "100"))
    found = observed(path)
    assert found.runs.error.min() == 0.05
    assert (
        "1 score is perfect (row 37 (line 38)); the error is taken as half of one of 1,000 questions (a guess"
        in found.notes[0]
    )
    found = observed(path, Columns(num_questions=200))
    assert found.runs.error.min() == 0.25
    assert "guess" not in found.notes[0]


def test_losses_within_0_and_1_stay_as_they_are(tmp_path):
    path = tmp_path / "runs.csv"
    rows = [[*ROWS[0][:4], "eval_loss"], *([*row[:4], f"{float(row[4]) / 100:.5f}"] for row in ROWS[1:])]
    path.write_text(csv_of(rows))
    found = observed(path, Columns(error="eval_loss"))
    assert found.runs.error.max() < 1
    assert "error = eval_loss over" in found.read


def test_num_examples_is_used_or_named_as_left_out(plain):
    found = observed(FOLDER / "plain.csv", Columns(factors=("num_frames", "lm_params")))
    assert np.array_equal(np.unique(found.runs.num_examples), [100_000, 400_000])
    assert "not used: tokens_per_frame" in found.read
    found = observed(FOLDER / "plain.csv", Columns(data_size="none"))
    assert found.runs.num_examples is None
    assert "left out: num_examples (--data-size none)" in found.read
    found = observed(FOLDER / "plain.csv", Columns(factors=("lm_params", "num_examples")))
    assert list(found.runs.factors) == ["lm_params", "num_examples"]
