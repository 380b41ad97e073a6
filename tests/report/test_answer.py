"""The words at the end of a run: they say what the maths says, budget by budget."""

import re

import numpy as np
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.report.answer import answer, better_forms, frontier_table, sentences
from vvlm_ray.results.analysis import Settings, analyse, validated_forms
from vvlm_ray.results.source import open_source
from vvlm_ray.study.folder import open_study


@pytest.fixture(scope="module")
def text(planted):
    return answer(*open_study(planted))


def test_last_lines_are_one_sentence_a_budget_and_where_the_pictures_are(text, planted):
    _, study = open_study(planted)
    *told, pictures = text.splitlines()[-len(study.answer.tflops) - 1 :]
    for tflops, line in zip(study.answer.tflops, told, strict=True):
        assert line.startswith(f"Up to {tflops * 1e6:g} MFLOPs per video: deploy ")
    for name in ("frontier.png", "frontier.svg", "frontier.pdf"):
        assert (planted / "report" / name).stat().st_size > 5000
    assert str(planted / "report" / "frontier.png") in pictures


def test_sentences_hold_the_numbers_of_the_frontier(text, planted, analysis):
    from vvlm_ray.scaling.frontier import frontier

    _, study = open_study(planted)
    line = frontier(analysis.predictor, study.answer.tflops, study.max_num_examples)
    told = text.splitlines()[-len(study.answer.tflops) - 1 : -1]
    for b, sentence in enumerate(told):
        backbone = study.backbone_of(line.factors["lm_params"][b])
        assert f"deploy {backbone} (" in sentence
        frames, tokens = line.factors["num_frames"][b], line.factors["tokens_per_frame"][b]
        assert re.search(rf"\b{frames:.0f} frames? and {tokens:.0f} tokens? per frame", sentence)
        assert f"expected score {100 - line.error[b]:.1f}, " in sentence
        assert f"{100 - line.high[b]:.1f} to {100 - line.low[b]:.1f}" in sentence
        assert f"{line.agreement[b]:.0%} of the samples" in sentence
        assert ("before you trust it" in sentence) == bool(line.extrapolates[b])


def test_the_fit_and_its_cross_validation_are_told(text, analysis):
    assert f"R^2 = {analysis.validation.r2:.2f}" in text
    assert f"E% = {analysis.validation.error_percent:.2f}" in text
    assert analysis.validation.r2 > 0.97, "the planted surface is smooth, and its noise is 0.4 points"


def test_table_names_backbones_and_what_lies_beyond_the_runs(planted):
    found = analyse(planted, budgets=[2.4e-6, 60e-6])
    header, rows = frontier_table(found)
    assert header[:4] == ["budget", "LM size", "frames", "tokens per frame"]
    assert rows[0][0] == "2.4 MFLOPs"
    assert re.match(r"(small|medium|large) \(", rows[0][1])
    assert "above the swept range" in rows[1][-1]
    assert "finetune it before you trust it" in sentences(found)[1]


def test_budget_that_buys_nothing_is_refused(planted):
    with pytest.raises(UserError, match="buys nothing"):
        analyse(planted, budgets=[1e-12])


def test_what_was_computed_is_reused_until_the_records_change(planted_copy):
    first = analyse(planted_copy)
    files = [planted_copy / "fits" / f"avg.{what}.json" for what in ("add-interact.bag", "auto.validation")]
    written = [path.stat().st_mtime_ns for path in files]
    second = analyse(planted_copy)
    assert [path.stat().st_mtime_ns for path in files] == written
    np.testing.assert_array_equal(second.bag.log_coefficients, first.bag.log_coefficients)
    np.testing.assert_array_equal(second.bag.fit.basins, first.bag.fit.basins)
    np.testing.assert_array_equal(second.validation.predicted, first.validation.predicted)
    assert second.bag.fit.params == first.bag.fit.params
    assert second.validation.r2 == first.validation.r2
    records = planted_copy / "records.csv"
    lines = records.read_text().splitlines()
    records.write_text("\n".join(lines[:-1]) + "\n")
    third = analyse(planted_copy)
    assert third.runs.num_runs == first.runs.num_runs - 1
    assert [path.stat().st_mtime_ns for path in files] != written


