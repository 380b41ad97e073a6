"""What is drawn is what was computed: the data of the artists against the maths."""

import numpy as np
import pytest
from scipy.optimize import brentq

from vvlm_ray.report.figures import contours, fits, movement, style, sweeps
from vvlm_ray.report.figures.frontier import draw_frontier, runs_at
from vvlm_ray.report.figures.style import NotDrawn
from vvlm_ray.results.analysis import analyse
from vvlm_ray.results.comparison import extrapolated, split_of
from vvlm_ray.scaling.frontier import frontier


def artists(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def joined(lines):
    """The points of stretches that share their ends."""
    points = np.concatenate([line.get_xydata() for line in lines])
    return points[np.append(True, (np.diff(points, axis=0) != 0).any(axis=1))]


@pytest.fixture(scope="module")
def two_tasks(new_study):
    folder = new_study(name="two", tasks=("A", "B"), change=_two_tasks)
    from vvlm_ray.results.source import open_source

    source = open_source(folder)
    return [analyse(source, name, with_elasticity=True) for name in source.scores()]


def _two_tasks(sweep):
    local = sweep["evaluation"]["local"]["synthetic"]
    sweep["evaluation"] |= {"tasks": ["A", "B"], "local": {"A": local, "B": local}}


def test_frontier_lines_are_the_frontier(analysis):
    figure = draw_frontier(analysis)
    left, *right = figure.axes
    line = frontier(analysis.predictor, analysis.curve.budgets, analysis.num_examples)
    np.testing.assert_array_equal(joined(artists(left, "predicted")), np.stack([line.raw_budgets, line.error]).T)
    assert len(right) == 3
    for axes, (name, values) in zip(right, line.factors.items(), strict=True):
        drawn = joined(artists(axes, "frontier"))
        np.testing.assert_array_equal(drawn, np.stack([line.raw_budgets, values]).T, err_msg=name)
        low, high = (np.asarray(bound[name]) for bound in (line.factor_low, line.factor_high))
        (band,) = artists(axes, "band")
        corners = band.get_paths()[0].vertices
        assert corners[:, 1].min() == low.min()
        assert corners[:, 1].max() == high.max()


def test_dashes_are_where_the_optimum_lies_beyond_the_runs(analysis):
    left = draw_frontier(analysis).axes[0]
    for line in artists(left, "predicted"):
        first = np.searchsorted(analysis.curve.raw_budgets, line.get_xdata()[0])
        assert (line.get_linestyle() == "--") == bool(analysis.curve.extrapolates[first])


def test_dots_are_the_runs_and_rings_the_budgets_asked_for(analysis):
    left, *right = draw_frontier(analysis).axes
    here = runs_at(analysis)
    assert set(analysis.runs.num_examples[here]) == {1200}
    dots = np.concatenate([np.asarray(a.get_offsets()) for a in left.collections if "runs-" in str(a.get_gid())])
    want = np.stack([analysis.swept_flops[here], analysis.runs.error[here]]).T
    np.testing.assert_allclose(dots[np.lexsort(dots.T)], want[np.lexsort(want.T)])
    (ring,) = artists(left, "asked")
    np.testing.assert_allclose(ring.get_offsets(), np.stack([analysis.frontier.raw_budgets, analysis.frontier.error]).T)
    (dots,) = artists(right[1], "runs")
    np.testing.assert_allclose(np.asarray(dots.get_offsets())[:, 1], analysis.runs.factors["num_frames"][here])
    largest = np.asarray(dots.get_offsets())[dots.get_sizes().argmax()]
    assert largest[0] == analysis.swept_flops[here][analysis.runs.error[here].argmin()]


def test_running_best_never_rises(analysis):
    (line,) = artists(draw_frontier(analysis).axes[0], "best-run")
    assert (np.diff(line.get_ydata()) <= 0).all()
    assert line.get_ydata()[-1] == analysis.runs.error[runs_at(analysis)].min()


def test_every_run_is_drawn_once(two_tasks):
    figure = sweeps.draw_every_run(two_tasks)
    assert len(figure.axes) == 3
    for axes, analysis in zip(figure.axes, two_tasks, strict=True):
        dots = np.concatenate([np.asarray(a.get_offsets()) for a in axes.collections])
        assert len(dots) == analysis.runs.num_runs
        np.testing.assert_allclose(np.sort(dots[:, 1]), np.sort(analysis.runs.error))


def test_isoflop_minima_are_the_best_runs_of_their_budgets(analysis):
    curves = sweeps.isoflop_curves(analysis)
    assert [round(curve.target_flops / 1e6, 1) for curve in curves] == [2.4, 4.8, 9.5]
    figure = sweeps.draw_isoflop([analysis])
    for axes, name in zip(figure.axes, analysis.runs.factors, strict=True):
        (drawn,) = artists(axes, "empirical-frontier")
        for curve, (x, y) in zip(curves, drawn.get_xydata(), strict=True):
            best = np.flatnonzero(curve.runs)[analysis.runs.error[curve.runs].argmin()]
            assert (x, y) == (analysis.runs.factors[name][best], analysis.runs.error[best])
            assert np.ptp(analysis.swept_flops[curve.runs]) / curve.target_flops < 0.15


def test_star_arms_vary_one_factor_around_the_centre(analysis):
    centre = {"lm_params": 98_368, "num_frames": 8, "tokens_per_frame": 16}
    for factor in centre:
        plane = contours.star_plane(analysis, factor)
        assert plane.others == {name: value for name, value in centre.items() if name != factor}
        assert set(analysis.runs.num_examples[plane.runs]) == {150, 400, 1200}
    figure = contours.draw_star([analysis])
    assert len(figure.axes) == 3
    (dots,) = artists(figure.axes[1], "runs")
    np.testing.assert_allclose(np.unique(np.exp(np.asarray(dots.get_offsets())[:, 0])), [1, 2, 4, 8])


def test_predicted_contours_lie_where_the_bag_says(analysis):
    """The line at level e crosses the column of a factor level at the n where the bag predicts e."""
    axes = contours.draw_star([analysis]).axes[1]
    lines = next(a for a in axes.collections if type(a).__name__ == "QuadContourSet" and not a.filled)
    level = float(lines.levels[len(lines.levels) // 2])
    path = lines.get_paths()[len(lines.levels) // 2].vertices
    x, log_n = path[len(path) // 2]
    others = {"lm_params": 98_368, "tokens_per_frame": 16}
    point = {name: np.array([others.get(name, np.exp(x))]) for name in analysis.runs.factors}
    exact = brentq(lambda n: analysis.bag.predict(point, np.exp(n))[0] - level, np.log(100), np.log(2000))
    assert log_n == pytest.approx(exact, abs=0.02)  # drawn on a grid of 40, which is 0.05 in log n


def test_overhead_is_the_ratio_of_the_two_parts(analysis):
    axes = contours.draw_overhead(analysis).axes[0]
    lines = next(a for a in axes.collections if type(a).__name__ == "QuadContourSet" and not a.filled)
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        x, y = np.exp(path.vertices).T
        # x_M x_W / (x_N x_V) with the quickstart's constants
        np.testing.assert_allclose(3140 * 64 / (x * y), 10**level, rtol=1e-3)


def test_frontiers_by_size_and_elasticities(analysis):
    figure = movement.draw_by_size(analysis)
    sizes = movement.sizes_to_draw(analysis)
    assert sizes.tolist() == [150, 400, 1200, 6000]
    for k, name in enumerate(analysis.runs.factors):
        for n in sizes:
            line = frontier(analysis.predictor, analysis.curve.budgets, n)
            (drawn,) = artists(figure.axes[k], f"frontier-{n:g}")
            np.testing.assert_array_equal(drawn.get_ydata(), line.factors[name])
        (drawn,) = artists(figure.axes[3 + k], "elasticity")
        np.testing.assert_array_equal(drawn.get_ydata(), analysis.elasticity.by_size[name])


def test_elasticity_of_every_score(two_tasks):
    figure = movement.draw_elasticity(two_tasks)
    for axes, name in zip(figure.axes, two_tasks[0].runs.factors, strict=True):
        for k, analysis in enumerate(two_tasks):
            (dot,) = artists(axes, f"elasticity-{analysis.score}")
            assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (analysis.elasticity.mean[name], k)


def test_predictions_are_held_against_what_was_observed(analysis, planted):
    ahead = extrapolated(analysis, planted / "fits")
    split = split_of(analysis)
    figure = fits.draw_fit(analysis, ahead, split.name, {"avg": ahead.error_percent, "A": 3.0})
    exponents, _, below, bars = figure.axes
    labels = [text.get_text() for text in exponents.get_yticklabels()]
    assert labels == ["$a_N$", "$a_T$", "$a_V$", "$b_N$", "$d$", "$b_T$", "$b_V$"]
    (dots,) = artists(below, "predictions-^")
    np.testing.assert_allclose(np.asarray(dots.get_offsets())[:, 0], analysis.runs.error[~split.train])
    widths = {text.get_text(): bar.get_width() for text, bar in zip(bars.get_yticklabels(), bars.patches, strict=True)}
    assert widths == {"average": pytest.approx(ahead.error_percent), "A": 3.0}


def test_what_is_not_in_the_records_is_said(new_study):
    def star_only(frame):
        return frame[frame.sweep == "star"].drop(columns="target_flops")

    found = analyse(new_study(edit=star_only))
    with pytest.raises(NotDrawn, match="no isoFLOP sweep"):
        sweeps.draw_isoflop([found])
    with pytest.raises(NotDrawn, match="number of examples does not vary"):
        movement.draw_elasticity([found])


@pytest.mark.parametrize(("low", "high"), [(2.4e6, 2.9e7), (27, 48), (1e12, 1e14), (0.5, 4000), (31.2, 31.9)])
def test_ticks_are_few_and_inside(low, high):
    ticks = style.round_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert low * 0.999 <= min(ticks)
    assert max(ticks) <= high * 1.001


def test_same_analysis_gives_the_same_file(analysis, tmp_path):
    for folder in ("a", "b"):
        style.save(draw_frontier(analysis), tmp_path / folder, "frontier", ("svg",))
    assert (tmp_path / "a" / "frontier.svg").read_bytes() == (tmp_path / "b" / "frontier.svg").read_bytes()


def test_targets_are_inferred_from_costs_of_one_data_size():
    cost = np.array([1e12, 1.02e12, 0.99e12, 1.01e12, 5e12, 5.1e12, 5.05e12, 9e12])
    sizes = np.full(8, 2e6)
    found = sweeps.inferred_targets(cost, sizes)
    assert (found[:4] == 1e12).all() and np.isnan(found[4:]).all(), "three runs and one alone are no curve"
    sizes[0] = 1e6
    assert np.isnan(sweeps.inferred_targets(cost, sizes)).all()
