"""A spool by lines. Everything here may wait for a disk, and works while the run goes on printing.

Lines are numbered from 1 over the whole stream, and a newline belongs to the line before it. The spool counts
newlines as they come, so numbers are exact after a gap too.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.spool.core import CHUNK, Extent, Spool
from pocket_dock_mcp.spool.text import without_cut_end, without_cut_start

_FIRST_LOOK = 64 * 1024
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A piece of a stream in one part, with where it is from."""

    data: bytes
    start_byte: int
    """Offset of the first byte. Later than asked for if that is in the gap."""
    next_byte: int
    """Where to read on: after the last byte, or after the gap if that is where it stopped."""
    first_line: int | None
    """Number of the line of the first byte; None without data, or if overwritten before it was known."""
    last_line: int | None
    """Number of the line of the last byte, or None."""
    cut_start: bool
    """The beginning of the first line is not in it (or may not be, right after the gap)."""
    cut_end: bool
    """The rest of the last line is not in it."""
    total_bytes: int
    """Of the stream, up to now."""
    total_lines: int
    """Of the stream, up to now, with an unfinished one."""
    gap: tuple[int, int] | None
    """From and to which offset the stream's bytes are not kept any more."""

    @property
    def text(self) -> str:
        """The data as UTF-8; undecodable bytes are U+FFFD."""
        return self.data.decode("utf-8", "replace")

    @property
    def more(self) -> bool:
        """Whether there is anything to read at `next_byte` now."""
        return self.next_byte < self.total_bytes


def read_range(spool: Spool, start_byte: int, max_bytes: int) -> Excerpt:
    """Return at most `max_bytes` from an offset on: up to the gap, up to now, and with whole characters.

    Raises:
        InvalidArgumentError: a number that is too small.
        OutputGoneError: the spool was closed, or the disk failed.
    """
    at_least(0, start_byte=start_byte)
    at_least(1, max_bytes=max_bytes)
    for start, data in spool.chunks(start_byte, max_bytes):
        cut = len(data) == max_bytes and start + max_bytes < spool.total
        return _excerpt(spool, start, _whole(data) if cut else data)
    return _excerpt(spool, max(spool.total, start_byte), b"")


def read_lines(spool: Spool, start_line: int, lines: int, max_bytes: int) -> Excerpt:
    """Return up to `lines` lines from `start_line` on, and no line in part that would fit in whole.

    A line that alone has more than `max_bytes` is given in part; `read_range` from ``next_byte`` goes on in
    it. Lines in the gap are skipped: then the excerpt begins with what is left of the first line after it.

    Raises:
        InvalidArgumentError, OutputGoneError: as for `read_range`.
    """
    at_least(1, start_line=start_line, lines=lines, max_bytes=max_bytes)
    first = start = _line_start(spool, start_line)
    pieces: list[bytes] = []
    room = max_bytes
    for at, data in spool.chunks(start, min(CHUNK, max_bytes)):
        if not pieces:
            first = start = at
        if at != start or not room:
            break
        piece = data[: min(room, after_newlines(data, lines))]
        pieces.append(piece)
        start += len(piece)
        room -= len(piece)
        lines -= piece.count(b"\n")
        if not lines:
            break
    found = b"".join(pieces)
    if not room and not found.endswith(b"\n") and start < spool.total:
        found = found[: found.rfind(b"\n") + 1] or _whole(found)
    return _excerpt(spool, first, found)


def tail_lines(spool: Spool, lines: int, max_bytes: int) -> Excerpt:
    """Return the last `lines` lines, or as many of them as fit in `max_bytes`; if not even one does, its end.

    Raises:
        InvalidArgumentError, OutputGoneError: as for `read_range`.
    """
    at_least(1, lines=lines, max_bytes=max_bytes)
    size = min(_FIRST_LOOK, max_bytes)
    while True:
        start, data, extent = spool.newest(size + 1)  # one more, to see whether a line begins there
        skip = _last_lines(data, lines)
        fits = len(data) <= size
        if skip or fits or size == max_bytes:
            break
        size = min(4 * size, max_bytes)
    if not skip and not fits:
        newline = data.find(b"\n", 0, len(data) - 1)
        skip = newline + 1 or len(data) - len(without_cut_start(data[1:]))
    before = data[skip - 1 : skip] if skip or start else None
    return _made(extent, start + skip, data[skip:], extent.newlines - data.count(b"\n", skip), before)


