# Written by scripts/mirror.py from async_/session.py; change that, and run scripts/mirror.py again.
"""`Session`: a shell or an interpreter that goes on from one command to the next."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, cast

from pocket_dock_mcp.async_.callbacks import Remove
from pocket_dock_mcp.async_.session import AsyncSession
from pocket_dock_mcp.models import RunResult as ExecResult
from pocket_dock_mcp.sync.facade import Facade


class Session(Facade[Any], of=AsyncSession):
    """A shell or an interpreter that goes on: directory, variables and functions stay.

    Made by `Container.session`.

    Commands run one after the other, in the order in which they were sent. One that reads standard input sees
    its end at once. Use it as a context manager: leaving it is `close`.

        with c.session() as s:
            s.send_and_wait("cd /tmp && x=1")
            print((s.send_and_wait("pwd; echo $x")).stdout)
    """

    def __enter__(self) -> Session:
        self._call(self._async.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._async.__aexit__, kind, error, trace)

    @property
    def id(self) -> str:
        """Names the session."""
        return cast("str", self._async.id)

    def send(self, cmd: str) -> None:
        """Have a command run after those that were sent before, and return at once; see `read`.

        Raises:
            SessionClosed: the session has ended or was closed.
            InvalidArgumentError: it can never run.
            ContainerGone: the container died.
        """
        self._call(self._async.send, cmd)

    def send_and_wait(self, cmd: str, *, timeout: float | None = None) -> ExecResult:
        """Run a command after those that were sent before, and return what came of it: all of its output.

        When it ends the session, as ``exit 3`` does, the result has its exit code all the same.

        Args:
            cmd: a command or source, of any number of lines.
            timeout: seconds for it, and for its turn; None for any. When they are over the result is
                ``timed_out`` and has the output up to then. A Python session goes on with what it holds; of a
                shell nobody can end one command alone, so that session ends.

        Raises:
            SessionClosed: the session has ended or was closed.
            ContainerError: it was never its turn.
            InvalidArgumentError: it can never run.
            ContainerGone: the container died.
        """
        return cast("ExecResult", self._call(self._async.send_and_wait, cmd, timeout=timeout))

    def read(self) -> str:
        """Return what commands that were sent by `send` have printed since the last `read`, at once.

        Both streams, as they came; of more than a MiB the newest.
        """
        return cast("str", self._here(self._async.read))

    def on_output(self, fn: Callable[[str], object]) -> Remove:
        """Have ``fn(data)`` called for all output of all commands as it comes; returns what undoes it.

        What it raises is logged, and disturbs nobody. It must return at once.

        Raises:
            InvalidArgumentError: it cannot be called, or only be awaited.
        """
        return cast("Remove", self._here(self._async.on_output, self._aside(fn)))

    def close(self) -> None:
        """End it with everything that runs in it. Idempotent, and quiet when it is gone already."""
        self._call(self._async.close)
