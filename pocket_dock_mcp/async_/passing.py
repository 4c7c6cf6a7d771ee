"""What passes between a run and descriptors of ours: bytes as they are, and no faster than who takes them."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from pocket_dock_mcp.async_.descriptors import Reader, Writer
from pocket_dock_mcp.container.run import STREAMS, AsyncRun
from pocket_dock_mcp.errors import AgentError, PocketDockError
from pocket_dock_mcp.models import RunResult

TIMED_OUT = 124
"""As `timeout` of the GNU coreutils has it."""
UNKNOWN = 125
"""Nobody knows how it ended."""
SIGNALLED = 128
_SIGKILL = 9
KILL_DEADLINE = 10.0
"""Seconds for killing a run before it is left to its container."""
MOST, FEW = 1024 * 1024, 256 * 1024
"""Bytes that may wait to be written before the program is held back, and how few of them let it go on."""


class Outlet:
    """Writes a run's output to descriptors as it comes. Where they are slow, the program waits."""

    def __init__(self, run: AsyncRun, writers: Mapping[int, Writer], most: int | None = None) -> None:
        """Begin with what has come already.

        Args:
            run: just started.
            writers: by stream, 1 and 2; both may be the same.
            most: bytes of both streams together that are written; `enough` is set by the first that is not.
        """
        self.broken = anyio.Event()
        """Set when something cannot be written any more; `error` says why."""
        self.enough = anyio.Event()
        self._run = run
        self._writers = writers
        self._left = most
        self._is_held = False
        for writer in writers.values():
            writer.on_written = self._written
        for stream in STREAMS:
            spool = run.spool(stream)
            self._take(run, stream, spool.read(0, spool.total))
        self._remove = run.on_output(self._take)

    @property
    def error(self) -> OSError | None:
        """Why something cannot be written any more."""
        return next((writer.error for writer in self._writers.values() if writer.error is not None), None)

    def _take(self, _run: AsyncRun, stream: int, data: bytes) -> None:
        if self._left is not None:
            if len(data) > self._left:
                self.enough.set()
            data = data[: self._left]
            self._left -= len(data)
        self._writers[stream].write(data)
        self._hold()

    def _hold(self) -> None:
        queued = max(writer.queued for writer in self._writers.values())
        wanted = queued > (FEW if self._is_held else MOST) and self.error is None
        if wanted != self._is_held:
            self._is_held = wanted
            self._run.hold(wanted)

    def _written(self) -> None:
        self._hold()
        if self.error is not None:
            self.broken.set()

    async def finish(self) -> None:
        """Wait until all that has come is written.

        Raises:
            OSError: it cannot be.
        """
        for writer in self._writers.values():
            await writer.drained()

    def close(self) -> None:
        """Write no more than what is waiting already."""
        self._remove()
        for writer in self._writers.values():
            writer.close()
        if self._is_held:
            self._is_held = False
            self._run.hold(False)


async def feed(run: AsyncRun, reader: Reader) -> None:
    """Give a run what is read, as fast as it takes it, and then the end. Quiet when the run is over."""
    try:
        while data := await reader.read():
            await run.write_stdin(data)
        await run.write_stdin(b"", end=True)
    except AgentError:
        # Whoever waits for the run's end is told the same.
        pass


async def end(run: AsyncRun) -> None:
    """Kill a run that has not ended; not cut off by a cancellation. Quiet when the sandbox is gone."""
    if not run.is_running:
        return
    with anyio.CancelScope(shield=True), anyio.move_on_after(KILL_DEADLINE):
        try:
            await run.kill()
        except PocketDockError:
            # And the run with it.
            pass


def exit_status(result: RunResult) -> int:
    """Return how a run ended in one number, as shells count: its exit code, or 128 and its signal."""
    if result.exit_code is not None:
        return result.exit_code
    if result.status == "timeout":
        return TIMED_OUT
    if result.status in ("lost", "indeterminate", "running"):
        return UNKNOWN
    return SIGNALLED + (result.signal or _SIGKILL)
