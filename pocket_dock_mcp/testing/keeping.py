"""What a fake agent does that is to outlive its stream: it keeps what runs print, and takes other clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from pocket_dock_mcp.agent.bridge import bridge_argv
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.engine.base import STDERR
from pocket_dock_mcp.testing.programs import Process
from pocket_dock_mcp.testing.streams import Channel, Credit
from pocket_dock_mcp.testing.transfers import pieces

if TYPE_CHECKING:
    from pocket_dock_mcp.testing.agent import FakeAgent

UNLIMITED = 1 << 60
MAX_VISITORS = 16
PAGE = 32
Frame = tuple[wire.Header, bytes]


class FakeClient:
    """One who speaks with the agent."""

    def __init__(self, number: int, emit: Callable[[bytes], None], *, visits: bool) -> None:
        self.number = number
        self.visits = visits
        self.scope: anyio.CancelScope | None = None
        """Of its bridge; the first client has none."""
        self._emit = emit

    def write(self, header: wire.Header, payload: bytes = b"") -> None:
        """Send it a frame."""
        self._emit(wire.encode(header, payload))


class FakeKept:
    """All frames about one run."""

    def __init__(self, meta: object, *, stays: bool) -> None:
        self.meta = meta
        self.stays = stays
        self.frames: list[Frame] = []
        self.wanted = True
        self.is_heard_of = False
        self.credits: dict[int, Credit] = {}
        """Of those who follow it, by client."""
        self.fed_by = 0
        """Who has last given it input."""
        self._changed = anyio.Event()

    @property
    def has_ended(self) -> bool:
        """Whether its last frame is there."""
        return bool(self.frames) and self.frames[-1][0]["kind"] in ("exit", "error")

    def described(self, number: int, *, attended: bool) -> wire.Header:
        """Return it for a listing."""
        ended, heard = self.has_ended, self.is_heard_of
        fields = {"meta": self.meta, "ended": ended, "heard": heard, "missing": [0, 0, 0]}
        return {"id": number, "attended": attended, **fields}

    def add(self, frame: Frame) -> None:
        """Keep another frame."""
        self.frames.append(frame)
        self._changed.set()
        self._changed = anyio.Event()

    async def follow(self, client: FakeClient) -> None:
        """Send all frames from the first to the last, as far as the client's window allows."""
        credit = self.credits[client.number] = Credit(wire.WINDOW)
        position = 0
        while True:
            while position == len(self.frames):
                await self._changed.wait()
            header, payload = self.frames[position]
            position += 1
            while payload:
                amount = await credit.take(len(payload))
                if self.credits.get(client.number) is not credit:
                    return
                client.write(header, payload[:amount])
                payload = payload[amount:]
            if self.credits.get(client.number) is not credit:
                return
            if header["kind"] in ("exit", "error"):
                client.write(header)
                return

    def leave(self, number: int) -> None:
        """A client is told no more."""
        credit = self.credits.pop(number, None)
        if credit is not None:
            credit.close()


