"""The types that users see: their programs pass mypy's strictest mode, and know what `run` returns."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from pocket_dock_mcp import async_

ASYNC = """
import asyncio
from pathlib import Path

from typing_extensions import assert_type

from pocket_dock_mcp.async_ import (
    AsyncContainer,
    AsyncContainerPool,
    AsyncExecStream,
    AsyncProcess,
    AsyncSession,
    BufferSnapshot,
    ContainerGone,
    ContainerInfo,
    ContainerListItem,
    DoctorReport,
    ExecResult,
    FileEntry,
    PortMapping,
    ProcessInfo,
    ProfileInfo,
    StreamChunk,
    Transferred,
    create_new_container,
    destroy_container,
    doctor,
    find_project_root,
    get_version,
    init_project,
    list_containers,
    list_profiles,
    prune,
    resolve_profile,
    resume_container,
    stop_container,
)


async def programs(c: AsyncContainer) -> None:
    result = await c.run(
        "true", timeout=1, max_output=10, lang="python", cwd="/", env={"A": "b"}, stdin=b"", tty=(1, 2)
    )
    assert_type(result, ExecResult)
    assert_type(await c.run(["echo", "a"], stream=False, detach=False), ExecResult)
    assert_type(
        (result.ok, result.stdout, result.exit_code, result.timed_out), tuple[bool, str, int | None, bool]
    )
    assert_type(result.truncated, bool)
    stream = await c.run("true", stream=True, timeout=None)
    assert_type(stream, AsyncExecStream)
    async for chunk in stream:
        assert_type(chunk, StreamChunk)
        if chunk.stream == "stdout":
            print(chunk.data)
    assert_type(stream.result, ExecResult)
    await stream.aclose()
    process = await c.run(["cat"], detach=True)
    assert_type(process, AsyncProcess)
    assert_type(process.id, str)
    assert_type(await process.is_running(), bool)
    await process.write("a")
    await process.write(b"a")
    await process.close_stdin()
    assert_type(process.read(), BufferSnapshot)
    assert_type(process.peek().stderr, str)
    assert_type((process.buffer_size, process.buffer_overflow), tuple[int, bool])
    await process.kill()
    await process.kill(9)
    assert_type(await process.wait(timeout=60), ExecResult)
    assert_type(await c.detached(), list[AsyncProcess])
    async with await c.session(lang="python") as session:
        assert_type(session, AsyncSession)
        assert_type(session.id, str)
        await session.send("1")
        assert_type(await session.send_and_wait("2", timeout=3), ExecResult)
        assert_type(session.read(), str)
        session.on_output(lambda data: print(data.upper()))()
    await session.close()

    def heard(container: AsyncContainer, data: str) -> None:
        print(container.name, data)

    removals = [
        c.on_stdout(heard),
        c.on_stderr(heard),
        c.on_exit(lambda container, code: print(container.name, code)),
    ]
    for remove in removals:
        remove()


async def the_rest(c: AsyncContainer) -> None:
    assert_type(
        (c.container_id, c.sandbox_id, c.name, c.home, c.socket_path), tuple[str, str, str, str, str]
    )
    assert_type((c.persist, c.project, c.data_path), tuple[bool, str, Path | None])
    await c.write_file("a", "b", mode=0o600, append=True)
    await c.write_file("a", b"b")
    assert_type(await c.read_file("a"), bytes)
    assert_type(await c.list_files(), list[str])
    assert_type(await c.scan_files("."), list[FileEntry])
    assert_type(await c.push(Path("a"), "b", on_progress=print), Transferred)
    assert_type(await c.pull("b", "a", max_bytes=1, max_files=1), Transferred)
    assert_type(await c.open_port(80, host_port=0, address="127.0.0.1"), PortMapping)
    await c.close_port(80)
    assert_type(c.ports(), list[PortMapping])
    assert_type(await c.info(), ContainerInfo)
    assert_type(await c.processes(), list[ProcessInfo])
    await c.reboot(fresh=True)
    assert_type(await c.snapshot("image"), str)
    assert_type(await c.shell("true"), int)
    await c.shutdown(force=True)


