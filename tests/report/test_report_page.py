"""`vvlm-ray report` on studies as they come: whole, in parts, with failures, with other factors."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from vvlm_ray.cli import main
from vvlm_ray.report.report import compute
from vvlm_ray.report.tables import Table
from vvlm_ray.results.source import open_source

REASON = "OutOfMemoryError: <script>alert(1)</script> & 80 GiB"


class Page(HTMLParser):
    """The page's text, tags, and what its tags refer to."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.references, self.words = [], [], []
        self.feed(path.read_text())
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data):
        self.words.append(data)


def report(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)], catch_exceptions=False)


def two_tasks(sweep):
    local = sweep["evaluation"]["local"]["synthetic"]
    sweep["evaluation"] |= {"tasks": ["A", "B"], "local": {"A": local, "B": local}}


def with_trouble(frame):
    """One failed trial, whose reason is hostile to HTML, and two runs without a score for B."""
    frame["reason"] = None
    frame.loc[4, ["A", "B", "avg"]] = np.nan
    frame.loc[4, ["status", "reason"]] = "failed", REASON
    frame.loc[[7, 9], "B"] = np.nan
    return frame


@pytest.fixture(scope="module")
def whole(new_study):
    folder = new_study(name="whole", tasks=("A", "B"), change=two_tasks, edit=with_trouble)
    done = report(folder, "--json")
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)


def test_json_lists_what_was_written(whole):
    folder, listed = whole
    names = {path.name for path in (folder / "report").iterdir()}
    assert {path.split("/")[-1] for path in listed["files"]} == names
    assert listed["page"] == str(folder / "report" / "report.html")
    for figure in ("frontier", "fit", "star", "star-tasks", "isoflop", "isoflop-tasks", "by-size", "by-size-A",
                   "by-size-B", "elasticity", "overhead", "runs"):  # fmt: skip
        assert {f"{figure}.png", f"{figure}.svg"} <= names
    for table in ("frontier", "scores", "parameters", "table-2-forms", "table-8-fits", "table-9-aggregates",
                  "elasticity", "unfinished"):  # fmt: skip
        assert {f"{table}.csv", f"{table}.json"} <= names


def test_page_stands_alone_and_escapes_what_the_records_say(whole):
    folder, _ = whole
    page = Page(folder / "report" / "report.html")
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.tags.count("img") == 10
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert REASON in page.text
    assert "<script>" not in (folder / "report" / "report.html").read_text()


def test_failed_trials_and_missing_scores_are_left_out_and_counted(whole):
    folder, _ = whole
    text = Page(folder / "report" / "report.html").text
    runs = len(pd.read_csv(folder / "records.csv"))
    assert f"{runs - 1} finished runs" in text
    assert "1 row that is not done" in text
    assert "1 trials did not finish" in text
    assert "2 rows without B (row 8 (line 9), row 10 (line 11))" in text
    scores = {row["score"]: row for row in json.loads((folder / "report" / "scores.json").read_text())}
    assert {name: row["runs"] for name, row in scores.items()} == {"avg": runs - 1, "A": runs - 1, "B": runs - 3}


def test_tables_hold_the_numbers_of_the_analysis(whole):
    from vvlm_ray.results.analysis import analyse
    from vvlm_ray.results.comparison import extrapolated

    folder, _ = whole
    source = open_source(folder)
    found = analyse(source, "A", with_elasticity=True)
    ahead = extrapolated(found, source.fits)
    (row,) = (r for r in json.loads((folder / "report" / "scores.json").read_text()) if r["score"] == "A")
    assert row["cross_validation_r2"] == pytest.approx(found.validation.r2)
    assert row["extrapolation_error_percent"] == pytest.approx(ahead.error_percent)
    rows = json.loads((folder / "report" / "elasticity.json").read_text())
    (row,) = (r for r in rows if r["score"] == "A")
    assert row["num_frames"] == pytest.approx(found.elasticity.mean["num_frames"])
    rows = json.loads((folder / "report" / "frontier.json").read_text())
    average = analyse(source)
    assert [r["lm_params"] for r in rows] == average.frontier.factors["lm_params"].tolist()
    assert [r["low"] for r in rows] == pytest.approx(average.frontier.low.tolist())
    with (folder / "report" / "frontier.csv").open() as file:
        assert [float(r["error"]) for r in csv.DictReader(file)] == pytest.approx(average.frontier.error.tolist())


