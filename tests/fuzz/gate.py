"""The gate between a hostile program, its allowed servers that are hostile, too, and all that is not allowed.

Whatever is said: nothing is looked up or connected to but what the rules name; what a server gets is for this
server, and one request at a time; each connection ends; nothing breaks.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.core import Gate
from pocket_dock_mcp.gate.limits import GateLimits
from pocket_dock_mcp.gate.rules import Rules
from tests.fuzz.answers import answers
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.proxied import answer, requests
from tests.nets import LOCAL, PUBLIC, Net, read_all, serving, standing

_ALLOWED = ("web.example", "other.example:8080", "*.wild.example")
_NAMES = {
    "web.example": [PUBLIC],
    "other.example": ["203.0.113.81"],
    "a.wild.example": ["203.0.113.82"],
    "mixed.wild.example": [PUBLIC, "127.0.0.1"],
    "private.wild.example": ["10.0.0.1"],
    "evil.example": ["203.0.113.99"],
}
_PLACES = {
    (PUBLIC, 80): "web.example", (PUBLIC, 443): "web.example", ("203.0.113.81", 8080): "other.example:8080",
    ("203.0.113.82", 80): "a.wild.example", ("203.0.113.82", 443): "a.wild.example",
}  # fmt: skip
"""All that may be connected to, and how a server's requests have to name it."""
_LIMITS = GateLimits(connect_s=2, idle_s=0.5, request_s=0.5, per_second=1e6, burst=1e6, names=10**9)
_END_S = 30.0
_FIRST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~\x80-\xff]*|\*) HTTP/1\.1")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_NOT_FOR_SERVERS = {b"proxy-authorization", b"proxy-connection", b"upgrade", b"te"}


class Gates(Surface):
    """Requests to the proxy, and answers of servers."""

    name = "gate"
    _port: int
    _net: Net

    def __init__(self) -> None:
        self._answers: list[bytes] = []
        self._got: dict[str, list[bytearray]] = {}

    def make(self, rng: random.Random) -> bytes:
        """Return, in one line, how servers answer, and then what is said to the proxy."""
        said = [answer(rng).decode("latin-1") for _ in range(rng.choice((0, 1, 2, 4)))]
        return json.dumps(said).encode() + b"\n" + requests(rng)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a gate, and a server for each place that may be reached."""
        self._net = Net(_NAMES)
        gate = Gate(Rules.of_domains(_ALLOWED), limits=_LIMITS, surroundings=self._net.surroundings)
        async with anyio.create_task_group() as group, standing(gate) as self._port:
            for (address, port), host in _PLACES.items():
                self._net.ports[address, port] = await group.start(self._hold, f"{port} {host}")
            yield
            group.cancel_scope.cancel()

    async def attempt(self, data: bytes) -> str:
        """Say it, and look at who was spoken to, and how."""
        planned, _, said = data.partition(b"\n")
        try:
            self._answers = [one.encode("latin-1") for one in json.loads(planned)]
        except (ValueError, TypeError, AttributeError):
            return "none"
        self._got = {}
        self._net.asked.clear()
        self._net.dialled.clear()
        with anyio.move_on_after(_END_S) as limit:
            came = await self._say(said)
        if limit.cancelled_caught:
            raise FoundError("A connection does not end.")
        self._see_places()
        for server, connections in self._got.items():
            for got in connections:
                _check_requests(server, bytes(got))
        if b"CONNECT" not in said:
            return (
                "/".join(sorted({str(one.status) for one in answers(came, perhaps_to_head=b"HEAD" in said)}))
                or "nothing"
            )
        return "tunnel" if b"200 Connection established" in came else "no tunnel"

    async def _say(self, said: bytes) -> bytes:
        async with await anyio.connect_tcp(LOCAL, self._port) as stream, anyio.create_task_group() as group:
            group.start_soon(_send, stream, said)
            came = await read_all(stream)
            group.cancel_scope.cancel()
        return came

    def _see_places(self) -> None:
        if wrong := set(self._net.dialled) - set(_PLACES):
            raise FoundError(f"It has connected to {wrong}.")
        if wrong_names := {
            name for name in self._net.asked if not re.fullmatch(r"(web|other|.+\.wild)\.example", name)
        }:
            raise FoundError(f"It has looked up {wrong_names}.")

    async def _hold(self, server: str, *, task_status: anyio.abc.TaskStatus[int]) -> None:
        async def handle(stream: ByteStream) -> None:
            got = bytearray()
            self._got.setdefault(server, []).append(got)
            while True:
                data = await stream.receive()
                got += data
                if (self._answers and b"\r\n\r\n" in data) or not server.startswith("80 "):
                    await stream.send(self._answers.pop(0) if self._answers else b"x")
                elif b"\r\n\r\n" in data:
                    return

        async with serving(handle) as port:
            task_status.started(port)
            await anyio.sleep_forever()


async def _send(stream: ByteStream, said: bytes) -> None:
    try:
        await stream.send(said)
        await stream.send_eof()
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # It has ended it; what it has said is read.


def _check_requests(server: str, got: bytes) -> None:
    """See that what a server was told are requests for it, or TLS, or what may be anything."""
    port, _, host = server.partition(" ")
    if port == "8080" or got[:1] in (b"\x16", b""):
        return
    # The scheme does not say which port.
    host += ":443" if port == "443" else ""
    while got:
        head, end, rest = got.partition(b"\r\n\r\n")
        if not end:
            return
        got = _checked(head, rest, host.encode())


def _checked(head: bytes, rest: bytes, host: bytes) -> bytes:
    """Return what follows a request. Raises `FoundError` for one that is not what it has to be."""
    first, *lines = head.split(b"\r\n")
    found = [_HEADER.fullmatch(line) for line in lines]
    if not _FIRST.fullmatch(first) or None in found:
        raise FoundError(f"A server was told what is no request: {_ends(head)}")
    headers = [(one[1].lower(), one[2]) for one in found if one is not None]
    if [value.lower() for name, value in headers if name == b"host"] != [host]:
        raise FoundError(f"{host!r} was asked for another host: {_ends(head)}")
    names = [name for name, _ in headers]
    if _NOT_FOR_SERVERS.intersection(names):
        raise FoundError(f"A server was told what is not for it: {_ends(head)}")
    lengths = [value for name, value in headers if name in (b"content-length", b"transfer-encoding")]
    if len(lengths) > 1:
        raise FoundError(f"A server was told several lengths: {_ends(head)}")
    if b"transfer-encoding" not in names:
        return rest[int(lengths[0]) if lengths else 0 :]
    if lengths != [b"chunked"]:
        raise FoundError(f"A server was told an odd encoding: {_ends(head)}")
    return _behind_chunks(rest)


def _ends(head: bytes) -> str:
    return f"{head[:300]!r} ... {head[-300:]!r}"


def _behind_chunks(data: bytes) -> bytes:
    while True:
        size, end, rest = data.partition(b"\r\n")
        if not end:
            return b""
        if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", size):
            raise FoundError(f"A server was told an odd chunk: {size[:100]!r}")
        if not int(size, 16):
            # What is behind the last chunk ends with an empty line; trailers would be in front of it.
            return rest.partition(b"\r\n")[2] if rest.startswith(b"\r\n") else rest.partition(b"\r\n\r\n")[2]
        data = rest[int(size, 16) + 2 :]
