"""Ports and volumes of sandboxes as their owners have them: asked for once, there as long as the sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.async_ import create_new_container
from pocket_dock_mcp.container.asked import volumes_of
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import HostPathError, PortInUseError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Owner, SandboxRequest
from pocket_dock_mcp.outside import PortMapping
from pocket_dock_mcp.settings import Settings
from tests.behaviours import PORT, SERVER
from tests.engines import Target, connect, eventually
from tests.sdk import hosted, prepare
from tests.servers import call, client, environment, failure

pytestmark = [pytest.mark.anyio, pytest.mark.front]

ALICE = Owner(session="first", principal="alice")
MINE = PortMapping(PORT)

NewManager = Callable[..., Any]


@pytest.fixture
async def new_manager(target: Target, engine: Engine, tmp_path: Path) -> AsyncIterator[NewManager]:
    """Return what makes managers that share a state directory, as processes after each other do."""

    @asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[Manager]:
        made = Settings(state_dir=tmp_path / "state", pool_mb=0, **settings)
        async with Manager(made, lambda: connect(target)) as manager:
            yield manager

    yield make
    async with make() as manager:
        for found in await manager.list_kept(ALICE):
            await manager.kill(ALICE, found.kept.id)


@pytest.fixture
def data(seen: Path) -> Path:
    """Return a directory of the host with a file that everybody can read."""
    (seen / "data").mkdir()
    (seen / "data/file").write_text("from the host")
    return seen / "data"


def silent(_line: str) -> None:
    """Hear progress and say nothing."""


async def serve(box: LiveContainer) -> None:
    run = await box.start(SERVER, language="python")

    async def listens() -> bool:
        return "listening" in run.peek()

    await eventually(listens, 30)


async def echo(mapping: PortMapping) -> bytes:
    with anyio.fail_after(30):
        reader, writer = await asyncio.open_connection(mapping.address, mapping.host_port)
        writer.write(b"echo\nhere")
        try:
            return await reader.read(100)
        finally:
            writer.transport.abort()


async def test_a_kept_sandboxs_ports_are_there_whoever_holds_it(new_manager: NewManager, image: str) -> None:
    async with new_manager() as manager:
        request = SandboxRequest(image=image, persist=True, ports=(MINE,))
        sandbox = await manager.create(ALICE, request, silent)
        (mapping,) = sandbox.container.ports()
        await serve(sandbox.container)
        assert await echo(mapping) == b"here"
    with pytest.raises(ConnectionRefusedError):
        await echo(mapping)

    async with new_manager() as manager:
        sandbox = await manager.open(ALICE, sandbox.id)
        (mapping,) = sandbox.container.ports()
        assert await echo(mapping) == b"here"
        await manager.stop(ALICE, sandbox.id)

    async with new_manager() as manager:
        sandbox = await manager.open(ALICE, sandbox.id)
        (mapping,) = sandbox.container.ports()
        await serve(sandbox.container)
        assert await echo(mapping) == b"here"


async def test_a_visitor_serves_ports_of_its_own(new_manager: NewManager, image: str) -> None:
    async with new_manager() as manager, new_manager() as other:
        request = SandboxRequest(image=image, persist=True, ports=(MINE,))
        sandbox = await manager.create(ALICE, request, silent)
        (mapping,) = sandbox.container.ports()
        await serve(sandbox.container)
        visited = await other.open(ALICE, sandbox.id)
        (another,) = visited.container.ports()
        assert another.host_port != mapping.host_port
        for one in (mapping, another):
            assert await echo(one) == b"here"
        await other.aclose()
        assert await echo(mapping) == b"here"
        with pytest.raises(ConnectionRefusedError):
            await echo(another)


async def test_without_its_port_a_new_sandbox_is_not_made_and_an_old_one_is_used(
    new_manager: NewManager, image: str
) -> None:
    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    mapping = PortMapping(PORT, taken.sockets[0].getsockname()[1])
    request = SandboxRequest(image=image, persist=True, ports=(mapping,))
    async with new_manager() as manager:
        with pytest.raises(PortInUseError):
            await manager.create(ALICE, request, silent)
        assert manager.list_sandboxes(ALICE) == []
        assert await manager.list_kept(ALICE) == []

        taken.close()
        sandbox = await manager.create(ALICE, request, silent)
        assert sandbox.container.ports() == [mapping]

    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", mapping.host_port)
    async with new_manager() as manager:
        sandbox = await manager.open(ALICE, sandbox.id)
        assert sandbox.container.ports() == []
        taken.close()
        await sandbox.container.open_port(PORT, host_port=mapping.host_port)


async def test_a_fork_has_ports_of_its_own(new_manager: NewManager, image: str) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, SandboxRequest(image=image, ports=(MINE,)), silent)
        ((used,),) = [sandbox.container.ports()]
        source = replace(sandbox.request, ports=(used,))
        sandbox.request = source
        _, forks = await manager.fork(ALICE, sandbox.id, 2)
        mappings = [fork.container.ports()[0] for fork in forks]
        assert len({used.host_port, *(mapping.host_port for mapping in mappings)}) == 3
        await serve(forks[0].container)
        assert await echo(mappings[0]) == b"here"


async def test_who_uses_a_port_uses_the_sandbox(new_manager: NewManager, image: str) -> None:
    async with new_manager() as manager:
        request = SandboxRequest(image=image, ports=(MINE,), idle_ttl_s=1)
        sandbox = await manager.create(ALICE, request, silent)
        with sandbox.use() as box:
            await serve(box)
            (mapping,) = box.ports()
            _, writer = await asyncio.open_connection(mapping.address, mapping.host_port)

            async def is_connected() -> bool:
                return bool(box.is_connected)

            await eventually(is_connected, 10)
        before = sandbox.expiry()
        await anyio.sleep(0.05)
        assert sandbox.expiry() > before
        writer.transport.abort()


async def test_volumes_stay_with_a_kept_sandbox_and_so_do_its_roots(
    new_manager: NewManager, image: str, data: Path, tmp_path: Path
) -> None:
    volumes = volumes_of({str(data): "/data:ro"})
    request = SandboxRequest(image=image, persist=True, volumes=volumes, host_roots=(str(data.parent),))
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, request, silent)
        await manager.stop(ALICE, sandbox.id)

    async with new_manager() as manager:
        sandbox = await manager.open(ALICE, sandbox.id)
        assert sandbox.request.volumes == volumes
        assert (await sandbox.container.run("cat /data/file")).stdout == "from the host"
        await sandbox.container.reboot(fresh=True)
        assert (await sandbox.container.run("cat /data/file")).stdout == "from the host"
        await manager.stop(ALICE, sandbox.id)

    async with new_manager(host_roots=(tmp_path / "elsewhere",)) as manager:
        with pytest.raises(HostPathError, match="POCKET_DOCK_HOST_ROOTS"):
            await manager.open(ALICE, sandbox.id)


async def test_a_record_of_before_is_read(new_manager: NewManager, image: str, tmp_path: Path) -> None:
    async with new_manager() as manager:
        sandbox = await manager.create(ALICE, SandboxRequest(image=image, persist=True), silent)
    path = tmp_path / "state/sandboxes" / f"{sandbox.id}.json"
    fields = json.loads(path.read_text())
    for name in ("ports", "volumes", "devices", "host_roots"):
        del fields["request"][name]
    path.write_text(json.dumps(fields))

    async with new_manager() as manager:
        (found,) = await manager.list_kept(ALICE)
        assert found.kept.request.ports == ()
        await manager.open(ALICE, sandbox.id)


async def test_where_nothing_is_configured_a_model_gets_nothing_of_the_host(
    new_manager: NewManager, image: str, data: Path
) -> None:
    request = SandboxRequest(image=image, volumes=volumes_of({str(data): "/data"}))
    async with new_manager() as manager:
        with pytest.raises(HostPathError):
            await manager.create(ALICE, request, silent)
        assert manager.list_sandboxes(ALICE) == []


async def test_our_own_records_are_never_given(new_manager: NewManager, image: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(exist_ok=True)
    for path in (tmp_path, tmp_path / "state"):
        request = SandboxRequest(
            image=image, volumes=volumes_of({str(path): "/data"}), host_roots=(str(tmp_path),)
        )
        async with new_manager() as manager:
            with pytest.raises(HostPathError, match="no sandbox is given"):
                await manager.create(ALICE, request, silent)


# -- the front ends ---------------------------------------------------------------------------------------


async def test_a_container_of_the_sdk_has_them(
    target: Target, image: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, target, image, tmp_path / "state")
    monkeypatch.chdir(data)
    async with hosted(target):
        async with await create_new_container(ports={0: PORT}, volumes={".": "/data:ro"}) as c:
            (mapping,) = c.ports()
            await serve(c._live)
            assert await echo(mapping) == b"here"
            info = await c.info()
            assert info.ports == {mapping.host_port: PORT}
            assert info.volumes[0].target == "/data"
            assert (await c.run("cat /data/file")).stdout == "from the host"
            assert await c.close_port(PORT)
            again = await c.open_port(PORT, host_port=mapping.host_port)
            assert again == mapping
        with pytest.raises(HostPathError, match="POCKET_DOCK_HOST_ROOTS"):
            await create_new_container(volumes={str(data.parent): "/data"})


async def test_a_models_sandbox_says_where_its_ports_are(target: Target, tmp_path: Path, image: str) -> None:
    async with client(environment(target, tmp_path, image)) as server:
        made = await call(server, "create_sandbox", ports=[PORT, 9000, PORT])
        first, second = made["ports"]
        assert (first["port"], second["port"]) == (PORT, 9000)
        await call(server, "write_file", path="server.py", content=SERVER)
        started = await call(server, "run_command", command="python3 server.py", background=True)
        await call(server, "wait_run", run_id=started["run_id"], until="port", wait_s=30)
        host_port = int(first["address"].rpartition(":")[2])
        assert await echo(PortMapping(PORT, host_port)) == b"here"
        (listed,) = (await call(server, "list_sandboxes"))["sandboxes"]
        assert listed["ports"] == made["ports"]
        assert "must be from 1" in await failure(server, "create_sandbox", ports=[0])
