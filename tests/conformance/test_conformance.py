"""The official conformance runner's scenarios pass against our server, and can fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.broken import FAULTS
from tests.conformance.npm import Programs
from tests.conformance.runner import listed, scenario
from tests.conformance.scenarios import APPLY, DO_NOT_APPLY, MODERN
from tests.engines import FAKE, Target
from tests.servers import HttpServer, environment, http_server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

IMAGE = "localhost/pocket-dock-fake:latest"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[HttpServer]:
    environ = environment(FAKE, tmp_path_factory.mktemp("server"), IMAGE)
    async with http_server(FAKE, environ) as server:
        yield server


@pytest.fixture(scope="module")
async def broken(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[HttpServer]:
    environ = environment(FAKE, tmp_path_factory.mktemp("broken"), IMAGE)
    async with http_server(FAKE, environ, module="tests.conformance.broken") as server:
        yield server


def test_each_scenario_of_the_runner_is_known_here(programs: Programs) -> None:
    assert sorted(listed(programs)) == sorted([*APPLY, *DO_NOT_APPLY])
    assert APPLY.keys() == FAULTS.keys()


@pytest.mark.parametrize(
    ("name", "version"), [(name, version) for name in APPLY for version in APPLY[name].versions]
)
async def test_what_applies_passes(programs: Programs, server: HttpServer, name: str, version: str) -> None:
    outcome = await scenario(programs, server.url, name, version, APPLY[name].left_out)

    assert outcome.failed == []
    assert outcome.passed > 0
    assert sorted(outcome.left_out) == sorted(APPLY[name].left_out)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_server_that_is_wrong_fails(programs: Programs, broken: HttpServer, name: str) -> None:
    applies = APPLY[name]
    outcome = await scenario(
        programs, broken.at(f"/{name}/mcp"), name, applies.versions[-1], applies.left_out
    )

    assert outcome.failed != [], FAULTS[name].what


@pytest.mark.front
async def test_with_a_real_engine(programs: Programs, target: Target, image: str, tmp_path: Path) -> None:
    """The scenario that calls a tool which makes a sandbox."""
    async with http_server(target, environment(target, tmp_path, image)) as server:
        outcome = await scenario(programs, server.url, "http-header-validation", MODERN, {})
    assert (outcome.failed, outcome.passed > 0) == ([], True)
