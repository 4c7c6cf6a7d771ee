"""Places for sandboxes: never more than there may be, and none is lost."""

from __future__ import annotations

import json
import random
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.errors import (
    CapacityError,
    EngineResponseError,
    PocketDockError,
    QuotaError,
    SandboxNotFoundError,
)
from pocket_dock_mcp.manager.audit import AuditLog, read_log
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.denials import EACH_MINUTE, LOG, Denials
from pocket_dock_mcp.manager.runs import SandboxRun
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.models import MIB, ContainerSpec, Limits
from pocket_dock_mcp.quotas import Quota
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine
from tests.behaviours import teach

pytestmark = pytest.mark.anyio

ALICE = Owner(session="alice's session", principal="token:alice")
ALICE_AGAIN = Owner(session="another session", principal="token:alice")
BOB = Owner(session="bob's session", principal="token:bob")


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


def wanted(memory_mb: int = 64) -> SandboxRequest:
    return SandboxRequest(image=FakeEngine.IMAGE, limits=Limits(memory_bytes=memory_mb * MIB))


def manager_of(tmp_path: Path, engine: FakeEngine, **settings: object) -> Manager:
    async def connect() -> FakeEngine:
        return engine

    made = Settings(state_dir=tmp_path, pool_mb=0)
    return Manager(made.model_copy(update=settings), connect)


class Attempts:
    """Creates of sandboxes side by side, and what has become of them."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self.made: list[Sandbox] = []
        self.refused: Counter[str] = Counter()
        self.texts: set[str] = set()

    async def create(self, owner: Owner, request: SandboxRequest) -> None:
        try:
            self.made.append(await self._manager.create(owner, request, silent))
        except PocketDockError as error:
            self.refused[error.code] += 1
            self.texts.add(str(error))

    async def many(self, owners: list[Owner], request: SandboxRequest) -> None:
        async with anyio.create_task_group() as group:
            for owner in owners:
                group.start_soon(self.create, owner, request)


class Watched(FakeEngine):
    """Notes how many containers there were at most, and were made at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self.most_at_once = self._now = 0

    async def create(self, spec: ContainerSpec) -> str:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await super().create(spec)
        finally:
            self._now -= 1
            self.most = max(self.most, len(self._containers))


async def test_of_a_thousand_creates_at_once_as_many_succeed_as_are_allowed(tmp_path: Path) -> None:
    engine = Watched()
    async with manager_of(tmp_path, engine, max_sandboxes=10) as manager:
        attempts = Attempts(manager)
        await attempts.many([ALICE] * 1000, wanted())

        assert (len(attempts.made), attempts.refused) == (10, Counter(quota=990))
        assert (engine.most, engine.calls.count("create")) == (10, 10)
        (text,) = attempts.texts
        assert text.startswith("You have 10 sandboxes in use and want 1 more; 10 are allowed.")


async def test_who_wants_too_many_at_once_is_told_how_many_there_may_be(tmp_path: Path) -> None:
    async with manager_of(tmp_path, FakeEngine(), max_sandboxes=8) as manager:
        source = await manager.create(ALICE, wanted(), silent)
        with pytest.raises(QuotaError) as caught:
            await manager.fork(ALICE, source.id, 8)
        assert "1 sandbox in use and want 8 more; 8 are allowed" in caught.value.message
        assert "Ask for 7 at most" in caught.value.hint
        assert "POCKET_DOCK_MAX_SANDBOXES" in caught.value.hint
        _, made = await manager.fork(ALICE, source.id, 7)
        assert len(made) == 7


async def test_all_together_have_a_limit_and_it_says_nothing_of_others(tmp_path: Path) -> None:
    engine = Watched()
    owners = [Owner(session=f"s{number}", principal=f"token:{number % 50}") for number in range(200)]
    async with manager_of(tmp_path, engine, max_sandboxes=3, max_total_sandboxes=20) as manager:
        attempts = Attempts(manager)
        await attempts.many(owners, wanted())

        assert len(attempts.made) == engine.most == 20
        assert attempts.refused == Counter(capacity=180)
        (text,) = attempts.texts
        assert text.startswith("This server has no room for 1 more: all its users together may have 20 sand")


