"""`AsyncRun`: one program in a container, from its start to its end and beyond: its output is kept."""

from __future__ import annotations

import asyncio
import codecs
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import anyio

from pocket_dock_mcp.agent.transport import Process, Program, RunEnd
from pocket_dock_mcp.container.arguments import encoded
from pocket_dock_mcp.container.endings import (
    Fate,
    hint_for,
    hint_of_denials,
    result_of,
    so_far,
    status_of,
    with_losses,
)
from pocket_dock_mcp.container.handles import call_back, let_go
from pocket_dock_mcp.container.memory import Memory
from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.errors import AgentError, PocketDockError, RunNotStartedError
from pocket_dock_mcp.gate.denials import Denial
from pocket_dock_mcp.models import Limits, RunResult, RunStatus, RunUsage
from pocket_dock_mcp.spool import Spool

STREAMS = (STDOUT, STDERR)
_PIECE = 64 * 1024

OnOutput = Callable[["AsyncRun", int, bytes], None]
OnExit = Callable[["AsyncRun"], None]
OnOutcome = Callable[[RunResult | PocketDockError], None]
Denials = Callable[[], tuple[Denial, ...]]
Remove = Callable[[], None]


class AsyncRun:
    """A handle to one run. Made by `LiveContainer.start`.

    It survives the call that made it: the run goes on until it ends, is killed, or its container ends. All
    methods may be called concurrently, and after the end as well.
    """

    def __init__(
        self,
        program: Program,
        spools: dict[int, Spool],
        limits: Limits,
        fate: Fate,
        memory: Memory | None = None,
    ) -> None:
        self.id = memory.run_id if memory else f"run-{secrets.token_hex(16)}"
        """Names it, and authorises nothing."""
        self.program = program
        self.meta: Mapping[str, Any] = memory.meta if memory else {}
        """What was said of it when it was started, and what a kept container has remembered of that."""
        self.missing = (0, 0)
        """Bytes at the beginning of stdout and stderr that a kept container could not keep."""
        self.had_ended = False
        """Whether it was over already when the kept container was taken up."""
        self.is_ours_to_tell = True
        """Whether how it ends is for us to tell, or for another client who has begun it."""
        self.was_heard_of = False
        """Whether an earlier holder found out how it ended."""
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._spools = spools
        self._limits = limits
        self._fate = fate
        self._process: Process | None = None
        self._outcome: RunResult | PocketDockError | None = None
        self._deciding = anyio.Lock()
        self._waiters: list[anyio.Event] = []
        self._on_output: list[OnOutput] = []
        self._on_exit: list[OnExit] = []
        self._on_outcome: OnOutcome | None = None
        self._read_to = dict.fromkeys(STREAMS, 0)
        self._over_at: float | None = None
        self.denials: Denials = tuple
        """Says what the network has denied since it began; from its end on, what it had by then."""
        self.began = time.monotonic() - (max(0.0, time.time() - memory.began) if memory else 0.0)

    def __repr__(self) -> str:
        return f"<AsyncRun {self.id} {'running' if self.is_running else 'ended'}>"

    def started(self, process: Process) -> None:
        """Take the process that it is a handle to."""
        self._process = process
        process.when_over(self._over)

    def follow(self) -> None:
        """Have us told of it, as all does here that asks for its output, or waits for it."""
        if self._process is not None:
            self._process.follow()

    @property
    def is_followed(self) -> bool:
        """Whether its output and its end come to us."""
        return self._process is None or self._process.is_followed

    @property
    def process(self) -> Process | None:
        """What it is a handle to."""
        return self._process

    # -- output -----------------------------------------------------------------------------------

    def take(self, stream: int, data: bytes) -> None:
        """Take a piece of output, as it arrives."""
        self._spools[stream].append(data)
        if self._waiters:
            self._wake()
        for on_output in tuple(self._on_output):
            call_back(on_output, self, stream, data)

    def spool(self, stream: int) -> Spool:
        """Return what is kept of a stream (1 or 2)."""
        self.follow()
        return self._spools[stream]

    def read(self, stream: int = STDOUT, max_bytes: int = 1024 * 1024) -> str:
        """Return what a stream has printed since the last `read` of it; nothing if that is nothing.

        Of more than `max_bytes`, or than could be kept, head and tail, and between them a line that says how
        much is left out.
        """
        text = self.peek(stream, max_bytes)
        self._read_to[stream] = self._spools[stream].total
        return text

    def peek(self, stream: int = STDOUT, max_bytes: int = 1024 * 1024) -> str:
        """Return what `read` would return, and leave it to be read."""
        return self.spool(stream).since(self._read_to[stream], max_bytes)

    async def chunks(self) -> AsyncIterator[tuple[int, str]]:
        """Yield output as ``(stream, text)`` from the beginning on, as it comes, until the run has ended.

        Characters are never split; undecodable bytes become U+FFFD. What was not kept, of very long output,
        is skipped.
        """
        decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in STREAMS}
        async for stream, piece in self.pieces():
            if text := decoders[stream].decode(piece):
                yield stream, text
        for stream in STREAMS:
            if text := decoders[stream].decode(b"", True):
                yield stream, text

    async def pieces(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield output as `chunks` does, as bytes."""
        positions = dict.fromkeys(STREAMS, 0)
        while True:
            with self.listening() as news:
                is_last = not self.is_running
                for stream in STREAMS:
                    for at, data in self._spools[stream].chunks(positions[stream], _PIECE):
                        positions[stream] = at + len(data)
                        yield stream, data
                if is_last:
                    return
                await news.wait()

    @contextmanager
    def listening(self) -> Iterator[anyio.Event]:
        """An event that is set by new output, or by the end; from now on, so that nothing is missed."""
        self.follow()
        event = anyio.Event()
        self._waiters.append(event)
        try:
            yield event
        finally:
            self._waiters.remove(event)

    async def news(self) -> None:
        """Wait for more output, or for the end."""
        with self.listening() as event:
            if self.is_running:
                await event.wait()

    def _wake(self) -> None:
        for event in self._waiters:
            event.set()

    # -- control ----------------------------------------------------------------------------------

    async def write_stdin(self, data: str | bytes, *, end: bool = False) -> None:
        """Write to its standard input, if it was started with ``keep_stdin``; `end` closes it.

        Raises:
            SandboxLostError: its container is gone.
            InvalidArgumentError: it is neither text nor bytes.
        """
        raw = encoded("the input", data)
        self.follow()
        await self._live().feed(raw, end=end)

    async def send_signal(self, number: int) -> None:
        """Send a signal to its process group."""
        if self.is_running:
            await self._live().signal(number)

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size, in characters."""
        if self.is_running:
            await self._live().resize(rows, columns)

    def hold(self, is_held: bool) -> None:
        """Have its program wait with more output than is under way, or go on; for who is slow to take it."""
        if self.is_running:
            self._live().hold(is_held)

    async def kill(self) -> None:
        """Kill all its processes. `wait` tells when they are gone. Does nothing to a run that has ended."""
        if self.is_running:
            await self._live().kill()

    def _live(self) -> Process:
        if self._process is None:
            message = "The run has not been started."
            raise PocketDockError(message)
        return self._process

    # -- ending -----------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._process is None or not self._process.is_over

    @property
    def age_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def on_output(self, callback: OnOutput) -> Remove:
        """Have ``callback(run, stream, data)`` called for each piece of output; returns what undoes it."""
        self.follow()
        self._on_output.append(callback)
        return lambda: self._on_output.remove(callback) if callback in self._on_output else None

    def on_exit(self, callback: OnExit) -> Remove:
        """Have ``callback(run)`` called when it has ended; returns what undoes it."""
        self.follow()
        self._on_exit.append(callback)
        return lambda: self._on_exit.remove(callback) if callback in self._on_exit else None

    def _over(self) -> None:
        self._over_at = time.monotonic()
        denied = self.denials()
        self.denials = lambda: denied
        self._wake()
        for on_exit in tuple(self._on_exit):
            call_back(on_exit, self)

    async def wait(self, output_bytes: int = 1024 * 1024) -> RunResult:
        """Wait for its end and return what came of it, with at most `output_bytes` of each stream.

        Whoever waits may be cancelled; the run goes on.

        Raises:
            FileError: its working directory could not be entered.
            ProcessLimitError, RunNotStartedError, SessionError: it was not started.
        """
        await self._decide()
        return self.result(output_bytes)

    def when_decided(self, callback: OnOutcome) -> None:
        """Have ``callback(outcome)`` called when somebody's waiting has found out what came of it."""
        self._on_outcome = callback

    async def outcome(self) -> RunResult | PocketDockError:
        """Wait for its end and return what came of it, without its output, which may be gone by then."""
        await self._decide()
        return self._outcome or RunResult("indeterminate")

    def result(self, output_bytes: int = 1024 * 1024) -> RunResult:
        """Return what is known by now; the status is ``running`` before the end was seen by `wait`.

        Raises: what `wait` raises.
        """
        if isinstance(self._outcome, PocketDockError):
            raise self._outcome
        outcome = self._outcome or so_far(time.monotonic() - self.began, self.denials())
        return self._with_output(outcome, output_bytes)

    def _with_output(self, outcome: RunResult, output_bytes: int) -> RunResult:
        texts = {stream: self._spools[stream].head_and_tail(output_bytes) for stream in STREAMS}
        totals = {stream: self._spools[stream].total for stream in STREAMS}
        return replace(
            outcome,
            stdout=texts[STDOUT],
            stderr=texts[STDERR],
            stdout_bytes=totals[STDOUT],
            stderr_bytes=totals[STDERR],
            truncated=any(total > output_bytes for total in totals.values()),
        )

    async def _decide(self) -> None:
        async with self._deciding:
            if self._outcome is not None:
                return
            try:
                self.follow()
                self._settle(self._ended(await self._live().wait()))
            except AgentError as error:
                self._settle(self._broken_off(*await self._fate(error)))
                return
            except PocketDockError as error:
                self._settle(error)
            # Last: whoever was to be told has been, should we be killed right now.
            if self.is_ours_to_tell:
                self._live().heard()

    def _settle(self, outcome: RunResult | PocketDockError) -> None:
        """Say what came of it; the first word counts."""
        if self._outcome is None:
            self._outcome = outcome
            if self._on_outcome is not None:
                on_outcome, self._on_outcome = self._on_outcome, None
                call_back(on_outcome, outcome)

    @property
    def is_cut_off(self) -> bool:
        """Whether it is over as far as can be known, and not because it has ended."""
        return self._process is not None and self._process.is_cut_off

    @property
    def is_settled(self) -> bool:
        """Whether it was found out what came of it."""
        return self._outcome is not None

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody is finding out what came of it."""
        return self._deciding.locked()

    def cut_off(self, status: RunStatus, why: str) -> None:
        """Say what came of a run that is cut off, for one who knows it better than its container."""
        self._settle(self._broken_off(status, why))

    def _broken_off(self, status: RunStatus, why: str) -> RunResult:
        if self.had_ended:
            # By itself, and before.
            return RunResult("indeterminate", hint=f"It had ended before. How was not found out: {why}")
        over_at = time.monotonic() if self._over_at is None else self._over_at
        return RunResult(status, usage=RunUsage(wall_s=over_at - self.began), hint=why)

    def _ended(self, end: RunEnd) -> RunResult:
        status = status_of(end)
        denied = self.denials()
        hint = hint_for(status, end, self.program, self._limits) or hint_of_denials(status, denied)
        return result_of(status, end, with_losses(hint, self.missing, end.missed), denied)

    @property
    def has_not_run(self) -> bool:
        """Whether it was found out that nothing of it ever ran."""
        return isinstance(self._outcome, PocketDockError) and not isinstance(
            self._outcome, RunNotStartedError
        )

    def drop_images(self) -> None:
        """Let go of its images, which may be megabytes; the result counts them as left."""
        if isinstance(self._outcome, RunResult) and self._outcome.images:
            left = self._outcome.images_left + len(self._outcome.images)
            self._outcome = replace(self._outcome, images=(), images_left=left)

    def __del__(self) -> None:
        """Let go of its output: a handle that nobody holds keeps nobody's room.

        Not here, which is at any moment, in any thread, and perhaps where that has locked a spool or budget.
        """
        if not self._is_closed:
            try:
                self._loop.call_soon_threadsafe(let_go, self._process, self._spools)
            except RuntimeError:
                # The loop is closed, and with it all that shared its room; files go with the spools.
                pass

    def close(self) -> None:
        """Let go of its output, in a kept container too. Reading it afterwards is an error."""
        self._is_closed = True
        let_go(self._process, self._spools)