async def main() -> None:
    async with await create_new_container(
        image=None,
        name="a",
        timeout=1,
        mem_limit="1g",
        cpu_percent=50,
        persist=False,
        volumes={"/a": "/b:ro"},
        project="p",
        profile="minimal",
        devices=["/dev/a"],
        ports={0: 1},
        env={"A": "b"},
        workdir="/",
        network=False,
        user=1000,
        labels={"a": "b"},
        pids_limit=1,
        disk_limit=1,
        shm_size="1m",
        workspace="disk",
        idle_timeout=1,
        snapshot=None,
        engine=None,
        socket_path=None,
        on_progress=print,
    ) as c:
        assert_type(c, AsyncContainer)
        both = await asyncio.gather(c.run("1"), c.run("2"))
        assert_type(both[0], ExecResult)
    assert_type(await resume_container("a"), AsyncContainer)
    assert_type(await list_containers(), list[ContainerListItem])
    await stop_container("a")
    await destroy_container("a")
    assert_type(await prune(), int)
    assert_type(await doctor(), DoctorReport)
    assert_type(get_version(), str)
    assert_type(find_project_root(), Path | None)
    assert_type(init_project(), Path)
    assert_type(list_profiles(), list[ProfileInfo])
    assert_type(resolve_profile("dev"), ProfileInfo)
    async with AsyncContainerPool("minimal", size=2) as pool:
        await pool.wait_ready(1)
        assert_type(pool.ready, int)
        try:
            async with await pool.claim(env={"A": "b"}) as c:
                assert_type(c, AsyncContainer)
        except ContainerGone as error:
            print(error)
    await pool.aclose()
"""
WRONG = """
from pocket_dock_mcp import create_new_container

with create_new_container() as c:
    c.run("true").kill()
    c.run("true", stream=True).stdout
    c.run("true", detach=True).data
    c.run("true", stream=True, detach=True)
    c.run(1)
    c.on_stdout(lambda data: None)
    c.no_such_method()
    create_new_container(mem="1g")
"""


def blocking(text: str) -> str:
    """Return the same program for the blocking SDK."""
    for pattern, new in (
        (r"asyncio\.gather\((.*)\)", r"(\1)"),
        (r"import asyncio\n", ""),
        (r"\basync (?=def|with|for)|\bawait ", ""),
        (r"\.aclose\b", ".close"),
        (r"\bAsync(?=[A-Z])", ""),
        (r"pocket_dock_mcp\.async_", "pocket_dock_mcp"),
    ):
        text = re.sub(pattern, new, text)
    return text


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what mypy says of the three programs, by itself and outside of this project."""
    folder = tmp_path_factory.mktemp("user")
    for name, text in (("there", ASYNC), ("here", blocking(ASYNC)), ("wrong", WRONG)):
        (folder / f"{name}.py").write_text(text)
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--no-error-summary",
            "there.py", "here.py", "wrong.py",
        ],
        cwd=folder, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_programs_of_users_pass_in_both_colours(complaints: list[str]) -> None:
    assert [line for line in complaints if not line.startswith("wrong.py")] == []


@pytest.mark.slow
def test_mistakes_are_found(complaints: list[str]) -> None:
    found = {
        int(line.split(":")[1]) for line in complaints if line.startswith("wrong.py") and ": error:" in line
    }

    assert found == set(range(5, 13))


def test_the_program_uses_every_member() -> None:
    classes = [getattr(async_, name) for name in async_.__all__ if name.startswith("Async")]
    members = {name for cls in classes for name in dir(cls) if not name.startswith("_")}

    assert {name for name in members if not re.search(rf"\.{name}\b", ASYNC)} == set()
