"""A server over HTTP with two principals, and requests that are written by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2

from tests.engines import Target
from tests.servers import HttpServer, http_server
from tests.trials.api import Api
from tests.trials.host import slowness

ALICE, BOB = "alice", "bob"
VERSION = "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "abuse", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_INSTANCE = "pocket-dock.instance"
_GONE_S = 10.0


class Caller:
    """Somebody who writes requests by hand."""

    def __init__(self, server: HttpServer, principal: str | None) -> None:
        self.server = server
        self.principal = principal
        self._client = httpx2.AsyncClient(
            timeout=300, limits=httpx2.Limits(max_connections=50, max_keepalive_connections=50)
        )
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Caller:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def post(
        self, message: Any, headers: Mapping[str, str | None] | None = None, query: str = ""
    ) -> httpx2.Response:
        """Send a message; `headers` are instead of or beside the right ones, None for without it."""
        right: dict[str, str | None] = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": message["method"],
            **self.server.headers(self.principal),
        }
        if "name" in message.get("params", {}):
            right["Mcp-Name"] = message["params"]["name"]
        sent = {name: value for name, value in {**right, **(headers or {})}.items() if value is not None}
        answer: httpx2.Response = await self._client.post(self.server.url + query, json=message, headers=sent)
        return answer

    async def call(self, tool: str, /, number: int | None = None, **arguments: Any) -> dict[str, Any]:
        """Call a tool; return its result, with `isError` for a refusal, or the error of the protocol."""
        number = next(self._ids) if number is None else number
        answer = message_in(await self.post(request(tool, number, **arguments)))
        if answer.get("id") != number:
            raise AssertionError(f"an answer for {answer.get('id')!r} and not for {number}: {answer}")
        found: dict[str, Any] = answer.get("result") or {"isError": True, "protocol": answer["error"]}
        return found


def request(tool: str, number: int, /, **arguments: Any) -> dict[str, Any]:
    """Return a call of a tool as the newest revision has it."""
    params = {"name": tool, "arguments": arguments, "_meta": _META}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def message_in(answer: httpx2.Response) -> dict[str, Any]:
    """Return the only answer in a body, be it JSON or a stream of events."""
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        found: dict[str, Any] = answer.json()
        return found
    lines = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:")]
    said = [json.loads(line) for line in lines if line.strip()]
    (found,) = [one for one in said if "method" not in one]
    return found


def told(result: Mapping[str, Any]) -> str:
    """Return the text that a model is given."""
    return "\n".join(block.get("text", "") for block in result.get("content", []))


def fields(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the structured reply of a call that has to succeed."""
    if result.get("isError"):
        raise AssertionError(f"refused: {told(result) or result}")
    return dict(result["structuredContent"])


@dataclass
class Served:
    """A server over HTTP that cases share, and what it has on the engine."""

    http: HttpServer
    environ: Mapping[str, str]
    api: Api

    async def containers(self) -> list[dict[str, Any]]:
        """Return its containers, as the engine lists them."""
        records = Path(self.environ["POCKET_DOCK_STATE_DIR"], "instances").glob("*.jsonl")
        found = [await self.api.containers(f"{_INSTANCE}={path.stem}") for path in records]
        return [one for some in found for one in some]

    async def clear(self) -> AsyncIterator[str]:
        """End all that its principals have; yield what is wrong with that, or with the server."""
        for principal in (ALICE, BOB):
            async with Caller(self.http, principal) as caller:
                listed = fields(await caller.call("list_sandboxes"))
                for kind, name in (("sandboxes", "sandbox_id"), ("snapshots", "snapshot_id")):
                    for one in listed[kind]:
                        await caller.call("kill", **{name: one[name]})
        with anyio.move_on_after(_GONE_S * slowness()):
            while await self.containers():
                await anyio.sleep(0.05)
        if left := await self.containers():
            yield f"O5: the server over HTTP has left {[one['Id'] for one in left]}"
        if "Traceback" in self.http.log():
            yield f"the server over HTTP has failed: {self.http.log()[-1000:]}"


@asynccontextmanager
async def serving(target: Target, environ: dict[str, str]) -> AsyncIterator[Served]:
    """Start one, with tokens for Alice and Bob."""
    async with http_server(target, environ, principals=[ALICE, BOB]) as server:
        yield Served(server, environ, Api(target.url))
