"""Programs that abuse the way out of their sandbox: nobody else notices, and nothing grows."""

from __future__ import annotations

import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.outgoing import MOST_CONNECTIONS
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.models import MIB, Limits
from tests.behaviours import CALLER
from tests.engines import LABELS, eventually, unique
from tests.gates import Gates, LineGate

pytestmark = [pytest.mark.anyio, pytest.mark.front, pytest.mark.slow]

LIMITS = Limits(memory_bytes=128 * MIB, cpus=2, pids=256)
MOST_GROWN = 24 * MIB
"""Of the agent and of this process: windows of `MOST_CONNECTIONS`, and what an allocator keeps."""
DOWNLOAD = 200 * MIB

MANY = """
import os, socket, struct, sys, time
held = []
for _ in range(int(os.environ['COUNT'])):
    out = socket.create_connection(('127.0.0.1', 14830), 60)
    out.sendall(os.environ['SAY'].encode() + b'\\n')
    if os.environ['THEN'] == 'hold':
        held.append(out)
    elif os.environ['THEN'] == 'reset':
        out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        out.close()
    elif os.environ['THEN'] == 'sip':
        out.recv(1)
        held.append(out)
print('done', flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def gates() -> Gates:
    return Gates()


@pytest.fixture(scope="module")
async def box(engine: Engine, image: str, gates: Gates) -> AsyncIterator[LiveContainer]:
    wanted = Launch(unique("out"), image, LABELS, LIMITS, ("example.com",), gates=gates)
    async with await LiveContainer.create(engine, wanted) as box:
        yield box


@pytest.fixture
async def gate(gates: Gates, box: LiveContainer) -> AsyncIterator[LineGate]:
    """Have the gate, and see afterwards that it is rid of all."""
    yield gates.last

    async def is_idle() -> bool:
        return gates.last.open == 0

    await eventually(is_idle, 30)


@asynccontextmanager
async def abused(box: LiveContainer, count: int, say: str, then: str) -> AsyncIterator[None]:
    """Have a program in there that has made its connections and goes on."""
    env = {"COUNT": str(count), "SAY": say, "THEN": then}
    run = await box.start(MANY, language="python", env=env)

    async def has_made_them() -> bool:
        assert run.is_running, run.peek()
        return "done" in run.peek()

    await eventually(has_made_them, 60)
    yield
    await run.kill()
    await run.wait()
    run.close()


async def is_served(box: LiveContainer) -> bool:
    result = await box.run(CALLER, language="python", env={"CALL": "give 1000"}, timeout_s=60)
    return "in all 1000 " in result.stdout


async def agent_bytes(box: LiveContainer) -> int:
    status = (await box.run("grep VmRSS /proc/1/status")).stdout
    return int(status.split()[1]) * 1024


def own_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@asynccontextmanager
async def flat(box: LiveContainer) -> AsyncIterator[None]:
    agent, own = await agent_bytes(box), own_bytes()
    yield
    grown = (await agent_bytes(box) - agent, own_bytes() - own)
    assert max(grown) < MOST_GROWN, grown


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.usefixtures("gate")
async def test_a_flood_of_connections_leaves_room_for_others(box: LiveContainer, then: str) -> None:
    count = int(os.environ.get("POCKET_DOCK_TEST_CONNECTIONS", "120"))
    async with abused(box, count, "give 100000", then):
        assert await is_served(box)


async def test_who_does_not_read_costs_nothing_and_nobody(box: LiveContainer, gate: LineGate) -> None:
    assert await is_served(box)
    async with flat(box), abused(box, MOST_CONNECTIONS // 2, "give 1000000000", "sip"):
        assert await is_served(box)
        assert gate.open == MOST_CONNECTIONS // 2


async def test_idle_connections_cost_nothing_and_their_number_is_bounded(
    box: LiveContainer, gate: LineGate
) -> None:
    async with flat(box), abused(box, MOST_CONNECTIONS + 10, "hang", "hold"):

        async def are_all_taken() -> bool:
            return gate.open == MOST_CONNECTIONS

        await eventually(are_all_taken, 60)
    assert await is_served(box)
    assert gate.most == MOST_CONNECTIONS


@pytest.mark.usefixtures("gate")
async def test_much_that_is_downloaded_goes_through_and_stays_nowhere(box: LiveContainer) -> None:
    async with flat(box):
        env = {"CALL": f"give {DOWNLOAD}"}
        result = await box.run(CALLER, language="python", env=env, timeout_s=100)
        assert f"in all {DOWNLOAD} " in result.stdout
