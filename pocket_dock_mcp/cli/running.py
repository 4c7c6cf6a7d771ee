"""A run that a command waits for: its streams are ours, it gets our signals, and its end is our end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from pocket_dock_mcp.async_ import terminal
from pocket_dock_mcp.async_.descriptors import Reader, Writer, same_file
from pocket_dock_mcp.async_.passing import Outlet, end, exit_status, feed
from pocket_dock_mcp.async_.sizes import size_of
from pocket_dock_mcp.beside import beside
from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import Console, denied, in_our_words, plain
from pocket_dock_mcp.cli.signals import ENDING
from pocket_dock_mcp.container.arguments import MAX_STDIN_BYTES
from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.models import RunResult

if TYPE_CHECKING:
    from pocket_dock_mcp.cli.reaching import Reached
    from pocket_dock_mcp.container.options import RunOptions
    from pocket_dock_mcp.container.run import AsyncRun

JSON_BYTES = 10 * 1024 * 1024
"""Of each stream that a document has, unless told otherwise."""
START_LOOK = 0.25
"""Seconds in which a run that cannot begin says so, mostly."""
_EXPLAINED = ("timeout", "oom", "disk_full", "output_limit", "killed", "lost", "indeterminate")
"""Endings that the exit status alone does not explain."""


def open_input(arguments: argparse.Namespace) -> Reader | None:
    """Return standard input for the program, if it is to have it: what is piped in, or what is asked for."""
    if arguments.detach or sys.stdin is None:
        return None
    if os.isatty(0):
        return Reader(0) if arguments.interactive or arguments.tty else None
    try:
        is_nothing = os.fstat(0).st_rdev == Path(os.devnull).stat().st_rdev
    except OSError:
        return None
    return None if is_nothing else Reader(0)


class Job:
    """One run for a command."""

    def __init__(self, reached: Reached, console: Console, most: str | None) -> None:
        self._reached = reached
        self._console = console
        self._most = None if most is None else size_of("--max-output", most)
        self._signals: list[int] = []
        self._is_patient = True
        self._got: int | None = None
        self._signalled = anyio.Event()

    async def _start(self, code: str, wanted: RunOptions, *, background: bool = False) -> AsyncRun:
        runs = self._reached.sandbox.runs
        return (await runs.start(code, key=None, background=background, **wanted)).run

    # -- ways to run ------------------------------------------------------------------------------

    async def left_running(self, code: str, wanted: RunOptions) -> int:
        """Start it and say how it is called."""
        run = await self._start(code, wanted, background=True)
        with anyio.move_on_after(START_LOOK):
            outcome = await run.outcome()
            if isinstance(outcome, PocketDockError):
                raise outcome
        if self._console.as_json:
            self._console.give({"run_id": run.id, "sandbox_id": self._reached.sandbox.id})
        else:
            self._console.say(run.id)
        return exits.OK

    async def passed_through(self, code: str, wanted: RunOptions, reader: Reader | None) -> int:
        """Run it with our streams."""
        run = await self._start(code, await self._with_input(wanted, reader))
        writers = _writers()
        outlet = Outlet(run, writers, self._most)
        try:
            async with self._attended(run, reader):
                outcome = await _outcome_unless(run, outlet.broken, outlet.enough)
            # Nothing that has come is lost, be it that we end the run.
            if outcome is None:
                await end(run)
            if outlet.error is None:
                await outlet.finish()
        except OSError:
            # Told below: it is one of the writers'.
            pass
        finally:
            await end(run)
            outlet.close()
            run.close()
        if outlet.error is not None:
            status = self._console.not_written(outlet.error)
            return exits.NOT_RUN if status == exits.FAILED else status
        if outcome is None:
            self._note(f"it wrote more than {self._most} bytes and was ended (--max-output)")
            return exits.TIMED_OUT
        return self._ended(outcome)

    async def as_document(self, code: str, wanted: RunOptions, reader: Reader | None) -> int:
        """Run it and print what came of it as JSON."""
        run = await self._start(code, await self._with_input(wanted, reader))
        try:
            async with self._attended(run, reader):
                result = await run.wait(self._most or JSON_BYTES)
        finally:
            await end(run)
        self._console.give(document(run, result, self._reached))
        run.close()
        return exit_status(result)

    async def on_terminal(self, code: str, wanted: RunOptions, *, is_shell: bool = False) -> int:
        """Run it with a terminal, which is ours if we have one. A shell heeds no signal, so it is killed."""
        self._is_patient = not is_shell
        wanted["tty"] = terminal.size_of(1)
        wanted["keep_stdin"] = True
        wanted["env"] = {**terminal.environment(os.environ), **(wanted.get("env") or {})}
        was_terminal = os.isatty(0)
        run = await self._start(code, wanted)
        try:
            async with self._attended(run, None):
                result = await terminal.interact(run, 0, 1)
        except OSError:
            if not was_terminal or os.isatty(0):
                raise
            return exits.SIGNALLED + signal.SIGHUP
        finally:
            await end(run)
            run.close()
        if was_terminal and not os.isatty(0):
            # It has hung up: the shell, which saw the end of its input, may have ended by itself, and the
            # signal may reach us later or, behind another shell, never.
            return exits.SIGNALLED + signal.SIGHUP
        return self._ended(result)

    # -- while it runs ----------------------------------------------------------------------------

    async def _with_input(self, wanted: RunOptions, reader: Reader | None) -> RunOptions:
        if reader is None:
            return wanted
        if self._reached.live.runs_on:
            return {**wanted, "keep_stdin": True}
        # Without python3 in its image, all of it has to be there when it begins.
        data = bytearray()
        while len(data) <= MAX_STDIN_BYTES and (piece := await reader.read()):
            data += piece
        reader.close()
        return {**wanted, "stdin": bytes(data)}

    @asynccontextmanager
    async def _attended(self, run: AsyncRun, reader: Reader | None) -> AsyncIterator[None]:
        """Have it get what is read, and signals, while the block waits for its end."""
        signals = self._console.signals
        async with AsyncExitStack() as stack:
            if reader is not None and run.program.keep_stdin:
                stack.callback(reader.close)
                await stack.enter_async_context(beside(feed, run, reader))
            if signals is not None:
                stack.enter_context(signals.taken(self._take))
            await stack.enter_async_context(beside(self._pass_signals, run))
            yield

    def _take(self, number: int) -> None:
        self._got = number
        self._signals.append(number)
        self._signalled.set()

    async def _pass_signals(self, run: AsyncRun) -> None:
        """Send it what we get; whoever interrupts it twice means it."""
        seen: set[int] = set() if self._is_patient else set(ENDING)
        while True:
            await self._signalled.wait()
            self._signalled = anyio.Event()
            while self._signals:
                number = self._signals.pop(0)
                try:
                    if number in seen and number in ENDING:
                        await end(run)
                    else:
                        await run.send_signal(number)
                except PocketDockError:
                    # Whoever waits for its end is told.
                    return
                seen.add(number)

    # -- when it has ended ------------------------------------------------------------------------

    def _ended(self, outcome: RunResult | PocketDockError) -> int:
        if isinstance(outcome, PocketDockError):
            raise outcome
        if outcome.network_denied:
            self._note(denied(outcome.network_denied))
        if outcome.status == "killed" and self._got is not None:
            # Whoever did so knows.
            return exits.SIGNALLED + self._got
        if outcome.status in _EXPLAINED:
            self._note(f"{outcome.status.replace('_', ' ')}: {in_our_words(outcome.hint or 'it was ended')}")
        return exit_status(outcome)

    def _note(self, text: str) -> None:
        self._console.note(f"pocket-dock: {plain(text)}")


async def _outcome_unless(run: AsyncRun, *events: anyio.Event) -> RunResult | PocketDockError | None:
    """Wait for a run's end and return what came of it; None if one of these came first."""
    outcome = None
    with anyio.CancelScope() as scope:
        async with AsyncExitStack() as stack:
            for event in events:
                await stack.enter_async_context(beside(_cancel_when, scope, event))
            outcome = await run.outcome()
    return outcome


