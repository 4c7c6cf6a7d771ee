"""Image files: what is one, and what only looks like it."""

from __future__ import annotations

import struct

import pytest

from pocket_dock_mcp.server.image_files import MAX_BYTES, Format, can_be_shown, format_of
from tests.pictures import jpeg_header, png

WEBP_LOSSY = (
    b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480) + bytes(14)
)
WEBP_LOSSLESS = b"RIFF\x20\0\0\0WEBPVP8L\x14\0\0\0\x2f" + struct.pack("<I", 639 | 479 << 14) + bytes(15)
WEBP_EXTENDED = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x7f\x02\0\xdf\x01\0"
GIF = b"GIF89a" + struct.pack("<HH", 640, 480) + bytes(20) + b";"
JPEG = jpeg_header(640, 480) + b"\xff\xda\0\2" + bytes(20) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (png(640, 480), "image/png"),
        (GIF, "image/gif"),
        (JPEG, "image/jpeg"),
        (WEBP_LOSSY, "image/webp"),
        (WEBP_LOSSLESS, "image/webp"),
        (WEBP_EXTENDED, "image/webp"),
    ],
    ids=["png", "gif", "jpeg", "webp-lossy", "webp-lossless", "webp-extended"],
)
def test_a_format_is_known_by_its_bytes_with_its_size(data: bytes, mime_type: str) -> None:
    assert format_of(data) == Format(mime_type, 640, 480)
    assert can_be_shown(data)
    for length in range(len(data)):
        assert not can_be_shown(data[:length])


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF1234WEBP", b"BM", b"%PDF-1.7", b"text"]
)
def test_anything_else_is_no_image(data: bytes) -> None:
    assert format_of(data) is None
    assert not can_be_shown(data)


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\0\0\0\0\0\0", b"\xff\xd8" + b"\xff" * 100]
)
def test_a_jpeg_without_its_size_is_one_and_is_not_shown(data: bytes) -> None:
    assert format_of(data) == Format("image/jpeg", 0, 0)
    assert not can_be_shown(data)


def test_the_end_of_a_thumbnail_is_not_the_end_of_a_jpeg() -> None:
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(JPEG) + 2) + JPEG

    assert can_be_shown(JPEG[:2] + thumbnail + JPEG[2:])
    assert not can_be_shown(JPEG[:2] + thumbnail + JPEG[2:-2])


def test_what_is_too_large_is_not_shown() -> None:
    assert can_be_shown(png(1568, 10))
    assert not can_be_shown(png(1569, 10))
    assert not can_be_shown(png(0, 10))
    assert not can_be_shown(GIF[:-1] + bytes(MAX_BYTES) + b";")


def test_a_png_whose_pixels_are_a_bomb_is_not_shown() -> None:
    assert not can_be_shown(png(10, 10, pixels=bytes(60_000_000)))


def test_a_png_that_was_tampered_with_is_not_shown() -> None:
    good = png(10, 10)

    for at in range(8, len(good)):
        assert not can_be_shown(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
