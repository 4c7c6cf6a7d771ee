# Written by scripts/mirror.py from async_/process.py; change that, and run scripts/mirror.py again.
"""`Process`: a program in the background, watched and ended by its handle."""

from __future__ import annotations

from typing import Any, cast

from pocket_dock_mcp.async_.process import (
    AsyncProcess,
    BufferSnapshot,
)
from pocket_dock_mcp.models import RunResult as ExecResult
from pocket_dock_mcp.sync.facade import Facade


class Process(Facade[Any], of=AsyncProcess):
    """A program that runs in the background. Made by ``Container.run(..., detach=True)``.

    `Container.detached` finds it again, in another process, too, where its container persists.

    It goes on until it ends, is killed, its time is over or its container ends, whether or not somebody holds
    this handle.

        process = c.run("python -m http.server 8080", detach=True)
        process.kill()
    """

    @property
    def id(self) -> str:
        """Names the run."""
        return cast("str", self._async.id)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return cast("bool", self._call(self._async.is_running))

    def kill(self, signal: int = 15) -> None:
        """Send a signal to the program and what it has started; nothing happens when it has ended.

        A program may handle or ignore all but 9 (SIGKILL), which also ends those of its processes that have
        left its group. `wait` tells when it is over.

        Args:
            signal: its number.

        Raises:
            InvalidArgumentError: there is no such signal.
            ContainerGone: the container died.
        """
        self._call(self._async.kill, signal)

    def read(self) -> BufferSnapshot:
        """Return what it has printed since the last `read`, at once: the newest MiB of each stream."""
        return cast("BufferSnapshot", self._here(self._async.read))

    def peek(self) -> BufferSnapshot:
        """Return what `read` would return, and leave it to be read."""
        return cast("BufferSnapshot", self._here(self._async.peek))

    @property
    def buffer_size(self) -> int:
        """Bytes that it has printed and nobody has read."""
        return cast("int", self._async.buffer_size)

    @property
    def buffer_overflow(self) -> bool:
        """Whether some of its output was let go of before anybody has read it; `wait` may have it."""
        return cast("bool", self._async.buffer_overflow)

    def wait(self, timeout: float | None = None) -> ExecResult:
        """Wait for its end and return what came of it, with all output up to `max_output`, read or not.

        Callbacks of the container have been told of all of it by then. Being cancelled does not kill it.

        Args:
            timeout: seconds to wait; None for any. The program goes on when they are over.

        Raises:
            TimeoutError: it has not ended by then.
            FileError: its working directory could not be entered.
            ProcessLimitError: it could not be started.
        """
        return cast("ExecResult", self._call(self._async.wait, timeout))

    def write(self, data: str | bytes) -> None:
        """Write to its standard input, which is open until `close_stdin`; nothing happens when it has ended.

        Raises:
            InvalidArgumentError: it was started with an input of its own (``stdin=``), or that was closed.
            ContainerGone: the container died.
        """
        self._call(self._async.write, data)

    def close_stdin(self) -> None:
        """Let it see the end of its standard input. Idempotent.

        Raises:
            ContainerGone: the container died.
        """
        self._call(self._async.close_stdin)
