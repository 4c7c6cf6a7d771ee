"""Containers that are launched ahead: handed out once, alive, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

from pocket_dock_mcp import AsyncContainerPool, ContainerPool
from pocket_dock_mcp.async_ import ContainerError
from pocket_dock_mcp.container.abandoned import POOL_LABEL
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.pool import LivePool
from pocket_dock_mcp.engine.base import ContainerState, Engine
from pocket_dock_mcp.errors import (
    EngineUnavailableError,
    ImageNotFoundError,
    InvalidArgumentError,
    PocketDockError,
    QuotaError,
    SandboxClosedError,
)
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from pocket_dock_mcp.models import MIB, ContainerSpec, Limits
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine
from tests.behaviours import EARLY_THEN_HANG, SHOW_GREETING, SHOW_HOME
from tests.engines import Deadline, Target, connect, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too]

ALICE = Owner(session="alice's session", principal="alice")
QUOTA = 8
CREATES = int(os.environ.get("POCKET_DOCK_TEST_CREATES", "60"))
"""At once, against the quota; a thousand by hand."""


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


@pytest.fixture
async def pool(engine: Engine, image: str) -> AsyncIterator[LivePool]:
    async with LivePool(image, size=2, engine=engine) as pool:
        yield pool


async def known(engine: Engine, names: list[str]) -> list[ContainerState]:
    """Return what the engine has of these containers of a pool."""
    return [found for found in await engine.containers(POOL_LABEL) if found.name in names]


async def gone(engine: Engine, names: list[str], within: float) -> None:
    """Wait until none of these is on the engine."""

    async def all_gone() -> bool:
        return not await known(engine, names)

    await eventually(all_gone, within)


async def test_a_claimed_container_works_and_another_takes_its_place(
    pool: LivePool, deadline: Deadline
) -> None:
    with anyio.fail_after(deadline(30)):
        await pool.wait_ready()
        async with await pool.claim(env={"GREETING": "mine"}) as box:
            assert pool.ready < 2
            assert (await box.run(SHOW_GREETING)).stdout == "mine\n"
            assert (await box.run(SHOW_HOME)).stdout == f"{box.home}\n"
            await pool.wait_ready()


async def test_nobody_gets_what_another_has(engine: Engine, pool: LivePool) -> None:
    claimed: list[LiveContainer] = []

    async def claim() -> None:
        claimed.append(await pool.claim())

    await pool.wait_ready()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(claim)
    assert len({box.name for box in claimed}) == len({box.uid for box in claimed}) == 5

    await claimed[0].write_file("mine", "x")
    await claimed[0].aclose()
    async with await pool.claim() as fresh:
        assert fresh.name != claimed[0].name
        assert (await fresh.list_files())[0] == []


async def test_leaving_the_pool_ends_all_of_it(engine: Engine, image: str, deadline: Deadline) -> None:
    async with LivePool(image, size=2, engine=engine) as pool:
        box = await pool.claim()
        await pool.wait_ready()
        names = [box.name, *(one.wanted.name for one in pool._stock._ready)]
        assert len(names) == 3

    await gone(engine, names, deadline(5))
    with pytest.raises(SandboxClosedError):
        await pool.claim()
    with pytest.raises(SandboxClosedError):
        await box.run("true")


class Noted:
    """An engine that notes the names of what is created."""

    def __init__(self, engine: Engine, names: list[str]) -> None:
        self._engine = engine
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def create(self, spec: ContainerSpec) -> str:
        self._names.append(spec.name)
        return await self._engine.create(spec)


async def test_leaving_while_it_is_being_filled_leaves_nothing(
    engine: Engine, image: str, deadline: Deadline
) -> None:
    names: list[str] = []
    for steps in range(4):
        pool = LivePool(image, size=4, engine=cast("Engine", Noted(engine, names)))
        async with pool:
            await anyio.sleep(0.03 * steps)  # the moment is what is varied
    assert names
    await gone(engine, names, deadline(5))


async def test_what_died_meanwhile_is_not_handed_out(
    engine: Engine, pool: LivePool, deadline: Deadline
) -> None:
    await pool.wait_ready()
    dead = [one.wanted.name for one in pool._stock._ready]
    for found in await known(engine, dead):
        await engine.remove(found.id)

    async with await pool.claim() as box:
        assert box.name not in dead
        assert (await box.run("echo hi")).stdout == "hi\n"


async def test_what_does_not_answer_is_not_handed_out(
    target: Target, engine: Engine, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(engine, FakeEngine):
        pytest.skip("an agent is made to be silent")
    monkeypatch.setattr("pocket_dock_mcp.container.stock.ADOPT_DEADLINE", 0.05)
    async with LivePool(image, size=1, engine=engine) as pool:
        await pool.wait_ready()
        stuck = pool._stock._ready[0].wanted.name
        engine.agent.silent.add("adopt")
        box = await pool.claim()
        engine.agent.silent.clear()
        assert box.name != stuck
        await gone(engine, [stuck], 2)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_one_that_is_just_being_claimed_when_the_pool_is_left_is_ended_too(is_cancelled: bool) -> None:
    fake = FakeEngine()
    async with (
        anyio.create_task_group() as group,
        LivePool(FakeEngine.IMAGE, size=1, engine=fake) as pool,
    ):
        await pool.wait_ready()
        fake.agent.silent.add("adopt")

        async def claim() -> None:
            with pytest.raises(SandboxClosedError):
                await pool.claim()

        group.start_soon(claim)

        async def is_claimed() -> bool:
            return pool._claims == 1

        await eventually(is_claimed, within=5)
        if is_cancelled:
            group.cancel_scope.cancel()
    assert await fake.containers(POOL_LABEL) == []
    await fake.aclose()


async def test_many_that_do_not_answer_are_not_waited_for_one_by_one() -> None:
    fake = FakeEngine()
    async with LivePool(FakeEngine.IMAGE, size=8, engine=fake) as pool:
        await pool.wait_ready()
        fake.agent.silent.add("adopt")
        with anyio.fail_after(8):
            await pool.claim()
        fake.agent.silent.clear()
    await fake.aclose()


async def test_without_a_ready_one_a_claim_launches_its_own(engine: Engine, image: str) -> None:
    async with LivePool(image, size=0, engine=engine, limits=Limits(pids=64)) as pool:
        async with await pool.claim(env={"GREETING": "b"}) as box:
            assert (await box.run(SHOW_GREETING)).stdout == "b\n"
            assert (await box.info()).limits.pids == 64
        assert pool.ready == 0


async def test_the_ready_ones_stay_within_their_memory(engine: Engine, image: str) -> None:
    async with LivePool(image, size=4, engine=engine, memory_mb=17) as pool:
        await pool.wait_ready(1)
        # Until the next look: that there is no second is seen when another one was wanted in vain.
        await pool._stock._measure()
        assert pool._stock.memory_bytes + pool._stock._coming * MIB <= 2 * 17 * MIB
        assert pool.ready <= 2


async def test_an_engine_that_is_away_is_not_bothered(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeEngine()
    monkeypatch.setattr("pocket_dock_mcp.container.stock.FIRST_PAUSE", 0.02)
    async with LivePool(FakeEngine.IMAGE, size=2, engine=fake) as pool:
        await pool.wait_ready()
        fake.go_down()
        while pool.ready:
            await pool._stock.take({})
        with pytest.raises(EngineUnavailableError):
            await pool.claim()
        before = len(fake.calls)
        await anyio.sleep(0.3)  # a time in which a loop without a pause would make thousands of calls
        assert len(fake.calls) - before < 40
        fake.come_up()
        await pool.wait_ready()
        assert (await (await pool.claim()).run("echo hi")).stdout == "hi\n"
    warnings = [record for record in caplog.records if "launched ahead" in record.getMessage()]
    assert 1 <= len(warnings) <= 3
    await fake.aclose()


@pytest.mark.parametrize("size", [-1, 65])
async def test_absurd_sizes_are_refused(size: int) -> None:
    with pytest.raises(InvalidArgumentError, match="size"):
        LivePool(size=size)


@pytest.mark.parametrize("env", [{"A=B": "x"}, {"A": 3}, {"A": None}, {"A": b"x"}, {3: "x"}])
async def test_an_impossible_environment_costs_no_container(pool: LivePool, env: dict[Any, Any]) -> None:
    await pool.wait_ready()
    with pytest.raises(InvalidArgumentError, match="environment"):
        await pool.claim(env=env)
    assert pool.ready == 2


async def test_a_pool_is_used_once(engine: Engine, image: str) -> None:
    pool = LivePool(image, size=0, engine=engine)
    async with pool:
        with pytest.raises(InvalidArgumentError, match="once"):
            await pool.__aenter__()
        assert (await (await pool.claim()).run("echo hi")).stdout == "hi\n"
    with pytest.raises(SandboxClosedError, match="once") as raised:
        await pool.__aenter__()
    assert "new one" in str(raised.value)


async def test_a_pool_that_could_not_be_entered_can_be_later(
    target: Target, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(_environ: object) -> Engine:
        return await connect(target)

    monkeypatch.setattr("pocket_dock_mcp.container.pool.connect", found)
    pool = LivePool("localhost/no-such-image-at-all:1", size=0)
    with pytest.raises(ImageNotFoundError):
        await pool.__aenter__()
    pool._image = image  # as if it were there by now
    async with pool, await pool.claim() as box:
        assert (await box.run("echo hi")).stdout == "hi\n"


# -- the server's own -----------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, max_sandboxes=QUOTA)


@pytest.fixture
async def manager(target: Target, settings: Settings) -> AsyncIterator[Manager]:
    async with Manager(settings, lambda: connect(target)) as manager:
        yield manager


@pytest.fixture
def request_(image: str) -> SandboxRequest:
    return SandboxRequest(image=image, env={"GREETING": "hello"})


def journal_of(manager: Manager) -> Journal:
    assert manager._access.journal is not None
    return manager._access.journal


async def filled(manager: Manager, count: int) -> None:
    """Wait until so many are ready."""

    async def enough() -> bool:
        return manager._pool.ready >= count

    await eventually(enough, within=30)


async def test_the_server_has_the_next_one_ready(
    engine: Engine, manager: Manager, request_: SandboxRequest
) -> None:
    first = await manager.create(ALICE, request_, silent)
    assert manager._access._access is not None
    await filled(manager, 1)
    ahead = {one.wanted.name for stock in manager._pool._stocks.values() for one in stock._ready}

    second = await manager.create(ALICE, request_, silent)

    assert second.container.name in ahead
    assert (await second.container.run(SHOW_GREETING)).stdout == "hello\n"
    assert {first.id, second.id} == {one.id for one in manager.list_sandboxes(ALICE)}
    await filled(manager, 2)
    # What is ready counts against nobody's quota.
    for _ in range(QUOTA - 2):
        await manager.create(ALICE, request_, silent)
    with pytest.raises(QuotaError):
        await manager.create(ALICE, request_, silent)


async def test_another_class_gets_none_of_it(manager: Manager, request_: SandboxRequest) -> None:
    await manager.create(ALICE, request_, silent)
    await filled(manager, 1)

    other = SandboxRequest(image=request_.image, limits=Limits(pids=100))
    made = await manager.create(ALICE, other, silent)

    assert (await made.container.info()).limits.pids == 100
    assert len(manager._pool._stocks) in (1, 2)


async def test_what_is_ready_is_in_the_journal_and_ends_with_the_manager(
    target: Target, engine: Engine, settings: Settings, request_: SandboxRequest
) -> None:
    async with Manager(settings, lambda: connect(target)) as manager:
        await manager.create(ALICE, request_, silent)
        await manager.create(ALICE, request_, silent)
        await filled(manager, 1)
        journal = journal_of(manager)
        ahead = {one.wanted.name for stock in manager._pool._stocks.values() for one in stock._ready}
        assert ahead <= set(journal._live)

    assert [one.name for one in await engine.containers(f"{INSTANCE_LABEL}={journal.instance}")] == []
    assert list((settings.state_dir / "instances").iterdir()) == []


async def test_no_pool_where_none_is_wanted(
    target: Target, settings: Settings, request_: SandboxRequest
) -> None:
    async with Manager(settings.model_copy(update={"pool_mb": 0}), lambda: connect(target)) as manager:
        await manager.create(ALICE, request_, silent)
        await anyio.sleep(0.05)  # nothing is to happen
        assert set(journal_of(manager)._live) == {one.container.name for one in manager.list_sandboxes(ALICE)}


@pytest.mark.parametrize("count", [CREATES])
async def test_many_creates_at_once_never_exceed_the_quota(
    target: Target, engine: Engine, settings: Settings, request_: SandboxRequest, count: int
) -> None:
    made: list[Sandbox] = []
    refused: list[QuotaError] = []
    most = 0

    async with Manager(settings.model_copy(update={"pool_mb": 0}), lambda: connect(target)) as manager:

        async def create() -> None:
            try:
                made.append(await manager.create(ALICE, request_, silent))
            except QuotaError as error:
                refused.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(create)
            while len(made) + len(refused) < count:
                await anyio.sleep(0.02)
                if manager._access.journal is not None and manager._access._access is not None:
                    label = f"{INSTANCE_LABEL}={journal_of(manager).instance}"
                    most = max(most, len(await manager._access._access.engine.containers(label)))
        assert (len(made), len(refused)) == (QUOTA, count - QUOTA)
        assert most <= QUOTA
        label = f"{INSTANCE_LABEL}={journal_of(manager).instance}"
    assert "kill one" in str(refused[0])
    assert await engine.containers(label) == []


# -- for users ------------------------------------------------------------------------------------


@pytest.fixture
def found(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine that is found be the one under test."""

    async def found(_environ: object) -> Engine:
        return await connect(target)

    monkeypatch.setattr("pocket_dock_mcp.async_.pool.connect", found)