class FakeKeep:
    """The clients of an agent, and its runs."""

    def __init__(self, agent: FakeAgent) -> None:
        self.runs: dict[int, FakeKept] = {}
        self.halted = anyio.Event()
        self.is_leased = True
        self.first = FakeClient(0, agent.emit, visits=False)
        self.clients = {0: self.first}
        self._agent = agent
        self._last = 0

    # -- frames -----------------------------------------------------------------------------------

    def send(self, header: wire.Header, payload: bytes) -> None:
        """Send a frame to whom it concerns."""
        number = header["id"]
        kept = self.runs.get(number)
        if kept is None or header["kind"] == "credit":
            client = self.clients.get(number // wire.IDS if kept is None else kept.fed_by)
            if client is not None:
                client.write(header, payload)
            return
        for piece in pieces(payload) if payload else [b""]:
            kept.add((header, piece))
        self._drop_unwanted(number)

    def about(self, client: FakeClient, number: int, header: wire.Header) -> bool:
        """Serve what any client may say about any run; False if it is something else."""
        op, kept = header.get("op"), self.runs.get(number)
        if op == "replay":
            self._replay(client, number)
        elif op == "heard" and kept is not None:
            kept.is_heard_of = True
        elif op == "forget" and kept is not None:
            self._forget(client, number, kept)
        elif op == "unfollow" and kept is not None:
            kept.leave(client.number)
        elif op == "credit" and kept is not None:
            if client.number in kept.credits:
                kept.credits[client.number].add(header["n"])
        elif op == "data" and kept is not None:
            kept.fed_by = client.number
            return False
        else:
            return op in ("heard", "forget", "unfollow", "beat")
        return True

    # -- runs -------------------------------------------------------------------------------------

    def add(self, request_id: int, header: wire.Header) -> None:
        """Keep a run, and tell its client of it."""
        self.runs[request_id] = FakeKept(header.get("meta"), stays=bool(header.get("stay")))
        self._replay(self.clients[request_id // wire.IDS], request_id)

    def _replay(self, client: FakeClient, number: int) -> None:
        kept = self.runs.get(number)
        if kept is None:
            client.write({"kind": "error", "id": number, "stage": "run", "code": "forgotten"})
            return
        kept.leave(client.number)

        async def follow() -> None:
            await kept.follow(client)
            self._drop_unwanted(number)

        self._agent.start_soon(follow)

    def _forget(self, client: FakeClient, number: int, kept: FakeKept) -> None:
        beginner = number // wire.IDS
        if beginner == client.number or beginner not in self.clients:
            kept.wanted = False
            self._drop_unwanted(number)
        else:
            kept.leave(client.number)

    def _drop_unwanted(self, request_id: int) -> None:
        kept = self.runs.get(request_id)
        if kept is not None and not kept.wanted and kept.has_ended:
            del self.runs[request_id]

    def describe(self, after: int) -> list[wire.Header]:
        """Return the next runs of a listing."""
        numbers = sorted(number for number in self.runs if number > after)[:PAGE]
        return [
            self.runs[number].described(number, attended=number // wire.IDS in self.clients)
            for number in numbers
        ]

    # -- clients ----------------------------------------------------------------------------------

    def tell_others(self, request_id: int, why: object) -> None:
        """Tell all but one why everything ends."""
        for client in self.clients.values():
            if client.number != request_id // wire.IDS:
                client.write({"kind": "halted", "id": 0, "why": why})

    def leave(self, client: FakeClient) -> None:
        """A client has gone."""
        if self.clients.pop(client.number, None) is None:
            return
        for kept in self.runs.values():
            kept.leave(client.number)
        begun = range(client.number * wire.IDS, (client.number + 1) * wire.IDS)
        ending = {number for number, kept in self.runs.items() if client.visits and not kept.stays}
        self._agent.abandon(begun, ending)

    def _replace(self) -> None:
        for client in [one for one in self.clients.values() if not one.visits]:
            client.write({"kind": "replaced", "id": 0})
            self.leave(client)
            if client.scope is not None:
                client.scope.cancel()

    async def welcome(self, process: Process) -> int:
        """Be the bridge to a new client; who comes to hold the sandbox replaces who did."""
        visits = process.argv[-1] == bridge_argv(visits=True)[-1]
        outbox = Channel()
        self._last += 1
        client = FakeClient(self._last, lambda data: outbox.put_nowait(1, data), visits=visits)
        if visits and sum(one.visits for one in self.clients.values()) >= MAX_VISITORS:
            refused = {"kind": "error", "id": 0, "stage": "visit", "code": "full"}
            await process.write(wire.encode(refused))
            return 0
        if not visits:
            self._replace()
        self.clients[client.number] = client
        first_id = client.number * wire.IDS + 1
        with anyio.CancelScope() as client.scope:
            async with anyio.create_task_group() as group:
                group.start_soon(_pump, outbox, process)
                client.write({"kind": "ready", "id": 0, "protocol": wire.PROTOCOL, "next": first_id})
                try:
                    await self._agent.read(process, client)
                finally:
                    self.leave(client)
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
