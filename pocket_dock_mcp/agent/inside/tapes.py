"""Output of one run, kept so that a client who comes later gets all of it.

A ring of records in a file without a name, which only this process has open; a little output needs no file.
Each client reads it at a pace of its own. When the ring is full the oldest goes if the one client whose pace
counts has it and has said so; the others have then missed it, and are told how much. Without such a client
nothing is let go: the program is then held back by its pipe, and nothing is lost.
"""

from __future__ import annotations

import os
import struct
from typing import Callable, Dict, List, Optional, Tuple, Union

from . import wire

_HEAD = struct.Struct(">BI")
_RECORD = 64 * 1024
IN_MEMORY = 4096
"""Bytes of a tape that need no file."""
_FIRST_STEP, _MOST_STEP = 64 * 1024, 1024 * 1024
_PLACES = ("/root", "/run", "/var", "/", "/tmp", "/dev/shm")
"""Where such a file may be, the first that can be written. It has a name for a moment only."""


class Reader:
    """Where one client is in a tape."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self.at, self.offset = tape.start, 0
        """The record that is being read, and how far."""
        self.has = tape.gone
        """Bytes of output since the beginning that the client has said it has."""
        self.missed: Dict[int, int] = {}
        """Bytes of each stream that were let go of before this client had them."""

    def taken(self, amount: int) -> None:
        """The client has so much more of what was read."""
        self.has += amount

    def read(self, most: int) -> Optional[Tuple[int, bytes]]:
        """Return the next output as (stream, bytes); None if there is no more yet."""
        tape = self._tape
        while self.at < tape.end:
            stream, length = tape.head(self.at)
            if self.offset < length:
                size = min(most, length - self.offset, wire.MAX_PAYLOAD)
                data = tape.piece(self.at, self.offset, size)
                self.offset += size
                return stream, data
            behind = self.at + _HEAD.size + length
            if behind == tape.end:
                # It may become longer yet.
                return None
            self.at, self.offset = behind, 0
        return None

    @property
    def is_done(self) -> bool:
        """Whether all that is there by now has been read."""
        newest = self._tape.newest
        return self.at >= self._tape.end or (
            newest is not None and self.at == newest[0] and self.offset == newest[2]
        )

    def lose(self, stream: int, length: int) -> None:
        """The oldest record goes, with what has not been read of it."""
        if self.offset < length:
            self.missed[stream] = self.missed.get(stream, 0) + length - self.offset
            self.has += length - self.offset
        self.at, self.offset = self.at + _HEAD.size + length, 0


class Tape:
    """Positions are bytes since the beginning: `start` <= what is read next <= `end`."""

    def __init__(self, reserve: Callable[[int], bool], most: int) -> None:
        self.allotted = 0
        """Bytes of disk that it may use."""
        self.missing: Dict[int, int] = {}
        """Bytes at the beginning of each stream that it has not any more."""
        self._reserve = reserve
        self._most = most
        self._fd: Optional[int] = None
        self._memory = bytearray(IN_MEMORY)
        self._capacity = IN_MEMORY
        self._can_grow = True
        self.start = self.end = 0
        self.newest: Optional[Tuple[int, int, int]] = None
        """Position, stream and length of the newest record."""
        self.gone = 0
        """Bytes of output that were let go of."""
        self.readers: List[Reader] = []
        self.pace: Callable[[], Optional[Reader]] = lambda: None
        """Gives the one that has to have what is let go of."""

    # -- writing ----------------------------------------------------------------------------------

    def room(self, wanted: int) -> int:
        """Return how many of `wanted` bytes may be appended now."""
        most = self._room()
        while most < wanted and (self._grow() or self._let_go()):
            most = self._room()
        return min(wanted, most)

    def _room(self) -> int:
        free = self._capacity - (self.end - self.start)
        return free - _HEAD.size * (free // self._longest() + 2)

    def _longest(self) -> int:
        return max(1, min(_RECORD, self._capacity // 4))

    def append(self, stream: int, data: bytes) -> None:
        """Keep some output, no more than there is room for."""
        view = memoryview(data)
        while view:
            at, last_stream, length = self.newest or (0, 0, 0)
            if last_stream != stream or length >= self._longest():
                at, length = self.end, 0
                self.end += _HEAD.size
            piece = view[: self._longest() - length]
            view = view[len(piece) :]
            self._write(self.end, piece)
            self.end += len(piece)
            self.newest = at, stream, length + len(piece)
            self._write(at, _HEAD.pack(stream, length + len(piece)))

    def _grow(self) -> bool:
        """Take more disk, if nothing has been let go of yet: a ring that has turned stays as it is."""
        if not self._can_grow or self.end > self._capacity:
            return False
        step = min(_MOST_STEP, max(_FIRST_STEP, self.allotted), self._most - self.allotted)
        if step <= 0 or not self._reserve(step):
            return False
        try:
            if self._fd is None:
                self._fd = _nameless()
            os.posix_fallocate(self._fd, self.allotted, step)
        except OSError:
            # No disk. What there is has to do.
            self._reserve(-step)
            self._can_grow = False
            return False
        if not self.allotted:
            os.pwrite(self._fd, self._memory, 0)
            self._memory = bytearray()
        self.allotted += step
        self._capacity = self.allotted
        return True

    def _let_go(self) -> bool:
        """Let go of the oldest record, if the client that counts has all of it."""
        pace = self.pace()
        if pace is None or pace.at <= self.start:
            return False
        stream, length = self.head(self.start)
        if self.gone + length > pace.has:
            return False
        for reader in self.readers:
            if reader.at == self.start:
                reader.lose(stream, length)
        self.start += _HEAD.size + length
        self.gone += length
        self.missing[stream] = self.missing.get(stream, 0) + length
        return True

    # -- reading ----------------------------------------------------------------------------------

    def reader(self) -> Reader:
        """Begin to read, at the beginning."""
        reader = Reader(self)
        self.readers.append(reader)
        return reader

    def clear(self) -> None:
        """Let go of everything."""
        at = self.start
        while at < self.end:
            stream, length = self.head(at)
            self.missing[stream] = self.missing.get(stream, 0) + length
            at += _HEAD.size + length
        self.close()

    def close(self) -> None:
        """Give its disk back. Nothing can be appended any more."""
        self.start = self.end
        for reader in self.readers:
            reader.at, reader.offset = self.end, 0
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._memory = bytearray()
        self._capacity, self._can_grow = 0, False
        self._reserve(-self.allotted)
        self.allotted = 0

    # -- the ring ---------------------------------------------------------------------------------

    def head(self, position: int) -> Tuple[int, int]:
        """Return the stream and the length of the record at a position."""
        stream, length = _HEAD.unpack(self._read(position, _HEAD.size))
        return stream, length

    def piece(self, position: int, offset: int, size: int) -> bytes:
        """Return a piece of the record at a position."""
        return self._read(position + _HEAD.size + offset, size)

    def _write(self, position: int, data: Union[bytes, memoryview]) -> None:
        view = memoryview(data)
        while view:
            at = position % self._capacity
            piece = view[: self._capacity - at]
            if self._fd is None:
                self._memory[at : at + len(piece)] = piece
                done = len(piece)
            else:
                done = os.pwrite(self._fd, piece, at)
            position += done
            view = view[done:]

    def _read(self, position: int, size: int) -> bytes:
        pieces = []
        while size:
            at = position % self._capacity
            most = min(size, self._capacity - at)
            piece = self._memory[at : at + most] if self._fd is None else os.pread(self._fd, most, at)
            if not piece:
                raise OSError("a tape lacks what was written to it")
            pieces.append(piece)
            position += len(piece)
            size -= len(piece)
        return b"".join(pieces)


def _nameless() -> int:
    """Open a file that nobody else can open, and whose space is free again when it is closed."""
    name = ".pocket-dock-%s.tape" % os.urandom(8).hex()
    for place in _PLACES:
        path = os.path.join(place, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        os.unlink(path)
        return fd
    raise OSError("no place for a file")
