"""The format: frames, each a kind, a length and a body. The same in both directions.

A tree is told depth first: a directory begins, its entries follow, it ends. So a name is one component and
never a path, and nothing has to be looked up by what a stream says. One entry is at the top.
"""

from __future__ import annotations

import struct
from typing import Callable, Tuple, Union

Body = memoryview
Take = Callable[[bytes, Body], object]

HEAD = struct.Struct(">cI")
ENTRY = struct.Struct(">HqIQ")
"""Of a file, directory or link: its mode, its time in seconds and nanoseconds, its size; the name follows."""
OFFSET = struct.Struct(">Q")
END = struct.Struct(">BQ")
"""Of a file: whether all went well, and how much of it there is."""
TOTALS = struct.Struct(">QQ")
REASON = struct.Struct(">B")
FAILURE = struct.Struct(">I")

TOTAL = b"T"
"""How many entries and bytes are to come, as far as is known."""
PULSE = b"P"
"""Nothing, but the sender is alive."""
DIRECTORY, LEAVE = b"B", b"U"
FILE, DATA, FILE_END = b"F", b"D", b"E"
LINK = b"L"
SKIPPED = b"S"
FAILED = b"X"
COMPLETE = b"Z"

PIECE = 256 * 1024
"""Bytes of a file in one frame."""
MAX_NAME = 255
MAX_TARGET = 4095
MAX_SHOWN = 4096
"""Bytes of a path that is told, and not used."""

_SECOND = 10**9
_EARLIEST, _LATEST = -(1 << 63) * _SECOND, (1 << 63) * _SECOND - 1

WHOLE, CHANGED, UNREADABLE = 0, 1, 2
"""How a file ended: all of it came; it changed meanwhile; it cannot be read on, and is no file then."""

_LONGEST = {
    TOTAL: TOTALS.size,
    PULSE: 0,
    DIRECTORY: ENTRY.size + MAX_NAME,
    LEAVE: 0,
    FILE: ENTRY.size + MAX_NAME,
    DATA: OFFSET.size + PIECE,
    FILE_END: END.size,
    LINK: ENTRY.size + MAX_NAME + 1 + MAX_TARGET,
    SKIPPED: REASON.size + MAX_SHOWN,
    FAILED: FAILURE.size + MAX_SHOWN,
    COMPLETE: 0,
}


class BadStreamError(Exception):
    """What came is no such stream: why, in a word of ours."""


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """Return one frame."""
    return HEAD.pack(kind, len(body)) + body


def entry(mode: int, time: int, size: int) -> bytes:
    """Return what is said of an entry before its name. For a time that no kernel knows it is the nearest."""
    seconds, nanoseconds = divmod(min(max(time, _EARLIEST), _LATEST), _SECOND)
    return ENTRY.pack(mode & 0o777, seconds, nanoseconds, size)


def entry_of(body: Body) -> Tuple[int, int, int, bytes]:
    """Return mode, time in nanoseconds, size, and what follows. Raises `BadStreamError`."""
    if len(body) < ENTRY.size:
        raise BadStreamError("entry")
    mode, seconds, nanoseconds, size = ENTRY.unpack_from(body)
    if nanoseconds >= _SECOND:
        raise BadStreamError("entry")
    return mode & 0o777, seconds * _SECOND + nanoseconds, size, bytes(body[ENTRY.size :])


def data_head(offset: int, length: int) -> bytes:
    """Return what comes before some bytes of a file."""
    return HEAD.pack(DATA, OFFSET.size + length) + OFFSET.pack(offset)


class Decoder:
    """Cuts what comes into frames, and refuses what is longer than a frame of its kind may be."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._buffer = bytearray()

    def feed(self, data: Union[bytes, memoryview]) -> None:
        """Give each frame that is whole by now to `take`, which must not keep the body."""
        self._buffer += data
        at = 0
        with memoryview(self._buffer) as view:
            while len(view) - at >= HEAD.size:
                kind, length = HEAD.unpack_from(view, at)
                if length > _LONGEST.get(kind, -1):
                    raise BadStreamError("frame")
                start = at + HEAD.size
                at = start + length
                if at > len(view):
                    at = start - HEAD.size
                    break
                with view[start:at] as body:
                    self._take(kind, body)
        del self._buffer[:at]