def test_unreadable_fits_are_made_anew(planted_copy):
    first = analyse(planted_copy)
    (planted_copy / "fits" / "avg.add-interact.bag.json").write_text("{")
    second = analyse(planted_copy)
    np.testing.assert_array_equal(second.bag.exponents, first.bag.exponents)


def test_too_few_runs_take_a_smaller_form_and_say_so(new_study):
    found = analyse(new_study(edit=lambda frame: frame.iloc[np.r_[0:9, 18:27]].iloc[::2]))
    assert found.bag.form.name != "add-interact" and found.settings.form == "auto"
    assert any("too few for the 15 parameters of add-interact" in note for note in found.notes)


def test_a_few_runs_are_no_answer_yet(new_study):
    with pytest.raises(UserError, match="nothing to fit yet"):
        analyse(new_study(edit=lambda frame: frame.iloc[:2]))


def test_one_data_size_and_one_lm_still_give_a_frontier(new_study):
    def edit(frame):
        return frame[(frame.num_examples == 1200) & (frame.lm_params == 98_368)]

    found = analyse(new_study(edit=edit))
    assert found.num_examples is None
    assert found.fixed == {"lm_params": 98_368}
    assert set(found.frontier.factors) == {"num_frames", "tokens_per_frame"}
    assert "deploy an LM" not in sentences(found)[0]
    assert "large (98.4k parameters)" in sentences(found)[0]
    assert any("1200 in every run" in note for note in found.notes)


def test_missing_scores_are_left_out_and_counted_and_rows_keep_their_numbers(new_study):
    def edit(frame):
        frame.loc[[3, 7], "avg"] = np.nan
        return frame

    source = open_source(new_study(edit=edit))
    found = analyse(source)
    assert found.runs.num_runs == len(source.frame) - 2
    assert "left out: 2 rows without avg (row 4 (line 5), row 8 (line 9))" in found.read

    def spoil(frame):
        frame = edit(frame)
        frame.loc[10, "avg"] = 140.0
        return frame

    with pytest.raises(UserError, match=r"row 11 \(line 12\).*140"):
        analyse(new_study(edit=spoil))


def test_best_form_is_the_one_that_cross_validates_best(new_study):
    """Records of a product: the smaller form is right, and few noisy runs show it."""

    def product(frame):
        rng = np.random.default_rng(1)
        x = frame[["lm_params", "num_frames", "tokens_per_frame", "num_examples"]].astype(float)
        error = 900 * x.lm_params**-0.1 * x.num_frames**-0.2 * x.tokens_per_frame**-0.15 * x.num_examples**-0.2
        return frame.assign(avg=100 - error * np.exp(rng.normal(0, 0.08, len(x))))

    folder = new_study(edit=product)
    found = analyse(folder, settings=Settings(form="best", resamples=6, starts=20))
    r2 = validated_forms(found.runs, found.settings, folder / "fits", "avg")
    assert set(r2) == {"mult", "add", "add-interact-s", "add-interact"}
    assert found.settings.form == found.bag.form.name == max(r2, key=r2.get) == "mult"
    assert found.validation.r2 == r2["mult"]
    assert any("of all forms mult predicts runs left out best" in note for note in found.notes)
    usual = analyse(folder, settings=Settings("add-interact", resamples=6, starts=20))
    (_, warning) = better_forms(usual, folder / "fits")
    assert "mult predicts runs left out better than add-interact" in warning
    assert f"analysis/frontier.py {folder} --form mult" in warning
    assert better_forms(found, folder / "fits") == []


def test_unknown_form_is_refused(planted):
    with pytest.raises(UserError, match="'cubic'"):
        analyse(planted, settings=Settings(form="cubic"))
