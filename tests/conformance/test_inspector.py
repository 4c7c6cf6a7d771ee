"""The official Inspector works with our server: on each transport, and in both eras of the protocol."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from pocket_dock_mcp.testing import FakeEngine
from tests.conformance.npm import Programs, run
from tests.engines import FAKE, Target
from tests.servers import HttpServer, environment, http_server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

CALL_S = 120.0
IMAGE = FakeEngine.IMAGE


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[HttpServer]:
    environ = environment(FAKE, tmp_path_factory.mktemp("server"), IMAGE)
    async with http_server(FAKE, environ, principals=["ada"]) as server:
        yield server


class Inspector:
    """The program, connected in one way."""

    def __init__(self, programs: Programs, connection: list[str]) -> None:
        self._programs = programs
        self._connection = connection

    async def __call__(self, method: str, *options: str) -> dict[str, Any]:
        """Call a method that is to succeed, and return its result."""
        arguments = ["--cli", *self._connection, "--method", method, *options]
        command = self._programs.command("mcp-inspector", *arguments)
        done = await anyio.to_thread.run_sync(
            run, command, CALL_S, self._programs.environ, self._programs.folder
        )
        assert done.returncode == 0, done.stdout
        return dict(json.loads(done.stdout[done.stdout.index("{") :]))


WAYS = {
    "http-modern": ["--transport", "http", "--protocol-era", "modern"],
    "http-legacy": ["--transport", "http", "--protocol-era", "legacy"],
    "sse": ["--transport", "sse"],
}


def over_http(programs: Programs, server: HttpServer, way: str) -> Inspector:
    """Return the program, connected to a server in one of the ways."""
    url = server.at("/sse") if way == "sse" else server.url
    header = f"Authorization: {server.headers('ada')['Authorization']}"
    return Inspector(programs, ["--server-url", url, *WAYS[way], "--header", header])


@pytest.mark.parametrize("way", WAYS)
async def test_over_http(programs: Programs, server: HttpServer, way: str) -> None:
    inspect = over_http(programs, server, way)

    assert len((await inspect("tools/list", "--strict"))["tools"]) == 14
    assert (await _call(inspect, "create_sandbox"))["status"] == "running"


async def test_over_stdio(programs: Programs, tmp_path: Path) -> None:
    environ = {**environment(FAKE, tmp_path, IMAGE), "PYTHONPATH": str(Path(__file__).parents[2])}
    given = [word for name, value in environ.items() for word in ("-e", f"{name}={value}")]
    inspect = Inspector(programs, [*given, sys.executable, "-m", "tests.fake_server"])

    assert len((await inspect("tools/list", "--strict"))["tools"]) == 14
    assert (await _call(inspect, "create_sandbox"))["status"] == "running"


@pytest.mark.front
async def test_with_a_real_engine(programs: Programs, target: Target, image: str, tmp_path: Path) -> None:
    async with http_server(target, environment(target, tmp_path, image), principals=["ada"]) as server:
        # In the newest revision calls of several connections are of one owner.
        inspect = over_http(programs, server, "http-modern")
        created = (await _call(inspect, "create_sandbox"))["sandbox_id"]
        ran = await _call(inspect, "run_code", sandbox_id=created, code="echo hi", language="shell")
        assert (ran["status"], ran["stdout"]) == ("ok", "hi\n")
        await _call(inspect, "kill", sandbox_id=created)


async def _call(inspect: Inspector, tool: str, **arguments: str) -> dict[str, Any]:
    given = ["--tool-args-json", json.dumps(arguments)] if arguments else []
    result = await inspect("tools/call", "--tool-name", tool, *given)
    assert not result.get("isError"), result
    return dict(result["structuredContent"])
