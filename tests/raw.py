"""Clients over HTTP that are nothing but requests: what comes back is seen byte for byte.

Of three kinds: `modern` speaks the newest revision, without a session; `session` and `sse` have one, of
streamable HTTP and of the older transport. All of them take the same numbers for their requests.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import anyio
import httpx2

from pocket_dock_mcp.beside import beside
from tests.servers import HttpServer

Kind = Literal["modern", "session", "sse"]
KINDS: list[Kind] = ["modern", "session", "sse"]
Json = dict[str, Any]

_ANSWER_S = 120.0
_VERSION = {"modern": "2026-07-28", "session": "2025-11-25", "sse": "2025-06-18"}
_HELLO = {"name": "raw", "version": "1"}


class RawClient:
    """One of them, of one principal."""

    def __init__(
        self, server: HttpServer, principal: str | None, kind: Kind, http: httpx2.AsyncClient
    ) -> None:
        self.kind = kind
        self.strays: list[bytes] = []
        """Messages that answer nothing that was asked."""
        self._http = http
        self._url = server.url
        self._numbers = 0
        self._events: dict[int, bytes] = {}
        self._came = anyio.Event()
        self._headers = {"Accept": "application/json, text/event-stream", **server.headers(principal)}
        self.session: str | None = None
        """The id of its session."""

    async def call(self, tool: str, **arguments: Any) -> bytes:
        """Call a tool and return the message that answers it."""
        return (await self.numbered(tool, **arguments))[1]

    async def numbered(self, tool: str, **arguments: Any) -> tuple[int, bytes]:
        """Call a tool; return the number of the request, too."""
        self._numbers += 1
        number = self._numbers
        return number, await self.request(number, "tools/call", {"name": tool, "arguments": arguments})

    async def request(self, number: int, method: str, params: Json) -> bytes:
        """Send a request of some number and return the message that answers it."""
        headers: dict[str, str] = {}
        if self.kind == "modern":
            headers = {"MCP-Protocol-Version": _VERSION["modern"], "Mcp-Method": method}
            if "name" in params:
                headers["Mcp-Name"] = params["name"]
            params = {**params, "_meta": _META}
        answer = await self.post({"id": number, "method": method, "params": params}, headers)
        if self.kind == "sse":
            assert answer.status_code == 202, answer.text
            return await self._event(number)
        assert answer.status_code == 200, answer.text
        found = _messages(answer)
        self.strays += [message for message in found[:-1] if b'"method"' not in message]
        return found[-1]

    async def post(self, message: Json, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """Send a message."""
        answer: httpx2.Response = await self._http.post(
            self._url, headers={**self._headers, **(headers or {})}, json={"jsonrpc": "2.0", **message}
        )
        return answer

    async def initialize(self) -> None:
        """Shake hands."""
        params = {"protocolVersion": _VERSION[self.kind], "capabilities": {}, "clientInfo": _HELLO}
        begun = await self.post({"id": 0, "method": "initialize", "params": params})
        if self.kind == "session":
            self.session = self._headers["Mcp-Session-Id"] = begun.headers["mcp-session-id"]
            self._headers["MCP-Protocol-Version"] = _VERSION["session"]
        else:
            await self._event(0)
        await self.post({"method": "notifications/initialized"})

    @contextmanager
    def in_session(self, session: str) -> Iterator[None]:
        """Name another session meanwhile."""
        url, headers = self._url, self._headers
        if self.kind == "sse":
            self._url = url.replace(self.session or "", session)
        else:
            self._headers = {**headers, "Mcp-Session-Id": session}
        try:
            yield
        finally:
            self._url, self._headers = url, headers

    async def end(self) -> None:
        """End the session."""
        if self.kind == "session":
            await self._http.delete(self._url, headers=self._headers)

    async def listen(self, stream: httpx2.Response, server: HttpServer) -> None:
        """Hear what comes on the stream of the older transport."""
        kind = ""
        async for line in stream.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "endpoint":
                self._url = server.at(value)
                self.session = value.partition("session_id=")[2]
            elif name == "data":
                self._take(value.encode())
            self._wake()

    async def has_endpoint(self) -> None:
        """Wait until the server has said where messages go."""
        while self.session is None:
            await self._came.wait()

    def _take(self, message: bytes) -> None:
        number = json.loads(message).get("id")
        if not isinstance(number, int) or number in self._events:
            self.strays.append(message)
        else:
            self._events[number] = message

    def _wake(self) -> None:
        self._came.set()
        self._came = anyio.Event()

    async def _event(self, number: int) -> bytes:
        with anyio.fail_after(_ANSWER_S):
            while number not in self._events:
                await self._came.wait()
        return self._events.pop(number)


_META = {
    "io.modelcontextprotocol/protocolVersion": _VERSION["modern"],
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": _HELLO,
}


def _messages(answer: httpx2.Response) -> list[bytes]:
    """Return the messages of an answer, which is one, or a stream of events."""
    if answer.headers["content-type"].startswith("application/json"):
        return [answer.content]
    lines = answer.content.split(b"\r\n")
    return [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: {")]


@asynccontextmanager
async def raw_client(
    server: HttpServer, principal: str | None = None, kind: Kind = "modern"
) -> AsyncIterator[RawClient]:
    """Connect one."""
    limits = httpx2.Limits(max_connections=20, max_keepalive_connections=4)
    async with httpx2.AsyncClient(timeout=_ANSWER_S, limits=limits) as http:
        client = RawClient(server, principal, kind, http)
        if kind == "sse":
            headers = server.headers(principal)
            async with http.stream("GET", server.at("/sse"), headers=headers) as stream:
                assert stream.status_code == 200
                async with beside(client.listen, stream, server):
                    await client.has_endpoint()
                    await client.initialize()
                    yield client
            return
        if kind == "session":
            await client.initialize()
        yield client
        await client.end()
