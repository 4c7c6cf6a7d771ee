"""Kept sandboxes that several processes use at once: servers, commands, and those that are killed."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.engine.base import STDOUT, Engine
from pocket_dock_mcp.errors import (
    PocketDockError,
    SandboxBusyError,
    SandboxLostError,
    SandboxNotFoundError,
)
from pocket_dock_mcp.manager.audit import read_log
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner, Sandbox, SandboxRequest
from pocket_dock_mcp.models import RunResult
from pocket_dock_mcp.settings import Settings
from tests.engines import LABELS, Target, connect, eventually, remove_image, unique
from tests.servers import call, client, environment

pytestmark = [pytest.mark.anyio, pytest.mark.front]

KILLS = int(os.environ.get("POCKET_DOCK_TEST_KILLS", "2"))
"""Processes that are killed at random moments; more of them prove more."""
COMMANDS = int(os.environ.get("POCKET_DOCK_TEST_COMMANDS", "2"))
"""Commands that use a sandbox at once, beside a server."""
OWNERS = [Owner(session=f"s{number}", principal=LOCAL_PRINCIPAL) for number in range(8)]
HOLDER, GUEST, THIRD = OWNERS[:3]

NewManager = Callable[..., Any]


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


@pytest.fixture
def request_(image: str) -> SandboxRequest:
    return SandboxRequest(image=image, persist=True, name="box")


@pytest.fixture
async def new_manager(target: Target, tmp_path: Path) -> AsyncIterator[NewManager]:
    """Return what makes managers that share a state directory, as processes of one user do."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Manager]:
        async with Manager(Settings(state_dir=tmp_path / "state"), lambda: connect(target)) as manager:
            yield manager

    yield make
    async with make() as manager:
        for found in await manager.list_kept(HOLDER):
            await manager.kill(HOLDER, found.kept.id)
    assert list((tmp_path / "state").rglob("sb-*.json")) == []


@pytest.fixture
async def bare_image(engine: Engine, image: str) -> AsyncIterator[str]:
    """Yield an image that has a shell and no python3."""
    tag = f"localhost/{unique('bare')}:1"
    recipe = b"ARG BASE\nFROM ${BASE}\nRUN rm -f /usr/bin/python3*\n"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        entry = tarfile.TarInfo("Containerfile")
        entry.size = len(recipe)
        tar.addfile(entry, io.BytesIO(recipe))
    async for _ in engine.build(context.getvalue(), tag, build_args={"BASE": image}, labels=LABELS):
        pass
    yield tag
    await remove_image(engine, tag)


async def say(sandbox: Sandbox, what: str) -> str:
    """Have something said in a sandbox, and return it."""
    with sandbox.use() as box:
        return (await box.run(f"echo {what}")).stdout.strip()


def ends_of(tmp_path: Path, sandbox: Sandbox) -> Counter[str]:
    """Count how often the end of each run is on the log."""
    lines = read_log(tmp_path / "state" / "audit" / f"{sandbox.id}.jsonl")
    return Counter(line["run_id"] for line in lines if line["event"] == "run_end")


# -- side by side ---------------------------------------------------------------------------------


async def test_several_managers_use_it_and_each_run_is_told_of_once(
    new_manager: NewManager, request_: SandboxRequest, tmp_path: Path
) -> None:
    async with new_manager() as first, new_manager() as second, new_manager() as third:
        sandbox = await first.create(HOLDER, request_, silent)
        guests = [await second.open(GUEST, sandbox.id), await third.open(THIRD, None)]
        everybody = [sandbox, *guests]
        assert [one.is_kept and one.claim is None for one in everybody] == [False, True, True]

        async def work(number: int, box: Sandbox) -> None:
            for turn in range(2):
                run = await box.runs.start(f"echo {number}-{turn}", key=None, background=False)
                assert (await run.run.wait()).stdout == f"{number}-{turn}\n"

        async with anyio.create_task_group() as group:
            for number, box in enumerate(everybody):
                group.start_soon(work, number, box)
        ids = [run_id for box in everybody for run_id in box.runs.ids()]

    assert ends_of(tmp_path, sandbox) == dict.fromkeys(ids, 1)
    assert len(ids) == 6


async def test_a_background_run_of_a_guest_goes_on_and_is_found_by_all(
    new_manager: NewManager, request_: SandboxRequest, tmp_path: Path
) -> None:
    async with new_manager() as first:
        sandbox = await first.create(HOLDER, request_, silent)
        async with new_manager() as second:
            guest = await second.open(GUEST, sandbox.id)
            code = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done; read x; echo $x"
            lasting = await guest.runs.start(code, key="once", background=True, keep_stdin=True)
            brief = await guest.runs.start("sleep 1000", key=None, background=False)
        expected = "".join(f"line {number}\n" for number in range(400)) + "last\n"
        async with new_manager() as third:
            again, run = await third.open_run(THIRD, lasting.id)
            assert again.container.visits
            assert run.background
            assert await again.runs.start("echo other", key="once", background=True) is run
            same, holders = await first.open_run(HOLDER, lasting.id)
            assert same is sandbox
            await holders.write_stdin("last\n", end=True)
            for one in (run, holders):
                assert (await one.run.wait(1 << 20)).stdout == expected
            _, ended = await third.open_run(THIRD, brief.id)
            assert (await ended.run.wait()).status == "killed"
        async with new_manager() as fourth:
            again, run = await fourth.open_run(OWNERS[3], lasting.id)
            # It has ended by now, so all of it is here.
            assert run.run.spool(STDOUT).total == len(expected)
    assert ends_of(tmp_path, sandbox)[lasting.id] <= 2


