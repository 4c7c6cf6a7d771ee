"""Search in a spool, line by line as grep does. It may wait for a disk, and works while the run prints on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.spool.core import Spool
from pocket_dock_mcp.spool.lines import at_least, newlines_before
from pocket_dock_mcp.spool.pattern import compile_pattern
from pocket_dock_mcp.spool.shown import Line, Shown, as_bytes, as_text, shortened
from pocket_dock_mcp.spool.text import begun

if TYPE_CHECKING:
    import regex

_BLOCK = 64 * 1024
"""Bytes that are searched at once. A bad pattern takes up to 600 times as much memory."""
_OVERLAP = 8 * 1024
"""Bytes of a line longer than a block that are looked at before and after each part of it."""
MAX_DEADLINE_S = 3600.0
_SIMPLER = "Make it simpler: no repetition in a repetition as in (a+)+, [^,]* or literal text for .*"


@dataclass(frozen=True, slots=True)
class Matches:
    """What a search found."""

    lines: tuple[Line, ...]
    """Matching lines and those around them, in order, each once."""
    matches: int
    """How many lines match from `start_byte` on, shown or not."""
    exact: bool
    """All that is kept was searched. Otherwise the time was over before, and `matches` is the least."""
    start_byte: int
    """From where on was searched."""
    next_byte: int
    """Where to search on: the first matching line that is not shown, or the first that was not searched."""
    total_bytes: int
    """Of the stream, up to now."""
    total_lines: int
    """Of the stream, up to now, with an unfinished one."""
    gap: tuple[int, int] | None
    """From and to which offset the stream's bytes are not kept any more, so that they cannot be searched."""

    @property
    def more(self) -> bool:
        """Whether a search from `next_byte` on could show more."""
        return self.next_byte < self.total_bytes


def grep(
    spool: Spool,
    pattern: str,
    context: int,
    max_matches: int,
    max_bytes: int,
    deadline_s: float,
    *,
    start_byte: int = 0,
) -> Matches:
    """Find the lines in which a regular expression matches, from an offset on and as far as it reaches now.

    A line longer than 64 KiB is searched in parts: a match in it is found if the match, with what the pattern
    looks at around it, is not longer than 8 KiB.

    Args:
        spool: what to search.
        pattern: as for Python's `re`, for each line without its newline; see `compile_pattern`.
        context: how many lines before and after each match to show.
        max_matches: how many matching lines to show.
        max_bytes: how many bytes of text to show; the first match is shown in any case.
        deadline_s: seconds after which it returns with what it has. While one block is searched they are
            seconds of this process's processor time: `regex` has no other clock.
        start_byte: where to begin.

    Raises:
        InvalidArgumentError: a number out of range; a pattern that cannot be used, or that needs half of the
            time for 64 KiB before it has found anything.
        OutputGoneError: the spool was closed, or the disk failed.
    """
    at_least(0, context=context, start_byte=start_byte)
    at_least(1, max_matches=max_matches, max_bytes=max_bytes)
    if not 0 < deadline_s <= MAX_DEADLINE_S:
        message = f"deadline_s is {deadline_s}; it must be more than 0 and at most {MAX_DEADLINE_S:g}."
        raise InvalidArgumentError(message)
    search = _Search(spool, pattern, deadline_s, start_byte, Shown(spool, context, max_matches, max_bytes))
    exact = search.run()
    extent = spool.extent()
    return Matches(
        lines=tuple(search.shown.lines),
        matches=search.matches,
        exact=exact,
        start_byte=start_byte,
        next_byte=search.at if search.shown.next_byte is None else search.shown.next_byte,
        total_bytes=extent.total,
        total_lines=extent.lines,
        gap=extent.gap,
    )


