"""Tar, for sandboxes that have nothing else: turned into a stream of ours and judged like one, or made of it.

Only what a `tar` writes that walks one tree is taken: depth first, each directory before what is in it. Other
things that a tar can say (other orders, names with dots, sparse files) are refused or left out.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import BinaryIO, Literal

from pocket_dock_mcp.archive import frames, names
from pocket_dock_mcp.archive.frames import BadStreamError, Body, frame
from pocket_dock_mcp.archive.incoming import TOP

BLOCK = 512
SENTINEL = b"z"
"""The name of a file behind all others: without it what has arrived is not all."""
_MAX_NOTE = 64 * 1024
"""Bytes of a header's extension: a name of full length and little more."""
_MAX_NOTES = 4
"""Extensions before one header."""
_MAX_NUMBER = 1 << 62
_FILES, _LINK, _DIRECTORY, _HARD_LINK = b"0\0" + b"7", b"2", b"5", b"1"
_LEFT_OUT = {b"3": names.DEVICE, b"4": names.DEVICE, b"6": names.FIFO, _HARD_LINK: names.HARD_LINK}
_NOTES = b"xLKg"


class FromTar:
    """Turns a tar, as it comes, into frames for `take`."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._buffer = bytearray()
        self._path: list[bytes] = []
        self._left = self._padding = self._at = 0
        self._in_file = self._has_top = False
        self._note = b""
        self._noted = bytearray()
        self._notes: dict[str, bytes] = {}
        self._notes_count = 0
        self.is_complete = False

    def feed(self, data: bytes) -> None:
        """Take a piece. Raises `BadStreamError`, and what `take` raises."""
        self._buffer += data
        while not self.is_complete and self._step():
            pass
        if self.is_complete:
            # What is behind the end of a tar means nothing.
            self._buffer.clear()

    def _step(self) -> bool:
        """Consume something; False when there is not enough yet."""
        if self._left:
            return self._content()
        if len(self._buffer) < self._padding + BLOCK:
            return False
        block = bytes(self._buffer[self._padding : self._padding + BLOCK])
        del self._buffer[: self._padding + BLOCK]
        self._padding = 0
        if block.count(0) == BLOCK:
            self._end()
        else:
            self._header(block)
        return True

    def _content(self) -> bool:
        piece = bytes(self._buffer[: min(self._left, frames.PIECE)])
        if not piece:
            return False
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        if self._in_file:
            self._take(frames.data_head(self._at, len(piece)) + piece)
            self._at += len(piece)
        elif self._note:
            self._noted += piece
        if not self._left:
            self._over()
        return True

    def _over(self) -> None:
        """What belongs to a header has come."""
        if self._in_file:
            self._in_file = False
            self._take(frame(frames.FILE_END, frames.END.pack(frames.WHOLE, self._at)))
        elif self._note:
            self._remember(self._note, bytes(self._noted))
            self._note = b""
            self._noted.clear()

    # -- headers ----------------------------------------------------------------------------------

    def _header(self, block: bytes) -> None:
        if sum(block[:148]) + 256 + sum(block[156:]) != _number(block[148:156]):
            raise BadStreamError("checksum")
        kind = block[156:157]
        size = _number(block[124:136])
        if size < 0:
            raise BadStreamError("size")
        if kind in _NOTES:
            self._begin_note(kind, size)
            return
        notes, self._notes, self._notes_count = self._notes, {}, 0
        if "sparse" in notes or kind == b"S":
            raise BadStreamError("sparse")
        if "size" in notes:
            size = _digits(notes["size"])
        path = notes.get("path", _name(block))
        target = notes.get("linkpath", block[157:257].partition(b"\0")[0])
        time = _time(notes["mtime"]) if "mtime" in notes else _number(block[136:148]) * 10**9
        self._entry(kind, path, target, _number(block[100:108]), time, size)

    def _begin_note(self, kind: bytes, size: int) -> None:
        self._notes_count += 1
        if size > _MAX_NOTE or self._notes_count > _MAX_NOTES:
            raise BadStreamError("notes")
        self._note = kind
        self._expect(size)
        if not size:
            self._over()

    def _remember(self, kind: bytes, note: bytes) -> None:
        if kind == b"L":
            self._notes["path"] = note.rstrip(b"\0")
        elif kind == b"K":
            self._notes["linkpath"] = note.rstrip(b"\0")
        elif kind == b"x":
            self._notes.update(_records(note))

    def _expect(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _entry(self, kind: bytes, path: bytes, target: bytes, mode: int, time: int, size: int) -> None:
        parts = self._go_to(path)
        self._at = 0
        if kind == _DIRECTORY:
            self._expect(size)
            self._directory(parts, mode, time)
        elif kind in _FILES:
            self._expect(size)
            self._file(parts, mode, time, size)
        elif kind == _LINK:
            self._link(parts, target, time)
        elif kind in _LEFT_OUT:
            self._skip(parts, _LEFT_OUT[kind])
        else:
            raise BadStreamError("kind")

    def _go_to(self, path: bytes) -> list[bytes]:
        """Leave directories until the one that a path is in; return what the path is made of."""
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if path.startswith(b"/"):
            raise BadStreamError("absolute")
        for part in parts:
            names.check_name(part)
        above = parts[:-1]
        while self._path and (
            len(self._path) - 1 > len(above) or self._path[1:] != above[: len(self._path) - 1]
        ):
            self._leave()
        if self._path and self._path[1:] != above and len(above) < names.MAX_DEPTH:
            raise BadStreamError("order")
        return parts

    def _leave(self) -> None:
        self._path.pop()
        self._take(frame(frames.LEAVE))

    def _directory(self, parts: list[bytes], mode: int, time: int) -> None:
        if bool(parts) != bool(self._path) or (not parts and self._has_top):
            raise BadStreamError("top")
        if len(parts) >= names.MAX_DEPTH:
            self._skip(parts, names.DEEP)
            return
        self._say_bits(parts, mode)
        self._has_top = True
        name = parts[-1] if parts else TOP
        self._path.append(name)
        self._take(frame(frames.DIRECTORY, frames.entry(mode, time, 0) + name))

    def _file(self, parts: list[bytes], mode: int, time: int, size: int) -> None:
        if not self._path:
            if self._has_top or len(parts) != 1:
                raise BadStreamError("top")
            parts = [TOP]
        elif not parts:
            raise BadStreamError("name")
        elif len(parts) > names.MAX_DEPTH:
            self._skip(parts, names.DEEP)
            return
        self._say_bits(parts, mode)
        self._has_top = True
        self._take(frame(frames.FILE, frames.entry(mode, time, size) + parts[-1]))
        self._in_file = True
        if not size:
            self._over()

    def _link(self, parts: list[bytes], target: bytes, time: int) -> None:
        if not self._path or not parts or len(parts) > names.MAX_DEPTH:
            raise BadStreamError("link")
        if not names.stays_inside(target, len(parts) - 1):
            self._skip(parts, names.LINK_OUT)
            return
        self._take(frame(frames.LINK, frames.entry(0o777, time, 0) + parts[-1] + b"\0" + target))

    def _skip(self, parts: list[bytes], reason: int) -> None:
        self._take(frame(frames.SKIPPED, frames.REASON.pack(reason) + b"/".join(parts)[-frames.MAX_SHOWN :]))

    def _say_bits(self, parts: list[bytes], mode: int) -> None:
        if mode & 0o7000:
            self._skip(parts, names.BITS)

    def _end(self) -> None:
        while self._path:
            self._leave()
        self.is_complete = True
        self._take(frame(frames.COMPLETE))


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int:
    """Return a number of a header: octal digits, or binary if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=field[0] == 0xFF)
        value = value if value < 0 else value - (0x80 << 8 * (len(field) - 1))
        if abs(value) > _MAX_NUMBER:
            raise BadStreamError("number")
        return value
    digits = field.strip(b" \0")
    if any(digit not in b"01234567" for digit in digits):
        raise BadStreamError("number")
    return int(digits or b"0", 8)