async def _cancel_when(scope: anyio.CancelScope, event: anyio.Event) -> None:
    await event.wait()
    scope.cancel()


def document(run: AsyncRun, result: RunResult, reached: Reached) -> dict[str, object]:
    """Return a run and what came of it for JSON. Bytes that are no UTF-8 are replaced in it."""
    return {
        "run_id": run.id,
        "sandbox_id": reached.sandbox.id,
        "status": result.status,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "stdout_bytes": result.stdout_bytes,
        "stderr_bytes": result.stderr_bytes,
        "truncated": result.truncated,
        "duration_ms": round(result.duration_ms, 1),
        "cpu_s": round(result.usage.cpu_s, 3),
        "peak_memory_bytes": result.usage.peak_memory_bytes,
        "network_denied": list(result.network_denied),
        "hint": None if result.hint is None else in_our_words(result.hint),
    }


def _writers() -> dict[int, Writer]:
    """Return where output goes: in the order in which it comes, where both streams are the same."""
    out = Writer(1 if sys.stdout is not None else -1)
    if sys.stderr is None:
        # It can be done without.
        return {STDOUT: out, STDERR: Writer(os.open(os.devnull, os.O_WRONLY))}
    if sys.stdout is not None and same_file(1, 2):
        return {STDOUT: out, STDERR: out}
    return {STDOUT: out, STDERR: Writer(2)}
