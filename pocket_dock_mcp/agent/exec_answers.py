"""Pure: what scripts answer in images without python3, parsed as the word of somebody hostile.

All functions raise `AgentProtocolError` for an answer that makes no sense: not the scripts answer where a
user has taken their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.errors import AgentProtocolError
from pocket_dock_mcp.models import FileContent, FileEntry, FileType, FileWritten

MAX_ANSWER = 1024 * 1024
"""Bytes of an answer that is no file's content and no listing: of what is mounted, at most."""
MAX_HEAD = 512
"""Bytes of what is said of a file before its content."""
MAX_LISTING = 4 * 1024 * 1024
"""Bytes of a listing: as many names as can be asked for, of 255 bytes each, are 3.2 MB."""
_MAX_ENTRY = wire.MAX_PATH + 64
_MOST = (1 << 63) - 1
"""Of a number: what a kernel counts with."""

_TYPES: dict[int, FileType] = {
    0x8000: "file", 0x4000: "directory", 0xA000: "symlink", 0x1000: "fifo", 0xC000: "socket",
}  # fmt: skip


@contextmanager
def understood() -> Iterator[None]:
    """Parse an answer: what goes wrong with it is an `AgentProtocolError`."""
    try:
        yield
    except (ValueError, OverflowError):
        message = "A script in the container gave an answer that makes no sense."
        raise AgentProtocolError(message) from None


def longest_listing(limit: int) -> int:
    """Return how many bytes a listing of so many entries may have."""
    return min(limit * _MAX_ENTRY, MAX_LISTING)


@understood()
def parse_content(answer: bytes, length: int) -> FileContent:
    """Return what was read of a file, `length` bytes at most."""
    head, _, data = answer.partition(b"\n")
    size, mode, mtime, version = head.decode("ascii").split(" ", 3)
    if len(data) > length:
        raise ValueError(length)
    return FileContent(
        data=data,
        size=_natural(size),
        mode=_natural(mode, 16) & 0o7777,
        mtime=_seconds(mtime),
        version=version,
    )


@understood()
def parse_written(answer: bytes) -> FileWritten:
    """Return what came of a write."""
    overwrote, size, where = answer.decode("utf-8", "replace").strip().split(" ", 2)
    if overwrote not in ("0", "1"):
        raise ValueError(overwrote)
    return FileWritten(path=where, size=_natural(size), overwrote=overwrote == "1")


@understood()
def parse_listing(answer: bytes) -> list[FileEntry]:
    """Return the entries of a directory."""
    return [_entry(record) for record in answer.split(b"\0") if record]


def _entry(record: bytes) -> FileEntry:
    head, _, name = record.partition(b"\n")
    raw, size, mtime = head.decode("ascii").split()
    mode = _natural(raw, 16)
    return FileEntry(
        name=name.decode("utf-8", "surrogateescape"),
        type=_TYPES.get(mode & 0xF000, "device"),
        size=_natural(size),
        mode=mode & 0o7777,
        mtime=_seconds(mtime),
    )


def _natural(text: str, base: int = 10) -> int:
    value = int(text, base)
    if not 0 <= value <= _MOST:
        raise ValueError(text)
    return value


def _seconds(text: str) -> float:
    value = float(text)
    # False for "not a number" too.
    if not abs(value) <= _MOST:
        raise ValueError(text)
    return value
