"""The way out of a sandbox without a network: a gate on the host answers its programs' connections."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.outgoing import MOST_CONNECTIONS
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.models import MIB, Limits
from tests.behaviours import CALLER
from tests.engines import LABELS, Deadline, eventually, unique
from tests.gates import Gates, LineGate
from tests.kept import Kept, keeping
from tests.runs import said

pytestmark = [pytest.mark.anyio, pytest.mark.contract]

LIMITS = Limits(memory_bytes=128 * MIB, cpus=2, pids=256)
NETWORK = ("example.com",)


def wanted(image: str, gates: Gates) -> Launch:
    return Launch(name=unique("out"), image=image, labels=LABELS, limits=LIMITS, network=NETWORK, gates=gates)


@pytest.fixture(scope="module")
def gates() -> Gates:
    return Gates()


@pytest.fixture(scope="module")
async def box(engine: Engine, image: str, gates: Gates) -> AsyncIterator[LiveContainer]:
    async with await LiveContainer.create(engine, wanted(image, gates)) as box:
        yield box


@pytest.fixture
async def gate(box: LiveContainer, gates: Gates) -> AsyncIterator[LineGate]:
    yield gates.last
    await idle(gates.last)


async def call(box: LiveContainer, what: str, more: int = 0, **options: Any) -> str:
    """Have a program inside say something to the gate, and return what it has heard."""
    env = {"CALL": what, "MORE": str(more)}
    result = await box.run(CALLER, language="python", env=env, **options)
    assert result.ok, result
    return result.stdout


async def calling(box: LiveContainer, what: str, more: int = 0) -> AsyncRun:
    """Have a program inside begin to."""
    return await box.start(CALLER, language="python", env={"CALL": what, "MORE": str(more)})


async def idle(gate: LineGate) -> None:
    async def nobody() -> bool:
        return gate.open == 0

    await eventually(nobody, 15)


def of(size: int, byte: bytes = b"\0") -> str:
    """Return what a program prints that has heard so much."""
    return f"in all {size} {hashlib.sha256(byte * size).hexdigest()}\n"


# -- bytes ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("gate")
async def test_what_a_program_says_is_answered(box: LiveContainer) -> None:
    assert await call(box, "count", 3) == "3\n" + f"in all 1 {hashlib.sha256(b'3').hexdigest()}\n"


@pytest.mark.usefixtures("gate")
async def test_megabytes_go_both_ways_byte_by_byte(box: LiveContainer) -> None:
    size = 5 * MIB + 3
    assert (await call(box, f"give {size}")).endswith(of(size))
    assert (await call(box, "count", size)).startswith(f"{size}\n")
    assert (await call(box, "echo", 50_000)).endswith(of(50_000, b"x"))


@pytest.mark.usefixtures("gate")
async def test_what_the_gate_breaks_off_is_no_normal_end(box: LiveContainer) -> None:
    assert await call(box, "break") == "cut off\n"


@pytest.mark.usefixtures("gate")
async def test_a_program_that_is_killed_breaks_it_off(box: LiveContainer, gate: LineGate) -> None:
    run = await calling(box, "hang")
    await said(run, "hanging")
    assert gate.open == 1
    await run.kill()
    await run.wait()
    run.close()
    await idle(gate)


async def test_many_connections_at_once_are_served(box: LiveContainer, gate: LineGate) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(call, box, "give 100000")
    assert gate.most <= MOST_CONNECTIONS


# -- denials ----------------------------------------------------------------------------------------------


async def test_a_run_tells_what_was_denied_while_it_ran(box: LiveContainer, gate: LineGate) -> None:
    before = gate.denied
    hanging = await calling(box, "hang")
    await said(hanging, "hanging")
    result = await box.run(CALLER, language="python", env={"CALL": "deny evil.example"})
    assert result.network_denied == ("evil.example:443 is not allowed",)
    assert (await box.run(CALLER, language="python", env={"CALL": "count"})).network_denied == ()
    await hanging.kill()
    await hanging.wait()
    await box.run(CALLER, language="python", env={"CALL": "deny later.example"})
    assert (await hanging.wait()).network_denied == ("evil.example:443 is not allowed",)
    hanging.close()
    assert gate.denied == before + 2


# -- who answers ------------------------------------------------------------------------------------------


@pytest.fixture
async def kept(engine: Engine, image: str, deadline: Deadline) -> AsyncIterator[tuple[Kept, Gates]]:
    gates = Gates()
    async with keeping(engine, image, deadline, limits=LIMITS, network=NETWORK, gates=gates) as kept:
        yield kept, gates


async def test_nobody_answers_while_nobody_holds_it(kept: tuple[Kept, Gates]) -> None:
    one, gates = kept
    box = await one.create()
    assert await call(box, "give 3")
    visitor = await one.visit()
    hanging = await calling(visitor, "hang")
    await said(hanging, "hanging")
    await box.detach()
    assert "cut off" in (await hanging.wait()).stdout
    hanging.close()
    assert gates.last.is_closed
    assert len(gates.made) == 1
    assert await call(visitor, "give 3") == "cut off\n"
    again = await one.reattach()
    assert len(gates.made) == 2
    assert (await call(again, "give 3")).endswith(of(3))
    assert (await call(visitor, "give 3")).endswith(of(3))


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_container_that_is_begun_again_has_a_new_gate(kept: tuple[Kept, Gates], fresh: bool) -> None:
    one, gates = kept
    box = await one.create()
    await box.reboot(fresh=fresh)
    assert (await call(box, "give 3")).endswith(of(3))
    assert len(gates.made) == 2
    await eventually(lambda: _is_closed(gates.made[0]), 15)


async def test_a_container_that_has_stopped_is_answered_when_it_is_resumed(kept: tuple[Kept, Gates]) -> None:
    one, gates = kept
    box = await one.create()
    await box.stop()
    assert gates.last.is_closed
    box = await one.resume()
    assert (await call(box, "give 3")).endswith(of(3))
    assert gates.last.served == 1


async def _is_closed(gate: LineGate) -> bool:
    return gate.is_closed
