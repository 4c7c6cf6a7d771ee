"""The SDK for programs with an event loop, on real engines and as far as it can on the fake."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.async_ import (
    ContainerGone,
    ContainerNameTaken,
    ContainerNotFound,
    create_new_container,
    destroy_container,
    list_containers,
    prune,
    resume_container,
    stop_container,
)
from pocket_dock_mcp.async_.host import Host
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import InvalidArgumentError
from tests.behaviours import BOTH_STREAMS, EARLY_THEN_HANG, SHOW_GREETING, SOURCE
from tests.engines import Target, eventually, is_gone
from tests.sdk import hosted, prepare

pytestmark = [pytest.mark.anyio, pytest.mark.fake_too, pytest.mark.front]


@pytest.fixture(autouse=True)
async def host(
    target: Target, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Host]:
    prepare(monkeypatch, target, image, tmp_path)
    async with hosted(target) as host:
        yield host


@pytest.fixture
def name() -> str:
    return f"sdk-{secrets.token_hex(6)}"


async def test_a_container_runs_programs_and_ends_with_its_block(target: Target, engine: Engine) -> None:
    async with await create_new_container(env={"GREETING": "hello"}) as c:
        result = await c.run(BOTH_STREAMS)
        assert (result.ok, result.exit_code, result.stdout, result.stderr) == (True, 0, "out\n", "err\n")
        assert result.duration_ms > 0
        assert (await c.run(SHOW_GREETING)).stdout == "hello\n"
        assert (await c.run(SOURCE, lang="python")).stdout == "42\n"
        assert c.name.startswith("pd-")
        container_id = c.container_id

    if not target.is_fake:
        await eventually(lambda: is_gone(engine, container_id), within=10)
    await c.shutdown()


async def test_a_time_limit_kills_and_keeps_what_came_before(host: Host) -> None:
    async with await create_new_container(timeout=0.5) as c:
        for timeout in (None, 0.3):
            result = await c.run(EARLY_THEN_HANG, timeout=timeout)
            assert result.timed_out
            assert not result.ok
            assert result.exit_code is None
            assert result.stdout == "early\n"
            assert "timeout_s" not in str(result.hint)
        assert (await c.info()).live.processes in (0, None)


async def test_files_are_written_read_and_listed(host: Host) -> None:
    async with await create_new_container() as c:
        data = bytes(range(256))
        await c.write_file("some/where/$(touch pwned)/a b", data)
        assert await c.read_file(f"{c.home}/some/where/$(touch pwned)/a b") == data
        assert await c.list_files("some/where") == ["$(touch pwned)"]
        (entry,) = await c.scan_files("some/where/$(touch pwned)")
        assert (entry.name, entry.type, entry.size) == ("a b", "file", 256)
        assert await c.list_files() == ["some"]
        with pytest.raises(FileNotFoundError):
            await c.read_file("nowhere")
        with pytest.raises(IsADirectoryError):
            await c.read_file("some")


async def test_what_persists_is_found_stopped_resumed_and_destroyed(host: Host, name: str) -> None:
    c = await create_new_container(name=name, persist=True, project="mine")
    await c.write_file("note", "kept")
    assert (c.name, c.persist, c.project) == (name, True, "mine")
    same = await resume_container(name)
    assert same.sandbox_id == c.sandbox_id
    await c.shutdown()

    (item,) = await list_containers(project="mine")
    assert (item.name, item.status, item.persist, item.sandbox_id) == (name, "stopped", True, c.sandbox_id)
    assert await list_containers(project="another") == []

    c = await resume_container(item.id)
    assert await c.read_file("note") == b"kept"
    await stop_container(name)
    await stop_container(item.sandbox_id)
    await destroy_container(name)
    assert await list_containers(project="mine") == []
    for act in (resume_container, stop_container, destroy_container):
        with pytest.raises(ContainerNotFound, match="list_containers"):
            await act(name)


async def test_a_taken_name_is_told_at_once_and_is_free_again_after_the_end(host: Host, name: str) -> None:
    async with await create_new_container(name=name):
        with anyio.fail_after(5), pytest.raises(ContainerNameTaken, match=name):
            await create_new_container(name=name)
    async with await create_new_container(name=name) as c:
        assert c.name == name


async def test_pruning_ends_what_is_stopped_and_nothing_else(host: Host, name: str) -> None:
    running = await create_new_container(name=f"{name}-running", persist=True, project="p")
    stopped = await create_new_container(name=f"{name}-stopped", persist=True, project="p")
    elsewhere = await create_new_container(name=f"{name}-other", persist=True, project="q")
    await stopped.shutdown()
    await elsewhere.shutdown()

    assert await prune(project="p") == 1
    assert {item.name for item in await list_containers()} == {running.name, f"{name}-other"}
    assert await prune() == 1
    await destroy_container(running.name)


async def test_stopping_what_would_be_lost_is_refused(host: Host) -> None:
    async with await create_new_container() as c:
        with pytest.raises(InvalidArgumentError, match="persist"):
            await stop_container(c.name)
        await destroy_container(c.name)
        with pytest.raises(ContainerGone):
            await resume_container(c.sandbox_id)
