"""What clients without good intentions get from the HTTP server: sizes, deadlines, numbers. In memory."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.engines import FAKE, eventually
from tests.servers import HttpServer, call, environment, http_server

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
JSON = "Content-Type: application/json\nAccept: application/json, text/event-stream\n"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}
SLOW = 500
"""Connections at once that say a byte now and then."""


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[HttpServer]:
    """Start a server with the limits that it has by default."""
    async with http_server(FAKE, environment(FAKE, tmp_path_factory.mktemp("home"), "")) as server:
        yield server


@pytest.fixture(scope="module")
async def narrow(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[HttpServer]:
    """Start a server with small limits, for two principals, and for the pages of an application."""
    environ = {
        **environment(FAKE, tmp_path_factory.mktemp("home"), ""),
        "POCKET_DOCK_HTTP_MAX_CONNECTIONS": "20",
        "POCKET_DOCK_HTTP_MAX_CONNECTIONS_EACH": "12",
        "POCKET_DOCK_HTTP_MAX_SESSIONS_EACH": "2",
        "POCKET_DOCK_HTTP_MAX_SESSIONS": "3",
    }
    options = ("--cors-origin", "https://app.example", "--allowed-origin", "https://other.example")
    async with http_server(FAKE, environ, *options, principals=["alice", "bob"]) as server:
        yield server


def connected(server: HttpServer, source: str = "127.0.0.1") -> socket.socket:
    """Connect from an address of this machine."""
    port = int(server.address.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))


def head(path: str, lines: str) -> bytes:
    return f"POST {path} HTTP/1.1\nHost: localhost\n{JSON}{lines}\n".replace("\n", "\r\n").encode()


def answered(server: HttpServer, parts: Iterator[bytes]) -> tuple[int, bytes]:
    """Send parts for as long as they are taken, and return the status and the body of the first answer."""
    with connected(server) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in answer and (piece := connection.recv(65_536)):
                answer += piece
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def memory(server: HttpServer) -> int:
    """Return how much memory the server has used at most, in bytes."""
    status = Path("/proc", str(server.process.pid), "status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


# -- bodies -------------------------------------------------------------------------------------------


def declared() -> Iterator[bytes]:
    yield head("/mcp", f"Content-Length: {10 * MIB}\n")
    for _ in range(10):
        yield b"x" * MIB


def chunked() -> Iterator[bytes]:
    yield head("/mcp", "Transfer-Encoding: chunked\n")
    for _ in range(10):
        yield b"100000\r\n" + b"x" * MIB + b"\r\n"
    yield b"0\r\n\r\n"


def declared_too_small() -> Iterator[bytes]:
    yield head("/mcp", "Content-Length: 10\n")
    for _ in range(10):
        yield b"x" * MIB


def declared_twice() -> Iterator[bytes]:
    yield head("/mcp", "Content-Length: 2\nTransfer-Encoding: chunked\n")
    yield from chunked()


@pytest.mark.parametrize(
    ("body", "statuses"),
    [(declared, {413}), (chunked, {413}), (declared_too_small, {400}), (declared_twice, {400})],
)
async def test_a_body_of_ten_mib_is_cut_off_and_others_are_served(
    server: HttpServer, body: Any, statuses: set[int]
) -> None:
    async with server.client() as client:
        await call(client, "list_sandboxes")
        before = memory(server)
        async with anyio.create_task_group() as group:
            results: list[tuple[int, bytes]] = []

            async def send() -> None:
                results.append(await anyio.to_thread.run_sync(answered, server, body()))

            for _ in range(10):
                group.start_soon(send)
            assert "sandboxes" in await call(client, "list_sandboxes")
        assert {status for status, _ in results} == statuses
        if body is declared:
            # A hundred MiB were sent.
            assert memory(server) - before < 30 * MIB
        assert "sandboxes" in await call(client, "list_sandboxes")
    assert "Traceback" not in server.log()


HOSTILE = {
    "deep": (b"[" * 100_000 + b"]" * 100_000, -32700),
    "long": (b'{"jsonrpc":"2.0","id":' + b"9" * 1_000_000 + b',"method":"ping"}', -32700),
    "NaN": (b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}', -32700),
    "twice": (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
    "no JSON": (b"\x16\x03\x01", -32700),
    "batch": (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
}


@pytest.mark.parametrize(("body", "code"), HOSTILE.values(), ids=HOSTILE)
async def test_what_is_no_message_is_told_so_on_every_path(
    server: HttpServer, body: bytes, code: int
) -> None:
    async with httpx2.AsyncClient(timeout=60) as client:
        for path in ("/mcp", f"/messages?session_id={'0' * 32}"):
            for more in ({}, {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "ping"}):
                headers = {**ACCEPT, "Content-Type": "application/json", **more}
                answer = await client.post(server.at(path), content=body, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert "Traceback" not in server.log()


async def test_a_message_for_no_stream_or_of_another_kind_is_refused(server: HttpServer) -> None:
    async with (
        httpx2.AsyncClient(timeout=60) as client,
        client.stream("GET", server.at("/sse")) as stream,
    ):
        lines = stream.aiter_lines()
        path = [await anext(lines) for _ in range(2)][1].removeprefix("data: ")
        json = {"Content-Type": "application/json"}
        for where, headers, body, status in (
            (path, json, b'{"jsonrpc":"2.0"}', 400),
            (path, {"Content-Type": "text/plain"}, b"{}", 400),
            ("/messages", json, b"{}", 404),
            ("/messages?session_id=x", json, b"{}", 404),
            (f"/messages?session_id={'0' * 32}", json, b"{}", 404),
            (f"{path}&session_id={'0' * 32}", json, b"{}", 404),
        ):
            answer = await client.post(server.at(where), headers=headers, content=body)
            assert answer.status_code == status, (where, answer.text)
        assert (await client.get(server.at(path))).status_code == 405


# -- deadlines ----------------------------------------------------------------------------------------


async def test_hundreds_of_slow_clients_are_cut_off_while_others_are_served(server: HttpServer) -> None:
    """Half of them never end their head, half their body; each says a byte now and then. Two say nothing."""
    async with server.client() as client:
        with contextlib.ExitStack() as opened:
            silent, idle = (opened.enter_context(connected(server)) for _ in range(2))
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            slow = [opened.enter_context(connected(server)) for _ in range(SLOW)]
            for number, connection in enumerate(slow):
                connection.setblocking(False)
                body = head("/mcp", "Content-Length: 1000\n")
                connection.send(body if number % 2 else body[:20])

            async def all_closed() -> bool:
                slow[:] = [connection for connection in slow if _goes_on(connection)]
                await call(client, "list_sandboxes")
                return not slow

            # They have 5 seconds each.
            await eventually(all_closed, within=60)
            for connection in (silent, idle):
                await anyio.to_thread.run_sync(_read_to_the_end, connection)
        assert "sandboxes" in await call(client, "list_sandboxes")
    assert "Traceback" not in server.log()


def _read_to_the_end(connection: socket.socket) -> None:
    """Read until the server closes the connection; a timeout is an error."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(65_536):
            pass


