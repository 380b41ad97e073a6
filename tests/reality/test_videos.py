"""Videos as data sets ship them: the right frames, every time, on a busy machine too."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from corpus import KINDS, encode, numbers, paint
from PIL import Image

from vvlm_ray.data.decoding.decord_reader import is_plain, read_with_decord
from vvlm_ray.data.decoding.formats import recognise
from vvlm_ray.data.decoding.pyav_reader import FrameMissing, frames_at, scan
from vvlm_ray.data.decoding.sampling import sample_times
from vvlm_ray.data.frames import UnreadableVideo, read_frames, sample_indices

NAMES = [kind.name for kind in KINDS]
NUM_READS = 20


def test_there_are_many_kinds():
    assert len(NAMES) == len(set(NAMES)) >= 25


@pytest.mark.parametrize("name", NAMES)
def test_the_frames_are_the_right_ones(corpus, name):
    video = corpus[name]
    for num_frames in (1, 4, 9, 33):
        frames = read_frames(video.path, num_frames)
        assert numbers(frames) == sample_times(video.times, num_frames).tolist()
        if not name.startswith("varying"):
            assert numbers(frames) == sample_indices(len(video.times), num_frames).tolist()


def test_every_read_gives_the_same_on_a_busy_machine(corpus):
    """Each kind 20 times, from eight threads at once, while other processes keep all cores busy."""
    burn = "import time; end = time.time() + 120\nwhile time.time() < end: sum(range(10**6)); time.sleep(1e-4)"
    burners = [
        subprocess.Popen([sys.executable, "-c", burn], start_new_session=True) for _ in range(os.cpu_count() or 1)
    ]
    try:
        reads = [name for _ in range(NUM_READS) for name in NAMES]
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda name: read_frames(corpus[name].path, 6, size=160).tobytes(), reads))
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    firsts = dict(zip(NAMES, results, strict=False))
    differing = {name for name, result in zip(reads, results, strict=True) if result != firsts[name]}
    assert not differing
    for name in NAMES:
        told = numbers(np.frombuffer(firsts[name], np.uint8).reshape(6, 160, 160, 3))
        assert told == sample_times(corpus[name].times, 6).tolist(), name


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith((".mp4", ".mkv", ".mov", ".ts", ".webm"))])
def test_frames_reached_from_key_frames_are_those_of_decoding_everything(corpus, name):
    with av.open(str(corpus[name].path)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    wanted = list(range(0, len(every), 7))
    with corpus[name].path.open("rb") as file:
        demuxer = recognise(file.fileno()).name
        index, first = scan(file, demuxer)
        if index is None:
            pytest.skip("without an index everything is decoded anyway")
        assert len(index.times) == len(every)
        np.testing.assert_allclose(index.times, corpus[name].times, atol=2e-3)
        turns = (first.rotation // 90) % 4 if first else 0
        try:
            found = list(frames_at(file, demuxer, index, wanted))
        except FrameMissing:
            assert name == "intra_refresh.mp4"  # its key frames are none
            return
        for number, frame in zip(wanted, found, strict=True):
            np.testing.assert_array_equal(frame, np.rot90(every[number], turns))


def test_decord_gives_what_pyav_gives_to_the_bit(corpus):
    """So it does not matter which of them reads a file on a given day."""
    compared = []
    for name in NAMES:
        if not name.endswith((".mp4", ".mov")) or name == "frames":
            continue
        with corpus[name].path.open("rb") as file:
            index, first = scan(file, "mov")
            if index is None or not is_plain(file, "mov", index, first):
                continue
            wanted = sorted({0, len(index.times) // 3, len(index.times) - 1})
            for ours, theirs in zip(
                frames_at(file, "mov", index, wanted), read_with_decord(file, wanted, index.times), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)
        compared.append(name)
    assert {"ordinary.mp4", "long_gop.mp4", "faststart.mp4", "sound.mp4", "varying.mp4"} <= set(compared)
    assert "open_gop.mp4" not in compared


@pytest.mark.parametrize("colour_range", [1, 2])
@pytest.mark.parametrize("matrix", [1, 5])  # BT.709, BT.601
def test_colours_are_those_that_were_filmed(tmp_path, colour_range, matrix):
    """Uniform pictures with the Y, Cb, Cr of known colours, written by the standards' formulas."""
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114)}[matrix]
    colours = np.array([[200, 40, 60], [20, 180, 90], [128, 128, 128], [250, 250, 250]])
    path = tmp_path / "colours.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p" if colour_range == 2 else "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, colour_range
        for r, g, b in colours / 255:
            luma = red * r + (1 - red - blue) * g + blue * b
            chroma = np.array([(b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))])
            y, (cb, cr) = (
                (luma * 255, chroma * 255 + 128) if colour_range == 2 else (luma * 219 + 16, chroma * 224 + 128)
            )
            planes = np.concatenate([np.full(64 * 64, y), np.full(32 * 32, cb), np.full(32 * 32, cr)])
            frame = av.VideoFrame.from_ndarray(planes.round().astype(np.uint8).reshape(96, 64), format=stream.pix_fmt)
            frame.colorspace, frame.color_range = matrix, colour_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    means = read_frames(path, 4).mean(axis=(1, 2))
    np.testing.assert_allclose(means, colours, atol=3)


