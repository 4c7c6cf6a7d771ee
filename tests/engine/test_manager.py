"""Sandboxes with owners, quotas, lifetimes and snapshots, on real engines and the fake."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    EngineConflictError,
    EngineUnavailableError,
    ImageNotFoundError,
    InvalidArgumentError,
    QuotaError,
    SandboxLostError,
    SandboxNotFoundError,
    SnapshotNotFoundError,
    UnkeepableNamesError,
)
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NO_GRACE, NONCE_LABEL, sweep
from pocket_dock_mcp.models import ContainerSpec, Limits
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine
from tests.engines import LABELS, Deadline, Target, connect, eventually, unique

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front]

ALICE = Owner(session="alice's session", principal="alice")
BOB = Owner(session="bob's session", principal="bob")


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, max_sandboxes=3, max_snapshots=2, pool_mb=0)


@pytest.fixture
def request_(image: str) -> SandboxRequest:
    return SandboxRequest(image=image)


@pytest.fixture
async def manager(target: Target, settings: Settings) -> AsyncIterator[Manager]:
    async with Manager(settings, lambda: connect(target)) as manager:
        yield manager


async def ours(engine: Engine, manager: Manager) -> list[str]:
    """Return the names of the manager's containers that the engine knows."""
    if manager._access.journal is None or manager._access._access is None:
        return []
    found = await manager._access._access.engine.containers(
        f"{INSTANCE_LABEL}={manager._access.journal.instance}"
    )
    return [state.name for state in found]


async def test_a_sandbox_is_used_listed_and_killed_by_its_owner(
    engine: Engine, manager: Manager, request_: SandboxRequest
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)

    with manager.get(ALICE, sandbox.id).use() as container:
        assert (await container.run("echo hi")).stdout == "hi\n"
    assert manager.list_sandboxes(ALICE) == [sandbox]

    await manager.kill(ALICE, sandbox.id)

    assert manager.list_sandboxes(ALICE) == []
    with pytest.raises(SandboxLostError, match="killed"):
        manager.get(ALICE, sandbox.id)

    async def gone() -> bool:
        return not await ours(engine, manager)

    await eventually(gone, within=5)


