"""How transfers fail, and how it is found out that one does not move any more."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType

import anyio

from pocket_dock_mcp.agent.remote_errors import file_error
from pocket_dock_mcp.archive.inside import LIMITS
from pocket_dock_mcp.archive.outgoing import Limits
from pocket_dock_mcp.errors import (
    DiskFullError,
    FileError,
    FileNotRegularError,
    PocketDockError,
    TransferError,
    TransferLimitError,
)

STALL_S = 120.0
"""Seconds in which the other end must have done something."""


class Stall:
    """A block in which `moved` is called whenever something moves, at least every `STALL_S` seconds."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()

    def __enter__(self) -> Stall:
        self.moved()
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        result = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            raise stalled()
        return result

    def moved(self) -> None:
        """Begin to count anew."""
        self._scope.deadline = anyio.current_time() + STALL_S

    async def each(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass on what comes, and take each as a move."""
        async for piece in source:
            yield piece
            self.moved()


@contextmanager
def stalling() -> Iterator[None]:
    """A block in which the other end must do something within `STALL_S`."""
    try:
        with anyio.fail_after(STALL_S):
            yield
    except TimeoutError as error:
        if isinstance(error, PocketDockError):
            raise
        raise stalled() from None


def stalled() -> PocketDockError:
    """Return the error for a transfer that does not move."""
    message = f"The transfer has stalled: nothing moved for {STALL_S:g} s."
    hint = "Something in the sandbox may have stopped it. End what runs there, and try again."
    return TransferError(message, hint=hint)


def broken_off(status: str, diagnostics: bytes) -> PocketDockError:
    """Return the error for a program inside that ended before the transfer did."""
    if status == "disk_full":
        return DiskFullError(
            "The transfer was broken off: the sandbox has used up its disk.",
            hint="Delete files in it, or create one with more disk. Nothing of the transfer is left.",
        )
    said = diagnostics.decode("utf-8", "replace").strip().rpartition("\n")[2][-300:]
    message = f"The transfer was broken off in the sandbox ({status}{': ' if said else ''}{said})."
    return TransferError(message, hint="Nothing half-written is left. Try again.")


def tampered() -> PocketDockError:
    """Return the error for an other end that is not our program any more."""
    return TransferError(
        "What the sandbox sent is no transfer of ours: something in it tampered with the program.",
        hint="Nothing was written. End what runs in the sandbox, and try again.",
    )


def too_much(what: str, most: int, verb: str) -> PocketDockError:
    """Return the error for more than is allowed."""
    message = f"There is more to {verb} than may be moved in one call: over {most} {what}."
    hint = f"Nothing was written. Move parts of it, or raise max_{what}."
    return TransferLimitError(message, hint=hint if verb == "pull" else "Move parts of it.")


def refused(number: int, path: str) -> PocketDockError:
    """Return the error for what the program inside could not write, by its errno."""
    if number == errno.EXDEV:
        message = f"{path!r} is on another file system than what is around it."
        return TransferError(message, hint="Transfer what goes there by itself.")
    if number == errno.ENOENT:
        # Parents are made: where that is no help, nothing can be.
        return FileError(f"{path!r} cannot be made there.", hint="Choose another destination.")
    return file_error(errno.errorcode.get(number, "EIO"), path)


def not_sent(number: int, path: str, limits: Limits) -> PocketDockError:
    """Return the error for what the program inside could not send, by its errno."""
    for what, code in LIMITS.items():
        if number == code:
            return too_much(what, getattr(limits, what), "pull")
    if number == errno.ENXIO:
        message = f"{path!r} is neither a file nor a directory, but a FIFO, socket, device or file of /proc."
        return FileNotRegularError(message, hint="Only files and directories can be transferred.")
    return file_error(errno.errorcode.get(number, "EIO"), path)