async def test_memory_is_counted_as_it_is_asked_for(tmp_path: Path) -> None:
    quotas = (Quota(principal="token:alice", memory_mb=300),)
    async with manager_of(tmp_path, FakeEngine(), quotas=quotas, max_total_memory_mb=500) as manager:
        first = await manager.create(ALICE, wanted(200), silent)
        with pytest.raises(QuotaError, match="may use 200 MiB of memory, and you want 200 MiB more; 300 MiB"):
            await manager.create(ALICE, wanted(200), silent)
        with pytest.raises(QuotaError, match="you want 400 MiB more"):
            await manager.fork(ALICE, first.id, 2)
        await manager.create(ALICE, wanted(100), silent)
        with pytest.raises(CapacityError, match=r"no room for 300 MiB more: .* may use 500 MiB"):
            await manager.create(BOB, wanted(300), silent)
        await manager.create(BOB, wanted(200), silent)
        await manager.kill(ALICE, first.id)
        await manager.create(BOB, wanted(200), silent)


async def test_no_more_are_made_at_once_than_may_be_and_the_others_wait(tmp_path: Path) -> None:
    engine = Watched()
    async with manager_of(tmp_path, engine, max_sandboxes=20, max_creates=3) as manager:
        attempts, goes_on = Attempts(manager), anyio.Event()
        engine.delay("create", goes_on)
        async with anyio.create_task_group() as group:
            group.start_soon(attempts.many, [ALICE] * 20, wanted())
            await until(lambda: engine.most_at_once == 3)
            goes_on.set()

        assert (len(attempts.made), attempts.refused) == (20, Counter())
        assert engine.most_at_once == 3


