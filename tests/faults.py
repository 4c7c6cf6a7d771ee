"""A unix socket in front of an engine's that does to one connection the worst that a network can do."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Kind = Literal[
    "latency", "stall", "reset", "truncate", "garbage", "slow close", "half close", "answer", "answer after"
]
Way = Literal["up", "down"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Cut = Callable[[], Awaitable[None]]

_REASONS = {404: "Not Found", 409: "Conflict", 500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Fault:
    """What is to happen, and when."""

    kind: Kind | Literal["cut"]
    """A cut is the end of all connections, and of the engine if the proxy knows how to kill it."""
    way: Way = "down"
    """Up is to the engine, down is to us."""
    offset: int = 0
    """After so many bytes of that way."""
    connection: int | None = 0
    """The so manieth that is opened from now on; None for the stream of a container that is open already."""
    about: str = ""
    """If given, it is the next connection instead whose first line has this in it."""
    status: int = 500
    """Of an `answer`, which takes the place of the engine's: the engine has not heard the request, or, in an
    `answer after`, has done what it was asked for."""
    seconds: float = 0.1
    """Of a latency or a slow close."""


@dataclass(eq=False)
class _Line:
    """One connection."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    is_stream: bool = False
    """Whether it is attached to a container."""
    is_muted: bool = False
    """Whether what the engine says is not passed on any more."""
    head: bytes = b""
    fault: Fault | None = None
    passed: dict[Way, int] = field(default_factory=lambda: {"up": 0, "down": 0})


class _CutError(Exception):
    """The connection is to end now."""


class FaultyProxy:
    """Forwards connections to an engine, and does to one of them what it is told."""

    def __init__(self, path: Path, target: str, rng: random.Random) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._target = target.removeprefix("unix://")
        self._rng = rng
        self._lines: set[_Line] = set()
        self._server: asyncio.Server | None = None
        self._armed: Fault | None = None
        self._opened = 0
        self._lifted = asyncio.Event()
        self._later: set[asyncio.Task[None]] = set()
        self.on_cut: Cut | None = None
        """Kills the engine itself."""
        self.has_struck = False
        """Whether the fault has happened: an operation may be over before its offset is reached."""
        self.traffic: list[tuple[str, dict[Way, int]]] = []
        """Of each connection made since `arm`: its first line, and the bytes in both ways."""
        self.streams: list[dict[Way, int]] = []
        """Of the containers' streams that were open then: the bytes in both ways."""

    async def connect(self) -> None:
        """Listen and forward; after a cut, again."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def aclose(self) -> None:
        """End everything."""
        self.lift()
        await self.cut()

    async def cut(self) -> None:
        """Break every connection and refuse new ones: what a dead engine looks like."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        for line in list(self._lines):
            _abort(line)

    def arm(self, fault: Fault | None) -> None:
        """Prepare a fault; None just counts what is transferred."""
        self.lift()
        self._lifted = asyncio.Event()
        self.has_struck = False
        self.traffic = []
        self.streams = []
        self._opened = 0
        self._armed = fault
        for line in self._lines:
            line.passed = {"up": 0, "down": 0}
            if line.is_stream:
                self.streams.append(line.passed)
                if fault is not None and fault.connection is None:
                    line.fault = fault

    def lift(self) -> None:
        """Let no fault happen any more, and let what was held up go on."""
        self._armed = None
        for line in self._lines:
            line.fault = None
        self._lifted.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(writer, far_writer)
        fault = self._armed
        if fault is not None and not fault.about and fault.connection == self._opened:
            line.fault = fault
        self._opened += 1
        self._lines.add(line)
        try:
            await asyncio.gather(
                self._pump(line, "up", reader, far_writer), self._pump(line, "down", far_reader, writer)
            )
        except (_CutError, OSError, RuntimeError):
            # The last: of asyncio, for what is written when its end has been announced.
            _abort(line)
        finally:
            self._lines.discard(line)
            writer.close()
            far_writer.close()

    async def _pump(
        self, line: _Line, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if way == "up" and not line.head:
                self._learn(line, data)
            if way == "down" and line.is_muted:
                continue
            fault = line.fault
            if fault is None or fault.way != way or line.passed[way] + len(data) < fault.offset:
                line.passed[way] += len(data)
                await _write(writer, data)
                continue
            split = fault.offset - line.passed[way]
            line.passed[way] += len(data)
            line.fault = None
            self.has_struck = True
            await self._strike(line, fault, writer, data[:split], data[split:])
        with contextlib.suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()

    def _learn(self, line: _Line, data: bytes) -> None:
        line.head = data.partition(b"\r\n")[0]
        line.is_stream = b"/attach" in line.head
        fault = self._armed
        if fault is not None and fault.about and fault.about.encode() in line.head:
            line.fault, self._armed = fault, None
        self.traffic.append((line.head.decode("latin-1"), line.passed))

    async def _strike(
        self, line: _Line, fault: Fault, writer: asyncio.StreamWriter, before: bytes, after: bytes
    ) -> None:
        if fault.kind == "answer after" and fault.way == "up":
            # The rest of the request goes to the engine meanwhile, and its answer to nobody.
            line.is_muted = True
            await _write(writer, before + after)
            task = asyncio.ensure_future(self._answer_later(line, fault))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
            return
        if fault.kind in ("answer", "answer after"):
            await self._answer(line, fault)
            raise _CutError
        if fault.kind == "cut":
            if self.on_cut is not None:
                await self.on_cut()
            await self.cut()
            raise _CutError
        await _write(writer, before)
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "stall":
            await self._lifted.wait()
        elif fault.kind == "garbage":
            await _write(writer, self._rng.randbytes(self._rng.choice([1, 7, 60, 500])))
        elif fault.kind == "half close":
            if writer.can_write_eof():
                writer.write_eof()
            await self._lifted.wait()
            raise _CutError
        else:
            await self._end(line, fault)
        await _write(writer, after)

    async def _end(self, line: _Line, fault: Fault) -> None:
        if fault.kind == "reset":
            raise _CutError
        if fault.kind == "slow close":
            # Nothing more comes, and only when everything is over inside, the end.
            await asyncio.sleep(fault.seconds)
        for writer in (line.near, line.far):
            with contextlib.suppress(OSError):
                if writer.can_write_eof():
                    writer.write_eof()
        for writer in (line.near, line.far):
            writer.close()
        raise _CutError

    async def _answer_later(self, line: _Line, fault: Fault) -> None:
        await asyncio.sleep(fault.seconds)
        with contextlib.suppress(OSError, RuntimeError):
            await self._answer(line, fault)

    async def _answer(self, line: _Line, fault: Fault) -> None:
        """Answer in the engine's place."""
        # A removal that is said to have found nothing is a lie that nobody can see through.
        status = 500 if line.head.startswith(b"DELETE") and fault.status == 404 else fault.status
        body = b'{"message": "injected"}'
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
        line.near.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await line.near.drain()
        line.near.close()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(data)
        await writer.drain()


def _abort(line: _Line) -> None:
    line.near.transport.abort()
    line.far.transport.abort()


@asynccontextmanager
async def faulty_proxy(path: Path, target: str, rng: random.Random) -> AsyncIterator[FaultyProxy]:
    """Yield a proxy to the engine at `target`."""
    made = FaultyProxy(path, target, rng)
    await made.connect()
    try:
        yield made
    finally:
        await made.aclose()
