"""A state directory with no room in it: what cannot be put on record is not done, and loses nothing."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import StateError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.manager.snapshots import FORKS
from pocket_dock_mcp.manager.sweep import NONCE_LABEL
from pocket_dock_mcp.settings import Settings
from tests.engines import Target, connect, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front]

ALICE = Owner(session="alice's session", principal="alice")


def full(_path: Path, _text: str) -> IO[str]:
    """Fail as a full disk has it."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
async def manager(target: Target, tmp_path: Path, image: str) -> AsyncIterator[Manager]:
    settings = Settings(state_dir=tmp_path, profile=image, pool_mb=0)
    async with Manager(settings, lambda: connect(target)) as manager:
        yield manager
        for one in manager.list_sandboxes(ALICE):
            await manager.kill(ALICE, one.id)


async def made(manager: Manager, image: str) -> Sandbox:
    return await manager.create(ALICE, SandboxRequest(image=image, persist=True), lambda _line: None)


async def fork_images(engine: Engine) -> set[str]:
    images = await engine.images(NONCE_LABEL)
    return {tag for image in images for tag in image.tags if tag.startswith(FORKS)}


async def test_a_fresh_reboot_that_cannot_be_recorded_ends_nothing(
    manager: Manager, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await made(manager, image)
    run = await sandbox.runs.start("sleep 600", key=None, background=True, language="shell")
    with monkeypatch.context() as patched:
        patched.setattr("pocket_dock_mcp.manager.records.create_locked", full)
        with pytest.raises(StateError, match="No space left"):
            await sandbox.container.reboot(fresh=True)

    assert run.run.is_running
    assert (await sandbox.container.run("echo hi")).stdout == "hi\n"
    await sandbox.container.reboot(fresh=True)
    assert (await sandbox.container.run("echo hi")).stdout == "hi\n"


async def test_nothing_is_left_of_sandboxes_and_forks_that_cannot_be_recorded(
    manager: Manager, engine: Engine, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, before = await made(manager, image), await fork_images(engine)
    monkeypatch.setattr("pocket_dock_mcp.manager.records.create_locked", full)
    with pytest.raises(StateError, match="No space left"):
        await made(manager, image)
    with pytest.raises(StateError, match="No space left"):
        await manager.fork(ALICE, source.id, 2, names=["one", "two"])

    async def are_gone() -> bool:
        return await fork_images(engine) <= before

    await eventually(are_gone, within=20)
    assert [one.id for one in manager.list_sandboxes(ALICE)] == [source.id]