def _last_lines(data: bytes, lines: int) -> int:
    """Return where the last lines begin; 0 if that is before the data, or its beginning."""
    at = len(data) - data.endswith(b"\n")
    for _ in range(lines):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return 0
    return at + 1


def _line_start(spool: Spool, line: int) -> int:
    """Return where a line begins; if that is not kept or not printed yet, the first offset after it."""
    wanted = line - 1
    extent = spool.extent()
    if not wanted:
        return 0
    if wanted > extent.newlines:
        return extent.total
    expected, newlines = extent.marks[bisect_left(extent.marks, wanted, key=lambda mark: mark[1]) - 1]
    for at, data in spool.chunks(expected):
        if at != expected:
            counted = newlines_before(spool, at)
            if counted is None or counted >= wanted:
                return at
            newlines = counted
        here = data.count(b"\n")
        if newlines + here >= wanted:
            return at + after_newlines(data, wanted - newlines)
        newlines += here
        expected = at + len(data)
    return expected


def after_newlines(data: bytes, count: int) -> int:
    """Return the index after the newline of that number, or the length of the data if it has fewer."""
    if data.count(b"\n") < count:
        return len(data)
    low, high = 0, len(data)
    while high - low > 1:
        middle = (low + high) // 2
        here = data.count(b"\n", low, middle)
        if here >= count:
            high = middle
        else:
            low, count = middle, count - here
    return high


def newlines_before(spool: Spool, offset: int) -> int | None:
    """Return how many newlines the stream has before an offset; None if that is not kept (any more).

    Raises:
        OutputGoneError: as for `read_range`.
    """
    for _ in range(_TRIES):  # a mark can be overwritten while it is counted from there
        marks = spool.extent().marks
        after = bisect_left(marks, offset, key=lambda mark: mark[0])
        for at, newlines in marks[max(0, after - 1) : after + 1]:
            between = _count(spool, min(at, offset), max(at, offset))
            if between is not None:
                return newlines + between if at <= offset else newlines - between
    return None


def _count(spool: Spool, start: int, end: int) -> int | None:
    count = 0
    for at, data in spool.chunks(start) if start < end else ():
        if at != start:
            return None
        count += data.count(b"\n", 0, end - start)
        start += len(data)
        if start >= end:
            break
    return count if start >= end else None


def _whole(data: bytes) -> bytes:
    """Leave out the beginning of a character at the end, if that leaves anything."""
    return without_cut_end(data) or data


def _excerpt(spool: Spool, start: int, data: bytes) -> Excerpt:
    before = spool.read(start - 1, start) if start else None
    return _made(spool.extent(), start, data, newlines_before(spool, start), before)


def _made(extent: Extent, start: int, data: bytes, newlines: int | None, before: bytes | None) -> Excerpt:
    """Put together an excerpt; `before` is the byte before it, empty if not kept, None if there is none."""
    end = start + len(data)
    first = None if newlines is None or not data else newlines + 1
    gap = extent.gap
    return Excerpt(
        data=data,
        start_byte=start,
        next_byte=gap[1] if gap and gap[0] <= end < gap[1] else end,
        first_line=first,
        last_line=None if first is None else first + data.count(b"\n", 0, -1),
        cut_start=before not in (None, b"\n"),
        cut_end=bool(data) and not data.endswith(b"\n") and end < extent.total,
        total_bytes=extent.total,
        total_lines=extent.lines,
        gap=gap,
    )


def at_least(least: int, **numbers: int) -> None:
    """Refuse numbers that are too small.

    Raises:
        InvalidArgumentError: one is; it says which.
    """
    for name, number in numbers.items():
        if number < least:
            message = f"{name} is {number}; it must be at least {least}."
            raise InvalidArgumentError(message)
