"""The output of one run in a file, piece by piece as it came, with its stream; and which files have to go.

    --- 2026-01-31T12:00:00.000Z stdout 6
    hello

A piece is read by its length, so no program can print something that passes for the beginning of another. A
file that has become too large is the older half from then on, and the older half before it goes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, Literal, get_args

Kind = Literal["run", "stream", "detach", "session"]
KINDS: tuple[str, ...] = get_args(Kind)

_STREAMS = {1: "stdout", 2: "stderr"}
_NUMBERS = {name: number for number, name in _STREAMS.items()}
_PIECE = 32 * 1024
_HEAD = re.compile(rb"--- ([0-9T:.-]{10,40}Z) (stdout|stderr) ([0-9]{1,6})\n")
_MAX_HEAD = 128
_FILE = re.compile(
    r"((?:run|stream|detach|session)-([0-9]{8}T[0-9]{12})Z-[0-9a-f]{1,16}\.log)(?:\.[0-9]+\.part)?(?:\.1)?"
)
_MOMENT = "%Y%m%dT%H%M%S%f"


def log_name(kind: Kind, began: float, run_id: str) -> str:
    """Return the name of the file of one run."""
    moment = datetime.fromtimestamp(began, timezone.utc).strftime(_MOMENT)
    return f"{kind}-{moment}Z-{re.sub('[^0-9a-f]', '', run_id)[-16:] or '0'}.log"


class OutputFile:
    """The file of one run, opened by its first piece. It never is larger than it may be."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = -1
        self._size = 0
        self.has_lost = False
        """Whether an older half has gone."""

    def write(self, stream: int, data: bytes, now: float) -> None:
        """Append a piece.

        Raises:
            OSError: it cannot be written.
        """
        moment = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds")
        stamp = moment.replace("+00:00", "Z")
        piece = min(_PIECE, self._max_bytes // 2)
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            self._append(f"--- {stamp} {_STREAMS[stream]} {len(part)}\n".encode() + part + b"\n")

    def _append(self, framed: bytes) -> None:
        if self._file < 0:
            self._open()
        if self._size and self._size + len(framed) > self._max_bytes:
            self._rotate()
        written = os.write(self._file, framed)
        self._size += written
        if written < len(framed):
            raise OSError(0, "the disk is full")

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o600)
        self._size = 0

    def _rotate(self) -> None:
        self.close()
        older = older_half(self._path)
        self.has_lost = self.has_lost or older.exists()
        try:
            self._path.replace(older)
        except FileNotFoundError:
            # Somebody has tidied up.
            self.has_lost = True
        self._open()

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def older_half(path: Path) -> Path:
    """Return where the older half of a file goes."""
    return path.with_name(f"{path.name}.1")


def read_output(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a run's pieces of output with their streams (1 or 2), oldest first, as far as they are kept.

    A last piece that was cut off by a kill or a full disk is given as far as it goes.
    """
    yield from _pieces(older_half(path))
    yield from _pieces(path)


class Tail:
    """Reads a run's pieces while another process writes them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._has_begun = False

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Yield the pieces that have come since the last time; nothing if there are none."""
        if not self._has_begun:
            self._has_begun = True
            yield from _pieces(older_half(self._path))
        while True:
            if self._file is None:
                self._file = _opened(self._path)
            if self._file is None:
                return
            yield from _whole(self._file)
            if not self._has_moved(self._file):
                return
            # What was written before it became the older half has been read just now.
            yield from _whole(self._file)
            self.close()

    def _has_moved(self, file: BinaryIO) -> bool:
        try:
            return not os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _whole(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces that are whole, and stay before one that is not."""
    while True:
        at = file.tell()
        head = _HEAD.fullmatch(file.readline(_MAX_HEAD))
        framed = b"" if head is None else file.read(int(head[3]) + 1)
        if head is None or len(framed) <= int(head[3]):
            file.seek(at)
            return
        yield _NUMBERS[head[2].decode()], framed[:-1]


def _opened(path: Path) -> BinaryIO | None:
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError:
        return None


def _pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    file = _opened(path)
    if file is None:
        return
    with file:
        while (head := _HEAD.fullmatch(file.readline(_MAX_HEAD))) is not None:
            data = file.read(int(head[3]))
            file.read(1)
            yield _NUMBERS[head[2].decode()], data


def kept_logs(directory: Path) -> dict[tuple[str, str], list[Path]]:
    """Return the files in a directory of logs, by when a run began and the name of its file.

    What has no name of ours is not among them.
    """
    found: dict[tuple[str, str], list[Path]] = {}
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return found
    for name in names:
        if (match := _FILE.fullmatch(name)) is not None:
            found.setdefault((match[2], match[1]), []).append(directory / name)
    return found


def limit_of(seconds: float) -> str:
    """Return what runs that began before are less than, in the keys of `kept_logs`."""
    return datetime.fromtimestamp(max(seconds, 0), timezone.utc).strftime(_MOMENT)
