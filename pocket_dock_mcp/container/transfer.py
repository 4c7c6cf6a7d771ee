"""Moves files and trees between this machine and a container, where a program of the user is the other end.

What comes out is written by rules of ours (`archive.incoming`) and not as it says; what goes in can harm its
own sandbox at worst. Nothing of it is kept on the way: what is under way is a window, and it moves on when
the data is on the disk.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from pocket_dock_mcp.agent.exec_scripts import CODES
from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.agent.remote_errors import file_error
from pocket_dock_mcp.agent.transport import Process, Program, Transport
from pocket_dock_mcp.archive import inside
from pocket_dock_mcp.archive.frames import BadStreamError
from pocket_dock_mcp.archive.incoming import MAX_UNTIMED, Incoming, SenderFailedError
from pocket_dock_mcp.archive.names import TIME, parted
from pocket_dock_mcp.archive.outgoing import Counts, LimitError, Limits, Outgoing
from pocket_dock_mcp.archive.placing import Destination, receiver
from pocket_dock_mcp.archive.program import program
from pocket_dock_mcp.container.arguments import is_of
from pocket_dock_mcp.container.endings import status_of
from pocket_dock_mcp.container.host_files import host_error, host_path, host_write_error
from pocket_dock_mcp.container.tar_transfer import pull_tar, push_tar, tar_failed
from pocket_dock_mcp.container.transfer_errors import (
    broken_off,
    not_sent,
    refused,
    stalling,
    tampered,
    too_much,
)
from pocket_dock_mcp.engine.base import STDERR
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError
from pocket_dock_mcp.models import GIB, Skipped, TransferProgress, Transferred

MAX_BYTES = 16 * GIB
MAX_FILES = 1_000_000
END_S = 10.0
"""Seconds that it has to put away what it has made, before it is killed."""
REPORT_EVERY_S = 0.1
_MAX_ANSWER = 64 * 1024
_MAX_DIAGNOSTICS = 2000

T = TypeVar("T")
HostError = Callable[[OSError, bytes], PocketDockError]
OnProgress = Callable[[TransferProgress], object]


class Reporter:
    """Tells of progress, now and then and at the end."""

    def __init__(self, on_progress: OnProgress | None, counts: Counts) -> None:
        self._on_progress = on_progress
        self._counts = counts
        self._due = 0.0

    def tell(self, *, is_end: bool = False) -> None:
        """Tell if it is time to."""
        now = anyio.current_time()
        if self._on_progress is not None and (is_end or now >= self._due):
            self._due = now + REPORT_EVERY_S
            counts = self._counts
            self._on_progress(TransferProgress(counts.files, counts.bytes, counts.total_bytes))


class Answer:
    """What the program inside says, when it says little."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.diagnostics = b""
        self._news = anyio.Event()

    def take(self, stream: int, data: bytes) -> None:
        """Take a piece of its output."""
        if stream == STDERR:
            self.diagnostics = (self.diagnostics + data)[-_MAX_DIAGNOSTICS:]
        elif len(self.said) < _MAX_ANSWER:
            self.said += data
            self.wake()

    def wake(self) -> None:
        """Have whoever waits look again."""
        self._news.set()

    async def begun(self, process: Process) -> None:
        """Wait until it says something, or ends."""
        process.when_over(self.wake)
        while not self.said and not process.is_over:
            self._news = anyio.Event()
            await self._news.wait()