async def test_what_is_claimed_is_a_container_as_others_are(found: None, image: str) -> None:
    async with AsyncContainerPool(image, size=1, mem_limit="64m", pids_limit=50, timeout=0.5) as pool:
        await pool.wait_ready()
        async with await pool.claim(env={"GREETING": "mine"}) as c:
            assert (await c.run(SHOW_GREETING)).stdout == "mine\n"
            assert (await c.run(EARLY_THEN_HANG)).timed_out
            info = await c.info()
            assert (info.limits.memory_bytes, info.limits.pids) == (64 * MIB, 50)
            assert (c.persist, c.project, c.name) == (False, "", info.name)
        with pytest.raises(ContainerError):
            await c.run("true")
    with pytest.raises(ContainerError):
        await pool.claim()


async def test_a_pool_may_be_left_by_another_task_than_entered_it(found: None, image: str) -> None:
    pool = AsyncContainerPool(image, size=0)
    async with anyio.create_task_group() as group:
        group.start_soon(pool.__aenter__)
    claimed = await pool.claim()
    async with anyio.create_task_group() as group:
        group.start_soon(pool.aclose)
    with pytest.raises(ContainerError):
        await claimed.run("true")
    await pool.aclose()
    with pytest.raises(SandboxClosedError, match="once"):
        await pool.__aenter__()


