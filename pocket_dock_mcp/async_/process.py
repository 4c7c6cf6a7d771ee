"""`AsyncProcess`: a program in the background, watched and ended by its handle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGKILL, Signals

import anyio

from pocket_dock_mcp.async_.background import abandon, in_background
from pocket_dock_mcp.async_.checks import is_number, is_whole
from pocket_dock_mcp.async_.errors import in_result, told_in_sdk_words
from pocket_dock_mcp.async_.stream import decoders
from pocket_dock_mcp.container.run import STREAMS, AsyncRun
from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError
from pocket_dock_mcp.models import RunResult as ExecResult

BUFFER_BYTES = 1024 * 1024
"""Of each stream that is kept for `read`. Of more, the oldest is let go of; `wait` has more."""
MAX_SIGNAL = 64

OnOutput = Callable[[int, str], None]
OnExit = Callable[[int | None], None]


@dataclass(frozen=True, slots=True)
class BufferSnapshot:
    """What a program has printed and nobody has read."""

    stdout: str
    stderr: str


class Unread:
    """The newest bytes of a stream, up to a limit."""

    def __init__(self, limit: int = BUFFER_BYTES) -> None:
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self.size = 0
        self.overflow = False

    def add(self, data: bytes) -> None:
        """Take what comes behind the rest."""
        self._pieces.append(data)
        self.size += len(data)
        while self.size > self._limit:
            self.overflow = True
            oldest = self._pieces.popleft()
            self.size -= len(oldest)
            if (keep := self._limit - self.size) > 0:
                # Not from the middle of a character.
                rest = oldest[-keep:].lstrip(_CONTINUATIONS) if keep < len(oldest) else b""
                if rest:
                    self._pieces.appendleft(rest)
                    self.size += len(rest)
                break

    def peek(self, *, is_whole: bool) -> tuple[str, bytes]:
        """Return it as text, and the bytes of a character at its end that is not there yet."""
        data = b"".join(self._pieces)
        self._pieces = deque([data] if data else [])
        rest = b"" if is_whole else _unfinished(data)
        return data[: len(data) - len(rest)].decode("utf-8", "replace"), rest

    def keep(self, rest: bytes) -> None:
        """Let go of all but that."""
        self._pieces = deque([rest] if rest else [])
        self.size = len(rest)


_CONTINUATIONS = bytes(range(0x80, 0xC0))


def _unfinished(data: bytes) -> bytes:
    """Return the beginning of a character at the end of some UTF-8."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if 0x80 <= byte < 0xC0:
            continue
        needed = 2 if 0xC2 <= byte < 0xE0 else 3 if 0xE0 <= byte < 0xF0 else 4 if 0xF0 <= byte < 0xF5 else 1
        return data[-back:] if needed > back else b""
    return b""


class Watch:
    """Follows a detached run to its end, whoever holds its handle: buffers its output, and tells of it."""

    def __init__(self, run: AsyncRun, on_output: OnOutput, on_exit: OnExit) -> None:
        self._run = run
        self._on_output = on_output
        self._on_exit = on_exit
        self._decoders = decoders()
        self.unread = {stream: Unread() for stream in STREAMS}
        self.over = anyio.Event()
        """Set when it has ended and everybody has been told."""
        # It may have printed something before anybody could listen.
        for stream in STREAMS:
            spool = run.spool(stream)
            if data := spool.read(0, spool.total):
                self._take(run, stream, data)
        run.on_output(self._take)
        in_background(self._follow)

    def _take(self, _run: AsyncRun, stream: int, data: bytes) -> None:
        self.unread[stream].add(data)
        self._on_output(stream, self._decoders[stream].decode(data))

    async def _follow(self) -> None:
        try:
            outcome = await self._run.outcome()
            for stream in STREAMS:
                self._on_output(stream, self._decoders[stream].decode(b"", True))
            self._on_exit(None if isinstance(outcome, PocketDockError) else outcome.exit_code)
        finally:
            self.over.set()