class Inbox(Answer):
    """What the program inside sends, until somebody takes it: no more than a window, or it cheats."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._size = 0

    def take(self, stream: int, data: bytes) -> None:
        """Take a piece of its output."""
        if stream == STDERR:
            super().take(stream, data)
        elif self._size <= inside.WINDOW:
            self._pieces.append(data)
            self._size += len(data)
        self.wake()

    async def get(self, process: Process) -> tuple[list[bytes], int]:
        """Wait for data and return all that is there, and how much it is; nothing at the end."""
        while not self._pieces and not process.is_over:
            self._news = anyio.Event()
            await self._news.wait()
        if self._size > inside.WINDOW:
            raise tampered()
        found = self._pieces, self._size
        self._pieces, self._size = [], 0
        return found


async def push(
    transport: Transport,
    source: str | os.PathLike[str],
    destination: str,
    *,
    given: str,
    on_progress: OnProgress | None,
) -> Transferred:
    """Copy a file or a tree of this machine into the container; see `LiveContainer.push`."""
    path = host_path(source)
    limits = Limits(MAX_FILES, MAX_BYTES * 1024)
    try:
        outgoing = await anyio.to_thread.run_sync(Outgoing, path, limits)
    except OSError as error:
        raise host_error(error, path) from None
    order = {
        "op": "take",
        "path": destination,
        "name": os.fsdecode(parted(path)),
        "files": limits.files,
        "bytes": limits.bytes,
    }
    reporter = Reporter(on_progress, outgoing.counts)
    answer = Answer()
    try:
        if isinstance(transport, ExecTransport):
            landed = await _push_tar(transport, outgoing, destination, path)
        else:
            async with _at_other_end(transport, order, answer) as process:
                await _send(process, outgoing, reporter, path)
                with stalling():
                    await answer.begun(process)
                    await process.feed(inside.GO, end=True)
                    await process.wait()
            landed = await _landed(process, answer, given, outgoing.counts)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(outgoing.close)
    reporter.tell(is_end=True)
    return transferred(landed, outgoing.counts)


async def _push_tar(transport: ExecTransport, outgoing: Outgoing, destination: str, path: bytes) -> str:
    try:
        name = os.fsdecode(parted(path))
        with _of_this_machine(lambda: path):
            code, landed, said = await push_tar(transport, outgoing, destination, name)
    except LimitError as error:
        raise too_much(error.what, error.most, "push") from None
    if code in CODES:
        raise file_error(CODES[code], destination, transport.facts.home)
    if code != 0:
        raise tar_failed(code, said)
    return landed


async def _send(process: Process, outgoing: Outgoing, reporter: Reporter, path: bytes) -> None:
    following = partial(_joined, outgoing.batches())
    try:
        while not process.is_over:
            piece = await _on_disk(lambda: path, following)
            if piece is None:
                return
            with stalling():
                await process.feed(piece)
            reporter.tell()
    except LimitError as error:
        raise too_much(error.what, error.most, "push") from None


async def _on_disk(
    path: Callable[[], bytes], function: Callable[..., T], *args: Any, error: HostError = host_error
) -> T:
    """Do something with this machine's files in a thread; see `_of_this_machine`."""
    with _of_this_machine(path, error):
        return await anyio.to_thread.run_sync(function, *args)


@contextmanager
def _of_this_machine(path: Callable[[], bytes], error: HostError = host_error) -> Iterator[None]:
    """Tell what is wrong with this machine's files of `path`."""
    try:
        yield
    except OSError as cause:
        # Some of ours are of that kind, too.
        if isinstance(cause, PocketDockError):
            raise
        raise error(cause, path()) from None


def _joined(batches: Iterator[list[bytes]]) -> bytes | None:
    batch = next(batches, None)
    return None if batch is None else b"".join(batch)


async def _landed(process: Process, answer: Answer, given: str, counts: Counts) -> str:
    """Return where it landed, by the word of the program inside; raise what it could not do."""
    end = await process.wait()
    status = status_of(end)
    if status != "ok":
        raise broken_off(status, answer.diagnostics)
    try:
        reply = json.loads(answer.said)
    except (ValueError, RecursionError):
        reply = None
    match reply:
        case {"done": True, "path": str(path), "untimed": list(paths), "untimed_count": int(count)}:
            _note_untimed(counts, paths, count)
            return path
        case {"errno": int(number), "at": str(at), "path": str(path)} if number != errno.EBADMSG:
            raise refused(number, f"{path}/{at}" if at else path or given)
    raise tampered()


def _note_untimed(counts: Counts, paths: list[object], count: int) -> None:
    """Note what has another time than it should, by the word of the program inside."""
    try:
        for path in paths[:MAX_UNTIMED]:
            counts.skip(os.fsencode(str(path)), TIME)
    except UnicodeEncodeError:
        raise tampered() from None
    counts.skipped_count += min(max(count - len(paths), 0), MAX_FILES)