def test_tables_of_the_paper_have_its_rows(whole):
    folder, _ = whole

    def rows(name):
        return [r["what"] for r in json.loads((folder / "report" / f"{name}.json").read_text())]

    assert rows("table-2-forms") == ["auto", "mult", "add", "add-interact-s", "add-interact"]
    assert len(rows("table-8-fits")) == 5
    assert rows("table-9-aggregates") == ["mean of 8", "median of 1", "median of 4", "median of 8"]
    forms = json.loads((folder / "report" / "table-2-forms.json").read_text())
    by_name = {row["what"]: row["cross_validation_r2"] for row in forms}
    assert by_name["add-interact"] > by_name["mult"], "the planted surface is no product"


def test_second_report_fits_nothing_anew(whole):
    folder, _ = whole
    before = {path: path.stat().st_mtime_ns for path in (folder / "fits").iterdir()}
    found = compute(open_source(folder))
    assert [analysis.score for analysis in found.analyses] == ["avg", "A", "B"]
    assert {path: path.stat().st_mtime_ns for path in (folder / "fits").iterdir()} == before


def test_star_alone_and_one_data_size_make_notes_and_no_crash(new_study):
    folder = new_study(edit=lambda frame: frame[frame.num_examples == 1200].drop(columns="target_flops"))
    done = report(folder, "--starts", 12, "--resamples", 4)
    assert done.exit_code == 0, done.output
    text = Page(folder / "report" / "report.html").text
    assert "no isoFLOP sweep" not in text, "their costs tell the budgets they aimed at"
    assert "the data size does not vary" in text
    assert "the number of examples does not vary" in text
    assert not (folder / "report" / "by-size.png").exists()


def test_a_table_with_factors_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    params, tokens = (
        np.array(v, float) for v in zip(*[(p, t) for p in (1, 3, 10, 30) for t in (1, 2, 5, 10)], strict=True)
    )
    error = 8 + 20 * params**-0.5 + 15 * tokens**-0.6 + rng.normal(0, 0.1, 16)
    path = tmp_path / "runs.csv"
    pd.DataFrame({"params": params, "tokens": tokens, "accuracy": 100 - error}).to_csv(path, index=False)
    done = report(path, "--factors", "params,tokens", "--score", "accuracy", "--cost", "1e9 * params * tokens",
                  "--resamples", 6, "--starts", 20)  # fmt: skip
    assert done.exit_code == 0, done.output
    out = tmp_path / "runs-report"
    text = Page(out / "report.html").text
    assert "16 finished runs" in text
    assert re.search(r"deploy params \d+ and tokens \d+", text)
    assert "the cost of this study is not Eq. 1" in text
    assert re.search(r"cheaper (6|7)\d% of the runs", text)
    assert not (tmp_path / "fits").exists()
    done = report(path, "--factors", "params,tokens", "--score", "accuracy", "--resamples", 4, "--starts", 12)
    assert done.exit_code == 0, done.output
    assert "what a configuration of these factors costs is unknown" in Page(out / "report.html").text.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file"),
        (["."], "there is no records.csv or records.parquet"),
        (["runs.csv"], "there is no column 'lm_params'"),
        (["runs.csv", "--factors", "a", "--score", "s"], "row 2 (line 3), column 's': 101 is no score on 0..100"),
        (["runs.csv", "--factors", "a,b", "--cost", "2 * c", "--score", "s"], "'c', which is no factor"),
    ],
)
def test_bad_input_ends_with_code_2_and_says_where(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.csv").write_text("a,b,s\n1,1,50\n2,2,101\n3,1,52\n")
    done = report(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_answer_in_the_sweep_file_is_named(planted_copy):
    sweep = (planted_copy / "sweep.yaml").read_text()
    (planted_copy / "sweep.yaml").write_text(sweep.replace("resamples: 8", "resamples: many"))
    done = report(planted_copy)
    assert done.exit_code == 2
    assert "answer.resamples" in done.stderr


def test_empty_tables_are_written_too(tmp_path):
    paths = Table("none", ["a", "b"], [], []).write(tmp_path)
    assert [path.read_text() for path in paths] == ["a,b\n", "[]\n"]
