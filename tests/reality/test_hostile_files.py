"""Files that are cut, damaged, huge or meant to do harm: refused, or read, and nothing else happens."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from corpus import KINDS, encode, numbers
from mutations import mutate
from PIL import Image

from vvlm_ray.data.decoding import pool
from vvlm_ray.data.frames import UnreadableVideo, read_frames


def refused(path, reason, **settings):
    start = time.monotonic()
    with pytest.raises(UnreadableVideo, match=reason):
        read_frames(path, 4, **settings)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.8])
@pytest.mark.parametrize(
    "name", ["ordinary.mp4", "faststart.mp4", "matroska.mkv", "mpeg4.avi", "vp9.webm", "animation.webp", "image.jpg"]
)
def test_cut_files_are_refused(corpus, tmp_path, name, share):
    data = corpus[name].path.read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    refused(tmp_path / name, "cut off|cannot be decoded|no pictures|truncated|no known|no video")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"404 not found", "no video or image format"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "playlist"),
        (b"\xef\xbb\xbf#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "no video or image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n", "PostScript"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", "no video or image format"),
        (b"PK\x03\x04" + bytes(100), "zip"),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".jpg"])
def test_what_is_no_video_never_reaches_a_decoder(tmp_path, content, reason, suffix):
    (tmp_path / f"clip{suffix}").write_bytes(content)
    refused(tmp_path / f"clip{suffix}", reason)


def test_nothing_outside_the_root_is_opened(corpus, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    inside = root / "inside.mp4"
    inside.write_bytes(corpus["faststart.mp4"].path.read_bytes())
    outside = corpus["ordinary.mp4"].path
    (root / "link.mp4").symlink_to(outside)
    (root / "within.mp4").symlink_to(inside)
    (root / "frames").symlink_to(corpus["frames"].path)
    assert numbers(read_frames(inside, 2, root=root)) == numbers(read_frames(root / "within.mp4", 2, root=root))
    for path in (outside, root / "link.mp4", root / ".." / "root" / ".." / outside.name, root / "frames"):
        refused(path, "outside|no such file", root=root)
    assert len(read_frames(root / "link.mp4", 2)) == 2  # without a root, links are followed


def test_pipes_devices_and_odd_names_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", "no regular file")
    refused("/dev/zero", "no regular file")
    refused("bad\0name.mp4", "cannot be opened|no such file")
    refused(tmp_path / ("long" * 100), "cannot be opened|no such file")
    (tmp_path / "nothing").mkdir()
    refused(tmp_path / "nothing", "without images")


def test_pictures_may_not_be_larger_than_stated(tmp_path):
    header = bytearray(b"BM" + bytes(52))
    header[10:18] = (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    header[18:26] = (60_000).to_bytes(4, "little") * 2
    header[26:30] = b"\x01\x00\x18\x00"
    (tmp_path / "bomb.bmp").write_bytes(header)
    refused(tmp_path / "bomb.bmp", "too large")


def test_full_size_frames_are_never_all_in_memory(tmp_path):
    """12 megapixels, 64 frames: 2.3 GB if all were kept; resized one by one, a few pictures are enough."""
    encode(tmp_path / "large.mp4", num_frames=24, width=4000, height=3000, options={"preset": "ultrafast", "crf": "40"})
    program = (
        "import resource, sys; from vvlm_ray.data.frames import read_frames; from vvlm_ray.data.decoding import pool;"
        "import vvlm_ray.model.preprocess; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "assert read_frames(sys.argv[1], 64, size=64).shape == (64, 64, 64, 3); pool._pool.end_all();"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,"
        " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    run = subprocess.run([sys.executable, "-c", program, tmp_path / "large.mp4"], capture_output=True, check=True)
    ours, decoder = (int(kilobytes) / 1000 for kilobytes in run.stdout.split())
    assert ours < 300 and decoder < 1000


def test_a_decoding_process_may_do_nothing_else():
    program = """
import os, socket, subprocess
from vvlm_ray.data.decoding.lockdown import MEMORY_BYTES, lock_down
lock_down()
for attempt in (
    lambda: open("/etc/passwd"), lambda: open("/tmp/made", "w"), lambda: socket.socket(),
    lambda: subprocess.run(["true"]), lambda: os.execv("/bin/true", ["true"]), lambda: bytearray(2 * MEMORY_BYTES),
):
    try:
        attempt()
    except (PermissionError, MemoryError):
        continue
    os._exit(1)
os._exit(0)
"""
    if sys.platform != "linux":
        pytest.skip("the kernel's part of it")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_decoder_that_dies_is_an_unreadable_video(corpus, tmp_path, monkeypatch):
    """SIGABRT amidst a file, as one mutated AVI of thousands had it; the next file is read by a new process."""
    read_frames(corpus["mpeg4.avi"].path, 2)
    started = []
    plain_start = pool._Process.__init__

    def start(self):
        plain_start(self)
        started.append(self)

    monkeypatch.setattr(pool._Process, "__init__", start)
    pool._pool.end_all()
    killer = threading.Thread(target=kill_each, args=(started,), daemon=True)
    killer.start()
    encode(tmp_path / "long.mkv", "ffv1", num_frames=800, width=400, height=400)
    with pytest.raises(UnreadableVideo, match="ends its decoder \\(SIGABRT\\)"):
        read_frames(tmp_path / "long.mkv", 800)
    started.append(None)
    killer.join()
    assert numbers(read_frames(corpus["mpeg4.avi"].path, 2)) == [0, 119]


def kill_each(started):
    killed = 0
    while None not in started:
        time.sleep(0.6)
        for process in started[killed:]:
            if process is not None:
                os.kill(process._popen.pid, signal.SIGABRT)
                killed += 1


def test_a_process_that_died_idle_costs_the_next_file_nothing(corpus):
    expected = read_frames(corpus["ordinary.mp4"].path, 3)
    for process in pool._pool._idle:
        process._popen.kill()
        process._popen.wait()
    np.testing.assert_array_equal(read_frames(corpus["ordinary.mp4"].path, 3), expected)


def test_secrets_do_not_reach_decoding_processes(corpus, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    pool._pool.end_all()
    read_frames(corpus["image.png"].path, 1)
    with open(f"/proc/{pool._pool._idle[-1]._popen.pid}/environ", "rb") as file:
        assert b"secret" not in file.read()


def test_mutated_files_are_read_or_refused(corpus, tmp_path):
    """A sample; `python tests/reality/mutations.py 10000` is the long run."""
    rng = np.random.default_rng(7)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for kind in [kind for kind in KINDS if corpus[kind.name].path.is_file()] * 3:
        path = tmp_path / kind.name
        path.write_bytes(mutate(corpus[kind.name].path.read_bytes(), rng))
        try:
            assert read_frames(path, 5, size=16).shape == (5, 16, 16, 3)
        except UnreadableVideo as error:
            assert error.reason
    pool._pool.end_all()
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert after < 1_000_000 or after == before  # kilobytes, of the largest child so far


def test_an_image_with_many_pixels_gives_what_pillow_gives(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.bmp")
    np.testing.assert_array_equal(read_frames(tmp_path / "image.bmp", 1)[0], pixels)
