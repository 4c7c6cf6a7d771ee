"""What a broken connection makes of a container's stream: never a result that is short or wrong."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.agent.transport import Program
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import AgentError, PocketDockError, SandboxLostError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, SandboxRequest
from pocket_dock_mcp.settings import Settings
from tests.engines import Target
from tests.faults import Fault, FaultyProxy, faulty_proxy

pytestmark = pytest.mark.anyio

OWNER = Owner(session="s", principal="p")


@pytest.fixture
async def cable(target: Target, tmp_path: Path) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(tmp_path / "engine.sock", target.url, random.Random(1)) as cable:
        yield cable


@pytest.fixture
async def manager(cable: FaultyProxy, tmp_path: Path) -> AsyncIterator[Manager]:
    settings = Settings(state_dir=tmp_path / "state", pool_mb=0)
    async with Manager(settings, lambda: DockerApiEngine.connect(cable.url)) as manager:
        yield manager


async def container(manager: Manager, image: str) -> Any:
    return (await manager.create(OWNER, SandboxRequest(image=image), lambda _line: None)).container


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 9, 100, 1000, 3000])
async def test_bytes_of_somebody_elses_in_a_stream_are_never_part_of_a_file(
    cable: FaultyProxy, manager: Manager, image: str, offset: int
) -> None:
    box = await container(manager, image)
    content = b"x" * 3000
    await box.write_file("file", content)
    cable.arm(Fault("garbage", "down", offset=offset, connection=None))

    try:
        read = (await box.read_file("file")).data
    except SandboxLostError:
        read = content

    assert cable.has_struck
    assert read == content


@pytest.mark.parametrize("offset", [1, 8, 60, 200])
async def test_a_run_whose_stream_ends_early_is_not_over(
    cable: FaultyProxy, manager: Manager, image: str, offset: int
) -> None:
    box = await container(manager, image)
    cable.arm(Fault("truncate", "down", offset=offset, connection=None))

    result = await box.run("echo out; echo err >&2")

    assert cable.has_struck
    assert result.status in ("lost", "indeterminate")
    assert result.exit_code is None


async def test_output_without_an_agent_is_whole_or_not_told_as_ended(
    cable: FaultyProxy, manager: Manager, image: str
) -> None:
    box = await container(manager, image)
    lease = box._transport._link._stream
    transport = ExecTransport(box._engine, box._running.id, lease, box._transport.facts, {})
    received = bytearray()
    cable.arm(None)
    program = Program("shell", "echo first; sleep 0.1; echo second", timeout_s=20)
    await (await transport.start(program, lambda _stream, data: received.extend(data))).wait()
    assert received == b"first\nsecond\n"
    (size,) = (
        passed["down"] for head, passed in cable.traffic if head.startswith("POST") and "/start" in head
    )

    # The end of the first piece, a stream that breaks there, and a program that is over when it is asked for.
    for left_out in (1, 8 + 32, 8 + 32 + 8 + len(b"second\n")):
        received.clear()
        cable.arm(Fault("slow close", "down", about="/start", offset=size - left_out, seconds=0.5))
        with pytest.raises((AgentError, PocketDockError)):
            await (await transport.start(program, lambda _stream, data: received.extend(data))).wait()
        assert cable.has_struck