async def test_somebody_elses_id_gets_the_answer_of_an_id_that_never_was(
    manager: Manager, request_: SandboxRequest
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    answers = []
    for sandbox_id in (sandbox.id, f"sb-{secrets.token_hex(16)}", "../x", "x" * 10_000):
        with pytest.raises(SandboxNotFoundError) as caught:
            manager.get(BOB, sandbox_id)
        answers.append(str(caught.value))

    assert len(set(answers)) == 1
    assert manager.list_sandboxes(BOB) == []


async def test_the_id_may_be_left_out_while_there_is_one_sandbox(
    manager: Manager, request_: SandboxRequest
) -> None:
    with pytest.raises(InvalidArgumentError, match="create_sandbox"):
        manager.get(ALICE, None)
    first = await manager.create(ALICE, request_, silent)
    assert manager.get(ALICE, None) is first
    await manager.create(ALICE, request_, silent)
    with pytest.raises(InvalidArgumentError, match="2 sandboxes"):
        manager.get(ALICE, None)


async def test_a_quota_holds_under_parallel_creates(
    engine: Engine, manager: Manager, request_: SandboxRequest
) -> None:
    made: list[Sandbox] = []
    refused: list[QuotaError] = []

    async def create() -> None:
        try:
            made.append(await manager.create(ALICE, request_, silent))
        except QuotaError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(create)

    assert (len(made), len(refused)) == (3, 17)
    assert len(await ours(engine, manager)) == 3
    assert "kill one" in str(refused[0])
    # Another owner has a quota of his own.
    await manager.create(BOB, request_, silent)


async def test_a_failed_create_gives_its_place_back(manager: Manager) -> None:
    for _ in range(5):
        with pytest.raises(ImageNotFoundError):
            await manager.create(ALICE, SandboxRequest(image=f"sha256:{'0' * 64}"), silent)

    assert repr(manager) == "<Manager [Sandboxes: 0 live, 0 coming]>"


async def test_an_idle_sandbox_ends_and_its_owner_is_told_why(
    engine: Engine, manager: Manager, request_: SandboxRequest
) -> None:
    sandbox = await manager.create(ALICE, replace(request_, idle_ttl_s=1.0), silent)

    async def ended() -> bool:
        return not manager.list_sandboxes(ALICE) and not await ours(engine, manager)

    await eventually(ended, within=5)
    with pytest.raises(SandboxLostError, match="not used for 1 s"):
        manager.get(ALICE, sandbox.id)


async def test_a_sandbox_in_use_is_not_idle(manager: Manager, request_: SandboxRequest) -> None:
    sandbox = await manager.create(ALICE, replace(request_, idle_ttl_s=1.0), silent)

    with sandbox.use() as container:
        await anyio.sleep(1.5)  # the time itself is what is tested
        assert (await container.run("echo still here")).ok


async def test_a_lifetime_ends_even_what_is_used(
    engine: Engine, manager: Manager, request_: SandboxRequest
) -> None:
    sandbox = await manager.create(ALICE, replace(request_, max_lifetime_s=1.5), silent)

    with sandbox.use() as container:
        result = await container.run("sleep 30")

    assert result.status == "killed"
    with pytest.raises(SandboxLostError, match="maximum lifetime"):
        manager.get(ALICE, sandbox.id)


async def test_an_ended_session_takes_its_sandboxes_and_only_them(
    engine: Engine, manager: Manager, request_: SandboxRequest
) -> None:
    await manager.create(ALICE, request_, silent)
    kept = await manager.create(BOB, request_, silent)

    await manager.end_session(ALICE)

    assert manager.list_sandboxes(ALICE) == []
    assert manager.list_sandboxes(BOB) == [kept]


async def test_leaving_the_manager_leaves_nothing(
    target: Target, engine: Engine, settings: Settings, request_: SandboxRequest
) -> None:
    async with Manager(settings, lambda: connect(target)) as manager:
        await manager.create(ALICE, request_, silent)
        await manager.create(BOB, request_, silent)
        assert manager._access.journal is not None
        label = f"{INSTANCE_LABEL}={manager._access.journal.instance}"

    async def gone() -> bool:
        return not await engine.containers(label)

    await eventually(gone, within=5)
    assert list((settings.state_dir / "instances").iterdir()) == []


@pytest.mark.parametrize(
    "limits",
    [
        Limits(memory_bytes=-1),
        Limits(memory_bytes=10**15),
        Limits(cpus=-1),
        Limits(cpus=10**6),
        Limits(pids=-1),
        Limits(pids=10**9),
    ],
)
async def test_absurd_limits_are_refused_at_once(manager: Manager, image: str, limits: Limits) -> None:
    with anyio.fail_after(2), pytest.raises(InvalidArgumentError):
        await manager.create(ALICE, SandboxRequest(image=image, limits=limits), silent)


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A": "x\0y"}, {"A\n": "x"}, {"A": "x" * 200_000}])
async def test_an_impossible_environment_is_refused_at_once(
    manager: Manager, image: str, env: dict[str, str]
) -> None:
    with pytest.raises(InvalidArgumentError):
        await manager.create(ALICE, SandboxRequest(image=image, env=env), silent)


@pytest.mark.parametrize("ttl", [0.0, -5.0, float("nan"), float("inf"), 1e12])
async def test_absurd_lifetimes_are_refused_at_once(manager: Manager, image: str, ttl: float) -> None:
    with pytest.raises(InvalidArgumentError, match="ttl_s"):
        await manager.create(ALICE, SandboxRequest(image=image, idle_ttl_s=ttl), silent)


async def test_no_engine_is_an_error_and_not_the_end(settings: Settings, request_: SandboxRequest) -> None:
    attempts = []

    async def nowhere() -> Engine:
        attempts.append(1)
        raise EngineUnavailableError("Nobody answers.", hint="Start one.")

    async with Manager(settings, nowhere) as manager:
        for _ in range(2):
            with pytest.raises(EngineUnavailableError):
                await manager.create(ALICE, request_, silent)
        assert manager.list_sandboxes(ALICE) == []

    assert len(attempts) == 2


async def test_a_snapshot_starts_sandboxes_with_its_files_that_are_their_own(
    manager: Manager, request_: SandboxRequest
) -> None:
    first = await manager.create(ALICE, replace(request_, env={"TOKEN": "s3cret"}), silent)
    await first.container.write_file("kept/data.txt", "original")

    _, snapshot = await manager.snapshot(ALICE, first.id, "mine")
    try:
        second = await manager.create(ALICE, replace(request_, snapshot=snapshot.id), silent)
        await second.container.write_file("kept/data.txt", "changed")
        await second.container.write_file("kept/new.txt", "new")

        assert (await first.container.read_file("kept/data.txt")).data == b"original"
        assert (await second.container.read_file("kept/data.txt")).data == b"changed"
        assert "s3cret" not in (await second.container.run("env")).stdout
        assert [kept.id for kept in await manager.list_snapshots(ALICE)] == [snapshot.id]
    finally:
        await manager.kill(ALICE, first.id)
        await manager.delete_snapshot(ALICE, snapshot.id)

    assert await manager.list_snapshots(ALICE) == []
    with pytest.raises(SnapshotNotFoundError):
        await manager.create(ALICE, replace(request_, snapshot=snapshot.id), silent)


async def test_a_deleted_snapshots_sandboxes_live_on_and_its_image_goes_with_the_last(
    engine: Engine, manager: Manager, request_: SandboxRequest, deadline: Deadline
) -> None:
    first = await manager.create(ALICE, request_, silent)
    _, snapshot = await manager.snapshot(ALICE, first.id, "")
    second = await manager.create(ALICE, replace(request_, snapshot=snapshot.id), silent)

    await manager.delete_snapshot(ALICE, snapshot.id)

    assert (await second.container.run("echo alive")).stdout == "alive\n"
    await manager.kill(ALICE, second.id)

    async def is_gone() -> bool:
        return not await engine.images(f"pocket-dock.snapshot={snapshot.id}")

    await eventually(is_gone, within=deadline(5))


async def test_an_image_that_the_engine_has_not_let_go_of_is_removed_a_little_later(tmp_path: Path) -> None:
    """Docker says of a container that its removal is in progress, and still counts its image as in use."""
    fake, state = FakeEngine(), Settings(state_dir=tmp_path, pool_mb=0)
    request = SandboxRequest(image=FakeEngine.IMAGE)

    async def reach() -> Engine:
        return fake

    async with Manager(state, reach) as manager:
        for is_last in (False, True):
            first = await manager.create(ALICE, request, silent)
            _, snapshot = await manager.snapshot(ALICE, first.id, "")
            second = await manager.create(ALICE, replace(request, snapshot=snapshot.id), silent)
            await manager.delete_snapshot(ALICE, snapshot.id)
            fake.fail("remove_image", EngineConflictError("It is in use."), times=2)
            if is_last:
                break
            await manager.kill(ALICE, second.id)

            async def is_gone() -> bool:
                return not await fake.images("pocket-dock.snapshot")

            await eventually(is_gone, within=5)
            await manager.kill(ALICE, first.id)
    assert not await fake.images("pocket-dock.snapshot")


async def test_a_snapshots_image_carries_nothing_of_the_container(
    engine: Engine, manager: Manager, request_: SandboxRequest
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    _, snapshot = await manager.snapshot(ALICE, sandbox.id, "")
    try:
        assert manager._access._access is not None
        labels = (await manager._access._access.engine.image(snapshot.tag)).labels
        assert not labels.get(INSTANCE_LABEL)
        assert labels["pocket-dock.snapshot"] == snapshot.id
    finally:
        await manager.delete_snapshot(ALICE, snapshot.id)


@pytest.mark.parametrize("name", ["deep/.wh.same", ".wh..wh..opq", "/tmp/.wh.\x07"])
async def test_files_that_no_image_can_hold_are_named_and_not_lost(
    manager: Manager, request_: SandboxRequest, name: str
) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    await sandbox.container.write_file(name, "work")

    shown = name.replace("\x07", r"\x07")
    with pytest.raises(UnkeepableNamesError, match=re.escape(shown)) as refused:
        await manager.snapshot(ALICE, sandbox.id, "")
    with pytest.raises(UnkeepableNamesError):
        await manager.fork(ALICE, sandbox.id, 1)

    assert "Rename" in (refused.value.hint or "")
    assert await manager.list_snapshots(ALICE) == []
    assert (await sandbox.container.read_file(name)).data == b"work"


async def test_somebody_elses_snapshot_is_not_there(manager: Manager, request_: SandboxRequest) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    _, snapshot = await manager.snapshot(ALICE, sandbox.id, "")
    try:
        for snapshot_id in (snapshot.id, f"snap-{secrets.token_hex(16)}", "../../etc/passwd"):
            with pytest.raises(SnapshotNotFoundError):
                await manager.create(BOB, replace(request_, snapshot=snapshot_id), silent)
            with pytest.raises(SnapshotNotFoundError):
                await manager.delete_snapshot(BOB, snapshot_id)
        assert await manager.list_snapshots(BOB) == []
    finally:
        await manager.delete_snapshot(ALICE, snapshot.id)


async def test_snapshots_have_a_quota(manager: Manager, request_: SandboxRequest) -> None:
    sandbox = await manager.create(ALICE, request_, silent)
    made = [(await manager.snapshot(ALICE, sandbox.id, ""))[1] for _ in range(2)]
    try:
        with pytest.raises(QuotaError, match="2 snapshots"):
            await manager.snapshot(ALICE, sandbox.id, "")
    finally:
        for snapshot in made:
            await manager.delete_snapshot(ALICE, snapshot.id)


def container_spec(name: str, image: str, labels: dict[str, str]) -> ContainerSpec:
    return policy.exec_spec(name, image, {**LABELS, **labels}, Limits(), "none")


async def test_a_sweep_removes_what_a_dead_process_left_and_nothing_foreign(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    dead = Journal(tmp_path)
    dead.use_engine(engine.info.identity)
    left = dead.intend("container", unique("left"))
    ours_labels = {INSTANCE_LABEL: dead.instance, NONCE_LABEL: left.nonce}
    await engine.create(container_spec(left.name, image, ours_labels))
    alive = Journal(tmp_path)
    alive.use_engine(engine.info.identity)
    coming = alive.intend("container", unique("alive"))
    foreign = {
        "the same labels, another name": await engine.create(
            container_spec(unique("foreign"), image, ours_labels)
        ),
        "our labels, no nonce": await engine.create(
            container_spec(unique("foreign"), image, {INSTANCE_LABEL: dead.instance})
        ),
        "a living process's": await engine.create(
            container_spec(coming.name, image, {INSTANCE_LABEL: alive.instance, NONCE_LABEL: coming.nonce})
        ),
    }
    dead.close()

    removed = (await sweep(engine, tmp_path)).removed

    assert removed == [left.name]
    for what, container_id in foreign.items():
        assert (await engine.inspect(container_id)).status == "created", what
        await engine.remove(container_id)
    assert [path.stem for path in tmp_path.glob("*.jsonl")] == [alive.instance]
    alive.close()


async def test_a_record_about_another_engine_waits_for_that_engine(engine: Engine, tmp_path: Path) -> None:
    dead = Journal(tmp_path)
    dead.use_engine("another engine")
    dead.intend("container", "left there")
    dead.close()

    assert (await sweep(engine, tmp_path)).removed == []
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


async def test_a_killed_process_is_dead_at_once(engine: Engine, tmp_path: Path) -> None:
    script = (
        "import signal; from pathlib import Path; from pocket_dock_mcp.manager.journal import Journal\n"
        f"j = Journal(Path({str(tmp_path)!r})); j.use_engine({engine.info.identity!r})\n"
        "j.intend('container', 'x')\n"
        "print('ready', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert (await sweep(engine, tmp_path)).removed == []
        assert len(list(tmp_path.glob("*.jsonl"))) == 1
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    await sweep(engine, tmp_path, grace_s=NO_GRACE)

    assert list(tmp_path.glob("*.jsonl")) == []


async def test_a_sweep_leaves_what_is_on_record_as_kept(engine: Engine, image: str, tmp_path: Path) -> None:
    dead = Journal(tmp_path)
    dead.use_engine(engine.info.identity)
    kept, left = (dead.intend("container", unique(what)) for what in ("kept", "left"))
    for intent in (kept, left):
        labels = {INSTANCE_LABEL: dead.instance, NONCE_LABEL: intent.nonce}
        await engine.create(container_spec(intent.name, image, labels))
    dead.close()

    removed = (await sweep(engine, tmp_path, lambda intent: intent.name == kept.name)).removed

    assert removed == [left.name]
    (found,) = await engine.containers(f"{NONCE_LABEL}={kept.nonce}")
    await engine.remove(found.id)


async def test_a_new_process_clears_torn_files_away(target: Target, settings: Settings) -> None:
    torn = settings.state_dir / "snapshots" / ".snap-0.json.new"
    torn.parent.mkdir(parents=True)
    torn.write_text("{")

    async with Manager(settings, lambda: connect(target)) as manager:
        await manager._access.ready()

    assert not torn.exists()