def _goes_on(connection: socket.socket) -> bool:
    """Say one more byte, and whether the connection is open still."""
    try:
        connection.send(b"x")
        return connection.recv(1000) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


# -- numbers ------------------------------------------------------------------------------------------


def refused(connection: socket.socket) -> bool:
    """Whether a connection is one too many."""
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.recv(65_536).startswith(b"HTTP/1.1 503")


async def test_connections_are_limited_for_each_address_and_for_all(narrow: HttpServer) -> None:
    with contextlib.ExitStack() as opened:

        def one_more(source: str) -> bool:
            try:
                return not refused(opened.enter_context(connected(narrow, source)))
            except ConnectionError:
                return False

        assert [one_more("127.0.0.1") for _ in range(13)] == [True] * 12 + [False]
        assert [one_more("127.0.0.2") for _ in range(9)] == [True] * 8 + [False]
        assert not one_more("127.0.0.3")

    async def again() -> bool:
        with connected(narrow) as connection:
            return not refused(connection)

    await eventually(again, within=30)


async def test_sessions_are_limited_for_each_principal_and_for_all(narrow: HttpServer) -> None:
    async with httpx2.AsyncClient(timeout=60) as client:

        async def begin(principal: str) -> httpx2.Response:
            answer: httpx2.Response = await client.post(
                narrow.url, headers={**ACCEPT, **narrow.headers(principal)}, json=HELLO
            )
            return answer

        begun = [await begin("alice") for _ in range(3)]
        assert [answer.status_code for answer in begun] == [200, 200, 503]
        bobs = await begin("bob")
        assert bobs.status_code == 200
        assert (await begin("bob")).status_code == 503
        for principal, answer in (("alice", begun[0]), ("alice", begun[1]), ("bob", bobs)):
            session = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}
            ended = await client.delete(narrow.url, headers={**narrow.headers(principal), **session})
            assert ended.status_code == 200
        assert (await begin("bob")).status_code == 200


async def test_streams_are_limited_for_each_principal_and_for_all(narrow: HttpServer) -> None:
    async with httpx2.AsyncClient(timeout=60) as client, contextlib.AsyncExitStack() as opened:

        async def begin(principal: str) -> int:
            stream = client.stream("GET", narrow.at("/sse"), headers=narrow.headers(principal))
            return int((await opened.enter_async_context(stream)).status_code)

        assert [await begin("alice") for _ in range(3)] == [200, 200, 503]
        assert [await begin("bob") for _ in range(2)] == [200, 503]
    async with httpx2.AsyncClient(timeout=60) as client:

        async def again() -> bool:
            async with client.stream("GET", narrow.at("/sse"), headers=narrow.headers("alice")) as stream:
                return bool(stream.status_code == 200)

        await eventually(again, within=30)


# -- web pages ----------------------------------------------------------------------------------------


async def test_pages_that_were_named_for_it_may_read_answers_and_no_others(narrow: HttpServer) -> None:
    async with httpx2.AsyncClient(timeout=60) as client:

        async def ask(method: str, origin: str, **more: str) -> httpx2.Response:
            headers = {**ACCEPT, "Origin": origin, **more}
            body = HELLO if method == "POST" else None
            answer: httpx2.Response = await client.request(method, narrow.url, headers=headers, json=body)
            return answer

        page = "https://app.example"
        preflight = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, mcp-protocol-version, mcp-session-id",
        }
        allowed = await ask("OPTIONS", page, **preflight)
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == page
        assert "authorization" in allowed.headers["Access-Control-Allow-Headers"].lower()
        assert "POST" in allowed.headers["Access-Control-Allow-Methods"]

        answer = await ask("POST", page)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, page)
        assert "Mcp-Session-Id" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers

        # Those may call, and are told nothing that a page could read.
        other = await ask("POST", "https://other.example", **narrow.headers("alice"))
        assert "Access-Control-Allow-Origin" not in other.headers
        assert other.status_code in (200, 503)
        assert (await ask("OPTIONS", "https://evil.example", **preflight)).status_code == 403
