"""One stream of a run, by offset: appended to on the event loop, read by any thread at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pocket_dock_mcp.spool import text
from pocket_dock_mcp.spool.budget import SpoolBudget
from pocket_dock_mcp.spool.storage import IN_MEMORY, OutputGoneError, Spans, Storage

CHUNK = 256 * 1024
"""Bytes that a reader has in hand at once."""
CAP = 128 * 1024 * 1024
"""Bytes kept of a stream unless told otherwise; the two streams of a run are 256 MiB."""
_MARK = 256 * 1024
_LAST_LINE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a stream reached at one moment."""

    total: int
    """Bytes printed."""
    newlines: int
    """How many of them are newlines."""
    lines: int
    """Lines, with one that is not finished yet."""
    gap: tuple[int, int] | None
    """From and to which offset the bytes are not kept; None if all are."""
    marks: Sequence[tuple[int, int]]
    """Some kept offsets, ascending from 0 to `total`, each with the number of newlines before it."""


class Spool:
    """Counts every byte of one stream of one run, and keeps as many as its cap and its budget allow.

    When it gets no more, the first half of what it has stays as it is, and the other half becomes a ring over
    the newest bytes. So beginning and end are always exact, and only one piece in the middle is missing, the
    gap. A full disk is the same as a used-up budget. Where budget comes free again, the ring grows. Whoever
    makes one has to close it.

    How offsets lie in the storage: those of the head are positions. Position ``_head`` has offset ``_base``;
    from there they go on up to ``_size``, and then again from ``_head``. ``_at`` is where the next byte goes.
    As long as nothing is missing, ``_head`` and ``_base`` are 0.
    """

    def __init__(
        self,
        budget: SpoolBudget,
        directory: Path,
        *,
        cap_bytes: int = CAP,
        memory_bytes: int = IN_MEMORY,
        floor_bytes: int = 0,
    ) -> None:
        """Make an empty one; nothing is taken and nothing opened yet.

        Args:
            budget: what the kept bytes are taken from.
            directory: where the file is when one is needed; made then, for this user only.
            cap_bytes: how many bytes to keep at most.
            memory_bytes: how many bytes to keep before there is a file.
            floor_bytes: how many bytes to keep even when the budget has none left, not taken from it.
        """
        self.total = 0
        """Bytes appended, kept or not."""
        self._budget = budget
        self._storage = Storage(directory, memory_bytes)
        self._cap, self._floor = cap_bytes, floor_bytes
        self._taken = self._size = self._head = self._base = self._at = 0
        self._full = self._closed = self._unfinished = False
        self._newlines, self._next_mark = 0, _MARK
        self._marks: list[tuple[int, int]] = []
        self._readers = 0
        self._lock = threading.Lock()

    # -- writing ----------------------------------------------------------------------------------

    def append(self, data: bytes) -> None:
        """Take the next bytes. Never raises; after `close` they are only counted."""
        if not data:
            return
        with self._lock:
            # Counted here because nobody can later, when they are gone: line numbers stay exact after a gap.
            self._newlines += data.count(b"\n")
            self._unfinished = data[-1] != 10
            while data:
                if self._at == self._size:
                    data = self._extend(data)
                    if not data:
                        break
                    self._wrap()
                data = self._overwrite(data)
            if self.total >= self._next_mark:
                self._mark()

    def _extend(self, data: bytes) -> bytes:
        """Keep what there is budget for, behind what is kept, and return the rest."""
        wanted = min(len(data), self._cap - self._size)
        granted = self._take(wanted) if wanted > 0 else 0
        if not granted:
            return data
        written = self._storage.write(self._size, data[:granted])
        if written < granted:
            # The disk is full, and others need what comes free on it: this one stays with what it has.
            self._cap = self._size + written
            self._give_back(granted - written)
        # The ring is at its end, so that its bytes are in order, and these may follow on them.
        self._base = self.total - (self._size - self._head)
        self._size += written
        self._at = self._size
        self.total += written
        return data[written:]

    def _take(self, wanted: int) -> int:
        granted = self._budget.take(wanted)
        self._taken += granted
        if granted < wanted:
            granted += max(0, min(wanted - granted, self._floor - self._size - granted))
        return granted

    def _give_back(self, count: int) -> None:
        count = min(count, self._taken)  # the floor was not taken
        self._taken -= count
        self._budget.give_back(count)

    def _wrap(self) -> None:
        """Go on at the beginning of the ring; the first time, divide head and ring."""
        if not self._full:
            self._full = True
            self._head = self._base = self._size // 2
        self._at = self._head

    def _overwrite(self, data: bytes) -> bytes:
        """Put data over the oldest bytes of the ring, as far as its end, and return the rest."""
        ring = self._size - self._head
        if len(data) >= ring:  # only the last of it would survive
            self._forget(len(data) - ring)
            data = data[len(data) - ring :]
        piece = data[: self._size - self._at]
        if self._storage.write(self._at, piece) < len(piece):
            # What is there now nobody knows.
            self._forget(len(data))
            return b""
        self._at += len(piece)
        self.total += len(piece)
        return data[len(piece) :]

    def _forget(self, count: int) -> None:
        """Count bytes that are not kept, and empty the ring: the gap reaches to here."""
        self.total += count
        self._base = self.total
        self._at = self._head

    def _mark(self) -> None:
        self._marks.append((self.total, self._newlines))
        self._next_mark = self.total + _MARK
        if len(self._marks) > 2 * (self._size // _MARK) + 16:
            self._marks = self._kept_marks()

    def close(self) -> None:
        """Forget all bytes and give the budget back. A second time does nothing.

        Freeing a large file can take milliseconds; a worker thread may do it.
        """
        with self._lock:
            self._closed = True
            self._give_back(self._taken)
            self._size = self._head = self._at = self._cap = 0
            self._base = self.total
            unused = not self._readers
        if unused:
            self._storage.close()

    # -- reading ----------------------------------------------------------------------------------

    @property
    def gap(self) -> tuple[int, int] | None:
        """From and to which offset the bytes are not kept; None if all are. It moves while the run prints."""
        with self._lock:
            return self._gap()

    def _gap(self) -> tuple[int, int] | None:
        oldest = max(self._base, self.total - (self._size - self._head))
        return (self._head, oldest) if oldest > self._head else None

    def extent(self) -> Extent:
        """Return how far the stream reaches now."""
        with self._lock:
            return self._extent()

    def _extent(self) -> Extent:
        marks = [(0, 0), *self._kept_marks(), (self.total, self._newlines)]
        return Extent(self.total, self._newlines, self._newlines + self._unfinished, self._gap(), marks)

    def _kept_marks(self) -> list[tuple[int, int]]:
        first, last = self._gap() or (0, 0)
        return [mark for mark in self._marks if mark[0] <= first or mark[0] >= last]

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from offset `start` up to `end`, to the gap or to the last byte: what is first.

        Nothing if `start` is in the gap, and that includes what was overwritten while it was read.

        Raises:
            OutputGoneError: the spool was closed, or the disk failed.
        """
        with self._lock:
            end = self._kept_until(start, end)
            spans = self._spans(start, end)
            if not self._storage.on_disk:
                return self._storage.read(spans)
            self._readers += 1
        try:
            # Without the lock: a slow disk must not hold up who appends.
            data = self._storage.read(spans)
        finally:
            with self._lock:
                self._readers -= 1
                unused = self._closed and not self._readers
            if unused:
                self._storage.close()
        with self._lock:
            return data[: max(0, self._kept_until(start, end) - start)]

    def _kept_until(self, start: int, end: int) -> int:
        """Return where a piece from `start` on has to end; not after `start` if that is not kept."""
        if self._closed:
            message = "The output of this run is not kept any more."
            raise OutputGoneError(message)
        first, last = self._gap() or (self.total, self.total)
        return min(end, self.total if start >= last else first)

    def _spans(self, start: int, end: int) -> Spans:
        """Return where kept offsets are in the storage."""
        spans = []
        while start < end:
            if start < self._head:
                at, room = start, self._head - start
            else:
                at = self._head + (start - self._base) % (self._size - self._head)
                room = self._size - at
            spans.append((at, min(room, end - start)))
            start += room
        return spans

    def chunks(self, start: int = 0, size: int = CHUNK) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of what is kept from `start` on, as far as it reaches at the first step.

        An offset that does not follow on the piece before tells that bytes are missing between the two.

        Raises:
            OutputGoneError: as for `read`.
        """
        end = self.total
        while start < end:
            data = self.read(start, min(start + size, end))
            if data:
                yield start, data
                start += len(data)
                continue
            gap = self.gap
            if gap is None or gap[1] <= start:  # cannot be; but who makes no way must not go on for ever
                return
            start = gap[1]

    def newest(self, size: int) -> tuple[int, bytes, Extent]:
        """Return the last kept bytes, at most `size` and all after the gap: offset, bytes, and the extent.

        The three are of one moment, however fast the run prints; appending waits as long.

        Raises:
            OutputGoneError: as for `read`.
        """
        with self._lock:
            extent = self._extent()
            start = max(self.total - size, extent.gap[1] if extent.gap else 0)
            return start, self._read_held(start, self.total), extent

    def _read_held(self, start: int, end: int) -> bytes:
        return self._storage.read(self._spans(start, self._kept_until(start, end)))

    # -- as text ----------------------------------------------------------------------------------

    def head_and_tail(self, cap: int) -> str:
        """Return at most `cap` bytes as UTF-8 text: all, or both ends and a line that tells what is missing.

        Undecodable bytes become U+FFFD; a character that the cut went through is left out whole.

        Raises:
            OutputGoneError: as for `read`.
        """
        return self.since(0, cap)

    def since(self, offset: int, cap: int) -> str:
        """Return what came after `offset` in the same form, with the whole of a character that it is inside.

        Raises:
            OutputGoneError: as for `read`.
        """
        with self._lock:
            start = self._character_start(min(max(offset, 0), self.total))
            size = self.total - start
            gap = self._gap()
            if gap and gap[1] <= start:
                gap = None
            first, last = (max(gap[0], start), gap[1]) if gap else (self.total, self.total)
            if size - (last - first) > cap:
                first = min(first, start + cap // 2)
                last = max(gap[1] if gap else start, self.total - (cap - cap // 2))
            head, tail = self._read_held(start, first), self._read_held(last, self.total)
        return text.head_and_tail(head, tail, size)

    def _character_start(self, offset: int) -> int:
        start = max(0, offset - 3)
        before = self._read_held(start, offset)
        if start + len(before) < offset:  # not kept, or only a part
            return offset
        return offset - text.begun(before, self._read_held(offset, offset + 1))

    def last_line(self, max_chars: int) -> str:
        """Return the newest line that is not blank, or nothing if the last 16 KiB are.

        A carriage return ends a line, as progress bars mean it. Of a longer line its first `max_chars` are
        returned; of one that does not begin within these 16 KiB, its last.

        Raises:
            OutputGoneError: as for `read`.
        """
        start, data, _ = self.newest(_LAST_LINE)
        return text.last_line(data, max_chars, cut=start > 0)
