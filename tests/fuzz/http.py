"""Requests to the server over HTTP: heads and bodies that are right, nearly right, or nothing of the kind.

After each case a request of our own has to be answered, and no status may be one that says the server has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2

from tests.engines import FAKE
from tests.fuzz.harness import FoundError, Surface
from tests.fuzz.stdio import message
from tests.fuzz.values import TEXTS, mutated, mutated_bytes, odd_json
from tests.servers import HttpServer, environment, http_server

PROBE_DEADLINE = 30.0
ANSWER_S = 0.5
"""Seconds for an answer; who has said only a part of a request gets none so soon."""
_KNOWN = "ValueError: Unknown prompt: "
"""The library answers that and logs it as if it had failed."""
_VERSIONS = ("2026-07-28", "2025-11-25", "2025-06-18", "2024-11-05", "", "x")
_PATHS = (
    "/mcp", "/mcp", "/mcp", "/mcp", "/messages", f"/messages?session_id={'0' * 32}", "/sse", "/health", "/", "/mcp/", "*",
    "/mcp?x=%00", "//mcp", "/mcp/../mcp", "http://localhost/mcp", "/" + "x" * 5000,
)  # fmt: skip
_VERBS = ("POST",) * 12 + (
    "GET",
    "DELETE",
    "OPTIONS",
    "PUT",
    "HEAD",
    "TRACE",
    "CONNECT",
    "post",
    "",
    "X" * 300,
)
_ODD_HEADERS = (
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Content-Encoding: gzip", "Expect: 100-continue",
    "Upgrade: websocket", "Upgrade: h2c", "Connection: Upgrade", "Content-Length: 0", "Content-Length: -1",
    "Content-Length: 99999999999999999999", "Content-Length: 5, 5", "Host: evil.example", "Origin: null",
    "Last-Event-ID: 1", "Mcp-Session-Id: x", "Mcp-Session-Id: " + "0" * 32, "Accept: text/html", "Accept: */*",
    "Authorization: Bearer x", "Content-Type: text/plain", "X: " + "y" * 20_000, " folded", ": nothing", "no colon",
    "Cookie: \x01", "Range: bytes=0-", "Content-Type: application/json; charset=utf-16",
)  # fmt: skip
_MONSTER = 3_000_000


class Http(Surface):
    """Streamable HTTP, and the transport before it."""

    name = "http"

    def make(self, rng: random.Random) -> bytes:
        """Return a request, or two on one connection, in most of which something is wrong."""
        return b"".join(_request(rng) for _ in range(rng.choice((1, 1, 1, 2))))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a server."""
        with tempfile.TemporaryDirectory(prefix="pocket-dock-fuzz-") as folder:
            async with http_server(FAKE, environment(FAKE, Path(folder), "")) as self._server:
                self._read = 0
                async with httpx2.AsyncClient(timeout=PROBE_DEADLINE) as self._client:
                    yield
                if self._server.process.poll() is not None:
                    raise FoundError(f"The server has ended: {self._server.log()[-1000:]}")

    async def settle(self) -> None:
        """End all sandboxes."""
        listed = await self._call("list_sandboxes", {})
        for kind, name in (("sandboxes", "sandbox_id"), ("snapshots", "snapshot_id")):
            for one in listed["structuredContent"][kind]:
                await self._call("kill", {name: one[name]})

    @property
    def pid(self) -> int:
        """The server."""
        return self._server.process.pid

    async def attempt(self, data: bytes) -> str:
        """Send it, and see what is said and that others are answered."""
        said = await _said(self._server, data)
        answer = await self._client.get(self._server.at("/health"))
        if answer.status_code != 200:
            raise FoundError(f"A request of ours is answered with {answer.status_code}.")
        log = self._server.log()
        news, self._read = log[self._read :], len(log)
        if "Traceback" in news and _KNOWN not in news:
            raise FoundError(f"It has failed: {news[-2000:]}")
        if not said:
            return "no answer"
        head = said.split(b" ", 2)
        if not said.startswith(b"HTTP/1.1 ") or not head[1].isdigit():
            raise FoundError(f"That is no HTTP: {said[:200]!r}")
        status = int(head[1])
        if status >= 500 and status not in (501, 503):
            raise FoundError(f"It is answered with {said[:500]!r}")
        return f"{status // 100}xx"

    async def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        async with self._server.client() as client:
            result = await client.call_tool(tool, arguments)
        return {"structuredContent": result.structured_content}


async def _said(server: HttpServer, data: bytes) -> bytes:
    host, _, port = server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    said = b""
    try:
        with contextlib.suppress(ConnectionError):
            with anyio.move_on_after(PROBE_DEADLINE):
                writer.write(data)
                await writer.drain()
            with anyio.move_on_after(ANSWER_S):
                said = await reader.read(65_536)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return said


def _request(rng: random.Random) -> bytes:
    whole = message(rng)
    body = json.dumps(whole).encode() if rng.randrange(3) == 0 else _odd_body(rng, whole)
    headers = [
        "Host: localhost", "Connection: close", "Content-Type: application/json",
        "Accept: application/json, text/event-stream", f"Content-Length: {len(body)}", *_said_twice(whole),
    ]  # fmt: skip
    if rng.random() < 0.5:
        # Only the body may be wrong, so that it is read.
        return "\r\n".join(["POST /mcp HTTP/1.1", *headers, "", ""]).encode("utf-8", "surrogatepass") + body
    for _ in range(rng.choice((0, 0, 1, 3))):
        odd = rng.choice(
            (rng.choice(_ODD_HEADERS), f"{_line(rng.choice(TEXTS))}: {_line(rng.choice(TEXTS))}")
        )
        headers.insert(rng.randrange(len(headers) + 1), odd)
    if rng.random() < 0.2:
        headers.append(f"MCP-Protocol-Version: {rng.choice(_VERSIONS)}")
    if rng.random() < 0.2:
        del headers[rng.randrange(len(headers))]
    lines = [
        f"{rng.choice(_VERBS)} {rng.choice(_PATHS)} HTTP/1.{rng.choice((1, 1, 1, 0, 2))}",
        *headers,
        "",
        "",
    ]
    data = "\r\n".join(lines).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        data = mutated_bytes(rng, data)
    return data + body


def _said_twice(whole: dict[str, Any]) -> list[str]:
    """Return what the headers have to say of a message again, if it is one of the newest revision."""
    params = whole.get("params")
    if not isinstance(params, dict) or "_meta" not in params:
        return []
    named = [f"Mcp-Name: {_line(params['name'])}"] if "name" in params else []
    return ["MCP-Protocol-Version: 2026-07-28", f"Mcp-Method: {_line(whole.get('method', ''))}", *named]


def _odd_body(rng: random.Random, whole: dict[str, Any]) -> bytes:
    if rng.random() < 0.01:
        return b'{"a": "' + b"x" * _MONSTER
    if rng.random() < 0.5:
        return odd_json(rng, whole)
    return json.dumps(mutated(rng, whole)).encode()


def _line(text: object) -> str:
    return str(text).replace("\r", " ").replace("\n", " ")[:1000]
