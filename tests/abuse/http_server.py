"""The real server over streamable HTTP, spoken to request by request as a client of it does."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from tests.abuse.server import START_S, DiedError, Server
from tests.trials.host import slowness

PRINCIPALS = ("attacker", "neighbour")
_SESSION = "mcp-session-id"
_ADDRESS = re.compile(rb"listening on (http://\S+)")
_PATIENCE_S = 900.0


@dataclass
class HttpServer(Server):
    """One session of one principal with a server that others use, too."""

    url: str = ""
    token: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Of all principals."""
    session: str | None = None
    _limiter: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(250))
    _asking: set[asyncio.Future[None]] = field(default_factory=set)
    _erring: asyncio.Future[None] | None = None

    @classmethod
    async def start(cls, environ: Mapping[str, str]) -> HttpServer:
        """Start one with a token for each principal; the first one's session is returned."""
        tokens = {name: secrets.token_hex(16) for name in PRINCIPALS}
        file = Path(environ["HOME"]) / f"tokens-{secrets.token_hex(4)}"
        file.touch(mode=0o600)
        file.write_text("".join(f"{name} {token}\n" for name, token in tokens.items()))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pocket_dock_mcp", "--transport", "http", "--port", "0"),
            *("--token-file", str(file)),
            # One for all cases: between two that use it there may be many that do not.
            env={"POCKET_DOCK_HTTP_SESSION_IDLE_S": "86400", **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        with anyio.fail_after(START_S * slowness()):
            while not (found := _ADDRESS.search(line := await process.stderr.readline())):
                if not line:
                    raise DiedError("the server has ended before it listened")
        server = cls(process, environ, url=found[1].decode(), token=tokens[PRINCIPALS[0]], tokens=tokens)
        server._erring = asyncio.ensure_future(_drain(process.stderr))
        server._reader = asyncio.ensure_future(server._stdout_is_empty())
        await server._greet()
        return server

    async def as_principal(self, name: str) -> HttpServer:
        """Return a session of somebody else with the same server."""
        other = replace(
            self, token=self.tokens[name], session=None, strays=[], schemas={}, _reader=None, _erring=None
        )
        await other._greet()
        return other

    def send(
        self, method: str, params: Mapping[str, Any]
    ) -> tuple[int, asyncio.Future[tuple[dict[str, Any], int]]]:
        """Send a request and return its id, and where its answer will be."""
        number = next(self._ids)
        answer = asyncio.get_running_loop().create_future()
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        asking = asyncio.ensure_future(self._ask(message, answer))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        return number, answer

    def write(self, message: Any) -> None:
        """Send a notification."""
        asking = asyncio.ensure_future(self._tell(message))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    def write_bytes(self, data: bytes) -> None:
        """There is no stream to write to."""
        raise NotImplementedError("a case that writes raw bytes is one for stdio")

    def cancel(self, number: int) -> None:
        """Cancel a request."""
        if self.is_alive:
            self.notify("notifications/cancelled", requestId=number)

    async def close(self, within_s: float = 20.0) -> int:
        """End the server; another principal's session just ends itself."""
        if self._erring is None:
            await self._delete_session()
            return 0
        if self.is_alive:
            self.process.terminate()
        with anyio.move_on_after(within_s * slowness()):
            await self.process.wait()
        return await self.kill()

    async def _delete_session(self) -> None:
        await anyio.to_thread.run_sync(self._request, "DELETE", b"", limiter=self._limiter)

    async def _tell(self, message: Any) -> None:
        await anyio.to_thread.run_sync(
            self._request, "POST", json.dumps(message).encode(), limiter=self._limiter
        )

    async def _ask(
        self, message: Mapping[str, Any], answer: asyncio.Future[tuple[dict[str, Any], int]]
    ) -> None:
        body = json.dumps(message).encode()
        try:
            found = await anyio.to_thread.run_sync(self._request, "POST", body, limiter=self._limiter)
            told = _message(found, message["id"])
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not answer.done():
                answer.set_exception(DiedError(f"there is no answer: {error!r}"))
                # Whoever has stopped waiting does not want to know.
                answer.exception()
            return
        if not answer.done():
            answer.set_result((told, len(found)))

    def _request(self, verb: str, body: bytes) -> bytes:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_S)
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
            **({_SESSION: self.session} if self.session else {}),
        }
        try:
            connection.request(verb, parts.path, body, headers)
            response = connection.getresponse()
            self.session = self.session or response.headers.get(_SESSION)
            return response.read()
        finally:
            connection.close()

    async def _stdout_is_empty(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.strays.append(f"stdout: {line[:200]!r}")


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


def _message(body: bytes, number: int) -> dict[str, Any]:
    """Return the answer with this id, from a JSON body or from a stream of events."""
    lines = [line.removeprefix(b"data:").strip() for line in body.splitlines() if line.startswith(b"data:")]
    for line in lines or [body]:
        if line and (message := json.loads(line)).get("id") == number:
            return dict(message)
    raise ValueError(f"no answer in {body[:300]!r}")
