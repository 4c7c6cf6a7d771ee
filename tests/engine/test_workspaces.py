"""Workspaces in memory, through snapshots and back, and what a snapshot has and has not, on real engines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.agent.inside import facts
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import (
    DiskFullError,
    InvalidArgumentError,
    LimitsNotEnforcedError,
    SnapshotNotFoundError,
    WorkspaceError,
)
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.models import MIB, Limits, Workspace
from pocket_dock_mcp.settings import Settings
from tests.engines import Target, connect
from tests.servers import call, client, environment, failure

pytestmark = pytest.mark.anyio

ALICE = Owner(session="alice's session", principal="alice")
BOB = Owner(session="bob's session", principal="bob")
SMALL = Limits(memory_bytes=128 * MIB)
ROOM = SMALL.memory_bytes // 2 - SMALL.shm_bytes

FILES = r"""
echo a > one; mkdir -p d/e 'sp ace'; echo x > d/e/f; ln d/e/f hard; mkfifo ff; ln -s /etc/passwd ln
touch d/.wh.kept; truncate -s 50M huge; echo end >> huge; chmod 600 one; echo s > secret; chmod 000 secret
mkdir shut half; echo in | tee shut/f half/f; chmod 000 shut; chmod 400 half
chmod 555 d/e; printf q > "$(printf 'a\nb\377')"; touch -h -d 2001-01-01 one d ln; chmod 4755 hard
"""
LISTED = r"""cd ~
find . -mindepth 1 -printf '%P %y %m %n %T@ %l\n' | sort; md5sum one d/e/f a*; wc -c < huge; tail -c 4 huge
"""


@pytest.fixture
async def manager(target: Target, tmp_path: Path) -> AsyncIterator[Manager]:
    async with Manager(Settings(state_dir=tmp_path, pool_mb=0), lambda: connect(target)) as manager:
        yield manager


async def made(manager: Manager, image: str, workspace: Workspace | None = "memory") -> Sandbox:
    request = SandboxRequest(image=image, workspace=workspace, limits=SMALL)
    return await manager.create(ALICE, request, print)


async def again(manager: Manager, snapshot: str, workspace: Workspace | None = None) -> Sandbox:
    request = SandboxRequest(image="", snapshot=snapshot, workspace=workspace, limits=SMALL)
    return await manager.create(ALICE, request, print)


async def sh(sandbox: Sandbox, command: str) -> str:
    return (await sandbox.container.run(command)).check().stdout


async def parcels(sandbox: Sandbox) -> list[str]:
    return (await sh(sandbox, f"ls -d {' '.join(facts.PARKED)} 2>/dev/null || true")).splitlines()


async def test_it_is_bounded_and_a_full_one_ends_a_run_and_nothing_else(manager: Manager, image: str) -> None:
    sandbox = await made(manager, image)

    assert int(await sh(sandbox, "df --output=size -B1 ~ | tail -1")) == ROOM
    assert await sh(sandbox, "df --output=fstype ~ | tail -1") == "tmpfs\n"
    assert (await sandbox.container.info()).workspace == "memory"
    full = await sandbox.container.run("head -c 200M /dev/zero > f")
    assert full.status == "disk_full"
    assert "/home/sandbox" in (full.hint or "")
    # Programs still have memory.
    assert await sh(sandbox, "rm f; python3 -c 'print(len(bytes(40_000_000)))'") == "40000000\n"


async def test_files_come_through_a_snapshot_as_they_are_into_memory_and_onto_the_disk(
    manager: Manager, image: str
) -> None:
    sandbox = await made(manager, image)
    await sh(sandbox, FILES)
    before = await sh(sandbox, LISTED)
    _, snapshot = await manager.snapshot(ALICE, None, "")

    assert await sh(sandbox, LISTED) == before
    assert await parcels(sandbox) == []
    assert snapshot.workspace == "memory"
    for workspace in (None, "disk"):
        copy = await again(manager, snapshot.id, workspace)
        assert await sh(copy, LISTED) == before
        assert await parcels(copy) == []
        kind = (await sh(copy, "df --output=fstype ~ | tail -1")).strip()
        assert (kind == "tmpfs") == (workspace is None)
        _, unchanged = await manager.diff(ALICE, copy.id)
        assert unchanged.counts == (0, 0, 0)
        assert (
            await sh(copy, "chmod 700 shut half; cat shut/f half/f; chmod 000 shut; chmod 400 half")
            == "in\nin\n"
        )
        await sh(copy, "echo b > one; rm d/e/f 2>/dev/null; rm ln; echo n > new")
        _, changed = await manager.diff(ALICE, copy.id)
        assert [(c.change, c.path.rpartition("/")[2]) for c in changed.changes] == [
            ("modified", "one"), ("created", "new"), ("deleted", "ln"),
        ]  # fmt: skip
        await manager.kill(ALICE, copy.id)
    _, since = await manager.diff(ALICE, sandbox.id, since=snapshot.id)
    assert since.counts == (0, 0, 0)
    await manager.delete_snapshot(ALICE, snapshot.id)


async def test_what_does_not_fit_is_refused_and_leaves_nothing(manager: Manager, image: str) -> None:
    sandbox = await made(manager, image, "disk")
    await sh(sandbox, "head -c 60M /dev/urandom > big")
    _, on_disk = await manager.snapshot(ALICE, None, "")
    with pytest.raises(InvalidArgumentError, match="on disk"):
        await again(manager, on_disk.id, "memory")
    await manager.kill(ALICE, sandbox.id)

    large = Limits(memory_bytes=256 * MIB)
    sandbox = await manager.create(ALICE, SandboxRequest(image, workspace="memory", limits=large), print)
    await sh(sandbox, "head -c 60M /dev/urandom > big")
    _, snapshot = await manager.snapshot(ALICE, None, "")
    with pytest.raises(DiskFullError, match="do not fit") as caught:
        await again(manager, snapshot.id)
    assert "memory_mb" in caught.value.hint
    tiny = Limits(memory_bytes=40 * MIB)
    with pytest.raises(InvalidArgumentError, match="memory_mb of at least 48"):
        await manager.create(ALICE, SandboxRequest(image, workspace="memory", limits=tiny), print)
    with pytest.raises(InvalidArgumentError, match="persist"):
        await manager.create(ALICE, SandboxRequest(image, workspace="memory", persist=True), print)
    assert manager.list_sandboxes(ALICE) == [sandbox]
    _, [fork] = await manager.fork(ALICE, None, 1)
    assert await sh(fork, "stat -c %s big; df --output=fstype ~ | tail -1") == f"{60 * MIB}\ntmpfs\n"
    for kept in (on_disk, snapshot):
        await manager.delete_snapshot(ALICE, kept.id)


async def test_who_puts_himself_in_the_way_is_told_or_passed_by(manager: Manager, image: str) -> None:
    sandbox = await made(manager, image)
    await sh(sandbox, f"echo 1 > f; ln -s /etc/passwd {facts.PARKED[0]}")
    _, snapshot = await manager.snapshot(ALICE, None, "")
    await manager.delete_snapshot(ALICE, snapshot.id)
    assert await parcels(sandbox) == []
    await sh(sandbox, f"mkdir -p {facts.PARKED[0]}/full")
    with pytest.raises(WorkspaceError):
        await manager.snapshot(ALICE, None, "")
    await sh(
        sandbox, f"rm -r {facts.PARKED[0]}; mkdir deep; cd deep; for n in $(seq 950); do mkdir d; cd d; done"
    )
    with pytest.raises(WorkspaceError, match="ENAMETOOLONG"):
        await manager.snapshot(ALICE, None, "")
    assert await parcels(sandbox) == []
    assert await manager.list_snapshots(ALICE) == []


async def test_a_damaged_parcel_is_an_error_and_no_sandbox(manager: Manager, image: str) -> None:
    sandbox = await made(manager, image, "disk")
    await sh(sandbox, f"printf 'pocket-dock parcel 1\\nE' > {facts.PARKED[0]}")
    _, snapshot = await manager.snapshot(ALICE, None, "")

    with pytest.raises(WorkspaceError, match="EBADMSG"):
        await again(manager, snapshot.id)
    await manager.delete_snapshot(ALICE, snapshot.id)


async def test_a_cancelled_snapshot_leaves_nothing_in_the_sandbox(manager: Manager, image: str) -> None:
    sandbox = await made(manager, image)
    await sh(sandbox, "head -c 40M /dev/urandom > big")
    for delay in (0.03, 0.1, 0.3):
        with anyio.move_on_after(delay):
            _, snapshot = await manager.snapshot(ALICE, None, "")
            with anyio.CancelScope(shield=True):
                await manager.delete_snapshot(ALICE, snapshot.id)

    assert await parcels(sandbox) == []
    assert await manager.list_snapshots(ALICE) == []


async def test_what_is_no_file_system_in_memory_is_not_handed_out_as_one(
    manager: Manager, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = "pocket_dock_mcp.engine.docker_api.create_config"
    from pocket_dock_mcp.engine import hardening

    def without(*args: object, **options: object) -> dict[str, object]:
        made = hardening.create_config(*args, **options)  # type: ignore[arg-type]
        made["HostConfig"]["Tmpfs"] = {}
        return made

    monkeypatch.setattr(config, without)
    with pytest.raises(LimitsNotEnforcedError, match="workspace"):
        await made(manager, image)


async def test_a_snapshot_has_files_and_nothing_of_the_sandbox_else(
    engine: Engine, manager: Manager, image: str
) -> None:
    assert isinstance(engine, DockerApiEngine)
    secret = "s3cr3t-of-the-sandbox"
    request = SandboxRequest(image=image, env={"TOKEN": secret}, name=secret)
    sandbox = await manager.create(ALICE, request, print)
    await sandbox.container.run("sleep 600 & echo $TOKEN >/dev/null", env={"CALL": secret}, timeout_s=20)
    _, snapshot = await manager.snapshot(ALICE, None, secret)

    found = await engine._client.images.inspect(snapshot.image_id)
    history = await engine._client.images.history(snapshot.image_id)
    config = found["Config"]
    assert secret not in json.dumps([found, history])
    # Podman adds what it gives to every container.
    added = {one.partition("=")[0] for one in config.get("Env") or []} - {"PATH", "LANG"}
    assert added <= {"TERM", "HOSTNAME", "HOME", "container"}
    labels = {key for key, value in config["Labels"].items() if value and key.startswith("pocket-dock.")}
    base = (await engine.image(image)).labels
    assert labels - set(base) == {"pocket-dock.nonce", "pocket-dock.snapshot"}
    assert not config.get("Volumes")
    assert not config.get("ExposedPorts")
    assert config.get("Entrypoint") == ["/bin/sh"]
    assert not config.get("Cmd")
    assert "python3 -I" not in json.dumps(config)

    copy = await manager.create(ALICE, SandboxRequest(image="", snapshot=snapshot.id), print)
    ran = await copy.container.run("env; ps ax 2>/dev/null || cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert secret not in ran.stdout
    assert "sleep 600" not in ran.stdout
    for attempt in (manager.delete_snapshot(BOB, snapshot.id), manager.diff(BOB, copy.id, since=snapshot.id)):
        with pytest.raises(LookupError):
            await attempt
    assert await manager.list_snapshots(BOB) == []
    with pytest.raises(SnapshotNotFoundError):
        await manager.create(BOB, SandboxRequest(image="", snapshot=snapshot.id), print)
    await manager.delete_snapshot(ALICE, snapshot.id)


async def test_a_model_asks_for_one(target: Target, tmp_path: Path, image: str) -> None:
    async with client(environment(target, tmp_path, image)) as server:
        made = await call(server, "create_sandbox", workspace="memory")
        assert made["workspace"] == "memory"
        assert "at least" in await failure(server, "create_sandbox", workspace="memory", memory_mb=40)
