"""What a fake agent does that is to outlive its stream: it keeps what runs print, and takes new clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.engine.base import STDERR
from pocket_dock_mcp.testing.programs import Process
from pocket_dock_mcp.testing.streams import Channel, Credit
from pocket_dock_mcp.testing.transfers import pieces

if TYPE_CHECKING:
    from pocket_dock_mcp.testing.agent import FakeAgent

UNLIMITED = 1 << 60
PAGE = 32
Frame = tuple[wire.Header, bytes]


class FakeKept:
    """All frames about one run."""

    def __init__(self, meta: object) -> None:
        self.meta = meta
        self.frames: list[Frame] = []
        self.credit = Credit(wire.WINDOW)
        self.wanted = True
        self.is_heard_of = False
        self.client = 0
        """Who follows it."""
        self._changed = anyio.Event()

    @property
    def has_ended(self) -> bool:
        """Whether its last frame is there."""
        return bool(self.frames) and self.frames[-1][0]["kind"] in ("exit", "error")

    def described(self, number: int) -> wire.Header:
        """Return it for a listing."""
        ended, heard = self.has_ended, self.is_heard_of
        return {"id": number, "meta": self.meta, "ended": ended, "heard": heard, "missing": [0, 0, 0]}

    def add(self, frame: Frame) -> None:
        """Keep another frame."""
        self.frames.append(frame)
        self._changed.set()
        self._changed = anyio.Event()

    async def follow(self, send: Callable[[wire.Header, bytes], None]) -> None:
        """Send all frames from the first to the last, as far as the client's window allows."""
        credit = self.credit = Credit(wire.WINDOW)
        position = 0
        while True:
            while position == len(self.frames):
                await self._changed.wait()
            header, payload = self.frames[position]
            position += 1
            while payload:
                amount = await credit.take(len(payload))
                send(header, payload[:amount])
                payload = payload[amount:]
            if header["kind"] in ("exit", "error"):
                send(header, b"")
                return


class FakeKeep:
    """The clients of an agent, one at a time, and its runs."""

    def __init__(self, agent: FakeAgent) -> None:
        self.runs: dict[int, FakeKept] = {}
        self.halted = anyio.Event()
        self.is_leased = True
        self._agent = agent
        self._last_id = 0
        self._first_id = 0
        self._scope: anyio.CancelScope | None = None
        self._client = 1
        """Counts them."""

    def saw(self, request_id: int) -> None:
        """A request has come."""
        self._last_id = max(self._last_id, request_id)

    def add(self, request_id: int, meta: object) -> None:
        """Keep a run, and tell the present client of it."""
        self.runs[request_id] = FakeKept(meta)
        self.replay(request_id)

    def replay(self, request_id: int) -> None:
        """Tell the present client of a run from its beginning on."""
        kept = self.runs.get(request_id)
        if kept is None:
            self.write({"kind": "error", "id": request_id, "stage": "run", "code": "forgotten"})
            return
        client = kept.client = self._client

        async def follow() -> None:
            await kept.follow(lambda header, payload: self.write(header, payload, client))
            self._drop_unwanted(request_id)

        self._agent.start_soon(follow)

    def forget(self, request_id: int) -> None:
        """Nobody wants to know of a run any more."""
        if request_id in self.runs:
            self.runs[request_id].wanted = False
            self._drop_unwanted(request_id)

    def heard(self, request_id: int) -> None:
        """The client knows how a run has ended."""
        if request_id in self.runs:
            self.runs[request_id].is_heard_of = True

    def _drop_unwanted(self, request_id: int) -> None:
        kept = self.runs.get(request_id)
        if kept is not None and not kept.wanted and kept.has_ended:
            del self.runs[request_id]

    def takes(self, header: wire.Header, payload: bytes) -> bool:
        """Whether a frame is not for the present client as it is: a run's, or an earlier client's."""
        kept = self.runs.get(header["id"])
        if kept is None:
            return bool(header["id"] < self._first_id)
        if header["kind"] == "credit":
            return kept.client != self._client
        for piece in pieces(payload) if payload else [b""]:
            kept.add((header, piece))
        return True

    def describe(self, after: int) -> list[wire.Header]:
        """Return the next runs of a listing."""
        numbers = sorted(number for number in self.runs if number > after)[:PAGE]
        return [self.runs[number].described(number) for number in numbers]

    def write(self, header: wire.Header, payload: bytes = b"", client: int | None = None) -> None:
        """Send a frame to the present client, unless that is another one than was meant."""
        if client in (None, self._client):
            self._agent.emit(wire.encode(header, payload))

    async def welcome(self, process: Process) -> int:
        """Be the bridge to a new client; the one before is served no more."""
        if self._scope is not None:
            self._scope.cancel()
        else:
            self.write({"kind": "replaced", "id": 0})
        outbox = Channel()
        self._client += 1
        self._first_id = self._last_id + 1
        with anyio.CancelScope() as self._scope:
            async with anyio.create_task_group() as group:
                self._agent.emit = lambda data: outbox.put_nowait(1, data)
                group.start_soon(_pump, outbox, process)
                self.write({"kind": "ready", "id": 0, "protocol": wire.PROTOCOL, "next": self._first_id})
                await self._agent.read(process)
                group.cancel_scope.cancel()
        outbox.end()
        return 0


async def _pump(outbox: Channel, process: Process) -> None:
    while (chunk := await outbox.get()) is not None:
        await process.write(chunk[1])


async def join(process: Process) -> int:
    """Be the program that joins a stream to a container's agent."""
    listener = process.container.listener
    if listener is None:
        await process.write(b"ConnectionRefusedError: nobody listens\n", STDERR)
        return 1
    return await listener(process)
