"""Detached programs are found again: by their process, by those after it, and by those beside it."""

from __future__ import annotations

import gc
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.async_ import (
    AsyncContainer,
    AsyncProcess,
    create_new_container,
    destroy_container,
    resume_container,
)
from pocket_dock_mcp.async_.host import Host
from pocket_dock_mcp.engine.base import Engine
from tests.engines import Target, eventually
from tests.sdk import hosted, prepare

pytestmark = [pytest.mark.anyio, pytest.mark.front]

BEGIN = """
import asyncio, sys
from pocket_dock_mcp.async_ import create_new_container, resume_container

async def main():
    c = await (resume_container(sys.argv[2]) if sys.argv[1] == "visit" else
        create_new_container(name=sys.argv[2], persist=True))
    await c.run("echo not detached")
    done = await c.run("echo over; echo err >&2; exit 3", detach=True)
    await done.wait()
    on = await c.run("echo begun; read line; echo got $line; exec sleep 600", detach=True)
    print(done.id, on.id, flush=True)
    if sys.argv[1] == "hold":
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def prepared(target: Target, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, target, image, tmp_path / "state")


@pytest.fixture
async def host(target: Target) -> AsyncIterator[Host]:
    async with hosted(target) as host:
        yield host


@pytest.fixture
def name() -> str:
    return f"sdk-{secrets.token_hex(6)}"


def begin(how: str, name: str) -> subprocess.Popen[str]:
    """Start a program that begins two detached ones, and tells their ids."""
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN, how, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def ids_of(program: subprocess.Popen[str]) -> list[str]:
    assert program.stdout is not None
    line = await anyio.to_thread.run_sync(program.stdout.readline)
    return line.split()


async def printed(process: AsyncProcess, text: str) -> None:
    """Wait until it has printed just that since it was read."""

    async def is_there() -> bool:
        return process.peek().stdout == text

    await eventually(is_there, within=20)


async def look(c: AsyncContainer, ids: list[str]) -> None:
    """See that both are found, and all of their output, and that they obey."""
    done, on = await c.detached()
    assert [done.id, on.id] == ids
    assert not await done.is_running()
    assert (done.read().stdout, done.peek().stdout) == ("over\n", "")
    result = await done.wait(10)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "over\n", "err\n")
    assert await on.is_running()
    await printed(on, "begun\n")
    on.read()
    await on.write("it\n")
    await printed(on, "got it\n")
    with pytest.raises(TimeoutError, match=r"run-.* 0.05 seconds"):
        await on.wait(0.05)
    await on.kill(9)
    result = await on.wait(20)
    assert (result.signal, result.stdout) == (9, "begun\ngot it\n")
    assert [one.id for one in await c.detached()] == ids


async def test_another_process_finds_what_one_has_left_when_it_ended(name: str, host: Host) -> None:
    program = begin("leave", name)
    try:
        ids = await ids_of(program)
        assert await anyio.to_thread.run_sync(program.wait) == 0
        c = await resume_container(name)
        await look(c, ids)
    finally:
        program.kill()
        program.communicate()
        await destroy_container(name)


async def test_a_visitor_finds_what_the_holder_has_begun(name: str, host: Host) -> None:
    program = begin("hold", name)
    try:
        ids = await ids_of(program)
        c = await resume_container(name)
        await look(c, ids)
    finally:
        program.communicate("", timeout=60)
        await destroy_container(name)


async def test_what_a_visitor_has_begun_stays_when_it_leaves(name: str, host: Host) -> None:
    c = await create_new_container(name=name, persist=True)
    program = begin("visit", name)
    try:
        ids = await ids_of(program)
        assert await anyio.to_thread.run_sync(program.wait) == 0
        await look(c, ids)
    finally:
        program.kill()
        program.communicate()
        await destroy_container(name)


async def test_the_process_that_began_them_finds_them_too(name: str, host: Host) -> None:
    async with await create_new_container() as c:
        assert await c.detached() == []
        ended: list[int | None] = []
        c.on_exit(lambda _c, code: ended.append(code))
        done = await c.run("echo over; exit 3", detach=True)
        await done.wait()
        on = await c.run("echo begun; exec sleep 600", detach=True)
        ids = [done.id, on.id]
        del done, on
        gc.collect()

        done, on = await c.detached()
        assert [done.id, on.id] == ids
        assert (await done.wait()).stdout == "over\n"
        assert done.read().stdout == "over\n"
        await printed(on, "begun\n")
        await on.kill()
        assert (await on.wait()).stdout == "begun\n"
        assert ended == [3, None], "callbacks go on"
    assert (await on.wait()).stdout == "begun\n", "what is held stays"


@pytest.mark.parametrize("said", ["", "logging: {auto_log: false}\n"])
async def test_their_output_is_on_the_log_unless_that_is_turned_off(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if said:
        (tmp_path / "home/.pocket-dock").mkdir(parents=True)
        (tmp_path / "home/.pocket-dock/pocket-dock.yaml").write_text(said)
    async with hosted(target), await create_new_container() as c:
        assert (await c.run("echo seen by its caller")).ok
        await (await c.run("echo detached", detach=True)).wait()
        (logs,) = (tmp_path / "state").glob("history/*/logs")

        async def is_noted() -> bool:
            return (logs / "history.jsonl").read_text().count('"ended"') == 2

        await eventually(is_noted, within=20)
        assert [path.name[:7] for path in logs.glob("*.log")] == ([] if said else ["detach-"])


async def test_a_container_that_is_removed_from_outside_takes_its_log_along_quietly(
    host: Host, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    c = await create_new_container()
    process = await c.run("echo begun; exec sleep 600", detach=True)
    await engine.remove(c.container_id)
    assert (await process.wait(60)).status == "lost"

    async def is_removed() -> bool:
        return not list((tmp_path / "state/history").iterdir())

    await eventually(is_removed, within=20)
    await c.shutdown()
    assert "cannot be written" not in caplog.text