class AsyncProcess:
    """A program that runs in the background. Made by ``AsyncContainer.run(..., detach=True)``.

    `AsyncContainer.detached` finds it again, in another process, too, where its container persists.

    It goes on until it ends, is killed, its time is over or its container ends, whether or not somebody holds
    this handle.

        process = await c.run("python -m http.server 8080", detach=True)
        await process.kill()
    """

    def __init__(self, run: AsyncRun, watch: Watch, max_output: int) -> None:
        """Wrap a run that has just been started."""
        self._run = run
        self._watch = watch
        self._max_output = max_output
        self._input_is_open = True

    def __repr__(self) -> str:
        return f"<AsyncProcess {self.id} {'running' if self._run.is_running else 'ended'}>"

    @property
    def id(self) -> str:
        """Names the run."""
        return self._run.id

    async def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._run.is_running

    async def kill(self, signal: int = 15) -> None:
        """Send a signal to the program and what it has started; nothing happens when it has ended.

        A program may handle or ignore all but 9 (SIGKILL), which also ends those of its processes that have
        left its group. `wait` tells when it is over.

        Args:
            signal: its number.

        Raises:
            InvalidArgumentError: there is no such signal.
            ContainerGone: the container died.
        """
        if not is_whole(signal) or not 1 <= signal <= MAX_SIGNAL:
            message = f"signal is {signal!r}; it must be from 1 to {MAX_SIGNAL}."
            raise InvalidArgumentError(message, hint="signal.SIGTERM is 15, signal.SIGKILL is 9.")
        with told_in_sdk_words():
            if signal == SIGKILL:
                await self._run.kill()
            else:
                await self._run.send_signal(Signals(signal) if signal in set(Signals) else signal)

    def read(self) -> BufferSnapshot:
        """Return what it has printed since the last `read`, at once: the newest MiB of each stream."""
        return self._snapshot(drain=True)

    def peek(self) -> BufferSnapshot:
        """Return what `read` would return, and leave it to be read."""
        return self._snapshot(drain=False)

    def _snapshot(self, *, drain: bool) -> BufferSnapshot:
        texts = {}
        for stream, unread in self._watch.unread.items():
            texts[stream], rest = unread.peek(is_whole=not self._run.is_running)
            if drain:
                unread.keep(rest)
        return BufferSnapshot(texts[STDOUT], texts[STDERR])

    @property
    def buffer_size(self) -> int:
        """Bytes that it has printed and nobody has read."""
        return sum(unread.size for unread in self._watch.unread.values())

    @property
    def buffer_overflow(self) -> bool:
        """Whether some of its output was let go of before anybody has read it; `wait` may have it."""
        return any(unread.overflow for unread in self._watch.unread.values())

    async def wait(self, timeout: float | None = None) -> ExecResult:
        """Wait for its end and return what came of it, with all output up to `max_output`, read or not.

        Callbacks of the container have been told of all of it by then. Being cancelled does not kill it.

        Args:
            timeout: seconds to wait; None for any. The program goes on when they are over.

        Raises:
            TimeoutError: it has not ended by then.
            FileError: its working directory could not be entered.
            ProcessLimitError: it could not be started.
        """
        if timeout is not None and not (is_number(timeout) and timeout >= 0):
            message = f"timeout is {timeout!r}; it must be a number of seconds."
            raise InvalidArgumentError(message, hint="None waits for any time.")
        if not self._watch.over.is_set():
            with anyio.fail_after(timeout):
                await self._watch.over.wait()
        with told_in_sdk_words():
            return in_result(await self._run.wait(self._max_output))

    async def write(self, data: str | bytes) -> None:
        """Write to its standard input, which is open until `close_stdin`; nothing happens when it has ended.

        Raises:
            InvalidArgumentError: it was started with an input of its own (``stdin=``), or that was closed.
            ContainerGone: the container died.
        """
        self._require_input()
        if self._run.is_running and data:
            with told_in_sdk_words():
                await self._run.write_stdin(data)

    async def close_stdin(self) -> None:
        """Let it see the end of its standard input. Idempotent.

        Raises:
            ContainerGone: the container died.
        """
        if self._input_is_open:
            self._input_is_open = False
            if self._run.is_running:
                with told_in_sdk_words():
                    await self._run.write_stdin(b"", end=True)

    async def _interrupted(self) -> None:
        """End it, for one who was waiting in the other colour and was interrupted."""
        await abandon(self._run)

    def _require_input(self) -> None:
        if not self._run.program.keep_stdin:
            message = "The program was started with an input of its own, and nothing can be added to it."
            raise InvalidArgumentError(message, hint="Leave stdin out of run(..., detach=True).")
        if not self._input_is_open:
            message = "The program's standard input was closed."
            raise InvalidArgumentError(message)
