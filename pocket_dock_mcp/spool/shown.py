"""The lines that a search shows: the matching ones with those around them, within a number of bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pocket_dock_mcp.spool.core import Spool

LINE_CHARS = 400
"""Of a longer line, as many characters around the match are shown."""
_AROUND = 64 * 1024
"""Bytes before and after a match in which its context is looked for."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or what is shown of it."""

    text: str
    """Without its newline; undecodable bytes are U+FFFD."""
    start_byte: int
    """Offset of the first byte of `text`."""
    number: int | None
    """From 1 over the whole stream; None if it was overwritten before that was known."""
    matches: bool = False
    """Whether it matches; otherwise it is there as context of one that does."""
    cut_start: bool = False
    """The line has more before `text`."""
    cut_end: bool = False
    """The line has more after `text`."""


def as_text(data: bytes) -> str:
    """Decode so that each undecodable byte is one character and `as_bytes` gives the same bytes back."""
    return data.decode("utf-8", "surrogateescape")


def as_bytes(text: str) -> bytes:
    """Encode what `as_text` decoded."""
    return text.encode("utf-8", "surrogateescape")


def shortened(line: Line, at: int) -> Line:
    """Return a line from `as_text` as it is shown: if it is long, only what is around character `at`."""
    begin = max(0, min(at - LINE_CHARS // 4, len(line.text) - LINE_CHARS))
    end = begin + LINE_CHARS
    return replace(
        line,
        text=as_bytes(line.text[begin:end]).decode("utf-8", "replace"),
        start_byte=line.start_byte + len(as_bytes(line.text[:begin])),
        cut_start=line.cut_start or begin > 0,
        cut_end=line.cut_end or end < len(line.text),
    )


class Shown:
    """The lines so far. `number` counts lines here even where their true numbers are not known."""

    def __init__(self, spool: Spool, context: int, max_matches: int, max_bytes: int) -> None:
        self.lines: list[Line] = []
        self.next_byte: int | None = None
        """Where the first matching line begins that is not shown; None as long as all are."""
        self.numbered = True
        """Whether the true numbers are known."""
        self._spool, self._context = spool, context
        self._matches, self._room = max_matches, max_bytes
        self._last = 0

    def add(self, line: Line, number: int, line_byte: int, first_byte: int) -> None:
        """Show a matching line, which begins at `line_byte`, and those before it as far as `first_byte`."""
        if self.next_byte is not None:
            return
        while self.lines and self._last >= number:  # it was shown as context of the match before
            self._room += _cost(self.lines.pop())
            self._last -= 1
        before = self._before(number, line_byte, first_byte)
        cost = sum(map(_cost, before)) + _cost(line)
        if cost > self._room and not self.lines:
            before, cost = [], min(_cost(line), self._room)
        if cost > self._room or not self._matches:
            self.next_byte = line_byte
            return
        self._matches -= 1
        self._room -= cost
        self.lines += [*before, self._numbered(line, number)]
        self._last = number

    def _before(self, number: int, end: int, first_byte: int) -> list[Line]:
        if not self._context:
            return []
        start = max(first_byte, end - _AROUND)
        data = self._spool.read(start, end)
        if start + len(data) < end or not data.endswith(b"\n"):
            return []
        pieces = data[:-1].split(b"\n")
        count = min(len(pieces), self._context, number - 1 - self._last if self.lines else self._context)
        found: list[Line] = []
        for back in range(1, count + 1):
            piece = as_text(pieces[-back])
            end -= len(pieces[-back]) + 1
            cut = back == len(pieces) and start > 0
            line = shortened(Line(piece, end, None, cut_start=cut), len(piece) if cut else 0)
            found.insert(0, self._numbered(line, number - back))
        return found

    def add_after(self, start: int, stop: int) -> None:
        """Show the lines that follow on the last one, from offset `start` to `stop`, while there is room."""
        if not self._context or self.next_byte is not None:
            return
        data = self._spool.read(start, min(start + _AROUND, stop))
        *whole, rest = data.split(b"\n", self._context)
        unfinished = [rest] if rest and len(whole) < self._context else []
        for at, piece in enumerate(whole + unfinished):
            cut = at == len(whole) and start + len(piece) < self._spool.total
            line = shortened(Line(as_text(piece), start, None, cut_end=cut), 0)
            if _cost(line) > self._room:
                return
            self._last += 1
            self._room -= _cost(line)
            self.lines.append(self._numbered(line, self._last))
            start += len(piece) + 1

    def _numbered(self, line: Line, number: int) -> Line:
        return replace(line, number=number if self.numbered else None)


def _cost(line: Line) -> int:
    return len(line.text.encode())
