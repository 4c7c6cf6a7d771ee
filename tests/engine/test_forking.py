"""Forks: several sandboxes with the files of one, each for itself, all of them or none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    EngineResponseError,
    InvalidArgumentError,
    QuotaError,
    SandboxNotFoundError,
)
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL
from pocket_dock_mcp.models import Limits
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine
from tests.behaviours import SHOW_GREETING
from tests.engines import Target, connect, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too]

ALICE = Owner(session="alice's session", principal="alice")
BOB = Owner(session="bob's session", principal="bob")
LIMITS = Limits(pids=64)


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


@pytest.fixture
async def manager(target: Target, tmp_path: Path) -> AsyncIterator[Manager]:
    settings = Settings(state_dir=tmp_path, max_sandboxes=4, pool_mb=0)
    async with Manager(settings, lambda: connect(target)) as manager:
        yield manager


@pytest.fixture
def request_(image: str) -> SandboxRequest:
    return SandboxRequest(image=image, limits=LIMITS, env={"GREETING": "hello"}, name="mine")


def engine_of(manager: Manager) -> Engine:
    assert manager._access._access is not None
    return manager._access._access.engine


async def containers(manager: Manager) -> int:
    assert manager._access.journal is not None
    label = f"{INSTANCE_LABEL}={manager._access.journal.instance}"
    return len(await engine_of(manager).containers(label))


async def images(manager: Manager) -> list[str]:
    """Return the tags of all forks' images on the manager's engine that are this manager's."""
    assert manager._access.journal is not None
    intents = manager._access.journal._live.values()
    tags = [intent.name for intent in intents if intent.kind == "image"]
    found = [tag for image in await engine_of(manager).images(NONCE_LABEL) for tag in image.tags]
    return [tag for tag in tags if tag in found]


async def test_forks_have_the_files_and_are_independent(manager: Manager, request_: SandboxRequest) -> None:
    source = await manager.create(ALICE, request_, silent)
    await source.container.write_file("kept/data.txt", "original")

    found, forks = await manager.fork(ALICE, source.id, 2)

    assert found is source
    assert len({source.id, *(fork.id for fork in forks)}) == 3
    first, second = forks
    await first.container.write_file("kept/data.txt", "changed")
    await source.container.write_file("kept/new.txt", "new")
    assert (await second.container.read_file("kept/data.txt")).data == b"original"
    assert (await source.container.read_file("kept/data.txt")).data == b"original"
    assert [one.name for one in (await second.container.list_files("kept"))[0]] == ["data.txt"]
    for fork in forks:
        info = await fork.container.info()
        assert (info.limits, info.network) == (LIMITS, "none")
        assert (await fork.container.run(SHOW_GREETING)).stdout == "hello\n"
        assert fork.request.name == "fork of mine"
    assert set(manager.list_sandboxes(ALICE)) == {source, *forks}
    # The source may end before them.
    await manager.kill(ALICE, source.id)
    assert (await second.container.run("true")).ok


async def test_their_image_goes_with_the_last_of_them(manager: Manager, request_: SandboxRequest) -> None:
    source = await manager.create(ALICE, request_, silent)
    _, forks = await manager.fork(ALICE, source.id, 2)
    assert len(await images(manager)) == 1

    await manager.kill(ALICE, forks[0].id)
    assert len(await images(manager)) == 1
    await manager.kill(ALICE, forks[1].id)

    async def gone() -> bool:
        assert manager._access.journal is not None
        await manager._keeper.remove_deleted(manager._access.journal)
        return not await images(manager)

    await eventually(gone, within=10)


async def test_a_fork_can_be_forked_and_kept(manager: Manager, request_: SandboxRequest) -> None:
    source = await manager.create(ALICE, request_, silent)
    await source.container.write_file("a", "1")
    _, (fork,) = await manager.fork(ALICE, source.id, 1)
    await fork.container.write_file("b", "2")

    _, (again,) = await manager.fork(ALICE, fork.id, 1)
    await manager.kill(ALICE, fork.id)

    assert [one.name for one in (await again.container.list_files())[0]] == ["a", "b"]
    _, snapshot = await manager.snapshot(ALICE, again.id, "")
    await manager.delete_snapshot(ALICE, snapshot.id)


async def test_forks_count_and_are_all_or_none(manager: Manager, request_: SandboxRequest) -> None:
    source = await manager.create(ALICE, request_, silent)
    with pytest.raises(QuotaError, match="4 more"):
        await manager.fork(ALICE, source.id, 4)
    assert await containers(manager) == 1
    assert await images(manager) == []

    await manager.fork(ALICE, source.id, 3)
    with pytest.raises(QuotaError):
        await manager.create(ALICE, request_, silent)


@pytest.mark.parametrize("count", [-1, 0, 9, 10**9])
async def test_an_absurd_count_is_refused(manager: Manager, request_: SandboxRequest, count: int) -> None:
    with pytest.raises(InvalidArgumentError, match="count"):
        await manager.fork(ALICE, None, count)


async def test_nobody_forks_what_is_somebody_elses(manager: Manager, request_: SandboxRequest) -> None:
    source = await manager.create(ALICE, request_, silent)
    with pytest.raises(SandboxNotFoundError):
        await manager.fork(BOB, source.id, 1)


@pytest.mark.parametrize("verb", ["commit", "create", "attach", "start"])
async def test_after_a_failure_nothing_is_left(manager: Manager, request_: SandboxRequest, verb: str) -> None:
    source = await manager.create(ALICE, request_, silent)
    engine = engine_of(manager)
    if not isinstance(engine, FakeEngine):
        pytest.skip("an engine is made to fail")
    engine.fail(verb, EngineResponseError("no"))

    with pytest.raises(EngineResponseError):
        await manager.fork(ALICE, source.id, 3)

    async def gone() -> bool:
        return await containers(manager) == 1 and not await images(manager)

    await eventually(gone, within=5)
    assert manager.list_sandboxes(ALICE) == [source]
    await manager.fork(ALICE, source.id, 3)


async def test_a_caller_who_leaves_leaves_nothing(manager: Manager, request_: SandboxRequest) -> None:
    source = await manager.create(ALICE, replace(request_, limits=Limits()), silent)
    for moment in (0.0, 0.05, 0.4, 1.0):
        with anyio.move_on_after(moment) as scope:
            await manager.fork(ALICE, source.id, 2)
        if not scope.cancelled_caught:
            for sandbox in manager.list_sandboxes(ALICE):
                if sandbox is not source:
                    await manager.kill(ALICE, sandbox.id)

        async def gone() -> bool:
            await manager._mender.settle()
            return await containers(manager) == 1

        await eventually(gone, within=15)
    assert repr(manager) == "<Manager [Sandboxes: 1 live, 0 coming]>"


async def test_a_crowd_in_one_fork_leaves_the_others_room(
    target: Target, manager: Manager, request_: SandboxRequest
) -> None:
    if target.is_fake:
        pytest.skip("it has no kernel that counts processes")
    source = await manager.create(ALICE, request_, silent)
    _, (first, second) = await manager.fork(ALICE, source.id, 2)

    # No more than there can be: a shell that cannot fork gives up, and its crowd ends with it.
    crowd = await first.container.start("for i in $(seq 40); do sleep 600 & done; wait")

    async def crowded() -> bool:
        return ((await first.container.info()).processes or 0) > LIMITS.pids // 2

    await eventually(crowded, within=60)
    assert (await second.container.run("for i in $(seq 20); do sleep 0 & done; wait; echo ok")).ok
    await crowd.kill()
    await crowd.wait()