def test_only_the_part_between_start_and_end_is_shown(corpus):
    video = corpus["ordinary.mp4"]  # 30 frames a second
    assert numbers(read_frames(video.path, 5, start=2, end=4)) == (60 + sample_indices(60, 5)).tolist()
    assert numbers(read_frames(video.path, 3, start=9)) == [270, 284, 299]
    assert numbers(read_frames(video.path, 2, end=1)) == [0, 29]
    assert numbers(read_frames(video.path, 2, start=1.99, end=99)) == [59, 299]
    assert numbers(read_frames(video.path, 2, start=3.01, end=3.02)) == [90, 90]
    for part, reason in (
        ({"start": 10.5}, "10 s long"),
        ({"start": 3, "end": 2}, "not after"),
        ({"end": 0}, "not after"),
    ):
        with pytest.raises(UnreadableVideo, match=reason):
            read_frames(video.path, 2, **part)
    late = corpus["late.mkv"]  # its first time stamp is an hour: seconds count from the first frame
    assert numbers(read_frames(late.path, 2, start=1, end=2)) == [25, 49]
    folder = corpus["frames_with_rate"]
    assert numbers(read_frames(folder.path, 2, start=1, end=4, fps=2)) == [2, 7]
    with pytest.raises(UnreadableVideo, match="fps"):
        read_frames(folder.path, 2, start=1, end=4)


def test_frames_of_a_varying_rate_are_spread_over_time(corpus):
    """The slow nine tenths of the time are a quarter of the frames: by number, they would get a quarter of T."""
    for name in ("varying.mp4", "varying.mkv"):
        told = numbers(read_frames(corpus[name].path, 20))
        assert sum(number < 30 for number in told) == 18


def test_a_video_gives_its_own_size_or_the_one_asked_for(corpus):
    assert read_frames(corpus["ordinary.mp4"].path, 2).shape == (2, 240, 320, 3)
    assert read_frames(corpus["vp9_odd.webm"].path, 2).shape == (2, 83, 67, 3)
    assert read_frames(corpus["turned_90.mp4"].path, 2).shape == (2, 80, 64, 3)
    assert read_frames(corpus["ordinary.mp4"].path, 2, size=24).shape == (2, 24, 24, 3)


def test_resizing_as_decoded_is_the_preprocessors_resizing(corpus):
    from vvlm_ray.model.preprocess import ImagePreprocessor

    preprocess = ImagePreprocessor(size=40)
    path = corpus["ordinary.mp4"].path
    assert (preprocess(read_frames(path, 3)) == preprocess(read_frames(path, 3, size=40))).all()


def test_repeated_frames_take_no_memory(tmp_path):
    Image.fromarray(paint(5, 400, 300)).save(tmp_path / "image.png")
    frames = read_frames(tmp_path / "image.png", 128)
    assert frames.shape == (128, 300, 400, 3) and frames.strides[0] == 0


def test_a_picture_within_sound_is_no_video(tmp_path):
    """Cover art comes as a video stream of one frame."""
    path = tmp_path / "song.mp4"
    encode(path, num_frames=4, audio_seconds=2)
    with av.open(str(path)) as source, av.open(str(tmp_path / "song_only.mp4"), "w") as target:
        sound = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = sound
                target.mux(packet)
    with pytest.raises(UnreadableVideo, match="no video stream"):
        read_frames(tmp_path / "song_only.mp4", 2)