async def pull(
    transport: Transport,
    source: str,
    destination: str | os.PathLike[str],
    *,
    given: str,
    limits: Limits,
    on_progress: OnProgress | None,
) -> Transferred:
    """Copy a file or a tree of the container to this machine; see `LiveContainer.pull`."""
    target = Destination(host_path(destination), parted(os.fsencode(source)))
    incoming = receiver(target, limits)
    order = {"op": "send", "path": source, "files": limits.files, "bytes": limits.bytes}
    inbox = Inbox()
    reporter = Reporter(on_progress, incoming.counts)
    on_disk = partial(_on_disk, lambda: target.path, error=host_write_error)
    try:
        if isinstance(transport, ExecTransport):
            with _of_this_machine(lambda: target.path, host_write_error):
                await _pull_tar(transport, source, incoming, given)
        else:
            async with _at_other_end(transport, order, inbox) as process:
                await _receive(process, inbox, on_disk, incoming, reporter)
        await on_disk(target.commit, incoming.top_mode)
    except BadStreamError:
        raise tampered() from None
    except LimitError as error:
        raise too_much(error.what, error.most, "pull") from None
    except SenderFailedError as error:
        raise not_sent(error.number, given, limits) from None
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_put_away, incoming, target)
    reporter.tell(is_end=True)
    return transferred(os.fsdecode(target.path), incoming.counts)


async def _pull_tar(transport: ExecTransport, source: str, incoming: Incoming, given: str) -> None:
    code = await pull_tar(transport, source, incoming)
    if code in CODES:
        raise file_error(CODES[code], given)
    # One: it has something to complain of, such as a file that changed.
    if code not in (0, 1, 2) or not incoming.is_complete:
        raise tar_failed(code, "")


async def _receive(
    process: Process,
    inbox: Inbox,
    write: Callable[..., Awaitable[None]],
    incoming: Incoming,
    reporter: Reporter,
) -> None:
    process.when_over(inbox.wake)
    while True:
        with stalling():
            pieces, size = await inbox.get(process)
        if not pieces:
            end = await process.wait()
            raise broken_off(status_of(end), inbox.diagnostics)
        await write(_take_all, incoming, pieces)
        if incoming.is_complete:
            return
        reporter.tell()
        with stalling():
            await process.feed(inside.CREDIT.pack(size))


def _take_all(incoming: Incoming, pieces: list[bytes]) -> None:
    for piece in pieces:
        incoming.feed(piece)


def _put_away(incoming: Incoming, target: Destination) -> None:
    incoming.close()
    target.close()


# -- the other end --------------------------------------------------------------------------------


@asynccontextmanager
async def _at_other_end(
    transport: Transport, order: dict[str, Any], answer: Answer
) -> AsyncIterator[Process]:
    """Run the program inside; when the block ends, however it does, it runs no more and has left nothing."""
    process = await transport.start(_program(order), answer.take)
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            try:
                await _end(transport, process, order)
            except PocketDockError:
                # The container is gone, or it will be: whoever uses it is told.
                pass


async def _end(transport: Transport, process: Process, order: dict[str, Any]) -> None:
    if not process.is_over and order["op"] == "take":
        with anyio.move_on_after(END_S):
            # The end of its input tells it that nothing more comes.
            await process.feed(b"", end=True)
            await process.wait()
    if not process.is_over:
        with anyio.move_on_after(END_S):
            await process.kill()
            await process.wait()
    if not process.is_over or process.is_cut_off or order["op"] != "take":
        return
    if status_of(await process.wait()) != "ok":
        with anyio.move_on_after(END_S):
            sweeper = await transport.start(_program({**order, "op": "sweep"}), Answer().take)
            await sweeper.wait()


def _program(order: dict[str, Any]) -> Program:
    said = json.dumps(order).encode("ascii")
    # Nobody can put modules into that directory for it to import.
    return Program("python", program(), cwd="/", stdin=inside.CREDIT.pack(len(said)) + said, keep_stdin=True)


def checked_limits(max_bytes: int | None, max_files: int | None) -> Limits:
    """Return the limits of a pull. Raises `InvalidArgumentError` for what can be none."""
    for name, value in (("max_bytes", max_bytes), ("max_files", max_files)):
        if value is not None and not (is_of(value, int) and 0 < value < 1 << 62):
            raise InvalidArgumentError(f"{name} is {value!r}; it must be a whole number of more than 0.")
    return Limits(max_files or MAX_FILES, max_bytes or MAX_BYTES)


def transferred(path: str, counts: Counts) -> Transferred:
    """Return what was moved. A file alone has its name, where things in a directory have their path in it."""
    alone = os.path.basename(os.fsencode(path)) if not counts.directories else None  # noqa: PTH119  # bytes
    return Transferred(
        path,
        files=counts.files,
        directories=counts.directories,
        symlinks=counts.symlinks,
        bytes=counts.bytes,
        skipped=tuple(Skipped(os.fsdecode(alone or where), why) for where, why in counts.skipped),
        skipped_count=counts.skipped_count,
    )
