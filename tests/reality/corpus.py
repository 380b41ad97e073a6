"""Videos of every kind that data sets ship, made with PyAV and Pillow; each frame tells its number.

A number is painted as ten horizontal stripes, dark for 0 and bright for 1, most significant bit first: codecs of any
quality keep it, in pictures 8 pixels wide as well.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

BITS = 10
DARK, BRIGHT = 40, 215


def paint(number: int, width: int = 64, height: int = 80) -> np.ndarray:
    """uint8 (height, width, 3)."""
    rows = np.arange(height) * BITS // height
    bright = (number >> (BITS - 1 - rows)) & 1
    return np.broadcast_to(np.where(bright, BRIGHT, DARK).astype(np.uint8)[:, None, None], (height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """What frames (T, H, W, 3) tell, -1 where a stripe is neither dark nor bright."""
    told = []
    for frame in frames:
        stripes = [part[len(part) // 4 : -(len(part) // 4) or None] for part in np.array_split(frame, BITS)]
        means = np.array([stripe.mean() for stripe in stripes])
        unclear = np.abs(means - (DARK + BRIGHT) / 2) < 40
        told.append(-1 if unclear.any() else int("".join("01"[int(mean > 128)] for mean in means), 2))
    return told


@dataclass(frozen=True)
class Video:
    """A file and what is in it: `times` (N,) in seconds, frame k tells the number k."""

    path: Path
    times: np.ndarray
    fps: float | None = None  # for folders


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    num_frames: int = 120,
    width: int = 64,
    height: int = 80,
    fps: int = 30,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    stamps: list[int] | None = None,
    audio_seconds: float = 0,
    interlaced: bool = False,
) -> np.ndarray:
    """Write the video; its presentation times in seconds. `stamps`: ticks of 1/1000 s instead of a constant rate."""
    with av.open(str(path), "w", format=container, container_options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if interlaced:
            stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
        sound = output.add_stream("aac", rate=16000, layout="mono") if audio_seconds else None
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(paint(number, width, height), format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound is not None:
            for at in range(0, int(audio_seconds * 16000), 1024):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 16000, at
                output.mux(sound.encode(samples))
            output.mux(sound.encode())
    return np.arange(num_frames) / fps if stamps is None else (np.array(stamps) - stamps[0]) / 1000


def rotate(path: Path, degrees: int) -> None:
    """Have the mp4's track header say that players turn the picture clockwise by so many degrees."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix begins 40 bytes into the box's body
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@dataclass(frozen=True)
class Kind:
    """One kind of video: `name` is the file's, `write` makes it and returns its presentation times."""

    name: str
    write: Callable[[Path], np.ndarray]
    fps: float | None = None
    turned: int = 0  # degrees clockwise that the reader has to turn the picture
    options: dict[str, str] = field(default_factory=dict)


def _h264(name: str, **settings) -> Kind:
    return Kind(name, lambda path: encode(path, **settings))


def _codec(name: str, codec: str, **settings) -> Kind:
    return Kind(name, lambda path: encode(path, codec, **settings))


