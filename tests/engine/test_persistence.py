"""Sandboxes that outlive the process that made them, as their owners find them again."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import (
    InvalidArgumentError,
    QuotaError,
    RunNotFoundError,
    SandboxLostError,
    SandboxNotFoundError,
    SandboxPausedError,
)
from pocket_dock_mcp.manager.audit import read_log
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.manager.sweep import NONCE_LABEL
from pocket_dock_mcp.settings import Settings
from tests.engines import Target, connect, eventually
from tests.servers import call, client, environment, failure, server_process

pytestmark = pytest.mark.anyio

ALICE = Owner(session="first", principal="alice")
ALICE_AGAIN = Owner(session="second", principal="alice")
BOB = Owner(session="third", principal="bob")

NewManager = Callable[..., Any]


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


@pytest.fixture
def request_(image: str) -> SandboxRequest:
    return SandboxRequest(image=image, persist=True, name="mine", env={"TOKEN": "t-1"})


@pytest.fixture
async def new_manager(target: Target, engine: Engine, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Return what makes managers that share a state directory, as processes after each other do."""
    settings = Settings(state_dir=tmp_path / "state", max_persistent=2)

    @asynccontextmanager
    async def make(**changes: Any) -> AsyncIterator[Manager]:
        async with Manager(settings.model_copy(update=changes), lambda: connect(target)) as manager:
            yield manager

    yield make
    async with make() as manager:
        for owner in (ALICE, BOB):
            for found in await manager.list_kept(owner):
                await manager.kill(owner, found.kept.id)
    assert [
        path for path in (tmp_path / "state").rglob("*") if path.is_file() and "audit" not in path.parts
    ] == []


async def container_of(engine: Engine, sandbox: Sandbox) -> str:
    """Return the id of the container behind a sandbox."""
    assert sandbox.claim is not None
    (found,) = await engine.containers(f"{NONCE_LABEL}={sandbox.claim.kept.nonce}")
    return found.id


