"""`AsyncSession`: a shell or an interpreter that goes on from one command to the next."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType

import anyio

from pocket_dock_mcp.async_.background import abandon, in_background
from pocket_dock_mcp.async_.callbacks import Listeners, Remove
from pocket_dock_mcp.async_.commands import checked_timeout
from pocket_dock_mcp.async_.errors import in_result
from pocket_dock_mcp.async_.process import Unread
from pocket_dock_mcp.async_.stream import decoders
from pocket_dock_mcp.container.arguments import is_of
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.run import STREAMS, AsyncRun
from pocket_dock_mcp.errors import (
    InvalidArgumentError,
    PocketDockError,
    SandboxClosedError,
    SandboxLostError,
    SessionClosedError,
    SessionDiedError,
)
from pocket_dock_mcp.models import RunResult as ExecResult

MAX_OUTPUT = 10 * 1024 * 1024
_NOTHING = {"shell": ":", "python": "pass", "javascript": "0"}

Use = Callable[[], AbstractContextManager[LiveContainer]]


class Ending:
    """Whether a session is over, and why: of the session, and of who ends it from outside."""

    def __init__(self) -> None:
        self.error: SessionClosedError | None = None
        """What those hear who use it later; None while it is open."""

    def note(self, why: str) -> SessionClosedError:
        """Note that it is over; the first reason stays."""
        if self.error is None:
            self.error = SessionClosedError(f"The session is over. {why}")
        return self.error


async def begun(use: Use, language: str, cwd: str | None, ending: Ending) -> AsyncSession:
    """Begin a session, in a directory."""
    session_id = f"session-{secrets.token_hex(8)}"
    with use() as live:
        result = await live.run(_NOTHING[language], language=language, session=session_id, cwd=cwd)
        result.check()
    return AsyncSession(use, language, session_id, ending)


class AsyncSession:
    """A shell or an interpreter that goes on: directory, variables and functions stay.

    Made by `AsyncContainer.session`.

    Commands run one after the other, in the order in which they were sent. One that reads standard input sees
    its end at once. Use it as an async context manager: leaving it is `close`.

        async with await c.session() as s:
            await s.send_and_wait("cd /tmp && x=1")
            print((await s.send_and_wait("pwd; echo $x")).stdout)
    """

    def __init__(self, use: Use, language: str, session_id: str, ending: Ending) -> None:
        """Wrap a session that has just begun."""
        self._use = use
        self._language = language
        self._id = session_id
        self._ending = ending
        self._listeners = Listeners()
        self._unread = Unread()

    def __repr__(self) -> str:
        return f"<AsyncSession {self._id} {'open' if self._ending.error is None else 'closed'}>"

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def id(self) -> str:
        """Names the session."""
        return self._id

    async def send(self, cmd: str) -> None:
        """Have a command run after those that were sent before, and return at once; see `read`.

        Raises:
            SessionClosed: the session has ended or was closed.
            InvalidArgumentError: it can never run.
            ContainerGone: the container died.
        """
        run = await self._start(cmd, None)
        decode = {stream: decoder.decode for stream, decoder in decoders().items()}
        self._listen(run, lambda stream, data, is_last: self._say(decode[stream](data, is_last), keep=True))
        in_background(partial(self._follow, run))

    async def send_and_wait(self, cmd: str, *, timeout: float | None = None) -> ExecResult:
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
        run = await self._start(cmd, checked_timeout(timeout))
        decode = {stream: decoder.decode for stream, decoder in decoders().items()}
        self._listen(run, lambda stream, data, is_last: self._say(decode[stream](data, is_last), keep=False))
        try:
            with self._use():
                result = in_result(await run.wait(MAX_OUTPUT))
        except SessionDiedError as error:
            raise self._ending.note("It died before this command, which has not run.") from error
        except anyio.get_cancelled_exc_class():
            await abandon(run)
            await self._note(run)
            raise
        finally:
            run.close()
        await self._note(run)
        return result

    async def _start(self, cmd: str, timeout: float | None) -> AsyncRun:
        self._require_open()
        if not is_of(cmd, str):
            message = f"cmd is of the type {type(cmd).__name__}; it must be text."
            raise InvalidArgumentError(message)
        with self._use() as live:
            return await live.start(
                cmd, meta={}, language=self._language, session=self._id, timeout_s=timeout
            )

    def _listen(self, run: AsyncRun, say: Callable[[int, bytes, bool], None]) -> None:
        for stream in STREAMS:
            spool = run.spool(stream)
            say(stream, spool.read(0, spool.total), False)
        run.on_output(lambda _run, stream, data: say(stream, data, False))

        def over(_run: AsyncRun) -> None:
            for stream in STREAMS:
                say(stream, b"", True)

        run.on_exit(over)

    def _say(self, text: str, *, keep: bool) -> None:
        if text:
            if keep:
                self._unread.add(text.encode())
            self._listeners.call(text)

    async def _follow(self, run: AsyncRun) -> None:
        try:
            await self._note(run)
        finally:
            run.close()

    async def _note(self, run: AsyncRun) -> None:
        """See whether the session has ended with a command."""
        outcome = await run.outcome()
        if isinstance(outcome, SessionDiedError):
            self._ending.note("It died.")
        elif isinstance(outcome, PocketDockError) or self._ending.error is not None:
            return
        elif outcome.session is not None and not outcome.session.alive:
            how = f"exit code {outcome.exit_code}" if outcome.exit_code is not None else outcome.status
            self._ending.note(f"It ended with a command ({how}).")

    def _require_open(self) -> None:
        if self._ending.error is not None:
            raise SessionClosedError(self._ending.error.message)

    def read(self) -> str:
        """Return what commands that were sent by `send` have printed since the last `read`, at once.

        Both streams, as they came; of more than a MiB the newest.
        """
        text, rest = self._unread.peek(is_whole=False)
        self._unread.keep(rest)
        return text

    def on_output(self, fn: Callable[[str], object]) -> Remove:
        """Have ``fn(data)`` called for all output of all commands as it comes; returns what undoes it.

        What it raises is logged, and disturbs nobody. It must return at once.

        Raises:
            InvalidArgumentError: it cannot be called, or only be awaited.
        """
        return self._listeners.add(fn)

    async def close(self) -> None:
        """End it with everything that runs in it. Idempotent, and quiet when it is gone already."""
        was_closed = self._ending.error is not None
        self._ending.note("It was closed.")
        if was_closed:
            return
        try:
            with self._use() as live:
                await live.end_session(self._id)
        except (SandboxLostError, SandboxClosedError):
            # It went with its container.
            pass
