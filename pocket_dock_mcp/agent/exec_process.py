"""A command under way in a container without an agent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from pocket_dock_mcp.agent.transport import Program, RunEnd
from pocket_dock_mcp.errors import AgentError, InvalidArgumentError

SIGKILL = 9

Kill = Callable[[], Awaitable[None]]


class ExecProcess:
    """A command under way, as a task: it outlives the call that began it, so no caller's task group can own
    it. `wait` tells how it ended; it is over at the latest when the container is.
    """

    def __init__(self, run: Callable[[], Coroutine[Any, Any, RunEnd]], kill: Kill) -> None:
        self._kill = kill
        self._killed = False
        self._task = asyncio.get_running_loop().create_task(run(), name="exec-run")
        # Whoever asks is told of a failure; nobody needs to have asked.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def wait(self) -> RunEnd:
        """Wait for its end."""
        end = await asyncio.shield(self._task)
        return replace(end, ended_by="killed", exit_code=None, signal=SIGKILL) if self._killed else end

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or will never be heard of again."""
        return self._task.done()

    is_followed = True

    def follow(self) -> None:
        """Do nothing: it is ours."""

    @property
    def is_cut_off(self) -> bool:
        """Whether it is over because nothing will ever be heard of it again."""
        task = self._task
        return task.done() and (task.cancelled() or isinstance(task.exception(), AgentError))

    def when_over(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it is over."""
        self._task.add_done_callback(lambda _task: callback())

    async def feed(self, _data: bytes, *, end: bool = False) -> None:  # noqa: ARG002  # as in `Process`
        """Refuse: its input was all there when it began."""
        raise no_agent("input cannot be written later")

    async def signal(self, number: int) -> None:
        """Refuse, unless it is SIGKILL."""
        if number != SIGKILL:
            raise no_agent("programs cannot be signalled")
        await self.kill()

    async def resize(self, _rows: int, _columns: int) -> None:
        """Do nothing: it has no terminal."""

    def hold(self, _is_held: bool) -> None:
        """Do nothing: what is under way comes as it comes."""

    async def kill(self) -> None:
        """Kill it, and everything else of the user's: they cannot be told apart."""
        self._killed = not self._task.done()
        await self._kill()

    def heard(self) -> None:
        """Do nothing: nobody comes later."""

    def forget(self) -> None:
        """Do nothing: nothing of it is kept inside."""


def refuse_what_needs_an_agent(program: Program) -> None:
    """Raise InvalidArgumentError for a program that cannot be run this way."""
    limits = program.limits
    if program.language != "shell":
        raise no_agent(f"it cannot run {program.language}")
    if program.session is not None:
        raise no_agent("there are no sessions")
    if program.tty is not None or program.keep_stdin:
        raise no_agent("programs have neither a terminal nor input that is written later")
    if any((limits.cpu_s, limits.memory_bytes, limits.processes, limits.output_bytes)):
        raise no_agent("a run has no limits of its own but its time")


def no_agent(what: str) -> InvalidArgumentError:
    """Return the error for what cannot be done this way."""
    message = f"This sandbox's image has no python3 that works, so {what}."
    return InvalidArgumentError(
        message, hint="Use run_command, or create a sandbox of an image that has it, such as 'minimal'."
    )
