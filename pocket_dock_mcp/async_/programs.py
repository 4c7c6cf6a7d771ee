"""`Programs`: what can be run in a container, and how its output is had: at the end, as it comes, beside."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Literal, cast, overload

import anyio

from pocket_dock_mcp.async_ import commands
from pocket_dock_mcp.async_.callbacks import Callbacks, Remove
from pocket_dock_mcp.async_.errors import in_result
from pocket_dock_mcp.async_.holds import Hold
from pocket_dock_mcp.async_.process import AsyncProcess, Watch
from pocket_dock_mcp.async_.session import AsyncSession, Ending, begun
from pocket_dock_mcp.async_.stream import AsyncExecStream
from pocket_dock_mcp.container.options import RunOptions
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.manager.recording import kind_of
from pocket_dock_mcp.models import RunResult as ExecResult

if TYPE_CHECKING:
    from pocket_dock_mcp.async_.container import AsyncContainer

REPLAY = 10.0
"""Seconds for the output of programs that are found again, before what is there of it has to do."""
MAX_OUTPUT = 10_485_760
"""Bytes of each output stream that a result has unless told otherwise."""


class Programs:
    """The part of `AsyncContainer` that runs programs."""

    def __init__(self, hold: Hold, timeout: float) -> None:
        self._hold = hold
        self._timeout = timeout
        self._callbacks = Callbacks()
        self._sessions: weakref.WeakSet[Ending] = weakref.WeakSet()
        self._watches: weakref.WeakValueDictionary[str, Watch] = weakref.WeakValueDictionary()
        """Of detached runs, by their ids, as long as they go on or somebody holds them."""

    @overload
    async def run(
        self,
        command: str | Sequence[str],
        *,
        stream: Literal[False] = False,
        detach: Literal[False] = False,
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        lang: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        tty: tuple[int, int] | None = None,
    ) -> ExecResult: ...

    @overload
    async def run(
        self,
        command: str | Sequence[str],
        *,
        stream: Literal[True],
        detach: Literal[False] = False,
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        lang: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        tty: tuple[int, int] | None = None,
    ) -> AsyncExecStream: ...

    @overload
    async def run(
        self,
        command: str | Sequence[str],
        *,
        stream: Literal[False] = False,
        detach: Literal[True],
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        lang: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        tty: tuple[int, int] | None = None,
    ) -> AsyncProcess: ...

    async def run(
        self,
        command: str | Sequence[str],
        *,
        stream: bool = False,
        detach: bool = False,
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        lang: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        tty: tuple[int, int] | None = None,
    ) -> ExecResult | AsyncExecStream | AsyncProcess:
        """Run a program and return what came of it. One that fails is a result, not an error.

        When its time is over, everything that it has started is killed, and the result has the output up to
        then. The same happens when the caller is cancelled.

        Args:
            command: a shell command or source, or a sequence: a program and its arguments, each as it is.
            stream: return the output as it comes instead; leaving the loop over it kills the program.
            detach: return a handle at once instead; the program goes on in the background.
            timeout: seconds that it may take, ``math.inf`` for any. None is the container's default, and with
                `stream` or `detach` any.
            max_output: bytes of each of stdout and stderr that a result has, head and tail of what is longer;
                it is ``truncated`` then. The program is not disturbed by it.
            lang: ``shell`` (the default, or ``sh``: the image's ``/bin/sh``), ``bash`` (exit code 127 if the
                image has none), ``python`` or ``javascript`` (``node``).
            cwd: where; relative to the container's working directory. None is that itself.
            env: variables on top of the container's.
            stdin: what it reads; None is nothing, and with `detach` what is written to the handle.
            tty: rows and columns of a terminal for it, on which stdout and stderr are one.

        Raises:
            InvalidArgumentError: an argument that can never work.
            FileError: `cwd` cannot be entered.
            ProcessLimitError: no process can be started.
            ContainerGone: the container died.
        """
        if stream and detach:
            message = "Both stream and detach are given."
            raise InvalidArgumentError(
                message, hint="Give one: a detached program's handle has its output, too."
            )
        code, language = commands.code_of(command, lang)
        options: RunOptions = {
            "language": language,
            "cwd": commands.directory(self._hold.workdir, cwd),
            "env": env,
            "stdin": stdin,
            "tty": tty,
        }
        if timeout is None and not stream and not detach:
            timeout = self._timeout
        options["timeout_s"] = commands.checked_timeout(timeout)
        commands.check_max_output(max_output)
        if stream:
            return AsyncExecStream(await self._started(code, "stream", options), max_output)
        if detach:
            options["keep_stdin"] = stdin is None
            return self._watched(await self._started(code, "detach", options), max_output)
        with self._hold.use() as live:
            live.left_runs.make_room()
            return in_result(await live.run(code, output_bytes=max_output, meta={}, **options))

    async def _started(self, code: str, kind: str, options: RunOptions) -> AsyncRun:
        """Start a run, for whose time the container does not count as idle."""
        with ExitStack() as stack:
            live = stack.enter_context(self._hold.use())
            live.left_runs.make_room()
            # As a visitor's it would end with the visit.
            stays = {"background": True} if kind == "detach" and live.visits else {}
            run = await live.start(code, meta={"kind": kind, **stays}, **options)
            if kind == "detach":
                live.left_runs.add(run)
            held = stack.pop_all()
        if run.is_running:
            run.on_exit(lambda _run: held.close())
        else:
            held.close()
        return run

    def _watched(self, run: AsyncRun, max_output: int) -> AsyncProcess:
        me, callbacks = cast("AsyncContainer", self), self._callbacks
        watch = Watch(run, partial(callbacks.heard, me), partial(callbacks.exit.call, me))
        self._watches[run.id] = watch
        return AsyncProcess(run, watch, max_output)

    async def detached(self) -> list[AsyncProcess]:
        """Return handles to the detached programs that it knows of, whoever has begun them; the oldest first.

        Those that go on, and the latest of those that have ended: `wait` has all of their output that was
        kept. `read` has it from the beginning on, but for what was read already by way of this object.
        So they are found again after `resume_container`, in another process, too. Callbacks of this object
        hear of those that were begun by way of it, and of no others.

        Raises:
            ContainerGone: the container died.
        """
        with self._hold.use() as live:
            await live.look_for_runs()
            runs = {run.id: run for run in (*live.found_runs, *live.left_runs) if kind_of(run) == "detach"}
            found = sorted(runs.values(), key=lambda run: run.began)
            made = [self._again(run) for run in found]
            with anyio.move_on_after(REPLAY):
                for run in found:
                    if run.had_ended:
                        await run.outcome()
                if found:
                    # Whose answer comes after the output that there was by then.
                    await live.look_for_runs()
        return made

    def _again(self, run: AsyncRun) -> AsyncProcess:
        """Return a handle to a run that has been started before."""
        watch = self._watches.get(run.id)
        if watch is None:
            watch = self._watches[run.id] = Watch(run, lambda _stream, _text: None, lambda _code: None)
        return AsyncProcess(run, watch, MAX_OUTPUT)

    async def session(self, *, lang: str = "shell") -> AsyncSession:
        """Begin a shell, or an interpreter, that goes on from one command to the next.

        Args:
            lang: as for `run`; a shell is bash, if the image has it.

        Raises:
            InvalidArgumentError: there is no such language, or the image has no python3.
            ContainerGone: the container died.
        """
        language, ending = commands.language_of(lang), Ending()
        made = await begun(self._hold.use, language, commands.directory(self._hold.workdir, None), ending)
        self._sessions.add(ending)
        return made

    def _end_sessions(self, why: str) -> None:
        for ending in tuple(self._sessions):
            ending.note(why)

    def on_stdout(self, fn: Callable[[AsyncContainer, str], object]) -> Remove:
        """Have ``fn(container, data)`` called for what detached programs print from now on, as it comes.

        It is not called for other runs. `data` has whole characters, not lines. What `fn` raises is logged,
        and disturbs nobody; what it takes long for, others wait for.

        Returns:
            A function that undoes it.

        Raises:
            InvalidArgumentError: it cannot be called, or only be awaited.
        """
        return self._callbacks.output(STDOUT).add(fn)

    def on_stderr(self, fn: Callable[[AsyncContainer, str], object]) -> Remove:
        """Have ``fn(container, data)`` called for what detached programs print to stderr; see `on_stdout`."""
        return self._callbacks.output(STDERR).add(fn)

    def on_exit(self, fn: Callable[[AsyncContainer, int | None], object]) -> Remove:
        """Have ``fn(container, exit_code)`` called when a detached program has ended; see `on_stdout`.

        All of its output has been told by then. The code is None if it did not exit by itself: it was killed,
        or its container died.
        """
        return self._callbacks.exit.add(fn)
