"""Pure: file contents between the tools' texts and bytes."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.models import FileContent
from pocket_dock_mcp.server.schemas import ReadReply

MAX_REPLY_BYTES = 32 * 1024
"""Of file content in one reply: about 8,000 tokens."""
READ_AHEAD_BYTES = 64 * 1024 * 1024
"""How much of a file is fetched to find a range of lines in it."""


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


def render_content(
    sandbox_id: str,
    path: str,
    file: FileContent,
    *,
    encoding: Literal["auto", "utf-8", "base64"],
    start_line: int,
    lines: int | None,
) -> ReadReply:
    """Return the part of a file that was asked for, as text where it is text.

    Raises:
        InvalidArgumentError: lines that cannot be, or text asked for where there is none.
    """
    if start_line < 1 or (lines is not None and lines < 1):
        raise InvalidArgumentError("start_line and lines count from 1.")
    text = None if encoding == "base64" else _text(file)
    if text is None and encoding == "utf-8":
        raise InvalidArgumentError(f"{path!r} is not UTF-8 text.", hint="Read it with encoding='base64'.")
    if text is None:
        return _binary(sandbox_id, path, file)
    every = text.splitlines(keepends=True)
    first = start_line - 1
    wanted = every[first : None if lines is None else first + lines]
    shown, cut = _within(wanted, MAX_REPLY_BYTES)
    return ReadReply(
        sandbox_id=sandbox_id,
        path=path,
        content="".join(shown),
        encoding="utf-8",
        size=file.size,
        total_lines=len(every),
        start_line=start_line,
        end_line=first + len(shown),
        truncated=cut or not file.complete,
    )


def _binary(sandbox_id: str, path: str, file: FileContent) -> ReadReply:
    shown = file.data[: MAX_REPLY_BYTES * 3 // 4]
    return ReadReply(
        sandbox_id=sandbox_id,
        path=path,
        content=base64.b64encode(shown).decode("ascii"),
        encoding="base64",
        size=file.size,
        total_lines=None,
        start_line=None,
        end_line=None,
        truncated=len(shown) < file.size,
    )


def _text(file: FileContent) -> str | None:
    """Return the content as text, or None when it is none."""
    if b"\0" in file.data:
        return None
    try:
        return file.data.decode("utf-8")
    except UnicodeDecodeError as error:
        # A piece of a longer file may end within a character.
        if not file.complete and error.start >= len(file.data) - 3:
            return file.data[: error.start].decode("utf-8")
        return None


def _within(lines: list[str], limit: int) -> tuple[list[str], bool]:
    """Return as many whole lines as fit (or a part of the first), and whether some did not."""
    size = 0
    for count, line in enumerate(lines):
        size += len(line.encode("utf-8"))
        if size > limit:
            return (lines[:count] if count else [line[: limit // 4]]), True
    return lines, False
