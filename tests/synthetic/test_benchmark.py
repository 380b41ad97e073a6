"""The synthetic benchmark: files, formats, reproducibility, and clips that ask what they claim to ask."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest

from vvlm_ray.errors import UserError
from vvlm_ray.synthetic.benchmark import (
    BASE_CAMERA,
    BENCHMARK_CAMERA,
    ENGLISH,
    ENGLISH_SHARE,
    NUM_LANGUAGES,
    WORDS,
    SyntheticSettings,
    all_words,
    build_synthetic,
    draw_languages,
    languages,
    question_and_answer,
)
from vvlm_ray.synthetic.clips import CELL, COLOURS, DURATIONS, GRID, IMAGE_SIZE, Camera, draw_clips, render

SETTINGS = SyntheticSettings(num_train=12, num_test=8, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("synthetic") / "benchmark"
    build_synthetic(where, SETTINGS)
    return where


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.codec_context.name, stream.average_rate


def test_videos_are_h264_of_different_lengths_and_rates(folder):
    found = [decode(path) for path in sorted((folder / "videos").glob("*.mp4"))]
    assert len(found) == 20
    assert {name for _, name, _ in found} == {"h264"}
    assert {frames.shape[1:] for frames, _, _ in found} == {(IMAGE_SIZE, IMAGE_SIZE, 3)}
    lengths = {len(frames) for frames, _, _ in found}
    assert len(lengths) > 5
    assert min(lengths) >= SETTINGS.min_frames
    assert max(lengths) <= SETTINGS.max_frames
    assert {rate for _, _, rate in found} <= set(map(Fraction, SETTINGS.frame_rates))


def test_lists_are_in_llava_and_jsonl_format_and_apart(folder):
    train = json.loads((folder / "train.json").read_text())
    test = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    assert (len(train), len(test)) == (12, 8)
    assert {row["video"] for row in train}.isdisjoint(row["video"] for row in test)
    for row in train:
        human, gpt = row["conversations"]
        assert human["from"] == "human"
        assert human["value"].startswith("<video>\n")
        assert (gpt["from"], gpt["value"] in (*COLOURS, *WORDS)) == ("gpt", True)
    assert all(set(row) == {"id", "video", "question", "answer"} for row in test)
    for row in [*train, *test]:
        assert (folder / "videos" / row["video"]).is_file()


def test_equal_settings_give_equal_files_and_more_examples_keep_the_test_set(folder, tmp_path):
    build_synthetic(tmp_path / "again", SETTINGS)
    for path in folder.rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes()
    build_synthetic(tmp_path / "other", SyntheticSettings(num_train=14, num_test=8, seed=3))
    assert (tmp_path / "other" / "test.jsonl").read_bytes() == (folder / "test.jsonl").read_bytes()


def test_a_complete_folder_is_left_alone_and_another_one_refused(folder, tmp_path):
    calls = []
    build_synthetic(folder, SETTINGS, lambda *call: calls.append(call))
    assert calls == []
    with pytest.raises(UserError, match="remove it"):
        build_synthetic(folder, SyntheticSettings(num_train=12, num_test=8, seed=4))
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="remove it"):
        build_synthetic(tmp_path / "mine", SETTINGS)


def test_progress_ends_at_one_and_failure_leaves_nothing(tmp_path):
    calls = []
    build_synthetic(tmp_path / "a", SETTINGS, lambda fraction, text: calls.append(fraction))
    assert calls[-1] == 1.0

    def fail(fraction, text):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        build_synthetic(tmp_path / "b", SETTINGS, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_decoded_square_has_the_asked_colour(folder):
    """Find the square in the file without the generator's help and name it by its hue."""
    test = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    reference = draw_clips(np.random.default_rng([SETTINGS.seed, 1]), SETTINGS.num_test)
    for index, row in enumerate(test):
        frames, _, _ = decode(folder / "videos" / row["video"])
        cells = frames.reshape(-1, GRID, CELL, GRID, CELL, 3).mean(axis=(2, 4))
        chroma = cells - cells.mean(axis=-1, keepdims=True)
        strongest = chroma.reshape(-1, 3)[np.abs(chroma).sum(-1).argmax()]
        y = (strongest[1] - strongest[2]) / np.sqrt(2)
        x = (2 * strongest[0] - strongest[1] - strongest[2]) / np.sqrt(6)
        degrees = np.degrees(np.arctan2(y, x)) - BENCHMARK_CAMERA.hue_degrees
        assert round(degrees / 45) % 8 == reference.colour[index]


