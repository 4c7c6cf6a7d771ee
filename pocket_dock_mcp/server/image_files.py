"""Pure: what an image file is, by its bytes, and whether it can be shown as it is.

A file may be anything: what only looks like an image must not go to a model, whose host refuses the whole
conversation for it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SIDE = 1568
"""Pixels: models see no more of a longer side."""
MAX_BYTES = 480_000
"""As base64 a third more, and a reply has to stay far below the 1 MiB of clients: see `sizes`."""
_JPEG_PIXELS = 0xFFDA
_MAX_PIXEL_BYTES = 24 * 1024 * 1024
"""Of a PNG of that size, unpacked."""


@dataclass(frozen=True, slots=True)
class Format:
    """What an image file says that it is. The file may be hostile: believe no more than you check."""

    mime_type: str
    width: int
    height: int

    @property
    def name(self) -> str:
        """As people call it."""
        return self.mime_type.removeprefix("image/").upper()

    def fits(self, size: int) -> bool:
        """Whether it is small enough to be shown."""
        return size <= MAX_BYTES and self.width > 0 < self.height and max(self.width, self.height) <= MAX_SIDE


def format_of(data: bytes) -> Format | None:
    """Return the format that the beginning of a file shows; without a size (0) where that comes later."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return Format("image/png", *struct.unpack_from(">II", data, 16))
        if data.startswith((b"GIF87a", b"GIF89a")):
            return Format("image/gif", *struct.unpack_from("<HH", data, 6))
        if data.startswith(b"\xff\xd8\xff"):
            return Format("image/jpeg", *_jpeg_size(data))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return Format("image/webp", *_webp_size(data))
    except struct.error:
        # Cut off before its size: then it is no image that anybody could show.
        pass
    return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, at in _jpeg_segments(data):
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC) and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
    return 0, 0


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Return markers and where they are, up to the beginning of the pixels."""
    at = 2
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker < 0xFF00 or length < 2:
            return
        yield marker, at
        if marker == _JPEG_PIXELS:
            return
        at += 2 + length


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        wide, high = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return wide, high
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def can_be_shown(data: bytes) -> bool:
    """Whether this is a whole image of a size that can be shown."""
    found = format_of(data)
    return found is not None and found.fits(len(data)) and _WHOLE[found.mime_type](data)


def _is_whole_png(data: bytes) -> bool:
    unpack = zlib.decompressobj()
    room = _MAX_PIXEL_BYTES
    try:
        for kind, body in _png_chunks(data):
            if kind == b"IDAT":
                room -= len(unpack.decompress(body, max(room, 1)))
            elif kind == b"IEND":
                return unpack.eof and room >= 0
    except (struct.error, zlib.error):
        pass
    return False


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        (check,) = struct.unpack_from(">I", data, at + 8 + length)
        body = data[at + 8 : at + 8 + length]
        if zlib.crc32(kind + body) != check:
            return
        yield kind, body
        at += 12 + length


def _is_whole_jpeg(data: bytes) -> bool:
    # Not just the first end: a thumbnail may be in it, with an end of its own.
    return any(
        data.find(b"\xff\xd9", at) > 0 for marker, at in _jpeg_segments(data) if marker == _JPEG_PIXELS
    )


def _is_whole_gif(data: bytes) -> bool:
    return data.rstrip(b"\0").endswith(b";")


def _is_whole_webp(data: bytes) -> bool:
    return 8 + int.from_bytes(data[4:8], "little") <= len(data)


_WHOLE = {
    "image/png": _is_whole_png,
    "image/jpeg": _is_whole_jpeg,
    "image/gif": _is_whole_gif,
    "image/webp": _is_whole_webp,
}
