"""The engine dies in the middle: outcomes are honest, nothing hangs, and all is well when it is back."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import EngineError, SandboxLostError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from pocket_dock_mcp.models import RunResult
from pocket_dock_mcp.settings import Settings
from tests.engines import Target, eventually
from tests.proxy import proxy

pytestmark = pytest.mark.anyio

OWNER = Owner(session="s", principal="p")


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


async def test_a_run_under_way_is_never_ok_and_the_manager_recovers(
    target: Target, engine: Engine, image: str, tmp_path: Path
) -> None:
    # Without a pool: one that was just launched ahead would wait for the engine to be removed.
    settings = Settings(state_dir=tmp_path / "state", pool_mb=0)
    results: list[RunResult] = []
    async with (
        proxy(tmp_path / "engine.sock", target.url) as cable,
        Manager(settings, lambda: DockerApiEngine.connect(cable.url)) as manager,
    ):
        sandbox = await manager.create(OWNER, SandboxRequest(image=image), silent)
        assert manager._access.journal is not None
        label = f"{INSTANCE_LABEL}={manager._access.journal.instance}"

        async def run() -> None:
            results.append(await sandbox.container.run("echo early; sleep 1000", timeout_s=None))

        async def running() -> bool:
            return bool((await sandbox.container.info()).processes)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await eventually(running, within=5)
            began = time.monotonic()
            await cable.cut()
        took = time.monotonic() - began

        assert results[0].status in ("lost", "indeterminate")
        assert results[0].exit_code is None
        assert "died" in (results[0].hint or "")
        assert took < 3

        async def told() -> bool:
            try:
                manager.get(OWNER, sandbox.id)
            except SandboxLostError:
                return True
            return False

        await eventually(told, within=3)
        with anyio.fail_after(2), pytest.raises(EngineError):
            await manager.create(OWNER, SandboxRequest(image=image), silent)

        async def gone() -> bool:
            return not await engine.containers(label)

        # Its lease went with the connection.
        await eventually(gone, within=5)
        await cable.connect()
        again = await manager.create(OWNER, SandboxRequest(image=image), silent)
        assert (await again.container.run("echo back")).stdout == "back\n"


async def test_file_calls_and_snapshots_on_a_dead_engine_are_typed_errors(
    target: Target, image: str, tmp_path: Path
) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    async with (
        proxy(tmp_path / "engine.sock", target.url) as cable,
        Manager(settings, lambda: DockerApiEngine.connect(cable.url)) as manager,
    ):
        sandbox = await manager.create(OWNER, SandboxRequest(image=image), silent)
        await cable.cut()

        with anyio.fail_after(5):
            with pytest.raises(SandboxLostError):
                await sandbox.container.write_file("x", "y")
            with pytest.raises(SandboxLostError):
                await sandbox.container.read_file("x")
            with pytest.raises((SandboxLostError, EngineError)):
                await manager.snapshot(OWNER, sandbox.id, "")
