"""Waiting for a run within a call: for its end, for some output, for a port; with progress meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import anyio

from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.container.run import STREAMS
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError
from pocket_dock_mcp.manager.runs import SandboxRun
from pocket_dock_mcp.manager.sandbox import Sandbox
from pocket_dock_mcp.output import neutralise
from pocket_dock_mcp.server.call import Ctx
from pocket_dock_mcp.spool.pattern import compile_pattern

QUIET_S = 1.0
"""Most runs are over by then."""
PAUSE_S = 0.5
"""Between two progress notifications at least."""
HEARTBEAT_S = 5.0
"""Between two at most, so that clients which count silence keep waiting."""
SEARCH_S = 1.0
"""For one search of new output; a pattern that takes longer is not fit for it."""
WINDOW = 1024 * 1024
MAX_LINE = 200


@dataclass(frozen=True)
class Found:
    """What had been waited for, if it has come."""

    says: str
    """In our words."""
    line: str = ""
    """Of the output: data, and never to be taken for words of ours."""


Goal = Callable[[], Awaitable[Found]]
"""Returns when it is reached."""


def goal_of(
    sandbox: Sandbox,
    run: SandboxRun,
    until: Literal["exit", "output", "port"],
    *,
    pattern: str | None,
    port: int | None,
) -> Goal | None:
    """Return what a call waits for besides the run's end, which always ends the wait.

    Raises:
        InvalidArgumentError: a pattern or port that does not belong to it, or is none.
    """
    if pattern is not None and until != "output":
        raise InvalidArgumentError("pattern is given without until='output'.")
    if port is not None and until != "port":
        raise InvalidArgumentError("port is given without until='port'.")
    if until == "output":
        return _Output(run, pattern).reached
    if until == "port":
        return _Port(sandbox, run, port).reached
    return None


async def follow(ctx: Ctx, run: SandboxRun, wait_s: float, goal: Goal | None = None) -> Found | None:
    """Wait for the goal or the run's end, at most `wait_s` seconds; return what was found.

    Raises: what `AsyncRun.wait` raises, and what the goal does.
    """
    with anyio.CancelScope(deadline=anyio.current_time() + wait_s):
        if goal is None:
            # Nearly all runs are over before there is any progress to tell: they are spared the task.
            with anyio.move_on_after(QUIET_S):
                await run.run.wait()
                return None
        async with beside(_tell, ctx, run, wait_s):
            return await _first(run, goal)
    return None


async def _first(run: SandboxRun, goal: Goal | None) -> Found | None:
    """Wait for whichever comes first."""
    if goal is None:
        await run.run.wait()
        return None
    found: list[Found] = []
    errors: list[PocketDockError] = []

    async def attempt(what: Callable[[], Awaitable[object]]) -> None:
        try:
            if isinstance(result := await what(), Found):
                found.append(result)
        except PocketDockError as error:
            # Out of the group as it is, and not in a group of its own.
            errors.append(error)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(attempt, run.run.wait)
        group.start_soon(attempt, goal)
    if errors:
        raise errors[0]
    return found[0] if found else None


class _Output:
    """Output: a line that matches and was not found before, or without a pattern any that is new."""

    def __init__(self, run: SandboxRun, pattern: str | None) -> None:
        self._run = run
        self._pattern = None if pattern is None else compile_pattern(pattern)
        self._at = dict(run.shown)

    async def reached(self) -> Found:
        if self._pattern is not None:
            # Only now: what was written to the run meanwhile asks for an answer to that, and nothing older.
            self._at = dict(self._run.searched)
        while True:
            with self._run.run.listening() as news:
                # In a thread: the output is hostile, and the pattern may be slow on it.
                if (found := await anyio.to_thread.run_sync(self._look)) is not None:
                    return found
                await news.wait()

    def _look(self) -> Found | None:
        for stream in STREAMS:
            spool = self._run.run.spool(stream)
            start = max(self._at[stream], spool.total - WINDOW)
            data = spool.read(start, spool.total)
            if data and self._pattern is None:
                return Found("")
            text = data.decode("utf-8", "surrogateescape")
            if (line := self._search(text)) is not None:
                self._run.searched[stream] = start + len(text[: line[1]].encode("utf-8", "surrogateescape"))
                return Found("A line matches.", text[line[0] : line[1]][:MAX_LINE])
            # From the beginning of the last line on: it may not be whole yet.
            self._at[stream] = start + data.rfind(b"\n") + 1
        return None

    def _search(self, text: str) -> tuple[int, int] | None:
        """Return where the first line that matches begins and ends."""
        try:
            match = None if self._pattern is None else self._pattern.search(text, timeout=SEARCH_S)
        except TimeoutError:
            message = "The pattern takes too long on this output."
            raise InvalidArgumentError(
                message, hint="Use a simpler one, without nested repetitions."
            ) from None
        if match is None:
            return None
        last = text.find("\n", match.end())
        return text.rfind("\n", 0, match.start()) + 1, last if last >= 0 else len(text)


class _Port:
    """A TCP port that the run listens on: one, or any that has not been told before."""

    def __init__(self, sandbox: Sandbox, run: SandboxRun, port: int | None) -> None:
        self._sandbox = sandbox
        self._run = run
        self._port = port

    async def reached(self) -> Found:
        seen = self._sandbox.ports_seen
        ports = await self._sandbox.container.wait_port(self._port, known=frozenset(seen), run=self._run.run)
        seen.update(ports)
        return Found(f"Listening on port {', '.join(str(port) for port in ports)}.")


async def _tell(ctx: Ctx, run: SandboxRun, wait_s: float) -> None:
    """Send the newest line of output as progress, when there is a new one and now and then anyway."""
    began = anyio.current_time()
    while True:
        elapsed = anyio.current_time() - began
        await ctx.report_progress(round(elapsed, 1), wait_s, _newest_line(run))
        await anyio.sleep(PAUSE_S)
        with anyio.move_on_after(HEARTBEAT_S):
            await run.run.news()


def _newest_line(run: SandboxRun) -> str:
    for stream in STREAMS:
        if line := run.run.spool(stream).last_line(MAX_LINE):
            return neutralise(line)[0]
    return "running"
