"""Sandboxes that write too much, and disks that are full, on real engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.container import disk
from pocket_dock_mcp.container.pool import LivePool
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import EngineDiskError, InvalidArgumentError, QuotaError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.settings import Settings
from tests.engines import Target, connect, eventually
from tests.servers import call, client, environment

pytestmark = pytest.mark.anyio

ALICE = Owner(session="alice's session", principal="alice")
SMALL = Limits(disk_bytes=32 * MIB)
GROW = "while true; do head -c 4M /dev/urandom >> {}; sleep 0.05; done"
TERABYTE_MB = 16_777_216

Managers = Callable[..., AbstractAsyncContextManager[Manager]]


@pytest.fixture
def managers(target: Target, tmp_path: Path) -> Managers:
    @asynccontextmanager
    async def open_one(**settings: int) -> AsyncIterator[Manager]:
        async with Manager(
            Settings(state_dir=tmp_path, pool_mb=0).model_copy(update=settings), lambda: connect(target)
        ) as manager:
            yield manager

    return open_one


async def made(manager: Manager, image: str, limits: Limits = SMALL) -> Sandbox:
    return await manager.create(ALICE, SandboxRequest(image=image, limits=limits), print)


async def test_who_writes_too_much_is_stopped_keeps_his_files_and_may_delete_them(
    managers: Managers, image: str
) -> None:
    async with managers() as manager:
        container = (await made(manager, image)).container
        await container.run("x = 5", language="python", session="py")

        stopped = await container.run(GROW.format("big"), timeout_s=60)

        assert stopped.status == "disk_full"
        assert stopped.exit_code is None
        assert f"over its limit of {SMALL.disk_bytes // MIB} MiB" in (stopped.hint or "")
        assert "disk_mb" in (stopped.hint or "")
        size = int((await container.run("stat -c %s big")).check().stdout)
        assert size >= SMALL.disk_bytes - 4 * MIB
        assert (await container.disk.used() or 0) >= size
        # A session that ran nothing goes on, and what is deleted can be written again.
        kept = await container.run("import os; os.remove('big'); x", language="python", session="py")
        assert kept.value == "5"
        again = await container.run("head -c 20M /dev/urandom > small; sleep 0.6; echo ok")
        assert (again.status, again.stdout) == ("ok", "ok\n")


async def test_a_cell_that_writes_too_much_is_interrupted_and_its_session_goes_on(
    managers: Managers, image: str
) -> None:
    async with managers() as manager:
        container = (await made(manager, image)).container
        await container.run("x = 5", language="python", session="py")
        source = (
            "import os, time\nf = open('big', 'wb')\n"
            "while True: f.write(os.urandom(1 << 22)); time.sleep(.05)"
        )

        stopped = await container.run(source, language="python", session="py", timeout_s=60)

        assert stopped.status == "disk_full"
        assert "interrupted" in (stopped.hint or "")
        assert (await container.run("x", language="python", session="py")).value == "5"


async def test_the_busy_one_is_stopped_and_not_its_neighbour(managers: Managers, image: str) -> None:
    async with managers() as manager:
        quiet, busy = (await made(manager, image)).container, (await made(manager, image)).container
        waiting = await quiet.start("while [ ! -e go ]; do sleep 0.05; done; echo fine", timeout_s=100)

        assert (await busy.run(GROW.format("big"), timeout_s=60)).status == "disk_full"
        # The neighbour has seen the disk lose as much, and has been measured.
        assert waiting.is_running
        await quiet.write_file("go", "")
        result = await waiting.wait()
        waiting.close()

        assert (result.status, result.stdout) == ("ok", "fine\n")


async def test_who_writes_too_much_again_at_once_is_told_so_again(managers: Managers, image: str) -> None:
    async with managers() as manager:
        container = (await made(manager, image)).container
        source = (
            "import os, time\nf = open('big', 'wb')\n"
            "while True: f.write(os.urandom(1 << 22)); time.sleep(.05)"
        )
        await container.run("x = 5", language="python", session="py")

        for _ in range(2):
            stopped = await container.run(source, language="python", session="py", timeout_s=60)
            assert stopped.status == "disk_full", stopped.hint
            assert "disk_mb" in (stopped.hint or "")
            await container.run("os.remove('big')", language="python", session="py")

        assert (await container.run("x", language="python", session="py")).value == "5"


async def test_who_begins_again_at_once_is_watched_at_once(managers: Managers, image: str) -> None:
    again = "for i in $(seq 50); do head -c 1M /dev/urandom >> more; sleep 0.05; done; sleep 5; echo done"
    async with managers() as manager:
        container = (await made(manager, image)).container
        assert (await container.run(GROW.format("big"), timeout_s=60)).status == "disk_full"

        second = await container.run(again, timeout_s=60)

        assert (second.status, second.stdout) == ("disk_full", "")


async def test_who_goes_on_behind_everybodys_back_is_killed_too(managers: Managers, image: str) -> None:
    async with managers() as manager:
        container = (await made(manager, image)).container
        # A thread of a session writes while no cell runs.
        source = (
            "import os, threading, time\ndef grow():\n f = open('big', 'ab')\n"
            " while True: f.write(os.urandom(1 << 21)); time.sleep(.05)\n"
            "threading.Thread(target=grow).start()"
        )
        await container.run(source, language="python", session="py")
        assert (await container.run("sleep 20", timeout_s=60)).status == "disk_full"

        async def ended() -> bool:
            return not await container.list_sessions()

        await eventually(ended, within=20)

        async def is_cleared() -> bool:
            # The killing may not be over, and does not ask who is new.
            return (await container.run("rm -f big; echo ok")).stdout == "ok\n"

        await eventually(is_cleared, within=20)


async def test_who_goes_on_beside_ever_new_runs_is_killed_too(managers: Managers, image: str) -> None:
    async with managers() as manager:
        container = (await made(manager, image)).container
        source = (
            "import os, threading, time\ndef grow():\n f = open('big', 'ab')\n"
            " while True: f.write(os.urandom(1 << 21)); time.sleep(.02)\n"
            "threading.Thread(target=grow).start()"
        )
        await container.run(source, language="python", session="py")

        async def ended() -> bool:
            await container.run("sleep 20", timeout_s=60)
            return not await container.list_sessions()

        await eventually(ended, within=60)


async def test_a_disk_that_is_nearly_full_gets_no_sandbox_and_no_snapshot(
    engine: Engine, managers: Managers, image: str
) -> None:
    async with managers(min_free_mb=TERABYTE_MB) as manager:
        with pytest.raises(EngineDiskError, match="are to stay free") as caught:
            await made(manager, image)
        assert "POCKET_DOCK_MIN_FREE_MB" in caught.value.hint
        assert manager.list_sandboxes(ALICE) == []
        journal = manager._access.journal
        assert journal is not None

        async def gone() -> bool:
            return not await engine.containers(f"{INSTANCE_LABEL}={journal.instance}")

        await eventually(gone, within=20)
    async with managers() as manager:
        sandbox = await made(manager, image)
        manager._keeper._settings = manager._settings.model_copy(update={"min_free_mb": TERABYTE_MB})
        with pytest.raises(EngineDiskError):
            await manager.snapshot(ALICE, sandbox.id, "")
        assert await manager.list_snapshots(ALICE) == []


async def test_a_limit_is_a_bound_where_it_is_small_enough_and_there_is_room(
    managers: Managers, image: str
) -> None:
    async with managers() as manager:
        container = (await made(manager, image)).container
        limit = container.launched.limits.disk_bytes
        assert await container.disk.is_bound(limit, floor=0)
        assert not await container.disk.is_bound(limit - 1, floor=0)
        assert not await container.disk.is_bound(limit, floor=TERABYTE_MB * MIB)


async def test_runs_that_write_are_stopped_when_the_whole_disk_is_nearly_full(
    managers: Managers, image: str
) -> None:
    async with managers() as manager:
        container = (await made(manager, image, Limits())).container
        wanted = replace(container._wanted, min_free_bytes=TERABYTE_MB * MIB)
        async with anyio.create_task_group() as group:
            # The manager's own does not know of such a floor.
            group.start_soon(disk.Disk(container._engine, container._running, wanted).guard)
            # Nobody sees whose bytes these are.
            hidden = await container.run(
                "import os, time\nf = open('x', 'wb'); os.remove('x')\n"
                "while True: f.write(os.urandom(1 << 21)); f.flush(); time.sleep(.02)",
                language="python",
                timeout_s=60,
            )
            group.cancel_scope.cancel()

        assert hidden.status == "disk_full"
        assert "nearly full" in (hidden.hint or "")


async def test_a_snapshot_that_is_too_large_is_refused_before_it_is_made(
    managers: Managers, image: str
) -> None:
    async with managers() as manager:
        sandbox = await made(manager, image)
        _, kept = await manager.snapshot(ALICE, None, "")
        await manager.delete_snapshot(ALICE, kept.id)
        most = kept.size_bytes // MIB + 10
        manager._keeper._settings = manager._settings.model_copy(update={"max_snapshot_mb": most})
        await sandbox.container.run("head -c 20M /dev/urandom > f")
        with pytest.raises(QuotaError, match="are allowed") as caught:
            await manager.snapshot(ALICE, None, "")
        assert "POCKET_DOCK_MAX_SNAPSHOT_MB" in caught.value.hint
        await sandbox.container.run("rm f")
        _, kept = await manager.snapshot(ALICE, None, "")
        await manager.delete_snapshot(ALICE, kept.id)


async def test_a_limit_is_asked_for_within_what_is_configured(
    managers: Managers, image: str, target: Target, tmp_path: Path
) -> None:
    async with managers(disk_mb=64, max_disk_mb=64) as manager:
        for wrong in (1, 65):
            with pytest.raises(InvalidArgumentError, match="disk_mb"):
                await made(manager, image, Limits(disk_bytes=wrong * MIB))
    async with client(environment(target, tmp_path, image)) as server:
        assert (await call(server, "create_sandbox", disk_mb=20))["disk_mb"] == 20
        ran = await call(server, "run_command", command=GROW.format("f"))
        assert ran["status"] == "disk_full"


async def test_what_writes_too_much_is_stopped_in_a_pool_too(engine: Engine, image: str) -> None:
    async with LivePool(image, size=0, engine=engine, limits=SMALL) as pool, await pool.claim() as box:
        assert (await box.run(GROW.format("big"), timeout_s=60)).status == "disk_full"
        assert (await box.run("rm big; echo ok")).stdout == "ok\n"
        await box.reboot()
        assert (await box.run(GROW.format("big"), timeout_s=60)).status == "disk_full"


async def test_a_disk_that_is_nearly_full_gets_no_container_of_a_pool(engine: Engine, image: str) -> None:
    async with LivePool(image, size=0, engine=engine, min_free_bytes=TERABYTE_MB * MIB) as pool:
        with pytest.raises(EngineDiskError, match="are to stay free"):
            await pool.claim()


async def test_nobody_hears_of_it_when_a_container_ends_while_it_is_measured(
    managers: Managers, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with managers() as manager:
        sandbox = await made(manager, image)
        of_it = sandbox.container.disk
        await manager.kill(ALICE, sandbox.id)

        async def gone() -> bool:
            return await of_it._measured(5) == 5

        await eventually(gone, within=10)
        assert "measure" not in caplog.text
