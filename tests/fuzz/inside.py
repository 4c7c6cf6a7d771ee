"""Frames to a real agent in a container, right, odd, and none at all.

Whoever can write to an agent is root in its sandbox, or the host. So this is no boundary; but a frame that an
agent of this release does not know, or a fault in one, must not end a sandbox: it answers the next request all
the same, and ends only with bytes that are no frames, or when it is told to.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

import anyio

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.inside import wire
from pocket_dock_mcp.engine.base import STDOUT, Engine, Stream
from pocket_dock_mcp.errors import StreamLostError
from pocket_dock_mcp.images import ImageStore
from tests.agents import LIMITS, open_container
from tests.engines import Target, connect, eventually, image_override, is_gone
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.values import INTEGERS, TEXTS, mutated, mutated_bytes, value

_INIT = {
    "op": "init", "home": policy.HOME, "env": {}, "processes": policy.user_processes(LIMITS), "open_files": LIMITS.open_files,
    "file_bytes": LIMITS.file_bytes,
}  # fmt: skip
_SPAWN: wire.Header = {"op": "spawn", "cwd": None, "env": {}, "timeout": 5, "stdin": False}
_REQUESTS: tuple[wire.Header, ...] = (
    {**_SPAWN, "argv": ["/bin/sh", "-c", "echo hi"]}, {**_SPAWN, "argv": None, "script": 5}, {**_SPAWN, "argv": ["true"], "stdin": True},
    {**_SPAWN, "argv": None, "script": 5, "session": "s"}, {"op": "data", "end": True}, {"op": "credit", "n": 1000}, {"op": "cancel"},
    {"op": "signal", "run": 1, "signal": 15}, {"op": "resize", "run": 1, "rows": 5, "columns": 5}, {"op": "kill", "run": 1}, {"op": "stats"},
    {"op": "read", "path": "/etc/passwd", "offset": 0, "length": 10}, {"op": "write", "path": "f", "mode": None}, {"op": "stat", "path": "/"},
    {"op": "list", "path": "/etc", "limit": 10}, {"op": "sessions"}, {"op": "end_session", "name": "s"}, {"op": "wait_port", "port": 8000, "timeout": 0.1},
    {"op": "connect", "port": 1}, {"op": "accept"}, {"op": "rejoin"}, {"op": "list_runs"}, {"op": "watch_disk", "limit": 1 << 40}, {"op": "adopt", "env": {}},
    {"op": "checkpoint", "name": "c"}, {"op": "kill_all"}, {"op": "compiled"}, {"op": "outfit", "ca": True}, {"op": "nothing"}, {"op": None}, {},
)  # fmt: skip
_ENDING = {"halt", "farewell", "init", "disk_full"}
_ANSWER_S = 30.0


class Inside(Surface):
    """What a hostile client says to an agent. Needs a real engine."""

    name = "inside"
    _engine: Engine
    _image: str
    _stream: Stream

    def __init__(self, target: Target) -> None:
        self._target = target
        self._probes = 0

    def make(self, rng: random.Random) -> bytes:
        """Return some frames, or what is none."""
        return b"".join(_made(rng) for _ in range(rng.choice((1, 1, 2, 4, 8))))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a container."""
        self._engine = await connect(self._target)
        try:
            self._image = image_override() or (await ImageStore(self._engine).ensure("minimal", print)).id
            await self._begin()
            try:
                yield
            finally:
                await self._end()
        finally:
            await self._engine.aclose()

    async def attempt(self, data: bytes) -> str:
        """Say it, and then ask something."""
        fate = _fate(data)
        if fate is Fate.ENDS:
            await self._see_end(data)
            return "ends"
        await self._stream.send(data)
        if fate is Fate.INCOMPLETE:
            # What follows would be taken for the rest of a frame, so nothing does.
            await self._end()
            await self._begin()
            return "incomplete"
        self._probes += 1
        number = 2**31 + self._probes
        await self._stream.send(wire.encode({"op": "ping", "id": number}))
        kinds = await self._until_answered(number)
        if kinds is None:
            raise FoundError("The agent has ended.")
        return "internal" if "internal" in kinds else "error" if "error" in kinds else "served"

    def _deadline(self, seconds: float) -> float:
        return seconds * self._target.slowness

    async def _begin(self) -> None:
        self._id, self._stream = await open_container(self._engine, self._image)
        self._decoder = wire.Decoder()
        await self._stream.send(wire.encode({**_INIT, "id": 1, "uid": policy.random_uid()}))
        if await self._until_answered(1) is None:
            raise FoundError("There is no agent.")

    async def _end(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()
            await eventually(lambda: is_gone(self._engine, self._id), self._deadline(30))

    async def _see_end(self, data: bytes) -> None:
        async with anyio.create_task_group() as group:
            # As our own client does: without somebody who misses an answer nobody asks what has become of it.
            group.start_soon(self._drain)
            # It may end before it has read all.
            with contextlib.suppress(StreamLostError):
                await self._stream.send(data)
            await eventually(lambda: is_gone(self._engine, self._id), self._deadline(_ANSWER_S))
            group.cancel_scope.cancel()
        await self._end()
        await self._begin()

    async def _drain(self) -> None:
        with contextlib.suppress(StreamLostError):
            while await self._stream.receive() is not None:
                pass

    async def _until_answered(self, number: int) -> set[str] | None:
        """Return what kinds of frames have come before that answer; None at the end of the stream."""
        kinds: set[str] = set()
        try:
            with anyio.fail_after(self._deadline(_ANSWER_S)):
                while (received := await self._stream.receive()) is not None:
                    if received[0] != STDOUT:
                        continue
                    for header, _ in self._decoder.feed(received[1]):
                        if header["kind"] == "reply" and header["id"] == number:
                            return kinds
                        kinds |= {header["kind"], str(header.get("code"))}
        except TimeoutError:
            raise FoundError("The agent does not answer.") from None
        return None


class Fate(Enum):
    """What becomes of an agent that reads an input."""

    ANSWERS = "it answers what follows"
    INCOMPLETE = "it waits for the rest of a frame"
    ENDS = "it lets go of who has sent that"


def _fate(data: bytes) -> Fate:
    decoder = wire.Decoder()
    try:
        frames = decoder.feed(data)
    except wire.FrameError:
        return Fate.ENDS
    if any(type(number) is not int or not 0 <= number < wire.IDS for number in map(_number, frames)):
        return Fate.ENDS
    try:
        is_whole = decoder.feed(wire.encode({"op": "ping", "id": 1})) == [({"op": "ping", "id": 1}, b"")]
    except wire.FrameError:
        is_whole = False
    return Fate.ANSWERS if is_whole else Fate.INCOMPLETE


def _number(frame: tuple[wire.Header, bytes]) -> object:
    return frame[0].get("id")


def _made(rng: random.Random) -> bytes:
    header: Any = {**rng.choice(_REQUESTS), "id": rng.randrange(2, 40)}
    act = rng.randrange(60)
    if act < 25:
        header = mutated(rng, header)
    elif act == 25:
        header["id"] = rng.choice((*INTEGERS, *TEXTS, None, [], {}))
    elif act < 30:
        header[rng.choice(TEXTS)] = value(rng)
    if isinstance(header, dict) and any(header.get("op") == op for op in _ENDING):
        header["op"] = "ping"
    payload = rng.choice((b"", b"", b"print", rng.randbytes(100), bytes(wire.MAX_PAYLOAD)))
    whole = _encoded(header, payload)
    return mutated_bytes(rng, whole) if rng.random() < 0.005 else whole


def _encoded(header: object, payload: bytes) -> bytes:
    head = json.dumps(header).encode()
    return wire.PREFIX.pack(len(head), len(payload)) + head + payload
