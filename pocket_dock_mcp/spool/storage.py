"""Bytes by position: in memory at first, and in a file without a name when they are many."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO

from pocket_dock_mcp.errors import PocketDockError

IN_MEMORY = 64 * 1024
"""Bytes up to which there is no file: most programs print less."""

Spans = list[tuple[int, int]]
"""Positions and lengths."""


class OutputGoneError(PocketDockError):
    """The output of a run that is asked for is not kept any more."""

    code = "output_gone"
    default_hint = "Run the program again, or let it write to a file."


class Storage:
    """The bytes of one stream. It knows nothing of what they mean, and has no lock.

    The file has no name from the start (on file systems without O_TMPFILE: from the moment after), so that
    the kernel frees it when this process is gone, however it went.
    """

    __slots__ = ("_directory", "_file", "_memory", "_memory_bytes")

    def __init__(self, directory: Path, memory_bytes: int) -> None:
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    @property
    def on_disk(self) -> bool:
        """Whether there is a file: then reading may wait for a disk, and needs no lock."""
        return self._file is not None

    def write(self, at: int, data: bytes) -> int:
        """Write at a position that is used or the next one, and return how many bytes were written.

        Fewer than all when the disk is full or broken. What follows on these is undefined then.
        """
        if self._file is None and at + len(data) > self._memory_bytes:
            self._move_to_file()
        if self._file is not None:
            return _write(self._file.fileno(), at, data)
        data = data[: max(0, self._memory_bytes - at)]
        self._memory[at : at + len(data)] = data
        return len(data)

    def _move_to_file(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115  # see `close`
        except OSError:
            return
        if _write(file.fileno(), 0, bytes(self._memory)) < len(self._memory):
            file.close()
            return
        self._file = file
        self._memory = bytearray()

    def read(self, spans: Spans) -> bytes:
        """Return the bytes of some spans, joined.

        Raises:
            OutputGoneError: the disk does not give them back.
        """
        if self._file is None:
            return b"".join(bytes(self._memory[at : at + length]) for at, length in spans)
        try:
            return b"".join(_read(self._file.fileno(), at, length) for at, length in spans)
        except OSError as error:
            message = f"The output of this run cannot be read back: {error.strerror}."
            raise OutputGoneError(message) from error

    def close(self) -> None:
        """Free memory and file. Of a large file that can take milliseconds."""
        self._memory = bytearray()
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # of a broken disk: it is closed nevertheless
                file.close()

    def __del__(self) -> None:
        # Of a run that was dropped when there was no event loop any more to close its spool in.
        self.close()


def _write(fd: int, at: int, data: bytes) -> int:
    written = 0
    try:
        while written < len(data):
            written += os.pwrite(fd, data[written:] if written else data, at + written)
    except OSError:
        pass
    return written


def _read(fd: int, at: int, length: int) -> bytes:
    pieces = []
    while length > 0:
        piece = os.pread(fd, length, at)
        if not piece:
            raise OSError(0, "the file is shorter than what was written to it")
        pieces.append(piece)
        at, length = at + len(piece), length - len(piece)
    return b"".join(pieces)