class _Search:
    def __init__(self, spool: Spool, pattern: str, deadline_s: float, start: int, shown: Shown) -> None:
        self.at = start
        """Offset up to which everything was searched. At the beginning of a line but for `_long_line`."""
        self.matches = 0
        self.shown = shown
        self._deadline_s = deadline_s
        self._until = time.monotonic() + deadline_s
        self._source = pattern
        self._pattern: regex.Pattern[str] = compile_pattern(pattern)
        self._to_line_end: regex.Pattern[str] | None = None
        self._spool = spool
        self._end = spool.total
        self._first = 0
        """Where the kept part begins that it is in."""
        self._number = 1
        """Of the line at `at`."""

    def run(self) -> bool:
        """Search to the end; False if there was no time for that."""
        try:
            self._arrive(self.at)
            if self.at and self._spool.read(self.at - 1, self.at) not in (b"", b"\n"):
                self._long_line()
            while self.at < self._end:
                self._step()
        except TimeoutError:
            return False
        return True

    def _arrive(self, at: int) -> None:
        """Go on at an offset, or after the gap if it is in there."""
        gap = self._spool.gap or (0, 0)
        self.at = max(at, gap[1]) if at >= gap[0] else at
        self._first = gap[1] if self.at >= gap[1] else 0
        before = newlines_before(self._spool, min(self.at, self._end))
        # Lines go on being counted, so that those that are shown can be told apart.
        self._number = self._number + 1 if before is None else before + 1
        self.shown.numbered = before is not None

    def _step(self) -> None:
        data = self._spool.read(self.at, min(self.at + _BLOCK, self._end))
        if not data:
            self._arrive(self.at)
            return
        if len(data) == _BLOCK and self.at + _BLOCK < self._end:
            newline = data.rfind(b"\n")
            if newline < 0:
                self._long_line()
                return
            data = data[: newline + 1]
        self._lines(data)

    def _match(self, text: str, start: int) -> regex.Match[str] | None:
        with self._in_time(text) as left:
            return self._pattern.search(text, start, timeout=left)

    @contextmanager
    def _in_time(self, text: str) -> Iterator[float]:
        """Give the seconds that are left, and find out whose fault it is when they are over.

        Raises:
            InvalidArgumentError: the pattern's.
            TimeoutError: nobody's.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            yield max(left, 0.001)
        except TimeoutError:
            if left < self._deadline_s / 2 or self.matches:
                raise
            message = (
                f"The pattern needs more than {left:.2g} s for the {len(text)} characters at byte {self.at}."
            )
            raise InvalidArgumentError(message, hint=_SIMPLER) from None
        except MemoryError:
            message = "The pattern needs too much memory."
            raise InvalidArgumentError(message, hint=_SIMPLER) from None

    def _lines(self, data: bytes) -> None:
        """Search whole lines."""
        text = as_text(data)
        end, next_number = self.at + len(data), self._number + data.count(b"\n")
        at = 0
        while at < len(text):
            if self.shown.next_byte is not None and text.endswith("\n"):
                self.matches += self._count(text, at)
                break
            match = self._match(text, at)
            # After the last newline there is no line, but an empty match.
            if match is None or (match.start() == len(text) and text.endswith("\n")):
                break
            start = text.rfind("\n", 0, match.start()) + 1
            stop = text.find("\n", match.start())
            stop = len(text) if stop < 0 else stop
            self.matches += 1
            self._pass(text[at:start])
            cut_start = 0 < self.at == self._first  # what is before the first byte after a gap nobody knows
            cut_end = stop == len(text) and end < self._spool.total
            line = Line(text[start:stop], self.at, None, True, cut_start, cut_end)
            self.shown.add(shortened(line, match.start() - start), self._number, self.at, self._first)
            self._pass(text[start : stop + 1])
            self.shown.add_after(self.at, self._end)
            at = stop + 1
        self.at, self._number = end, next_number

    def _count(self, text: str, start: int) -> int:
        """Count matching lines in whole ones: all in one call, as nothing else is wanted of them."""
        if self._to_line_end is None:
            self._to_line_end = compile_pattern(self._source, to_line_end=True)
        with self._in_time(text) as left:
            found = self._to_line_end.findall(text, start, timeout=left)
        return len(found) - (found[-1:] == [""])  # an empty match after the last newline

    def _pass(self, text: str) -> None:
        self.at += len(as_bytes(text))
        self._number += text.count("\n")

    def _long_line(self) -> None:
        """Search a line that is longer than a block, or the rest of one, and go on at the next."""
        begin, found = self.at, False
        before = self._spool.read(max(self._first, begin - _OVERLAP), begin)
        start = begin - len(before) + before.rfind(b"\n") + 1
        cut = start > 0 and b"\n" not in before
        while True:
            data = self._spool.read(start, min(start + _BLOCK, self._end))
            if start + len(data) <= self.at:  # overwritten meanwhile
                return
            newline = data.find(b"\n", self.at - start)
            last = newline >= 0 or len(data) < _BLOCK or start + _BLOCK == self._end
            data = data if newline < 0 else data[:newline]
            until = len(data) if last else _character(data, len(data) - _OVERLAP)
            found = found or self._part(data, start, until, begin, cut=cut)
            if last:
                break
            self.at = start + until
            start += _character(data, until - _OVERLAP)
            cut = True
        self.at = start + len(data) + (newline >= 0)
        self._number += 1
        if found:
            self.shown.add_after(self.at, self._end)

    def _part(self, data: bytes, start: int, until: int, begin: int, *, cut: bool) -> bool:
        """Search for a match that begins between `at` and index `until` of the data, which is at `start`."""
        known, part = as_text(data[: self.at - start]), as_text(data[self.at - start : until])
        text = known + part + as_text(data[until:])
        match = self._match(text, len(known))
        if match is None or (match.start() >= len(known + part) and until < len(data)):
            return False
        self.matches += 1
        if self.shown.next_byte is None:
            line = Line(text, start, None, True, cut, until < len(data))
            self.shown.add(shortened(line, match.start()), self._number, begin, self._first)
        return True


def _character(data: bytes, index: int) -> int:
    """Return where the character begins that an index is in."""
    return index - begun(data[max(0, index - 3) : index], data[index : index + 1])