async def test_one_that_was_killed_while_it_was_renewed_is_made_anew(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        assert sandbox.claim is not None
        with sandbox.use() as box:
            await box.write_file("note", "to go")
            await box.reboot(fresh=True)
            assert (await box.list_files())[0] == []
            await box.write_file("note", "to go")
        assert not sandbox.claim.kept.renewing
        # As a process leaves it that dies after it has removed the one and before it has made the other.
        sandbox.claim.renewal(begins=True)
    await engine.remove((await engine.containers(f"{NONCE_LABEL}={sandbox.claim.kept.nonce}"))[0].id)

    async with new_manager() as manager:
        (found,) = await manager.list_kept(ALICE_AGAIN)
        assert (found.kept.id, found.status) == (sandbox.id, "stopped")
        again = await manager.open(ALICE_AGAIN, sandbox.id)
        with again.use() as box:
            assert (await box.list_files())[0] == []
            assert (await box.info()).limits == request_.limits
            await box.write_file("note", "to stay")
        assert again.claim is not None
        assert not again.claim.kept.renewing

    async with new_manager() as manager:
        again = await manager.open(ALICE_AGAIN, sandbox.id)
        with again.use() as box:
            assert (await box.read_file("note")).data == b"to stay"


async def test_it_is_found_again_with_files_sessions_and_runs(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        with sandbox.use() as box:
            await box.write_file("note", "kept")
            await box.run("x = 41", language="python", session="main")
        run = await sandbox.runs.start(
            "i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i+1)); done; "
            "read answer; echo $answer; sleep 0.2; echo last",
            key="once",
            background=True,
            keep_stdin=True,
        )
        await run.write_stdin("heard\n", end=False)

    async with new_manager() as manager:
        (found,) = await manager.list_kept(ALICE_AGAIN)
        assert (found.kept.id, found.status, found.busy) == (sandbox.id, "running", False)

        same, again = await manager.open_run(ALICE_AGAIN, run.id)
        result = await again.run.wait(1 << 20)

        assert same.id == sandbox.id
        assert result.status == "ok"
        assert result.stdout == "".join(f"line {i}\n" for i in range(4000)) + "heard\nlast\n"
        assert again.background
        with same.use() as box:
            assert (await box.read_file("note")).data == b"kept"
            assert (await box.run("x + 1", language="python", session="main")).value == "42"
            assert (await box.run("echo $TOKEN")).stdout == "t-1\n"
        assert await same.runs.start("echo not again", key="once", background=False) is again


async def test_its_log_has_the_end_of_each_run_once_and_as_it_was(
    new_manager: NewManager, request_: SandboxRequest, tmp_path: Path
) -> None:
    def ends() -> dict[str, list[tuple[str, int | None]]]:
        found: dict[str, list[tuple[str, int | None]]] = {}
        for line in read_log(tmp_path / "state" / "audit" / f"{sandbox.id}.jsonl"):
            if line["event"] == "run_end":
                found.setdefault(line["run_id"], []).append((line["status"], line["exit_code"]))
        return found

    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        first = await sandbox.runs.start("exit 3", key=None, background=False)
        await first.run.wait()
        meanwhile = await sandbox.runs.start("read line; exit 4", key=None, background=True, keep_stdin=True)
        asleep = await sandbox.runs.start("sleep 1000", key=None, background=True)
        began = time.monotonic()
        # The manager goes before anybody can hear of the end.
        await meanwhile.write_stdin("\n", end=True)
    expected = {first.id: [("nonzero", 3)], meanwhile.id: [("nonzero", 4)]}

    async def heard() -> bool:
        return ends() == expected

    for _ in range(3):
        async with new_manager() as manager:
            again = await manager.open(ALICE, sandbox.id)
            await eventually(heard, within=20)
    async with new_manager() as manager:
        again = await manager.open(ALICE, sandbox.id)
        assert len(again.runs.ids()) == 3
        with again.use():
            ran = time.monotonic() - began
            await manager.stop(ALICE, sandbox.id)
            found = again.runs.get(asleep.id)
            assert found is not None
            result = await found.run.wait()
            assert (result.status, result.hint) == ("killed", "The sandbox was stopped. Its files are kept.")
            # Since its beginning, and not since it was taken up.
            assert result.usage.wall_s > ran - 0.1
    assert ends() == {**expected, asleep.id: [("killed", None)]}


async def test_stopping_takes_no_time_and_the_next_call_starts_it_with_its_files(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        container_id = await container_of(engine, sandbox)
        with sandbox.use() as box:
            await box.write_file("note", "kept")
        run = await sandbox.runs.start("sleep 1000", key=None, background=True)

        began = time.monotonic()
        await manager.stop(ALICE, sandbox.id)
        took = time.monotonic() - began

        assert (await engine.inspect(container_id)).status in ("exited", "stopping")
        assert took < 3
        (found,) = await manager.list_kept(ALICE)
        assert found.status == "stopped"
        again = await manager.open(ALICE, sandbox.id)
        with again.use() as box:
            assert (await box.read_file("note")).data == b"kept"
            assert (await box.run("echo $TOKEN; pgrep sleep")).stdout == "t-1\n"
            assert (await box.info()).limits == request_.limits
        assert again.runs.get(run.id) is None or again.runs.get(run.id).run.result().status != "ok"


async def test_an_unused_one_stops_and_starts_again(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, replace(request_, idle_ttl_s=1), silent)
        container_id = await container_of(engine, sandbox)

        async def stopped() -> bool:
            return (await engine.inspect(container_id)).status == "exited"

        await eventually(stopped, within=15)
        again = await manager.open(ALICE, None)
        with again.use() as box:
            assert (await box.run("echo back")).stdout == "back\n"


async def test_a_running_one_that_nobody_holds_stops_by_itself(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, replace(request_, idle_ttl_s=1), silent)
        container_id = await container_of(engine, sandbox)

    async def stopped() -> bool:
        return (await engine.inspect(container_id)).status == "exited"

    await eventually(stopped, within=15)


async def test_it_is_its_principals_and_nobody_elses(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        run = await sandbox.runs.start("echo hi", key=None, background=True)
        assert manager.get(ALICE_AGAIN, sandbox.id) is sandbox

    async with new_manager() as manager:
        assert await manager.list_kept(BOB) == []
        answers = set()
        for sandbox_id in (sandbox.id, f"sb-{secrets.token_hex(16)}", "../x"):
            for attempt in (manager.open, manager.kill, manager.stop):
                with pytest.raises(SandboxNotFoundError) as caught:
                    await attempt(BOB, sandbox_id)
                answers.add(str(caught.value))
        assert len(answers) == 1
        with pytest.raises(LookupError):
            await manager.open_run(BOB, run.id)
        assert [found.kept.id for found in await manager.list_kept(ALICE)] == [sandbox.id]


async def test_several_processes_use_it(new_manager: NewManager, request_: SandboxRequest) -> None:
    async with new_manager() as first, new_manager() as second:
        sandbox = await first.create(ALICE, request_, silent)
        (found,) = await second.list_kept(ALICE)
        assert found.busy
        visited = await second.open(ALICE, sandbox.id)
        for one in (visited, sandbox):
            with one.use() as box:
                assert (await box.run("echo mine")).ok

        await first.stop(ALICE, sandbox.id)
        again = await second.open(ALICE, sandbox.id)
        with again.use() as box:
            assert (await box.run("echo mine")).ok


async def test_many_calls_at_once_join_it_once(new_manager: NewManager, request_: SandboxRequest) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
    opened: list[Sandbox] = []
    async with new_manager() as manager:

        async def use() -> None:
            opened.append(await manager.open(ALICE, sandbox.id))
            with opened[-1].use() as box:
                assert (await box.run("echo hi")).ok

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(use)
        assert len(set(map(id, opened))) == 1


async def test_one_removed_from_outside_is_told_lost_and_off_the_record(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        container_id = await container_of(engine, sandbox)
    await engine.remove(container_id)

    async with new_manager() as manager:
        with pytest.raises(SandboxLostError, match="removed from outside"):
            await manager.open(ALICE, sandbox.id)
        assert await manager.list_kept(ALICE) == []


async def test_killing_one_that_nobody_holds_removes_all_of_it(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        assert sandbox.claim is not None
        nonce = sandbox.claim.kept.nonce

    async with new_manager() as manager:
        await manager.kill(ALICE, sandbox.id)
        assert await manager.list_kept(ALICE) == []

    async def gone() -> bool:
        return not await engine.containers(f"{NONCE_LABEL}={nonce}")

    await eventually(gone, within=5)


async def test_there_is_a_quota_of_its_own(new_manager: NewManager, request_: SandboxRequest) -> None:
    async with new_manager(max_persistent=1) as manager:
        first = await manager.create(ALICE, request_, silent)
        await manager.stop(ALICE, first.id)
        with pytest.raises(QuotaError, match="POCKET_DOCK_MAX_PERSISTENT"):
            await manager.create(ALICE, request_, silent)
        await manager.kill(ALICE, first.id)
        await manager.create(ALICE, request_, silent)


async def test_what_is_not_kept_cannot_be_stopped(new_manager: NewManager, request_: SandboxRequest) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, replace(request_, persist=False), silent)
        with pytest.raises(InvalidArgumentError, match="persist"):
            await manager.stop(ALICE, sandbox.id)
        assert manager.get(ALICE, sandbox.id) is sandbox


async def test_a_server_that_was_killed_leaves_it_to_the_next(
    target: Target, image: str, tmp_path: Path
) -> None:
    environ = environment(target, tmp_path, image)
    async with client(environ) as first:
        made = await call(first, "create_sandbox", persist=True, name="long job")
        assert made["persist"]
        started = await call(
            first,
            "run_command",
            command="for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done",
            background=True,
        )
        reads = await call(first, "run_command", command="read l; echo got $l", background=True)
        os.kill(server_process(), signal.SIGKILL)

    async with client(environ) as second:
        listed = await call(second, "list_sandboxes")
        (sandbox,) = listed["sandboxes"]
        assert (sandbox["sandbox_id"], sandbox["status"]) == (made["sandbox_id"], "running")
        ended = await call(second, "wait_run", run_id=started["run_id"])
        assert ended["status"] == "ok"
        assert ended["stdout"] == "".join(f"{i}\n" for i in range(1, 9))
        ended = await call(second, "wait_run", run_id=reads["run_id"], stdin="it\n")
        assert (ended["status"], ended["stdout"]) == ("ok", "got it\n")
        assert (await call(second, "kill", sandbox_id=made["sandbox_id"]))["killed"] == made["sandbox_id"]
        assert "it was killed" in await failure(
            second, "run_command", command="true", sandbox_id=made["sandbox_id"]
        )


async def test_one_restarted_from_outside_is_started_again_with_its_files(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    assert isinstance(engine, DockerApiEngine)
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        container_id = await container_of(engine, sandbox)
        with sandbox.use() as box:
            await box.write_file("note", "kept")
        healthy = await manager.create(ALICE, request_, silent)
        run = await healthy.runs.start("sleep 1; echo done", key=None, background=True)
    await engine._client.containers.container(container_id).restart(t=0)

    async with new_manager() as manager:
        # The broken one is not in the way of another one's run.
        _, found = await manager.open_run(ALICE, run.id)
        assert (await found.run.wait()).stdout == "done\n"
        again = await manager.open(ALICE, sandbox.id)
        with again.use() as box:
            assert (await box.read_file("note")).data == b"kept"
            assert (await box.run("echo $TOKEN")).stdout == "t-1\n"


async def test_one_restarted_from_outside_can_be_stopped(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    assert isinstance(engine, DockerApiEngine)
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        container_id = await container_of(engine, sandbox)
    await engine._client.containers.container(container_id).restart(t=0)

    async with new_manager() as manager:
        await manager.stop(ALICE, sandbox.id)
        (found,) = await manager.list_kept(ALICE)
        assert found.status == "stopped"
        await manager.stop(ALICE, sandbox.id)
        assert (await manager.list_kept(ALICE))[0].status == "stopped"


async def test_one_paused_from_outside_says_so_and_how_it_goes_on(
    new_manager: NewManager, request_: SandboxRequest, engine: Engine
) -> None:
    assert isinstance(engine, DockerApiEngine)
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        container = engine._client.containers.container(await container_of(engine, sandbox))
    await container.pause()
    async with new_manager() as manager:
        assert (await manager.list_kept(ALICE))[0].status == "paused"
        for attempt in (manager.open, manager.stop):
            with pytest.raises(SandboxPausedError, match=f"{engine.info.kind} unpause"):
                await attempt(ALICE, sandbox.id)
        await container.unpause()
        assert (await manager.open(ALICE, sandbox.id)).id == sandbox.id


async def test_a_background_run_keeps_it_from_being_stopped(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, replace(request_, idle_ttl_s=1), silent)
        run = await sandbox.runs.start("sleep 3; echo done", key=None, background=True)

        assert (await run.run.wait()).stdout == "done\n"


async def test_a_call_that_comes_while_it_is_being_stopped_waits_for_that(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
        with sandbox.use() as box:
            await box.write_file("note", "kept")
        async with anyio.create_task_group() as group:
            group.start_soon(manager.stop, ALICE, sandbox.id)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            again = await manager.open(ALICE, sandbox.id)
            with again.use() as box:
                assert (await box.read_file("note")).data == b"kept"


async def test_an_unknown_run_leaves_what_is_kept_to_others(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request_, silent)
    async with new_manager() as first, new_manager() as second:
        with pytest.raises(RunNotFoundError):
            await first.open_run(ALICE, "run-0123456789abcdef")
        assert (await second.open(ALICE, sandbox.id)).id == sandbox.id
        with pytest.raises(RunNotFoundError):
            await first.open_run(ALICE, "run-0123456789abcdef")


async def test_the_quota_holds_for_several_processes_together(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    made: list[Sandbox] = []
    refused: list[QuotaError] = []
    async with new_manager() as first, new_manager() as second:

        async def make(manager: Manager) -> None:
            try:
                made.append(await manager.create(ALICE, request_, silent))
            except QuotaError as error:
                refused.append(error)

        async with anyio.create_task_group() as group:
            for manager in (first, second) * 2:
                group.start_soon(make, manager)
        assert (len(made), len(refused)) == (2, 2)
        assert len(await first.list_kept(ALICE)) + len(first.list_sandboxes(ALICE)) == 2


async def test_what_is_opened_counts_as_in_use(new_manager: NewManager, request_: SandboxRequest) -> None:
    async with new_manager() as manager:
        ids = [(await manager.create(ALICE, request_, silent)).id for _ in range(2)]
    async with new_manager(max_sandboxes=1) as manager:
        await manager.open(ALICE, ids[0])
        with pytest.raises(QuotaError, match="1 are allowed"):
            await manager.open(ALICE, ids[1])
