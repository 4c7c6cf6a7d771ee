"""The server over HTTP as its clients see it: real processes, both transports, both eras of the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import Target
from tests.servers import ERAS, TRANSPORTS, Era, Transport, call, environment, failure, http_server

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front]

LABEL = "pocket-dock.instance"


@pytest.fixture
def environ(target: Target, tmp_path: Path, image: str) -> dict[str, str]:
    return environment(target, tmp_path, image)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_main_job(target: Target, environ: dict[str, str], era: Era, transport: Transport) -> None:
    async with http_server(target, environ) as server, server.client(None, era, transport) as client:
        sandbox_id = (await call(client, "create_sandbox"))["sandbox_id"]
        ran = await call(client, "run_command", sandbox_id=sandbox_id, command="echo hello")
        assert (ran["status"], ran["stdout"]) == ("ok", "hello\n")
        await call(client, "kill", sandbox_id=sandbox_id)
        assert await call(client, "list_sandboxes") == {"sandboxes": [], "snapshots": []}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_another_principal_gets_what_a_random_id_gets(
    target: Target, environ: dict[str, str], era: Era, transport: Transport
) -> None:
    async with (
        http_server(target, environ, principals=["alice", "bob"]) as server,
        server.client("alice", era, transport) as alice,
        server.client("bob", era, transport) as bob,
    ):
        sandbox_id = (await call(alice, "create_sandbox"))["sandbox_id"]
        foreign = await failure(bob, "run_command", sandbox_id=sandbox_id, command="id")
        assert foreign == await failure(bob, "run_command", sandbox_id=f"sb-{'0' * 32}", command="id")
        assert (await call(bob, "list_sandboxes"))["sandboxes"] == []
        assert (await call(alice, "run_command", command="true"))["status"] == "ok"
