"""Ranges of lines of files of any length, read in pieces: never more is fetched than finding them takes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable

import anyio

from pocket_dock_mcp.errors import FileTooLargeError, PocketDockError
from pocket_dock_mcp.models import MIB, FileContent, FileLines
from pocket_dock_mcp.spool.lines import after_newlines

MAX_SEARCHED_BYTES = 2048 * MIB
DEADLINE_S = 40.0
"""For reading up to where the lines are."""
_PIECE = 4 * MIB
_COUNTED_ANYHOW = 8 * MIB
"""A file up to this size is read to its end, so that the number of its lines is known."""

Read = Callable[[int, int], Awaitable[FileContent]]
"""Reads a piece: offset and length."""


async def read_lines(
    read: Read, first: FileContent, *, start_line: int, lines: int | None, max_bytes: int
) -> FileLines:
    """Return whole lines from `start_line` on, as many as were asked for and fit.

    A line ends with its newline. Of a first line that is longer than `max_bytes` the beginning is returned.

    Args:
        read: returns a piece of the file.
        first: its beginning, which the caller has read.
        start_line: counted from 1, or below zero from the end: -1 is the last line.
        lines: at most so many; None for as many as fit.
        max_bytes: at most so many.

    Raises:
        FileTooLargeError: the lines are too far into the file to be found in time.
    """
    index = _Index(read, first)
    try:
        with anyio.fail_after(DEADLINE_S):
            if first.size <= _COUNTED_ANYHOW or start_line < 0:
                await index.advance(None)
            if start_line < 0:
                start_line = max(index.total_lines + start_line + 1, 1)
            start = await index.find(start_line)
            data = b"" if start is None else await index.bytes(start, max_bytes + 1)
    except TimeoutError as error:
        if isinstance(error, PocketDockError):
            raise
        raise _too_far() from None
    return _cut(index, data, start, start_line, lines, max_bytes)


def _cut(
    index: _Index, data: bytes, start: int | None, start_line: int, lines: int | None, max_bytes: int
) -> FileLines:
    """Return of the data what was asked for."""
    end = min(len(data), max_bytes)
    partial = False
    if lines is not None:
        end = min(end, after_newlines(data, lines))
    if start is not None and start + end < index.size and end == max_bytes:
        whole = data.rfind(b"\n", 0, end) + 1
        partial = whole == 0
        end = whole or end
    shown = data[:end]
    # The last line may have no newline.
    count = shown.count(b"\n") + (bool(shown) and not shown.endswith(b"\n"))
    return FileLines(
        data=shown,
        size=index.size,
        start_line=start_line,
        end_line=start_line + count - 1,
        total_lines=index.total_lines if index.is_complete else None,
        start_byte=index.size if start is None else start,
        partial=partial,
    )


class _Index:
    """How many newlines are before which place, as far as the file was read."""

    def __init__(self, read: Read, first: FileContent) -> None:
        self.size = first.size
        self._read = read
        self._data, self._offset = first.data, 0
        self._offsets = [0]
        self._newlines = [0]
        self._take(first.data, 0)

    @property
    def is_complete(self) -> bool:
        """Whether the end of the file was reached."""
        return self._offsets[-1] >= self.size

    @property
    def total_lines(self) -> int:
        """How many lines there are, once it is complete."""
        return self._newlines[-1] + (self.size > 0 and not self._data.endswith(b"\n"))

    def _take(self, data: bytes, offset: int) -> None:
        self._data, self._offset = data, offset
        self._offsets.append(offset + len(data))
        self._newlines.append(self._newlines[-1] + data.count(b"\n"))

    async def advance(self, newlines: int | None) -> None:
        """Read on until so many newlines have been seen, or to the end."""
        while not self.is_complete and (newlines is None or self._newlines[-1] < newlines):
            if self._offsets[-1] > MAX_SEARCHED_BYTES:
                raise _too_far()
            piece = await self._read(self._offsets[-1], _PIECE)
            # It may grow meanwhile, or be cut off.
            self.size = piece.size if piece.data else self._offsets[-1]
            if not piece.data:
                return
            self._take(piece.data, self._offsets[-1])

    async def find(self, line: int) -> int | None:
        """Return where a line begins, or None if there is no such line."""
        await self.advance(line - 1)
        if line == 1:
            return 0 if self.size else None
        at = bisect_left(self._newlines, line - 1)
        if at == len(self._newlines):
            return None
        offset = self._offsets[at - 1]
        data = await self.bytes(offset, self._offsets[at] - offset)
        start = offset + after_newlines(data, line - 1 - self._newlines[at - 1])
        return None if start >= self.size else start

    async def bytes(self, offset: int, length: int) -> bytes:
        """Return a piece, from memory if it is the one that was read last."""
        skip = offset - self._offset
        end = self._offset + len(self._data)
        if skip >= 0 and (offset + length <= end or end >= self.size):
            return self._data[skip : skip + length]
        return (await self._read(offset, length)).data


def _too_far() -> FileTooLargeError:
    return FileTooLargeError(
        "The lines are too far into the file to be found in time.",
        hint="Cut them out with run_command, for example: sed -n '1000,1050p' file, or tail -n 50 file.",
    )
