"""Pure: what an interpreter in the sandbox reports of its program, parsed without trust.

The program shares the interpreter's process and can forge every byte of this. So a block that is not as it
should be is left out, sizes are bounded, and nothing of it decides how the run ended.
"""

from __future__ import annotations

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.agent.transport import Report
from pocket_dock_mcp.models import RunImage

MAX_REPORT = 4 * 1024 * 1024
"""Bytes of one report; what comes after that is dropped."""
MAX_VALUE = 32 * 1024
MAX_IMAGES = 16
_MAX_NOTES = 8
_MAX_NOTE = 500
_SIGNATURES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
Blocks = list[tuple[wire.Header, bytes]]


def split_report(data: bytes) -> Blocks:
    """Return the blocks of a report, as far as they are blocks."""
    try:
        return wire.Decoder().feed(data)
    except wire.FrameError:
        return []


def failed_directory(blocks: Blocks) -> int | None:
    """Return the errno with which the program's working directory could not be entered."""
    if not blocks or blocks[0][0].get("what") != "failed":
        return None
    number = blocks[0][0].get("errno")
    return number if type(number) is int else None


def parse_report(blocks: Blocks) -> Report:
    """Return what the blocks say."""
    value = None
    images: list[RunImage] = []
    notes: list[str] = []
    left = 0
    for header, payload in blocks:
        what = header.get("what")
        if what == "result":
            value = _text(header.get("text"), MAX_VALUE)
        elif what == "image" and len(images) < MAX_IMAGES and is_image(header.get("mime"), payload):
            name = _text(header.get("name"), 100) or "image"
            images.append(RunImage(name, str(header["mime"]), payload, drawn=header.get("drawn") is True))
        elif what == "images_left" and type(header.get("count")) is int:
            left = max(0, header["count"])
        elif what == "note" and len(notes) < _MAX_NOTES:
            notes.append(_text(header.get("text"), _MAX_NOTE) or "")
    return Report(value, tuple(images), left, tuple(notes))


def is_image(mime_type: object, data: bytes) -> bool:
    """Whether data begins as an image of that type does, of a type that clients can show."""
    return isinstance(mime_type, str) and data.startswith(_SIGNATURES.get(mime_type, ()))


def _text(value: object, limit: int) -> str | None:
    return value[:limit] if isinstance(value, str) else None