async def test_one_that_is_being_killed_takes_its_place_until_it_is_gone(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with manager_of(tmp_path, engine, max_sandboxes=1) as manager:
        sandbox = await manager.create(ALICE, wanted(), silent)
        goes_on = anyio.Event()
        for verb in ("remove", "inspect", "auto_remove"):
            engine.delay(verb, goes_on)
        async with anyio.create_task_group() as group:
            group.start_soon(manager.kill, ALICE, sandbox.id)
            await until(lambda: not manager.list_sandboxes(ALICE))
            with pytest.raises(QuotaError, match="1 sandbox in use"):
                await manager.create(ALICE, wanted(), silent)
            goes_on.set()
        await manager.create(ALICE, wanted(), silent)


async def test_whose_sandbox_is_being_killed_is_nothing_that_others_wait_for(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with manager_of(tmp_path, engine) as manager:
        request = SandboxRequest(image=FakeEngine.IMAGE, persist=True)
        sandbox = await manager.create(ALICE, request, silent)
        goes_on = anyio.Event()
        for verb in ("remove", "inspect", "auto_remove"):
            engine.delay(verb, goes_on)
        async with anyio.create_task_group() as group:
            group.start_soon(manager.kill, ALICE, sandbox.id)
            await until(lambda: not manager.list_sandboxes(ALICE))
            # Were it waited for, it would be for ever.
            with pytest.raises(SandboxNotFoundError):
                await manager.open(BOB, sandbox.id)
            with pytest.raises(SandboxNotFoundError):
                await manager.kill(BOB, sandbox.id)
            with pytest.raises(SandboxNotFoundError):
                await manager.stop(BOB, sandbox.id)
            goes_on.set()


async def test_of_many_runs_at_once_as_many_go_on_as_may(tmp_path: Path) -> None:
    engine, endless = FakeEngine(), Starts()
    teach(engine)
    async with manager_of(tmp_path, engine, max_runs=5, max_total_runs=8) as manager:
        hers = [await manager.create(owner, wanted(), silent) for owner in (ALICE, ALICE_AGAIN)]
        his = await manager.create(BOB, wanted(), silent)
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(endless.start, hers[number % 2])
        assert (len(endless.started), endless.refused) == (5, Counter(quota=15))
        (text,) = endless.texts
        assert text.startswith("You have 5 runs that go on; 5 are allowed at once.")

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(endless.start, his)
        assert (len(endless.started), endless.refused) == (8, Counter(quota=15, capacity=17))
        assert any(text.startswith("This server has no room for more: 8 runs") for text in endless.texts)

        # What has ended gives its place back, and what ends with its sandbox.
        await endless.started[0].run.kill()
        await endless.start(his)
        await manager.kill(BOB, his.id)
        await endless.start(hers[0])
        assert len(endless.started) == 10


class Starts:
    """Runs that go on for ever, and what has become of those that were refused."""

    def __init__(self) -> None:
        self.started: list[SandboxRun] = []
        self.refused: Counter[str] = Counter()
        self.texts: set[str] = set()

    async def start(self, sandbox: Sandbox) -> None:
        try:
            self.started.append(await sandbox.runs.start("sleep 600", key=None, background=True))
        except PocketDockError as error:
            self.refused[error.code] += 1
            self.texts.add(str(error))


@pytest.mark.parametrize("seed", range(3))
async def test_places_are_neither_lost_nor_won_whatever_becomes_of_creates(tmp_path: Path, seed: int) -> None:
    chance, engine = random.Random(seed), Watched()
    owners = [Owner(session=secrets.token_hex(4), principal=f"token:{number % 3}") for number in range(6)]
    async with manager_of(tmp_path, engine, max_sandboxes=4, max_total_sandboxes=9, max_creates=3) as manager:

        async def one(which: int) -> None:
            owner, deed = owners[which], chance.random()
            if deed < 0.3:
                engine.fail(chance.choice(("create", "start", "attach")), EngineResponseError("It fails."))
            with anyio.move_on_after(chance.choice((0, 0.001, 0.01, 5))):
                try:
                    made = await manager.create(owner, wanted(), silent)
                    if deed > 0.8:
                        await manager.fork(owner, made.id, 2)
                    await manager.kill(owner, made.id)
                except PocketDockError:
                    pass
            if deed > 0.95:
                await manager.end_session(owner)
                owners[which] = Owner(secrets.token_hex(4), owner.principal)

        for _ in range(10):
            async with anyio.create_task_group() as group:
                for _ in range(30):
                    group.start_soon(one, chance.randrange(len(owners)))
        for owner in owners:
            await manager.end_session(owner)
        await until(lambda: not manager._table.counted())

        assert engine.most <= 9
        assert manager._places.is_idle
        engine._faults.clear()
        attempts = Attempts(manager)
        await attempts.many([ALICE] * 10, wanted())
        assert (len(attempts.made), attempts.refused) == (4, Counter(quota=6))


async def test_who_guesses_for_hours_does_not_push_others_off_the_log(tmp_path: Path) -> None:
    now = 0.0
    denials = Denials(AuditLog(tmp_path), clock=lambda: now)
    error = SandboxNotFoundError()
    for number in range(10_000):
        denials.note(BOB, "run_code", error, {"sandbox_id": f"sb-{number}"})
    denials.note(ALICE, "kill", error, {"sandbox_id": "x" * 10_000})
    now = 61.0
    denials.note(BOB, "run_code", error, {"run_id": "password=hunter2\n\x1b[31m"})

    lines = list(read_log(tmp_path / f"{LOG}.jsonl"))
    bobs = [line for line in lines if line["principal"] == "token:bob"]
    assert len(bobs) == EACH_MINUTE + 2
    assert bobs[-2]["left_out"] == 10_000 - EACH_MINUTE
    assert "hunter2" not in json.dumps(bobs[-1])
    assert "\x1b" not in json.dumps(lines, ensure_ascii=False)
    (alices,) = (line for line in lines if line["principal"] == "token:alice")
    assert (alices["tool"], len(alices["sandbox_id"])) == ("kill", 200)


async def until(check: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not check():  # nothing tells of it
            await anyio.sleep(0.001)
