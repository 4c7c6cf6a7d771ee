"""Nothing of ours is left on an engine, whatever becomes of the requests that made it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import EngineError, EngineUnavailableError, PocketDockError, StateError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.journal import Intent, Journal
from pocket_dock_mcp.manager.sandbox import Owner, SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL, sweep
from pocket_dock_mcp.models import Limits
from pocket_dock_mcp.settings import Settings
from tests.engines import LABELS, Target, connect, eventually, is_gone, unique
from tests.faults import Fault, FaultyProxy, faulty_proxy
from tests.trials.api import Api

pytestmark = pytest.mark.anyio

OWNER = Owner(session="s", principal="p")


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


@pytest.fixture
async def cable(target: Target, tmp_path: Path) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(tmp_path / "engine.sock", target.url, random.Random(1)) as cable:
        yield cable


@pytest.fixture
async def manager(cable: FaultyProxy, tmp_path: Path) -> AsyncIterator[Manager]:
    settings = Settings(state_dir=tmp_path / "state", pool_mb=0)
    async with Manager(settings, lambda: DockerApiEngine.connect(cable.url)) as manager:
        await manager._access.ready()
        yield manager


def label(manager: Manager) -> str:
    assert manager._access.journal is not None
    return f"{INSTANCE_LABEL}={manager._access.journal.instance}"


def open_intents(manager: Manager) -> dict[str, Intent]:
    assert manager._access.journal is not None
    return manager._access.journal._live


@pytest.mark.parametrize("kind", ["truncate", "answer after"])
async def test_a_container_whose_makers_answer_was_lost_is_removed_by_the_same_manager(
    engine: Engine, cable: FaultyProxy, manager: Manager, image: str, kind: str
) -> None:
    way = "up" if kind == "answer after" else "down"
    cable.arm(Fault(kind, way, about="POST /v", offset=0, seconds=0.5))  # type: ignore[arg-type]

    with pytest.raises(EngineError):
        await manager.create(OWNER, SandboxRequest(image=image), silent)

    assert cable.has_struck
    assert len(open_intents(manager)) == 1

    async def gone() -> bool:
        return not await engine.containers(label(manager))

    async def came() -> bool:
        return bool(await engine.containers(label(manager)))

    # The engine goes on with what it was asked for, and nobody has told it that we have not heard.
    with anyio.move_on_after(1):
        await eventually(came, within=2)
    await eventually(gone, within=10)


async def test_a_cancelled_create_leaves_nothing(engine: Engine, manager: Manager, image: str) -> None:
    for milliseconds in (5, 20, 50, 90, 140):
        with anyio.move_on_after(milliseconds / 1000):
            await manager.create(OWNER, SandboxRequest(image=image), silent)
    for sandbox in manager.list_sandboxes(OWNER):
        await manager.kill(OWNER, sandbox.id)

    async def gone() -> bool:
        # Nothing is there, and nothing is coming: as long as an engine needs for a create.
        for _ in range(5):
            if await engine.containers(label(manager)):
                return False
            await anyio.sleep(0.1)
        return True

    await eventually(gone, within=15)


async def test_a_snapshot_whose_answer_was_lost_is_no_image(
    engine: Engine, cable: FaultyProxy, manager: Manager, image: str
) -> None:
    sandbox = await manager.create(OWNER, SandboxRequest(image=image), silent)
    cable.arm(Fault("truncate", about="/commit", offset=0))

    with pytest.raises(PocketDockError):
        await manager.snapshot(OWNER, sandbox.id, "")

    (intent,) = (intent for intent in open_intents(manager).values() if intent.kind == "image")

    async def gone() -> bool:
        return not await engine.images(f"{NONCE_LABEL}={intent.nonce}")

    await eventually(gone, within=10)
    assert await manager.list_snapshots(OWNER) == []


async def test_a_container_whose_removal_failed_is_removed_later(
    engine: Engine, cable: FaultyProxy, manager: Manager, image: str
) -> None:
    sandbox = await manager.create(OWNER, SandboxRequest(image=image), silent)
    cable.arm(Fault("answer", "up", about="DELETE", status=500))

    await manager.kill(OWNER, sandbox.id)

    async def settled() -> bool:
        return not open_intents(manager)

    await eventually(settled, within=10)
    assert await engine.containers(label(manager)) == []


async def test_an_engine_that_is_slow_to_answer_costs_no_sandbox(
    cable: FaultyProxy, manager: Manager, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocket_dock_mcp.engine.docker_api.PING_DEADLINE", 0.3)
    sandbox = await manager.create(OWNER, SandboxRequest(image=image), silent)
    manager._access.note(EngineUnavailableError("Nobody answers."))
    cable.arm(Fault("stall", about="/_ping"))

    other = await manager.create(OWNER, SandboxRequest(image=image), silent)

    assert cable.has_struck
    assert (await sandbox.container.run("echo alive")).stdout == "alive\n"
    assert (await other.container.run("echo alive")).stdout == "alive\n"


async def leftover(engine: Engine, image: str, journal: Journal) -> tuple[Intent, str]:
    intent = journal.intend("container", unique("left"))
    labels = {**LABELS, INSTANCE_LABEL: journal.instance, NONCE_LABEL: intent.nonce}
    return intent, await engine.create(policy.exec_spec(intent.name, image, labels, Limits(), "none"))


async def test_a_sweep_goes_on_behind_what_cannot_be_removed_and_comes_back_to_it(
    target: Target, engine: Engine, cable: FaultyProxy, image: str, tmp_path: Path
) -> None:
    directory = tmp_path / "instances"
    dead = Journal(directory)
    dead.use_engine(engine.info.identity)
    made = [await leftover(engine, image, dead) for _ in range(3)]
    dead.close()
    through = await DockerApiEngine.connect(cable.url)
    cable.arm(Fault("answer", "up", about="DELETE", status=500))

    first = await sweep(through, directory)
    second = await sweep(through, directory)
    await through.aclose()

    assert (len(first.removed), len(first.left)) == (2, 1)
    assert second.removed == [first.left[0].name]
    for _, container_id in made:
        assert await is_gone(engine, container_id)
    assert list(directory.glob("*.jsonl")) == []


async def test_a_paused_leftover_is_swept(target: Target, engine: Engine, image: str, tmp_path: Path) -> None:
    dead = Journal(tmp_path)
    dead.use_engine(engine.info.identity)
    _, container_id = await leftover(engine, image, dead)
    stream = await engine.attach(container_id)
    await engine.start(container_id)
    await Api(target.url).call("POST", f"containers/{container_id}/pause")
    await stream.aclose()
    dead.close()

    await sweep(engine, tmp_path)

    await eventually(lambda: is_gone(engine, container_id), within=10)


async def test_servers_that_start_at_once_sweep_together(
    target: Target, engine: Engine, image: str, tmp_path: Path
) -> None:
    settings = Settings(state_dir=tmp_path, pool_mb=0)
    dead = [Journal(tmp_path / "instances") for _ in range(3)]
    ids = []
    for journal in dead:
        journal.use_engine(engine.info.identity)
        ids.append((await leftover(engine, image, journal))[1])
        journal.close()
    made: list[str] = []

    async def serve() -> None:
        async with Manager(settings, lambda: connect(target)) as manager:
            sandbox = await manager.create(OWNER, SandboxRequest(image=image), silent)
            made.append((await sandbox.container.run("echo hi")).stdout)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(serve)

    assert made == ["hi\n"] * 3
    for container_id in ids:
        assert await is_gone(engine, container_id)
    assert list((tmp_path / "instances").glob("*.jsonl")) == []


async def test_a_server_that_nobody_uses_sweeps_too(
    target: Target, engine: Engine, image: str, tmp_path: Path
) -> None:
    dead = Journal(tmp_path / "instances")
    dead.use_engine(engine.info.identity)
    _, container_id = await leftover(engine, image, dead)
    dead.close()

    async with Manager(Settings(state_dir=tmp_path), lambda: connect(target)):
        await eventually(lambda: is_gone(engine, container_id), within=15)


async def test_a_state_directory_that_cannot_be_written_is_told(
    target: Target, image: str, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file")

    async with Manager(Settings(state_dir=tmp_path / "state"), lambda: connect(target)) as manager:
        for _ in range(2):
            with pytest.raises(StateError, match="POCKET_DOCK_STATE_DIR"):
                await manager.create(OWNER, SandboxRequest(image=image), silent)
