"""Descriptors that are read and written in threads: a pipe, a file or a terminal that is slow stops nobody.

An event loop cannot wait for files, and must not make a terminal non-blocking: a shell shares it with us.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import threading
from collections.abc import Callable

PIECE = 64 * 1024


class Reader:
    """Reads a descriptor, one piece at a time and only when asked; given up at any time by `close`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._wake_read, self._wake_write = os.pipe()
        self._wanted = threading.Semaphore(0)
        self._closed = False
        self._ended = False
        self._piece: asyncio.Future[bytes] | None = None
        self._thread: threading.Thread | None = None

    async def read(self) -> bytes:
        """Wait for some bytes and return them; none at the end, or when nothing can be read any more."""
        if self._ended or self._closed:
            return b""
        if self._piece is None:
            self._piece = self._loop.create_future()
            if self._thread is None:
                # A daemon, though `close` ends it: whatever happens, it keeps no process from exiting.
                self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
                self._thread.start()
            self._wanted.release()
        # What a cancelled caller does not get is there for the next.
        data = await asyncio.shield(self._piece)
        self._piece = None
        self._ended = not data
        return data

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            self._wanted.acquire()
            ready = [fd for fd, _ in poll.poll()] if not self._closed else []
            if self._closed or self._wake_read in ready:
                break
            try:
                data = os.read(self._fd, PIECE)
            except OSError:
                # EIO: the terminal has hung up, or another job has it.
                data = b""
            if not self._tell(data) or not data:
                break
        os.close(self._wake_read)

    def _tell(self, data: bytes) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._arrived, data)
        except RuntimeError:
            # The loop is closed.
            return False
        return True

    def _arrived(self, data: bytes) -> None:
        if self._piece is not None and not self._piece.done():
            self._piece.set_result(data)

    def close(self) -> None:
        """Read no more, and leave what has not been read to others. Idempotent."""
        if self._closed:
            return
        self._closed = True
        # The thread sees the end of the pipe.
        os.close(self._wake_write)
        self._wanted.release()
        if self._thread is None:
            os.close(self._wake_read)


class Writer:
    """Writes to a descriptor, in order. `write` never waits; `queued` says how far it is behind."""

    def __init__(self, fd: int) -> None:
        self.queued = 0
        """Bytes that are not written yet."""
        self.error: OSError | None = None
        """Why nothing can be written any more."""
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.on_written: Callable[[], None] = lambda: None
        """Called on the event loop when `queued` or `error` have changed."""
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Have some bytes written; ignored after an error."""
        if data and self.error is None:
            self.queued += len(data)
            self._pieces.put(data)

    async def drained(self, below: int = 1) -> None:
        """Wait until fewer than so many bytes are not written yet.

        Raises:
            OSError: they cannot be written.
        """
        while self.queued >= below and self.error is None:
            self._changed.clear()
            await self._changed.wait()
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror)

    def _write(self) -> None:
        while (data := self._pieces.get()) is not None:
            try:
                _write_all(self._fd, data)
            except OSError as error:
                self._tell(len(data), error)
                return
            self._tell(len(data), None)

    def _tell(self, count: int, error: OSError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wrote, count, error)
        except RuntimeError:
            # The loop is closed, and nobody waits.
            pass

    def _wrote(self, count: int, error: OSError | None) -> None:
        self.queued -= count
        self.error = self.error or error
        self._changed.set()
        self.on_written()

    def close(self) -> None:
        """Write what is there, and then no more. Nobody waits for that."""
        self._pieces.put(None)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            # Whoever shares it with us has made it so. (`select` knows no descriptors above 1023.)
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def same_file(one: int, other: int) -> bool:
    """Whether two descriptors are of the same thing, so that the order of what is written to both shows."""
    first, second = os.fstat(one), os.fstat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
