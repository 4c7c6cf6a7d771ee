"""`AsyncExecStream`: the output of a program, piece by piece as it comes."""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

import anyio

from pocket_dock_mcp.async_.background import abandon, kill_when_dropped
from pocket_dock_mcp.async_.errors import in_result, told_in_sdk_words
from pocket_dock_mcp.container.run import STREAMS, AsyncRun
from pocket_dock_mcp.engine.base import STDOUT
from pocket_dock_mcp.errors import StreamNotEndedError
from pocket_dock_mcp.models import RunResult as ExecResult

MOST_WAITING, FEW_WAITING = 1024 * 1024, 256 * 1024
"""Bytes that wait to be taken: with more the program has to wait, with few it goes on."""
MAX_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of a program's output: whole characters, not lines."""

    stream: Literal["stdout", "stderr"]
    data: str


def decoders() -> dict[int, codecs.IncrementalDecoder]:
    """Return what decodes each stream: characters stay whole, and what is none becomes U+FFFD."""
    return {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in STREAMS}


class Inbox:
    """Output that has come and was not taken yet. A program that is faster than its reader waits."""

    def __init__(self, run: AsyncRun) -> None:
        self._run = run
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._waiting = 0
        self._is_held = False
        self._is_closed = False
        self._news = anyio.Event()
        # It may have printed something before anybody could listen.
        for stream in STREAMS:
            spool = run.spool(stream)
            if data := spool.read(0, spool.total):
                self._add(run, stream, data)
        run.on_output(self._add)
        run.on_exit(lambda _run: self._news.set())

    def _add(self, _run: AsyncRun, stream: int, data: bytes) -> None:
        if self._is_closed:
            return
        self._pieces.append((stream, data))
        self._waiting += len(data)
        self._balance()
        self._news.set()

    def _balance(self) -> None:
        if not self._is_held and self._waiting > MOST_WAITING:
            self._is_held = True
            self._run.hold(True)
        elif self._is_held and self._waiting < FEW_WAITING:
            self._is_held = False
            self._run.hold(False)

    async def take(self) -> tuple[int, bytes] | None:
        """Return the next piece of a stream, all of it that is there up to a limit; None at the end."""
        while not self._pieces:
            if self._is_closed or not self._run.is_running:
                return None
            self._news = anyio.Event()
            await self._news.wait()
        stream, data = self._pieces.popleft()
        parts = [data]
        size = len(data)
        while self._pieces and self._pieces[0][0] == stream and size + len(self._pieces[0][1]) <= MAX_CHUNK:
            parts.append(self._pieces.popleft()[1])
            size += len(parts[-1])
        self._waiting -= size
        self._balance()
        return stream, b"".join(parts)

    def close(self) -> None:
        """Let go of what was not taken, and of what comes."""
        self._is_closed = True
        self._pieces.clear()
        self._waiting = 0
        self._balance()
        self._news.set()


class AsyncExecStream:
    """The output of a program as it comes; an async iterator of `StreamChunk`. Made by `AsyncContainer.run`.

    A program that prints faster than the loop takes it waits. Leaving the loop before its end kills the
    program, and so does cancelling it.

        async for chunk in await c.run("make all", stream=True):
            print(chunk.data, end="")
    """

    def __init__(self, run: AsyncRun, max_output: int) -> None:
        """Wrap a run that has just been started."""
        self._run = run
        self._max_output = max_output
        self._inbox = Inbox(run)
        self._decoders = decoders()
        self._texts: deque[StreamChunk] = deque()
        self._result: ExecResult | None = None
        self._on_loop = asyncio.get_running_loop()
        self._dropped = kill_when_dropped(self, run, self._on_loop)

    def __repr__(self) -> str:
        return f"<AsyncExecStream {'running' if self._result is None else 'ended'}>"

    def __aiter__(self) -> AsyncIterator[StreamChunk]:
        return _Loop(self, self._run, self._on_loop)

    async def __anext__(self) -> StreamChunk:
        try:
            while not self._texts:
                if self._result is not None:
                    raise StopAsyncIteration
                await self._fetch()
        except anyio.get_cancelled_exc_class():
            await self.aclose()
            raise
        return self._texts.popleft()

    async def _fetch(self) -> None:
        piece = await self._inbox.take()
        if piece is None:
            for stream in STREAMS:
                self._say(stream, b"", is_last=True)
            await self._conclude()
        else:
            self._say(*piece)

    def _say(self, stream: int, data: bytes, *, is_last: bool = False) -> None:
        if text := self._decoders[stream].decode(data, is_last):
            self._texts.append(StreamChunk("stdout" if stream == STDOUT else "stderr", text))

    async def _conclude(self) -> None:
        with told_in_sdk_words():
            result = in_result(await self._run.wait(self._max_output))
        if self._result is None:
            self._result = result
            self._dropped.detach()
            self._run.close()

    @property
    def result(self) -> ExecResult:
        """What came of the program, when the loop is over: how it ended, and all output up to `max_output`.

        Raises:
            StreamNotEnded: the loop is not over.
        """
        if self._result is None:
            raise StreamNotEndedError
        return self._result

    async def aclose(self) -> None:
        """Kill the program, if it has not ended, and see it end. Idempotent; `result` tells then."""
        if self._result is not None:
            return
        self._inbox.close()
        self._texts.clear()
        await abandon(self._run)
        if self._run.is_settled:
            with anyio.CancelScope(shield=True):
                await self._conclude()


class _Loop:
    """One loop over a stream: when it is left, nobody wants the rest."""

    def __init__(self, stream: AsyncExecStream, run: AsyncRun, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        kill_when_dropped(self, run, loop)

    def __aiter__(self) -> AsyncIterator[StreamChunk]:
        return self

    async def __anext__(self) -> StreamChunk:
        return await self._stream.__anext__()
