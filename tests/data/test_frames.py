"""Frame sampling from real files; frame k of the shared clips has the red value 8 k (see tests/conftest.py)."""

import pickle

import av
import numpy as np
import pytest
from PIL import Image

from vvlm_ray.data.frames import UnreadableVideo, read_frames, sample_indices


@pytest.mark.parametrize("num_total", [1, 2, 9, 24, 1000])
@pytest.mark.parametrize("num_frames", [1, 2, 8, 32])
def test_indices_are_uniform_and_repeat_when_short(num_total, num_frames):
    indices = sample_indices(num_total, num_frames)
    assert indices.shape == (num_frames,) and indices.dtype == np.int64
    assert indices[0] == 0 and (num_frames == 1 or indices[-1] == num_total - 1)
    gaps = np.diff(indices)
    assert num_frames == 1 or gaps.max() - gaps.min() <= 1
    assert len(set(indices)) == min(num_total, num_frames)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 24, 40])
@pytest.mark.parametrize("name", ["green_1", "green_9", "green_24"])
def test_frames_are_the_ones_asked_for(tiny_videos, name, num_frames):
    frames = read_frames(tiny_videos[name], num_frames)
    assert frames.shape == (num_frames, 32, 32, 3) and frames.dtype == np.uint8
    asked = sample_indices(int(name.split("_")[1]), num_frames)
    np.testing.assert_array_equal((frames[:, 16, 16, 0].astype(int) + 4) // 8, asked)


def test_an_ordinary_clip_is_read_every_time(tmp_path):
    """10 s, 30 fps, 320x240, as libx264 writes it by default: B-frames that the decoder gives back late."""
    path = tmp_path / "ordinary.mp4"
    noise = np.random.default_rng(0).integers(60, 120, (240, 320, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
        for number in range(300):
            picture = np.roll(noise, number, axis=1)
            picture[:, :160] = number % 100 * 2
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    for _ in range(6):
        frames = read_frames(path, 8)
        told = frames[:, 40:200, 40:120].mean(axis=(1, 2, 3)) / 2
        np.testing.assert_allclose(told, sample_indices(300, 8) % 100, atol=2)


def test_an_image_is_a_video_of_one_frame(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_frames(tmp_path / "image.png", 3), np.stack([pixels] * 3))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert read_frames(tmp_path / "grey.png", 1).shape == (1, 20, 30, 3)


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "cut", "damaged", "audio", "image"])
def test_whatever_is_wrong_is_an_unreadable_video(tiny_videos, tmp_path, kind):
    path = tmp_path / ("file.jpg" if kind == "image" else "file.mp4")
    whole = tiny_videos["blue_24"].read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "audio":
        audio_only(path)
    elif kind != "missing":
        damaged = whole[:60] + bytes(1500) + whole[1560:]
        contents = {"empty": b"", "text": b"404 not found", "cut": whole[: len(whole) // 2]}
        path.write_bytes(contents.get(kind, damaged))
    with pytest.raises(UnreadableVideo) as caught:
        read_frames(path, 4)
    assert caught.value.path == path and caught.value.reason
    assert str(path) in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason  # crosses processes
