"""The server over HTTP as its clients see it: real processes, both transports, both eras of the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.engines import Target
from tests.servers import (
    ERAS,
    TRANSPORTS,
    Era,
    HttpServer,
    Transport,
    call,
    environment,
    failure,
    http_server,
)

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front]


@pytest.fixture(scope="module")
async def server(
    target: Target, tmp_path_factory: pytest.TempPathFactory, image: str
) -> AsyncIterator[HttpServer]:
    """Start a server without tokens, which all tests share."""
    async with http_server(target, environment(target, tmp_path_factory.mktemp("open"), image)) as server:
        yield server


@pytest.fixture(scope="module")
async def shared(
    target: Target, tmp_path_factory: pytest.TempPathFactory, image: str
) -> AsyncIterator[HttpServer]:
    """Start a server for two principals."""
    environ = environment(target, tmp_path_factory.mktemp("shared"), image)
    async with http_server(target, environ, principals=["alice", "bob"]) as server:
        yield server


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_main_job(server: HttpServer, era: Era, transport: Transport) -> None:
    async with server.client(None, era, transport) as client:
        sandbox_id = (await call(client, "create_sandbox"))["sandbox_id"]
        ran = await call(client, "run_command", sandbox_id=sandbox_id, command="echo hello")
        assert (ran["status"], ran["stdout"]) == ("ok", "hello\n")
        await call(client, "kill", sandbox_id=sandbox_id)
        assert await call(client, "list_sandboxes") == {"sandboxes": [], "snapshots": []}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_another_principal_gets_what_a_random_id_gets(
    shared: HttpServer, era: Era, transport: Transport
) -> None:
    async with (
        shared.client("alice", era, transport) as alice,
        shared.client("bob", era, transport) as bob,
    ):
        sandbox_id = (await call(alice, "create_sandbox"))["sandbox_id"]
        foreign = await failure(bob, "run_command", sandbox_id=sandbox_id, command="id")
        assert foreign == await failure(bob, "run_command", sandbox_id=f"sb-{'0' * 32}", command="id")
        assert (await call(bob, "list_sandboxes"))["sandboxes"] == []
        assert (await call(alice, "run_command", command="true"))["status"] == "ok"
        await call(alice, "kill", sandbox_id=sandbox_id)
