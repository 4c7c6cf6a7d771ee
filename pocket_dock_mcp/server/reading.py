"""A file as a model can take it: text by lines, images to look at, other as base64; long ones in parts."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Literal

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.lines import read_lines
from pocket_dock_mcp.errors import FileNotTextError, InvalidArgumentError
from pocket_dock_mcp.models import FileContent, FileLines
from pocket_dock_mcp.server.image_files import MAX_BYTES, Format, can_be_shown, format_of
from pocket_dock_mcp.server.pictures import Picture, scaled
from pocket_dock_mcp.spool.text import without_cut_end

MAX_REPLY_BYTES = 32 * 1024
"""Of file content in one reply: about 8,000 tokens."""
MAX_BINARY_BYTES = MAX_REPLY_BYTES * 3 // 4
"""The same as base64."""
FIRST_BYTES = 64 * 1024
"""What is read at once: most files whole, and of any other enough to tell what it is."""
_HEAD = 8 * 1024
_TOLERATED = 10
"""One undecodable byte in so many is still text: of another encoding, or a log with a slip."""

Encoding = Literal["auto", "utf-8", "base64"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a file is wanted, and how."""

    path: str
    start_line: int = 1
    lines: int | None = None
    start_byte: int | None = None
    encoding: Encoding = "auto"

    def check(self) -> None:
        """Refuse what can never be. Raises `InvalidArgumentError`."""
        if self.start_line == 0 or (self.lines is not None and self.lines < 1):
            message = "start_line counts from 1, or below zero from the end; lines is at least 1."
            raise InvalidArgumentError(message)
        if self.start_byte is not None and (self.start_line != 1 or self.lines is not None):
            message = "start_byte goes without start_line and lines."
            raise InvalidArgumentError(message)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file, by bytes."""

    data: bytes
    size: int
    start_byte: int
    is_text: bool


@dataclass(frozen=True, slots=True)
class Image:
    """An image file: with a picture of it, or why there is none."""

    format: Format
    size: int
    shown: Picture | str


def decode_content(content: str, encoding: str) -> bytes:
    """Return the bytes that a write is to store.

    Raises:
        InvalidArgumentError: not valid base64, or text that UTF-8 cannot hold.
    """
    try:
        if encoding == "base64":
            return base64.b64decode(content, validate=True)
        return content.encode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise InvalidArgumentError(f"content is not valid {encoding}: {error}.") from None


async def read(container: LiveContainer, asked: Asked) -> FileLines | Part | Image:
    """Read what is wanted, and no more than finding it takes.

    Raises:
        InvalidArgumentError: lines or bytes that cannot be.
        FileNotTextError: text asked for where there is none.
        FileTooLargeError: the lines are too far into the file.
        FileError: by what is wrong.
    """
    asked.check()
    first = await container.read_file(asked.path, max_bytes=FIRST_BYTES)
    if asked.encoding == "auto" and asked.start_byte is None and (image := format_of(first.data)):
        return await _image(container, asked.path, first, image)
    is_text = asked.encoding != "base64" and looks_like_text(first)
    if not is_text and asked.encoding == "utf-8":
        message = f"{asked.path!r} is no text."
        raise FileNotTextError(message, hint="Read it with encoding='base64'.")
    if asked.start_byte is not None or not is_text:
        return await _part(container, asked, first, is_text=is_text)

    async def piece(offset: int, length: int) -> FileContent:
        return await container.read_file(asked.path, offset=offset, max_bytes=length)

    return await read_lines(
        piece, first, start_line=asked.start_line, lines=asked.lines, max_bytes=MAX_REPLY_BYTES
    )


async def _part(container: LiveContainer, asked: Asked, first: FileContent, *, is_text: bool) -> Part:
    start = asked.start_byte or 0
    if start < 0:
        start = max(first.size + start, 0)
    most = MAX_REPLY_BYTES if is_text else MAX_BINARY_BYTES
    if start + most <= len(first.data) or first.complete:
        data = first.data[start : start + most]
    else:
        data = (await container.read_file(asked.path, offset=start, max_bytes=most)).data
    return Part(without_cut_end(data) if is_text else data, first.size, start, is_text)


async def _image(container: LiveContainer, path: str, first: FileContent, found: Format) -> Image:
    data = first.data
    if not first.complete and first.size <= MAX_BYTES:
        data = (await container.read_file(path, max_bytes=MAX_BYTES)).data
        found = format_of(data) or found
    if len(data) == first.size and can_be_shown(data):
        return Image(found, first.size, Picture(found, data))
    return Image(found, first.size, await scaled(container, path))


def looks_like_text(file: FileContent) -> bool:
    """Whether the beginning of a file is text, of whatever encoding."""
    head = file.data[:_HEAD]
    if b"\0" in head:
        return False
    text = without_cut_end(head).decode("utf-8", "replace")
    return text.count("\ufffd") * _TOLERATED <= len(text)