async def test_a_public_pool_that_could_not_be_entered_says_why(found: None) -> None:
    with pytest.raises(ImageNotFoundError):
        await AsyncContainerPool("localhost/no-such-image-at-all:1", size=0).__aenter__()


@pytest.mark.parametrize(
    "options",
    [
        {"size": 65},
        {"size": "3"},
        {"size": None},
        {"size": True},
        {"memory_mb": "512"},
        {"mem_limit": "lots"},
        {"cpu_percent": 0},
        {"network": "some"},
        {"timeout": 0},
        {"image": "minimal", "profile": "minimal"},
        {"engine": "docker", "socket_path": "/x"},
    ],
)
async def test_a_pool_of_what_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        AsyncContainerPool(**options)


# -- without an event loop ------------------------------------------------------------------------


def test_a_blocking_pool_does_the_same(found: None, image: str) -> None:
    with ContainerPool(image, size=1) as pool:
        pool.wait_ready()
        with pool.claim(env={"GREETING": "hi"}) as box:
            assert box.run(SHOW_GREETING).stdout == "hi\n"
            assert box.write_file("a.txt", "text").size == 4
            assert box.read_file("a.txt") == b"text"
            assert box.list_files() == ["a.txt"]
            assert box.info().name == box.name
            assert "<ContainerPool" in repr(pool)
        with pytest.raises(SandboxClosedError):
            box.run("true")
    with pytest.raises(SandboxClosedError):
        pool.claim()