async def test_a_server_and_commands_use_it_together(target: Target, image: str, tmp_path: Path) -> None:
    environ = environment(target, tmp_path, image)

    async def dock(*argv: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "pocket_dock_mcp.cli.main", *argv]
        with anyio.fail_after(60):
            return await anyio.run_process(command, env=environ, check=False, stdin=subprocess.DEVNULL)

    async with client(environ) as connected:
        box = (await call(connected, "create_sandbox", persist=True, name="box"))["sandbox_id"]
        said: dict[int, str] = {}

        async def command(number: int) -> None:
            done = await dock("run", "box", "--", "sh", "-c", f"echo {number}; exit {number}")
            assert done.returncode == number, done.stderr
            said[number] = done.stdout.decode()

        async with anyio.create_task_group() as group:
            for number in range(COMMANDS):
                group.start_soon(command, number)
            for _ in range(COMMANDS):
                reply = await call(connected, "run_command", sandbox_id=box, command="echo server")
                assert "server" in str(reply)
        assert said == {number: f"{number}\n" for number in range(COMMANDS)}

        detached = await dock("run", "--detach", "box", "--", "sh", "-c", "sleep 0.3; echo from the command")
        run_id = detached.stdout.decode().strip()
        assert "from the command" in str(await call(connected, "wait_run", run_id=run_id))

        await call(connected, "write_file", sandbox_id=box, path="note", content="kept")
        assert (await dock("stop", "box")).returncode == 0
        assert "kept" in str(await call(connected, "run_command", sandbox_id=box, command="cat note"))
        assert (await dock("destroy", "box")).returncode == 0
        result = await connected.call_tool("run_command", {"sandbox_id": box, "command": "true"})
        assert result.is_error
    assert list((tmp_path / "state").rglob("sb-*.json")) == []


# -- who starts and who ends it -------------------------------------------------------------------


