"""Stored frames against decoded ones: real clips, real shards, real damage."""

import pickle

import numpy as np
import pytest

from vvlm_ray.data.examples import Example
from vvlm_ray.data.frame_store import Encoding, FrameStore, clip_key, decode_video, is_whole, write_shard
from vvlm_ray.data.frames import UnreadableVideo

T = 6


@pytest.fixture
def examples(tiny_videos):
    return [Example(name, path, (), "tiny") for name, path in tiny_videos.items()]


def filled(folder, examples, encoding, num_frames=T):
    middle = len(examples) // 2
    for number, part in enumerate((examples[:middle], examples[middle:])):
        write_shard(folder / f"{number}.arrow", part, num_frames, encoding)
    return FrameStore(folder, encoding)


@pytest.mark.parametrize("quality", [None, 95])
def test_what_is_stored_is_what_would_be_decoded(tmp_path, examples, quality):
    encoding = Encoding(24, quality)
    store, empty = filled(tmp_path, examples, encoding), FrameStore(tmp_path / "nothing", encoding)
    for example in examples:
        frames = store.read(example, T)
        assert frames.shape == (T, 24, 24, 3) and frames.dtype == np.uint8
        np.testing.assert_array_equal(frames, empty.read(example, T))
        exact = decode_video(example, T, 24)
        assert np.abs(frames.astype(int) - exact).max() <= (0 if quality is None else 6)
    assert (store.num_stored, store.num_decoded) == (12, 0)
    assert (empty.num_stored, empty.num_decoded) == (0, 12)


def test_other_frames_are_decoded(tmp_path, examples):
    store = filled(tmp_path, examples[:3], Encoding(24, 95))
    store.read(examples[0], T + 1)  # another T
    store.read(Example("", examples[2].video, (), "", start=0.5), T)  # another part
    store.read(examples[5], T)
    assert store.num_stored == 0 and store.num_decoded == 3
    other = FrameStore(tmp_path, Encoding(24, 90))
    other.read(examples[0], T)
    assert other.num_stored == 0


def test_a_video_that_is_exchanged_is_decoded_anew(tmp_path, examples):
    video = tmp_path / "clip.mp4"
    video.write_bytes(examples[2].video.read_bytes())
    example = Example("", video, (), "")
    store = filled(tmp_path / "store", [example, examples[1]], Encoding(24, None))
    store.read(example, T)
    video.write_bytes(examples[5].video.read_bytes())
    np.testing.assert_array_equal(store.read(example, T), decode_video(examples[5], T, 24))
    assert (store.num_stored, store.num_decoded) == (1, 1)
    video.unlink()
    with pytest.raises(UnreadableVideo, match="no such file"):
        store.read(example, T)


def test_damage_costs_time_and_nothing_else(tmp_path, examples):
    """Bytes changed everywhere in both shards, one after the other; cut; gone."""
    encoding = Encoding(16, 95)
    filled(tmp_path, examples, encoding)
    expected = [FrameStore(tmp_path / "nothing", encoding).read(example, T) for example in examples]
    whole = (tmp_path / "0.arrow").read_bytes()
    rng = np.random.default_rng(0)
    num_stored = []
    for damage in range(60):
        data = bytearray(whole)
        if damage < 50:
            at = int(rng.integers(len(data)))
            data[at : at + 8] = rng.bytes(min(8, len(data) - at))
        else:
            del data[int(rng.integers(len(data))) :]
        (tmp_path / "0.arrow").unlink()  # mapped shards are replaced, never changed
        (tmp_path / "0.arrow").write_bytes(data)
        store = FrameStore(tmp_path, encoding)
        for example, frames in zip(examples[:6], expected, strict=False):
            np.testing.assert_array_equal(store.read(example, T), frames)
        num_stored.append(store.num_stored)
    assert min(num_stored) == 0 and max(num_stored) == 6 and 5 in num_stored
    (tmp_path / "0.arrow").unlink()
    assert not is_whole(tmp_path / "0.arrow") and is_whole(tmp_path / "1.arrow")


def test_unreadable_videos_are_left_out(tmp_path, examples):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad = Example("", tmp_path / "bad.mp4", (), "")
    gone = Example("", tmp_path / "gone.mp4", (), "")
    written = write_shard(tmp_path / "store" / "0.arrow", [bad, examples[0], gone], T, Encoding(16, 95))
    assert (written.num_clips, written.num_unreadable) == (1, 2)
    with pytest.raises(UnreadableVideo, match="no video or image format"):
        FrameStore(tmp_path / "store", Encoding(16, 95)).read(bad, T)


def test_a_store_travels_to_loader_processes_without_its_tables(tmp_path, examples):
    store = filled(tmp_path, examples, Encoding(16, 95))
    store.read(examples[0], T)
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 1000 and copy.num_stored == 0
    copy.read(examples[0], T)
    assert copy.num_stored == 1


def test_keys_differ_where_frames_may(examples):
    keys = {clip_key(example, T, Encoding(size, 95)) for example in examples for size in (16, 24)}
    assert len(keys) == 24