def test_what_is_used_after_its_blocking_pool_says_so(found: None, image: str) -> None:
    pool = ContainerPool(image, size=0)
    with pool:
        box = pool.claim()

    for use in (lambda: box.run("true"), lambda: box.list_files(), lambda: box.info()):
        with pytest.raises(SandboxClosedError):
            use()
    box.shutdown()
    with box:
        pass
    with pytest.raises(SandboxClosedError, match="once"), pool:
        pass


def test_ctrl_c_kills_the_run_and_not_the_container(found: None, image: str) -> None:
    with ContainerPool(image, size=0) as pool, pool.claim() as box:
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            box.run("sleep 600", timeout=60)
        timer.join()
        assert box.info().live.processes in (0, None)
        assert box.run("true").ok


async def test_claims_that_are_cancelled_or_come_too_late_leave_nothing(
    target: Target, engine: Engine, image: str, found: None
) -> None:
    """Also where asyncio cancels, which throws its cancellation once into whatever is under way."""
    if target.is_fake:
        pytest.skip("its containers are there at once")
    before = {one.name for one in await engine.containers(POOL_LABEL)}

    for delay in (0.02, 0.05, 0.08, 0.12, 0.2):
        async with AsyncContainerPool(image, size=0) as pool:
            claims = [asyncio.ensure_future(pool.claim()) for _ in range(3)]
            await asyncio.wait(claims, timeout=delay)
            for claim in claims[:2]:
                claim.cancel()
            await asyncio.wait(claims[:2])
        # The third was under way when the pool was left, or just done.
        try:
            late = await claims[2]
        except ContainerError as error:
            assert "pool" in str(error)  # noqa: PT017  # or it was not
        else:
            with pytest.raises(ContainerError):
                await late.run("true")

    async def clean() -> bool:
        return {one.name for one in await engine.containers(POOL_LABEL)} <= before

    await eventually(clean, within=10)


async def test_a_claim_that_is_under_way_is_waited_for(target: Target, engine: Engine, image: str) -> None:
    if target.is_fake:
        pytest.skip("its containers are there at once")
    errors: list[PocketDockError] = []
    before = {one.name for one in await engine.containers(POOL_LABEL)}

    async def claim(pool: LivePool) -> None:
        try:
            await pool.claim()
        except PocketDockError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        async with LivePool(image, size=0, reach=lambda: connect(target)) as pool:
            group.start_soon(claim, pool)
            await anyio.wait_all_tasks_blocked()
        # It has been left, and so has the claim.
        await gone(
            engine, [one.name for one in await engine.containers(POOL_LABEL) if one.name not in before], 10
        )

    assert [error.message for error in errors] == ["The pool is not open."]