def _digits(text: bytes, most: int = 18) -> int:
    if not text.isdigit() or len(text) > most:
        raise BadStreamError("number")
    return int(text)


def _time(text: bytes) -> int:
    """Return seconds with a fraction as nanoseconds."""
    whole, _, fraction = text.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    # More than any kernel knows is no error yet.
    seconds = _digits(whole.lstrip(b"-"), 30)
    return sign * (seconds * 10**9 + (_digits(fraction[:9].ljust(9, b"0")) if fraction else 0))


def _records(note: bytes) -> dict[str, bytes]:
    """Return what of an extended header matters."""
    found: dict[str, bytes] = {}
    while note:
        length, _, _ = note.partition(b" ")
        size = _digits(length)
        record = note[len(length) + 1 : size]
        if not 0 < size <= len(note) or not record.endswith(b"\n"):
            raise BadStreamError("record")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"path", b"linkpath", b"size", b"mtime"):
            found[key.decode()] = value
        elif key.startswith(b"GNU.sparse"):
            found["sparse"] = b""
        note = note[size:]
    return found


class ToTar:
    """Writes a stream of ours as a tar. Holes become holes of the file that is written to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._path: list[bytes] = []
        self._begin = self._size = 0
        self._decoder = frames.Decoder(self._frame)

    def feed(self, data: bytes) -> None:
        """Take a piece of a stream, which is one of our own."""
        self._decoder.feed(data)

    def _frame(self, kind: bytes, body: Body) -> None:
        if kind == frames.LEAVE:
            self._path.pop()
        elif kind == frames.DATA:
            self._file.seek(self._begin + frames.OFFSET.unpack_from(body)[0])
            self._file.write(body[frames.OFFSET.size :])
        elif kind == frames.FILE_END:
            self._file.truncate(self._begin + self._size)
            self._pad(self._begin + self._size, BLOCK)
        elif kind == frames.COMPLETE:
            self._header(tarfile.REGTYPE, SENTINEL, 0o600, 0, 0)
            self._pad(self._file.tell() + 2 * BLOCK, 20 * BLOCK)
        elif kind in (frames.DIRECTORY, frames.FILE, frames.LINK):
            mode, time, size, rest = frames.entry_of(body)
            self._entry(kind, rest, mode, time, size)

    def _entry(self, kind: bytes, rest: bytes, mode: int, time: int, size: int) -> None:
        name, _, target = rest.partition(b"\0")
        path = b"/".join([*self._path, name])
        if kind == frames.DIRECTORY:
            self._path.append(name)
            # Its mode may be in the way of what comes into it; the other end gives it when all is there.
            self._header(tarfile.DIRTYPE, path, mode, time, 0)
        elif kind == frames.LINK:
            self._header(tarfile.SYMTYPE, path, mode, time, 0, target)
        else:
            self._header(tarfile.REGTYPE, path, mode, time, size)
            self._begin, self._size = self._file.tell(), size

    def _header(self, kind: bytes, path: bytes, mode: int, time: int, size: int, target: bytes = b"") -> None:
        info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
        info.type, info.mode, info.size = kind, mode, size
        info.linkname = target.decode("utf-8", "surrogateescape")
        info.mtime, fraction = divmod(time, 10**9)
        form: Literal[1, 2] = tarfile.GNU_FORMAT
        if fraction and time > 0 and len(path) < 100 > len(target) and (path + target).isascii():
            # Those who do not know it pass it by.
            info.pax_headers = {"mtime": f"{info.mtime}.{fraction:09}"}
            form = tarfile.PAX_FORMAT
        self._file.write(info.tobuf(form, "utf-8", "surrogateescape"))

    def _pad(self, end: int, to: int) -> None:
        end += -end % to
        self._file.truncate(end)
        self._file.seek(end)