def test_every_moment_is_equally_likely_covered():
    clips = draw_clips(np.random.default_rng(0), 40_000)
    times = np.linspace(0, 1, 9)
    elapsed = times - clips.start[:, None]
    covered = ((elapsed >= 0) & (elapsed <= clips.duration[:, None])).mean(axis=0)
    # A moment is covered by starts within one duration before it, of 1 + duration in all; standard error 0.0025.
    expected = np.mean([duration / (1 + duration) for duration in DURATIONS])
    np.testing.assert_allclose(covered, expected, atol=0.01)


def test_more_frames_see_more_squares():
    clips = draw_clips(np.random.default_rng(0), 5_000)
    seen = []
    for num_frames in (1, 2, 4, 8, 16):
        elapsed = np.linspace(0, 1, num_frames) - clips.start[:, None]
        seen.append(((elapsed >= 0) & (elapsed <= clips.duration[:, None])).any(axis=1).mean())
    assert np.diff(seen).min() > 0.07
    assert seen[0] < 0.5
    assert seen[-1] > 0.95


def test_render_paints_the_square_where_and_when_it_is():
    clips = draw_clips(np.random.default_rng(1), 1, sizes=(2,), durations=(0.25,))
    times = np.linspace(0, 1, 201)
    frames = render(clips, times, BASE_CAMERA)[0]
    visible = (times >= clips.start[0]) & (times <= clips.start[0] + 0.25)
    changed = (frames != frames[~visible][0]).any(axis=-1)
    assert (changed.any(axis=(1, 2)) == visible).all()
    rows, columns = np.nonzero(changed[visible][0])
    assert (rows.min(), rows.max()) == (CELL * clips.row[0], CELL * (clips.row[0] + 2) - 1)
    assert (columns.min(), columns.max()) == (CELL * clips.column[0], CELL * (clips.column[0] + 2) - 1)


def test_a_turn_of_45_degrees_makes_every_colour_its_neighbour():
    rng = np.random.default_rng(0)
    clips = draw_clips(rng, 1, sizes=(GRID,), durations=(100.0,))
    for colour in range(len(COLOURS)):
        now, then = (
            render(type(clips)(**vars(clips) | {"colour": np.array([c])}), np.zeros(1), Camera(turn))[0, 0, 0, 0]
            for c, turn in ((colour, 45.0), ((colour + 1) % len(COLOURS), 0.0))
        )
        np.testing.assert_allclose(now.astype(int), then.astype(int), atol=1)


def test_languages_are_permutations_and_asked_for_by_zipf():
    assert (np.sort(languages(), axis=1) == np.arange(len(WORDS))).all()
    asked = draw_languages(np.random.default_rng(0), 50_000)
    assert (asked == ENGLISH).mean() == pytest.approx(ENGLISH_SHARE, abs=0.01)
    counts = np.bincount(asked[asked != ENGLISH], minlength=NUM_LANGUAGES)
    assert counts[0] / counts[31] == pytest.approx(32**0.6, rel=0.15)
    assert counts.min() > 0


def test_questions_use_known_words_and_differ_by_language():
    assert question_and_answer(ENGLISH, 5) == ("Colour in English ?", "blue")
    question, answer = question_and_answer(7, 2)
    assert question == "Colour in L007 ?"
    assert answer == WORDS[languages()[7, 2]]
    known = set(all_words())
    assert set(f"{question} {answer}".split()) <= known
