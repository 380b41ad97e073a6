"""What a file is, by its first bytes and never by its name: only formats listed here reach a decoder.

A decoder left to guess opens playlists (which name other files and addresses), subtitles, scripts of image tools.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from vvlm_ray.data.decoding.failures import CannotDecode

_HEAD_BYTES = 1024
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"uuid")
_ASF_GUID = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_STARTS = (  # bytes at the start, FFmpeg's demuxer
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"FLV\x01", "flv"),
    (_ASF_GUID, "asf"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"DKIF", "ivf"),
    (b"YUV4MPEG2 ", "yuv4mpegpipe"),
)
_IMAGE_STARTS = (  # bytes at the start, Pillow's format
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
)
_NOT_A_VIDEO = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself (git lfs pull)"),
    (b"#EXTM3U", "a playlist, not a video"),
    (b"<!doctype html", "a web page, not a video"),
    (b"<html", "a web page, not a video"),
    (b"%!ps", "PostScript, not a video"),
    (b"PK\x03\x04", "a zip archive, not a video"),
    (b"\x1f\x8b", "gzip, not a video"),
)


@dataclass(frozen=True)
class Format:
    """`name`: one of FFmpeg's demuxers, or one of Pillow's formats when `is_image`."""

    name: str
    is_image: bool


def recognise(file: int) -> Format:
    """Format of an open file (descriptor). Raises CannotDecode for anything not listed, and for files cut off."""
    head, size = os.pread(file, _HEAD_BYTES, 0), os.fstat(file).st_size
    if not size:
        raise CannotDecode("is empty")
    for start, name in _IMAGE_STARTS:
        if head.startswith(start):
            return Format(name, is_image=True)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        _refuse_cut(8 + int.from_bytes(head[4:8], "little"), size)
        return Format("WEBP", is_image=True)
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return Format("AVIF", is_image=True)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        raise CannotDecode("is a HEIF image; convert it to JPEG or PNG")
    name = _demuxer(head)
    if name is None:
        lowered = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        for start, what in _NOT_A_VIDEO:
            if lowered.startswith(start.lower()):
                raise CannotDecode(f"is {what}")
        raise CannotDecode(f"is of no video or image format known here (starts with {head[:8]!r})")
    _refuse_cut(_stated_size(name, file, head, size), size)
    return Format(name, is_image=False)


def _demuxer(head: bytes) -> str | None:
    if head[4:8] in _MP4_BOXES:
        return "mov"
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
        return "avi"
    for offset, step in ((0, 188), (4, 192)):
        if len(head) > offset + 2 * step and all(head[offset + k * step] == 0x47 for k in range(3)):
            return "mpegts"
    for prefix in (b"\x00\x00\x00\x01", b"\x00\x00\x01"):
        if head.startswith(prefix) and len(head) > len(prefix):
            unit = head[len(prefix)]
            if unit in (0x09, 0x67, 0x27, 0x06) and not unit & 0x80:
                return "h264"  # access unit delimiter, parameter set or message of H.264
            if unit in (0x40, 0x42, 0x46, 0x4E):
                return "hevc"
    return None


def _refuse_cut(stated: int | None, size: int) -> None:
    if stated is not None and stated > size:
        raise CannotDecode(f"is cut off: {size:,} of at least {stated:,} bytes")


def _stated_size(name: str, file: int, head: bytes, size: int) -> int | None:
    """Where the container says that its pictures end (bytes), None where it does not say."""
    if name == "mov":
        return _end_of_boxes(file, size)
    if name == "matroska":
        return _end_of_segment(head)
    if name == "avi":
        return _end_of_movie(file, size)
    return None


def _end_of_boxes(file: int, size: int) -> int | None:
    at = 0
    while at + 8 <= size:
        header = os.pread(file, 16, at)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or kind not in _MP4_BOXES:  # 0: up to the end; what follows the last box may be anything
            return None
        at += length
    return at


def _end_of_segment(head: bytes) -> int | None:
    length, at = _vint(head, 4)
    if length is None:
        return None
    at += length
    if head[at : at + 4] != b"\x18S\x80g":
        return None
    length, at = _vint(head, at + 4)
    return None if length is None else at + length


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """Matroska's integer of variable length at `at`, None when it says "unknown", and where it ends."""
    if at >= len(data) or not data[at]:
        return None, at
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), at + width


def _end_of_movie(file: int, size: int) -> int | None:
    """End of the list 'movi'; the sizes of the whole are wrong in too many files that play well."""
    at = 12
    while at + 12 <= size:
        header = os.pread(file, 12, at)
        length = int.from_bytes(header[4:8], "little")
        if header[:4] == b"LIST" and header[8:12] == b"movi":
            return None if length in (0, 0xFFFFFFFF) else at + 8 + length
        at += 8 + length + length % 2
    return None