def _turned(degrees: int) -> Kind:
    """The stripes are painted so that they lie horizontally once the picture is turned."""

    def write(path: Path) -> np.ndarray:
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=30)
            upright = np.rot90(paint(0, 64, 80), degrees // 90)
            stream.height, stream.width, stream.pix_fmt = *upright.shape[:2], "yuv420p"
            for number in range(60):
                picture = np.ascontiguousarray(np.rot90(paint(number, 64, 80), degrees // 90))
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode())
        rotate(path, degrees)
        return np.arange(60) / 30

    return Kind(f"turned_{degrees}.mp4", write, turned=degrees)


def _animation(name: str, durations: list[int], **settings) -> Kind:
    """`durations`: milliseconds of each frame."""

    def write(path: Path) -> np.ndarray:
        frames = [Image.fromarray(paint(number)) for number in range(len(durations))]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, **settings)
        return np.concatenate([[0], np.cumsum(durations[:-1])]) / 1000

    return Kind(name, write)


def _image(name: str) -> Kind:
    def write(path: Path) -> np.ndarray:
        Image.fromarray(paint(0)).save(path)
        return np.zeros(1)

    return Kind(name, write)


def _folder(name: str, pattern: str, num_frames: int, fps: float | None) -> Kind:
    def write(path: Path) -> np.ndarray:
        path.mkdir()
        for number in range(num_frames):
            Image.fromarray(paint(number)).save(path / pattern.format(number))
        (path / "captions.txt").write_text("no frame")
        return np.arange(num_frames) / (fps or 1)

    return Kind(name, write, fps=fps)


_SLOW_THEN_FAST = [*range(0, 9000, 300), *range(9000, 10000, 11)]  # 30 frames in 9 s, 91 in 1 s
_LATE = [3_600_000 + 40 * number for number in range(100)]

KINDS = [
    _h264("ordinary.mp4", num_frames=300, width=320, height=240),
    _h264("one_frame.mp4", num_frames=1),
    _h264("three_frames.mp4", num_frames=3),
    _h264("long_gop.mp4", num_frames=700, options={"x264-params": "keyint=9999:scenecut=0"}),
    _h264("open_gop.mp4", options={"x264-params": "open-gop=1:keyint=20:scenecut=0:bframes=3"}),
    _h264("pyramid.mkv", options={"x264-params": "b-pyramid=normal:bframes=8:keyint=40"}),
    _h264("intra_refresh.mp4", options={"x264-params": "intra-refresh=1:keyint=30"}),
    _h264("without_b.mp4", options={"bf": "0"}),
    _h264("ten_bit.mp4", pixels="yuv420p10le"),
    _h264("full_chroma.mp4", pixels="yuv444p"),
    _h264("interlaced.mp4", options={"x264-params": "tff=1"}, interlaced=True),
    _h264("narrow_48.mp4", width=48),
    _h264("narrow_24.mp4", width=24),
    _h264("narrow_16.mp4", width=16),
    _h264("narrow_8.mp4", width=8),
    _h264("odd.mkv", width=66, height=78),
    _h264("matroska.mkv"),
    _h264("quicktime.mov"),
    _h264("transport.ts", container="mpegts"),
    _h264("flash.flv"),
    _h264("old.avi"),
    _h264("annex_b.h264", container="h264"),
    _h264("fragments.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
    _h264("faststart.mp4", container_options={"movflags": "faststart"}),
    _h264("sound.mp4", audio_seconds=6),
    _h264("late.mkv", num_frames=100, fps=25, stamps=_LATE),
    _h264("late.ts", num_frames=100, fps=25, stamps=_LATE, container="mpegts"),
    _h264("varying.mp4", num_frames=len(_SLOW_THEN_FAST), stamps=_SLOW_THEN_FAST),
    _h264("varying.mkv", num_frames=len(_SLOW_THEN_FAST), stamps=_SLOW_THEN_FAST),
    _h264("misnamed.jpg", container="mp4"),
    _turned(90),
    _turned(180),
    _turned(270),
    _codec("hevc.mp4", "libx265", options={"x265-params": "log-level=none:keyint=30:open-gop=1"}),
    _codec("hevc_ten_bit.mkv", "libx265", pixels="yuv420p10le", options={"x265-params": "log-level=none"}),
    _codec("vp8.webm", "libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "16", "g": "40", "b": "300k"}),
    _codec("vp9.webm", "libvpx-vp9", options={"auto-alt-ref": "1", "lag-in-frames": "16", "g": "40", "cpu-used": "8"}),
    _codec("vp9_odd.webm", "libvpx-vp9", width=67, height=83, options={"cpu-used": "8"}),
    _codec("av1.mp4", "libsvtav1", height=160, options={"preset": "8", "crf": "10", "svtav1-params": "keyint=40"}),
    _codec("av1.webm", "libaom-av1", num_frames=40, options={"cpu-used": "8", "usage": "realtime"}),
    _codec("mpeg4.avi", "mpeg4", options={"b": "2M"}),
    _codec("mpeg4_b.mp4", "mpeg4", options={"bf": "2", "b": "2M"}),
    _codec("mpeg4_b.avi", "mpeg4", options={"bf": "2", "b": "2M"}),
    _codec("divx3.avi", "msmpeg4v3", height=160, options={"b": "4M"}),
    _codec("windows.wmv", "wmv2", container="asf", options={"b": "2M"}),
    _codec("h263.3gp", "h263", width=176, height=144, container="3gp", options={"b": "2M"}),
    _codec("mpeg2.mpg", "mpeg2video", options={"b": "4M", "bf": "2"}),
    _codec("mpeg2.ts", "mpeg2video", container="mpegts", options={"b": "4M", "bf": "2"}),
    _codec("mpeg1.mpg", "mpeg1video", options={"b": "4M"}),
    _codec("motion_jpeg.avi", "mjpeg", pixels="yuvj420p"),
    _codec("prores.mov", "prores_ks", pixels="yuv422p10le"),
    _codec("ffv1.mkv", "ffv1"),
    _codec("raw.avi", "rawvideo", num_frames=30),
    _animation("animation.gif", [40] * 60),
    _animation("varying.gif", [300] * 20 + [20] * 40),
    _animation("animation.webp", [40] * 60, lossless=True),
    _animation("animation.png", [40] * 30),
    _image("image.jpg"),
    _image("image.png"),
    _image("image.webp"),
    _image("image.bmp"),
    _folder("frames", "c01_{}.jpeg", 24, None),
    _folder("frames_with_rate", "{:04d}.png", 24, 2.0),
]


def write_corpus(folder: Path) -> Iterator[tuple[Kind, Video]]:
    """Every kind, written to `folder`."""
    for kind in KINDS:
        path = folder / kind.name
        yield kind, Video(path, kind.write(path), kind.fps)
