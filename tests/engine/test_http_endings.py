"""What ends with an HTTP client, with its session and with the server, on real engines."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client import Client

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from tests.engines import Deadline, Target, eventually
from tests.servers import Era, HttpServer, Transport, call, environment, http_server

pytestmark = [pytest.mark.anyio, pytest.mark.front]

SESSIONS: list[tuple[Era, Transport]] = [("legacy", "http"), ("legacy", "sse"), ("auto", "sse")]
"""Where a client has a session that ends with it."""
COUNT_SLEEPERS = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [9]87' || true"


@pytest.fixture(scope="module")
def environ(target: Target, tmp_path_factory: pytest.TempPathFactory, image: str) -> dict[str, str]:
    return {
        **environment(target, tmp_path_factory.mktemp("home"), image),
        # What is launched ahead has no owner, and would be counted.
        "POCKET_DOCK_POOL_MB": "0",
        "POCKET_DOCK_HTTP_SESSION_IDLE_S": "5",
    }


@pytest.fixture(scope="module")
async def server(target: Target, environ: dict[str, str]) -> AsyncIterator[HttpServer]:
    """Start a server that tests share: none leaves a sandbox."""
    async with http_server(target, environ) as server:
        yield server


def label_of(environ: dict[str, str]) -> str:
    """Return the label of the containers of the only server with this state directory."""
    (path,) = Path(environ["POCKET_DOCK_STATE_DIR"], "instances").glob("*.jsonl")
    return f"{INSTANCE_LABEL}={path.stem}"


async def none_left(engine: Engine, label: str, within: float) -> None:
    async def gone() -> bool:
        return not await engine.containers(label)

    await eventually(gone, within=within)


async def sleepers(client: Client) -> int:
    """Return how many of the sleeping commands there are in the only sandbox."""
    found = await call(client, "run_command", command=COUNT_SLEEPERS)
    return int(found["stdout"])


class RawSession:
    """An HTTP session as the older revisions have them, of a client that never ends it."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._ids = itertools.count(2)
        self._client = httpx2.AsyncClient(timeout=120)
        self._headers = {"Accept": "application/json, text/event-stream"}

    async def __aenter__(self) -> RawSession:
        await self._client.__aenter__()
        hello = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        begun = await self._post({"id": 1, "method": "initialize", "params": hello})
        self._headers["Mcp-Session-Id"] = begun.headers["mcp-session-id"]
        self._headers["MCP-Protocol-Version"] = "2025-11-25"
        await self._post({"method": "notifications/initialized"})
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def call(self, tool: str, arguments: dict[str, Any]) -> httpx2.Response:
        """Call a tool."""
        params = {"name": tool, "arguments": arguments}
        return await self._post({"id": next(self._ids), "method": "tools/call", "params": params})

    async def call_in_vain(self, tool: str, arguments: dict[str, Any]) -> None:
        """Call a tool that the server will not answer, since it ends."""
        try:
            await self.call(tool, arguments)
        except httpx2.HTTPError:
            pass

    async def _post(self, message: dict[str, Any]) -> httpx2.Response:
        answer: httpx2.Response = await self._client.post(
            self._server.url, headers=self._headers, json={"jsonrpc": "2.0", **message}
        )
        return answer


async def test_what_is_in_a_session_ends_with_the_client_in_the_middle_of_a_call(
    server: HttpServer, engine: Engine, environ: dict[str, str], deadline: Deadline
) -> None:
    for era, transport in SESSIONS:
        async with server.client(None, era, transport) as client, anyio.create_task_group() as group:
            await call(client, "create_sandbox")
            label = label_of(environ)
            assert len(await engine.containers(label)) == 1
            group.start_soon(client.call_tool, "run_command", {"command": "sleep 987"})
            await eventually(partial(sleepers, client), within=deadline(20))
            group.cancel_scope.cancel()
        await none_left(engine, label, within=deadline(30))


async def test_a_session_whose_client_says_nothing_any_more_ends_when_it_is_idle(
    server: HttpServer, engine: Engine, environ: dict[str, str], deadline: Deadline
) -> None:
    async with RawSession(server) as session:
        assert "sandbox_id" in (await session.call("create_sandbox", {})).text
        label = label_of(environ)
        assert len(await engine.containers(label)) == 1
        await none_left(engine, label, within=deadline(40))
        assert (await session.call("list_sandboxes", {})).status_code == 404


