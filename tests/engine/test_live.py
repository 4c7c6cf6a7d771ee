"""What a sandbox uses now, as its owner is told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.policy import exec_spec, random_uid
from pocket_dock_mcp.readings import Readings
from tests.engines import LABELS, eventually, unique

pytestmark = [pytest.mark.anyio, pytest.mark.front]

LIMITS = Limits(memory_bytes=256 * MIB, cpus=1, pids=64)
SPIN = "import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass"
HOLD = "x = bytearray(b'x' * (60 << 20)); import time; print('held', flush=True); time.sleep(600)"


@pytest.fixture
async def box(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    wanted = Launch(name=unique("live"), image=image, labels=LABELS, limits=LIMITS)
    async with await LiveContainer.create(engine, wanted) as container:
        yield container


async def live(box: LiveContainer) -> Readings:
    return (await box.info()).live


@pytest.mark.fake_too
async def test_the_numbers_of_an_idle_sandbox_are_there_and_make_sense(box: LiveContainer) -> None:
    now = await live(box)

    assert now.memory_limit_bytes == LIMITS.memory_bytes
    assert now.pids_limit == LIMITS.pids
    assert now.memory_bytes is not None
    assert now.memory_peak_bytes is not None
    assert 0 < now.memory_bytes <= now.memory_peak_bytes <= LIMITS.memory_bytes
    assert now.pids is not None
    assert 1 <= now.pids < LIMITS.pids
    assert now.cpu_s is not None
    assert now.cpu_s > 0
    assert now.uptime_s is not None
    assert now.disk_free_bytes is not None
    assert now.disk_free_bytes > 0
    assert (now.processes, now.runs, now.sessions, now.interfaces) == (0, 0, 0, ())


async def test_a_program_that_computes_is_seen_at_it(box: LiveContainer) -> None:
    before = await live(box)
    run = await box.start(SPIN, language="python")

    async def is_busy() -> bool:
        now = await live(box)
        return now.processes == 1 and (now.cpu_share or 0) > 0.05

    await eventually(is_busy, within=20)
    busy = await live(box)
    assert busy.runs == 1
    assert busy.processes == 1
    assert (busy.cpu_s or 0) > (before.cpu_s or 0)

    async def is_within_its_limit() -> bool:
        return 0 < ((await live(box)).cpu_share or 0) < LIMITS.cpus * 1.3

    await eventually(is_within_its_limit, within=20)
    await run.kill()
    await run.wait()

    async def is_idle() -> bool:
        now = await live(box)
        return now.runs == 0 and (now.cpu_share or 0) < 0.05

    await eventually(is_idle, within=20)


async def test_memory_is_seen_and_its_peak_stays(box: LiveContainer) -> None:
    run = await box.start(HOLD, language="python")
    async for _stream, text in run.chunks():
        assert text == "held\n"
        break
    held = await live(box)
    await run.kill()
    await run.wait()
    after = await live(box)

    assert (held.memory_bytes or 0) > 60 * MIB
    assert (after.memory_bytes or 0) < 60 * MIB
    assert (after.memory_peak_bytes or 0) > 60 * MIB


async def test_sessions_and_their_runs_are_counted(box: LiveContainer) -> None:
    await box.run("x = 1", language="python", session="one")
    await box.run("cd /tmp", language="shell", session="two")

    now = await live(box)

    assert (now.sessions, now.runs) == (2, 0)


async def test_a_network_is_seen_with_its_address_and_what_went_through(engine: Engine, image: str) -> None:
    wanted = Launch(name=unique("net"), image=image, labels=LABELS, limits=LIMITS, network="open")
    async with await LiveContainer.create(engine, wanted) as container:
        [interface] = (await live(container)).interfaces
        address = await container.run("hostname -I")

        # Nobody has to be there: what leaves the sandbox is counted.
        await container.run(
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"s.sendto(b'x' * 1000, ('{interface.address}'.rpartition('.')[0] + '.1', 9))",
            language="python",
        )
        [after] = (await live(container)).interfaces

    assert interface.address in address.stdout.split()
    assert after.sent_bytes >= interface.sent_bytes + 1000


async def test_without_python_a_shell_reads_what_it_can(engine: Engine, image: str) -> None:
    spec = exec_spec(unique("plain"), image, LABELS, LIMITS, "none")
    container_id = await engine.create(spec)
    stream = await engine.attach(container_id)
    try:
        await engine.start(container_id)
        transport = await ExecTransport.open(
            engine, container_id, stream, uid=random_uid(), home="/home/sandbox", env={}
        )
        first = await transport.stats()

        async def is_told_a_share() -> bool:
            return (await transport.stats()).cpu_share is not None

        await eventually(is_told_a_share, within=20)
        second = await transport.stats()
    finally:
        await stream.aclose()
        await engine.remove(container_id)

    assert first.cpu_share is None
    assert second.cpu_share is not None
    assert second.memory_limit_bytes == LIMITS.memory_bytes
    assert second.pids_limit == LIMITS.pids
    assert 0 < (second.memory_bytes or 0) <= (second.memory_peak_bytes or 0)
    assert (second.cpu_s or 0) > 0
    assert second.interfaces == ()