async def test_several_that_want_a_stopped_one_at_once_all_have_it(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    async with new_manager() as first, new_manager() as second, new_manager() as third:
        managers = [first, second, third]
        sandbox = await first.create(HOLDER, request_, silent)
        await first.stop(HOLDER, sandbox.id)
        opened: list[Sandbox] = []

        async def use(manager: Manager, owner: Owner) -> None:
            opened.append(await manager.open(owner, sandbox.id))
            assert await say(opened[-1], owner.session) == owner.session

        async with anyio.create_task_group() as group:
            for manager, owner in zip(managers, OWNERS, strict=False):
                group.start_soon(use, manager, owner)

        assert sorted(one.claim is None for one in opened) == [False, True, True]


async def test_a_guest_stops_it_and_who_holds_it_starts_it_again(
    new_manager: NewManager, request_: SandboxRequest, tmp_path: Path
) -> None:
    async with new_manager() as first, new_manager() as second:
        sandbox = await first.create(HOLDER, request_, silent)
        run = await sandbox.runs.start("sleep 1000", key=None, background=True)
        # One that is visited, and one that is not.
        for is_guest in (True, False):
            if is_guest:
                await second.open(GUEST, sandbox.id)
            await second.stop(GUEST, sandbox.id)
            (found,) = await second.list_kept(GUEST)
            assert found.status == "stopped"
            result = await run.run.outcome()
            assert isinstance(result, RunResult)
            assert result.status == "killed"
            assert "stopped" in str(result.hint)
            sandbox = await first.open(HOLDER, sandbox.id)
            assert await say(sandbox, "again") == "again"
            run = await sandbox.runs.start("sleep 1000", key=None, background=True)
        await first.stop(HOLDER, sandbox.id)
    assert set(ends_of(tmp_path, sandbox).values()) == {1}


async def test_it_is_destroyed_once_whoever_does_it(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    """Three at once, one of whom visits it and one of whom holds it, or nobody does."""
    for is_held in (True, False):
        async with new_manager() as first, new_manager() as second, new_manager() as third:
            sandbox = await first.create(HOLDER, request_, silent)
            await second.open(GUEST, sandbox.id)
            outcomes: list[str] = []

            async def destroy(
                manager: Manager, owner: Owner, outcomes: list[str] = outcomes, name: str = sandbox.id
            ) -> None:
                try:
                    await manager.kill(owner, name)
                    outcomes.append("done")
                except (SandboxNotFoundError, SandboxLostError):
                    outcomes.append("gone")

            async with anyio.create_task_group() as group:
                group.start_soon(destroy, second, GUEST)
                group.start_soon(destroy, third, THIRD)
                if is_held:
                    group.start_soon(destroy, first, HOLDER)
            assert "done" in outcomes
            for manager, owner in ((first, HOLDER), (second, GUEST), (third, THIRD)):
                assert await manager.list_kept(owner) == []

                async def is_unknown(manager: Manager = manager, owner: Owner = owner) -> bool:
                    try:
                        manager.get(owner, sandbox.id)  # noqa: B023  # it is asked at once
                    except PocketDockError:
                        return True
                    return False

                await eventually(is_unknown, within=15)


async def test_who_holds_it_hears_that_it_was_destroyed(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    async with new_manager() as first, new_manager() as second:
        sandbox = await first.create(HOLDER, request_, silent)
        await second.kill(GUEST, sandbox.id)

        async def has_heard() -> bool:
            try:
                first.get(HOLDER, sandbox.id)
            except SandboxLostError as error:
                return "destroyed by another process" in str(error)
            return False

        await eventually(has_heard, within=15)


async def test_one_that_is_used_by_others_is_left_to_them(
    new_manager: NewManager, request_: SandboxRequest
) -> None:
    """Also when its holder has no use for it any more."""
    async with new_manager() as first, new_manager() as second:
        sandbox = await first.create(HOLDER, replace(request_, idle_ttl_s=1), silent)
        guest = await second.open(GUEST, sandbox.id)
        with guest.use() as box:

            async def has_let_go() -> bool:
                return not first.list_sandboxes(HOLDER)

            await eventually(has_let_go, within=15)
            assert (await box.run("echo still")).stdout == "still\n"

        # Nobody uses it any more.
        async def has_stopped() -> bool:
            (found,) = await first.list_kept(HOLDER)
            return bool(found.status == "stopped")

        await eventually(has_stopped, within=30)


async def test_one_without_an_agent_is_used_by_one_and_ended_by_all(
    new_manager: NewManager, request_: SandboxRequest, bare_image: str
) -> None:
    bare = replace(request_, image=bare_image)
    async with new_manager() as first, new_manager() as second:
        sandbox = await first.create(HOLDER, bare, silent)
        with pytest.raises(SandboxBusyError, match="python3"):
            await second.open(GUEST, sandbox.id)
        assert await say(sandbox, "mine") == "mine"
        await second.stop(GUEST, sandbox.id)
        (found,) = await second.list_kept(GUEST)
        assert found.status == "stopped"
        await second.kill(GUEST, sandbox.id)
        assert await second.list_kept(GUEST) == []


# -- who is killed --------------------------------------------------------------------------------

WORKER = """
import anyio, random, sys
from pathlib import Path
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner
from pocket_dock_mcp.settings import Settings

async def main(url, state, name):
    settings = Settings(state_dir=Path(state))
    async with Manager(settings, lambda: DockerApiEngine.connect(url)) as manager:
        owner = Owner(session=str(random.random()), principal="local")
        sandbox = await manager.open(owner, name)
        print("visits" if sandbox.claim is None else "holds", flush=True)
        with sandbox.use() as box:
            await box.start("exec sleep 4321")
            async with anyio.create_task_group() as group:
                for number in range(3):
                    group.start_soon(busy, box, number)

async def busy(box, number):
    while True:
        await box.write_file(f"file-{number}", bytes(random.randrange(1, 900_000)))
        await box.run("head -c 300000 /dev/zero")

anyio.run(main, *sys.argv[1:])
"""


async def test_who_is_killed_at_any_moment_harms_nobody(
    new_manager: NewManager, request_: SandboxRequest, target: Target, tmp_path: Path
) -> None:
    """Neither the sandbox, nor its record, nor the others; and what a guest ran ends with him."""
    rng = random.Random(5)
    async with new_manager() as manager:
        sandbox = await manager.create(HOLDER, request_, silent)
    command = [sys.executable, "-c", WORKER, target.url, str(tmp_path / "state"), sandbox.id]

    async def worker(role: str) -> anyio.abc.Process:
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL)
        assert process.stdout is not None
        with anyio.fail_after(60):
            assert (await process.stdout.receive()).decode().split() == [role]
        return process

    holder = await worker("holds")
    async with new_manager() as manager:
        witness = await manager.open(HOLDER, sandbox.id)
        for turn in range(KILLS):
            guest = await worker("visits")
            await anyio.sleep(rng.random() / 4)
            victim = holder if turn % 2 else guest
            victim.send_signal(signal.SIGKILL)
            await victim.wait()
            assert await say(witness, f"turn-{turn}") == f"turn-{turn}"
            if victim is holder:
                # Who comes now holds it; the other one goes on as a guest.
                holder = await worker("holds")
                guest.send_signal(signal.SIGKILL)
                await guest.wait()
            assert await say(witness, "alive") == "alive"

        async def only_the_holders_are_left() -> bool:
            # One of each process that has held it: those go on, as ever.
            with witness.use() as box:
                found = await box.run("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
            return bool(found.stdout.count("sleep 4321") <= 1 + KILLS // 2)

        # Podman may not say that a client was killed; the agent then goes by its silence.
        await eventually(only_the_holders_are_left, within=60)
        (found,) = await manager._persistence.list(LOCAL_PRINCIPAL)
        assert (found.kept.id, found.status, found.busy) == (sandbox.id, "running", True)
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