async def test_a_session_whose_client_dies_in_the_middle_of_a_call_ends_when_it_is_idle(
    server: HttpServer, engine: Engine, environ: dict[str, str], deadline: Deadline
) -> None:
    async with RawSession(server) as session:
        await session.call("create_sandbox", {})
        label = label_of(environ)
        async with anyio.create_task_group() as group:
            group.start_soon(session.call, "run_command", {"command": "sleep 987", "wait_s": 300})

            async def runs() -> bool:
                seen = await session.call("run_command", {"command": COUNT_SLEEPERS})
                (count,) = re.findall(r'"stdout":"(\d+)\\n"', seen.text)
                return int(count) > 0

            await eventually(runs, within=deadline(20))
            assert len(await engine.containers(label)) == 1
            # Its connection ends, and nothing else is said.
            group.cancel_scope.cancel()
        await none_left(engine, label, within=deadline(40))


async def test_a_sandbox_whose_client_disappears_before_it_is_told_of_it_is_not_made(
    server: HttpServer, engine: Engine, environ: dict[str, str], deadline: Deadline
) -> None:
    async with server.client() as watcher:
        await call(watcher, "kill", sandbox_id=(await call(watcher, "create_sandbox"))["sandbox_id"])
        label = label_of(environ)
        body = json.dumps(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {
                    "name": "create_sandbox",
                    "arguments": {},
                    "_meta": {
                        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                        "io.modelcontextprotocol/clientCapabilities": {},
                    },
                },
            }
        )
        head = (
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n"
            f"Mcp-Method: tools/call\r\nMcp-Name: create_sandbox\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        host, _, port = server.address.rpartition(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(f"{head}{body}".encode())

        async def settled() -> bool:
            """Whether the server has nothing under way: what comes after those three is done, too."""
            await call(watcher, "kill", sandbox_id=(await call(watcher, "create_sandbox"))["sandbox_id"])
            return not await engine.containers(label)

        await eventually(settled, within=deadline(30))
        assert (await call(watcher, "list_sandboxes"))["sandboxes"] == []


async def test_a_call_whose_client_disappears_is_killed_and_its_sandbox_stays(
    server: HttpServer, deadline: Deadline
) -> None:
    """The newest revision: there is no session, and the end of the answer's stream is a cancellation."""
    async with server.client() as watcher:
        sandbox_id = (await call(watcher, "create_sandbox"))["sandbox_id"]
        async with server.client() as client, anyio.create_task_group() as group:
            group.start_soon(
                client.call_tool, "run_command", {"command": "sleep 987", "sandbox_id": sandbox_id}
            )
            await eventually(partial(sleepers, watcher), within=deadline(20))
            group.cancel_scope.cancel()

        async def none() -> bool:
            return await sleepers(watcher) == 0

        await eventually(none, within=deadline(20))
        await call(watcher, "kill", sandbox_id=sandbox_id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_the_server_with_all_sandboxes_whatever_is_under_way(
    target: Target,
    engine: Engine,
    environ: dict[str, str],
    tmp_path: Path,
    deadline: Deadline,
    number: signal.Signals,
) -> None:
    environ = {**environ, "HOME": str(tmp_path), "POCKET_DOCK_STATE_DIR": str(tmp_path / "state")}
    async with (
        http_server(target, environ) as server,
        RawSession(server) as session,
        httpx2.AsyncClient() as client,
        client.stream("GET", server.at("/sse")) as stream,
        anyio.create_task_group() as group,
    ):
        assert stream.status_code == 200
        await session.call("create_sandbox", {})
        await session.call("create_sandbox", {})
        label = label_of(environ)
        assert len(await engine.containers(label)) == 2
        group.start_soon(session.call_in_vain, "create_sandbox", {})

        server.process.send_signal(number)
        server.process.send_signal(signal.SIGTERM)

        async def ended() -> bool:
            return server.process.poll() is not None

        await eventually(ended, within=deadline(20))
        assert server.process.returncode in (128 + number, 128 + signal.SIGTERM)
        await none_left(engine, label, within=deadline(30))
        assert "Traceback" not in server.log()
