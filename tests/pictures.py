"""Image files for tests, made without any library."""

from __future__ import annotations

import struct
import zlib


def png(width: int, height: int, *, pixels: bytes | None = None) -> bytes:
    """Return a grey PNG; with `pixels` its data are these, right or wrong."""
    data = bytes((width + 1) * height) if pixels is None else pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def jpeg_header(width: int, height: int) -> bytes:
    """Return a JPEG up to its size, with two segments before."""
    application = b"\xff\xe0\0\x10JFIF\0" + bytes(9)
    frame = b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", height, width) + b"\1\1\x11\0"
    return b"\xff\xd8" + application + b"\xff\xfe\0\5abc" + frame
