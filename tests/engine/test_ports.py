"""Ports of the host that lead into a sandbox that has no network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from pocket_dock_mcp.container import forwarding
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.run import AsyncRun
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import InvalidArgumentError, PortError, PortInUseError, SandboxClosedError
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.outside import PortMapping
from tests.behaviours import PORT, SERVER
from tests.engines import LABELS, Deadline, Target, eventually, unique
from tests.kept import Kept, keeping
from tests.runs import said

pytestmark = [pytest.mark.anyio, pytest.mark.contract]

LIMITS = Limits(memory_bytes=128 * MIB, cpus=2, pids=256)


def wanted(image: str) -> Launch:
    return Launch(name=unique("ports"), image=image, labels=LABELS, limits=LIMITS)


async def serve(box: LiveContainer) -> AsyncRun:
    """Start the server and wait until it listens."""
    run = await box.start(SERVER, language="python")
    await said(run, "listening")
    return run


@pytest.fixture(scope="module")
async def shared(engine: Engine, image: str) -> AsyncIterator[tuple[LiveContainer, AsyncRun]]:
    async with await LiveContainer.create(engine, wanted(image)) as box:
        yield box, await serve(box)


@pytest.fixture
async def box(shared: tuple[LiveContainer, AsyncRun]) -> AsyncIterator[LiveContainer]:
    """Return a container in which the server listens; its ports are closed afterwards."""
    yield shared[0]
    await shared[0].close_port(PORT)
    assert shared[0].ports() == []
    assert not shared[0].is_connected


@pytest.fixture
def server(shared: tuple[LiveContainer, AsyncRun]) -> AsyncRun:
    return shared[1]


@pytest.fixture
async def own(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    async with await LiveContainer.create(engine, wanted(image)) as box:
        yield box


class Client:
    """A client of a port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.socket: socket.socket = writer.get_extra_info("socket")

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self, size: int = 65536) -> bytes:
        with anyio.fail_after(30):
            return await self._reader.read(size)

    async def rest(self) -> bytes:
        with anyio.fail_after(60):
            return await self._reader.read()

    def end(self) -> None:
        self._writer.write_eof()

    def fill(self) -> int:
        """Send until nothing more goes, and return how much has gone."""
        sent = 0
        with contextlib.suppress(BlockingIOError), self.socket.dup() as copy:
            while sent < 100_000_000:
                sent += copy.send(bytes(65536))
        return sent

    def reset(self) -> None:
        forwarding.reset(self._writer)


@asynccontextmanager
async def client(mapping: PortMapping, first: bytes = b"") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(mapping.address, mapping.host_port)
    try:
        one = Client(reader, writer)
        await one.send(first)
        yield one
    finally:
        writer.transport.abort()


async def is_shut(mapping: PortMapping) -> bool:
    """Whether nobody listens on the host's port."""
    try:
        async with client(mapping):
            return False
    except ConnectionRefusedError:
        return True


async def idle(box: LiveContainer) -> None:
    async def nobody() -> bool:
        return not box.is_connected

    await eventually(nobody, 15)


# -- bytes ------------------------------------------------------------------------------------------------


async def test_what_a_client_says_comes_back(box: LiveContainer) -> None:
    mapping = await box.open_port(PORT)
    async with client(mapping, b"echo\n") as one:
        await one.send(b"hello")
        assert await one.receive() == b"hello"
        await one.send(b"again")
        assert await one.receive() == b"again"
        one.end()
        assert await one.rest() == b""
    await idle(box)


async def test_a_client_may_end_first_and_read_on(box: LiveContainer) -> None:
    async with client(await box.open_port(PORT), b"count\n") as one:
        await one.send(b"z" * 1_000_000)
        one.end()
        assert await one.rest() == b"1000000"
    await idle(box)


async def test_a_program_may_end_first_and_read_on(box: LiveContainer, server: AsyncRun) -> None:
    async with client(await box.open_port(PORT), b"stop\n") as one:
        assert await one.rest() == b""
        await one.send(b"y" * 54_321)
        one.end()
        await said(server, "heard 54321")
    await idle(box)


async def test_much_arrives_whole_both_ways(box: LiveContainer) -> None:
    mapping = await box.open_port(PORT)
    async with client(mapping, b"give 20000000\n") as one:
        assert len(await one.rest()) == 20_000_000
    async with client(mapping, b"count\n") as one:
        await one.send(bytes(20_000_000))
        one.end()
        assert await one.rest() == b"20000000"
    await idle(box)


async def test_a_hundred_at_once_do_not_mix(box: LiveContainer) -> None:
    mapping = await box.open_port(PORT)

    async def talk(number: int) -> None:
        text = b"%d " % number * 10_000
        async with client(mapping, b"echo\n") as one:
            async with anyio.create_task_group() as group:
                group.start_soon(one.send, text)
                received = bytearray()
                while len(received) < len(text):
                    received += await one.receive()
            assert received == text

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(talk, number)
    await idle(box)


async def test_a_client_that_does_not_read_is_in_nobodys_way(box: LiveContainer) -> None:
    mapping = await box.open_port(PORT)
    async with client(mapping, b"give 20000000\n") as slow:
        assert len(await slow.receive(1)) == 1
        async with client(mapping, b"echo\n") as other:
            for _ in range(20):
                await other.send(b"quick")
                assert await other.receive() == b"quick"
        assert len(await slow.rest()) == 19_999_999
    await idle(box)


async def test_a_program_that_does_not_read_is_in_nobodys_way(box: LiveContainer, server: AsyncRun) -> None:
    mapping = await box.open_port(PORT)
    async with client(mapping, b"hang\n") as stuck:
        await said(server, "hanging")
        assert 0 < stuck.fill() < 50_000_000
        async with client(mapping, b"echo\n") as other:
            await other.send(b"quick")
            assert await other.receive() == b"quick"
    await box.close_port(PORT)
    assert not box.is_connected


async def test_bytes_one_by_one_that_nobody_reads_take_no_more_room(
    box: LiveContainer, server: AsyncRun
) -> None:
    async with client(await box.open_port(PORT), b"hang\n") as stuck:
        await said(server, "hanging")
        with stuck.socket.dup() as copy:
            for _ in range(20_000):
                copy.send(b"x")
    await box.close_port(PORT)
    assert not box.is_connected


# -- ends that are none -----------------------------------------------------------------------------------


async def test_where_nobody_listens_inside_a_client_is_sent_away_at_once(own: LiveContainer) -> None:
    mapping = await own.open_port(PORT)
    with pytest.raises(ConnectionResetError):
        async with client(mapping) as one:
            await one.receive()

    await serve(own)
    async with client(mapping, b"echo\nhere") as one:
        assert await one.receive() == b"here"


async def test_a_program_that_resets_the_connection_resets_the_clients(box: LiveContainer) -> None:
    async with client(await box.open_port(PORT), b"break\n") as one:
        with pytest.raises(ConnectionResetError):
            await one.rest()
    await idle(box)


async def test_a_client_that_resets_is_noticed(box: LiveContainer) -> None:
    mapping = await box.open_port(PORT)
    async with client(mapping, b"echo\nhere") as one:
        await one.receive()
        assert box.is_connected
        one.reset()
    await idle(box)


async def test_too_many_are_sent_away_and_the_others_served(
    box: LiveContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "MOST_CONNECTIONS", 2)
    mapping = await box.open_port(PORT)
    async with client(mapping, b"echo\na") as one, client(mapping, b"echo\nb") as two:
        assert (await one.receive(), await two.receive()) == (b"a", b"b")
        with pytest.raises(ConnectionResetError):
            async with client(mapping, b"echo\nc") as three:
                await three.receive()
        await one.send(b"still")
        assert await one.receive() == b"still"
    await idle(box)


async def test_a_program_that_listens_on_the_other_loopback_address_is_found(
    own: LiveContainer, target: Target
) -> None:
    bind = "import socket; socket.create_server(('::1', 0), family=socket.AF_INET6)"
    if target.is_fake or not (await own.run(bind, language="python")).ok:
        pytest.skip("there is no such address")
    source = SERVER.replace("'127.0.0.1'", "'::1'").replace("backlog", "family=socket.AF_INET6, backlog")
    run = await own.start(source, language="python")
    await said(run, "listening")
    async with client(await own.open_port(PORT), b"echo\nhere") as one:
        assert await one.receive() == b"here"


# -- ports ------------------------------------------------------------------------------------------------


async def test_ports_are_listed_with_the_hosts_and_closed_by_ours(box: LiveContainer) -> None:
    first = await box.open_port(PORT)
    second = await box.open_port(PORT)

    assert first.address == "127.0.0.1"
    assert first.host_port != second.host_port
    assert box.ports() == [first, second]
    assert (await box.info()).ports == (first, second)

    async with client(first, b"echo\nhere") as one:
        assert await one.receive() == b"here"
        assert await box.close_port(PORT)
        with pytest.raises(ConnectionResetError):
            await one.rest()
    assert await is_shut(first)
    assert await is_shut(second)
    assert not await box.close_port(PORT)


async def test_a_port_of_the_host_can_be_chosen_and_only_once(box: LiveContainer) -> None:
    free = (await box.open_port(PORT)).host_port
    await box.close_port(PORT)

    mapping = await box.open_port(PORT, host_port=free)

    assert mapping == PortMapping(PORT, free)
    with pytest.raises(PortInUseError, match=f"127.0.0.1:{free}.*0 for a free one"):
        await box.open_port(PORT, host_port=free)


async def test_another_address_can_be_chosen(box: LiveContainer) -> None:
    mapping = await box.open_port(PORT, address="127.0.0.2")
    assert mapping.where == f"127.0.0.2:{mapping.host_port}"
    async with client(mapping, b"echo\nhere") as one:
        assert await one.receive() == b"here"
    assert await is_shut(PortMapping(PORT, mapping.host_port))
    await idle(box)


@pytest.mark.parametrize(
    ("port", "more"),
    [(0, {}), (65536, {}), (True, {}), (80, {"host_port": -1}), (80, {"address": "localhost"})],
)
async def test_what_cannot_be_is_refused(box: LiveContainer, port: int, more: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        await box.open_port(port, **more)  # type: ignore[arg-type]


async def test_an_address_that_is_not_ours_is_refused_with_the_next_step(box: LiveContainer) -> None:
    with pytest.raises(PortError, match="Use an address of this machine"):
        await box.open_port(PORT, address="192.0.2.1")


async def test_there_are_not_any_number_of_ports(box: LiveContainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "MOST_PORTS", 1)
    await box.open_port(PORT)
    with pytest.raises(PortError, match="Close one"):
        await box.open_port(PORT + 1)


# -- with the container -----------------------------------------------------------------------------------


async def test_ports_end_with_the_container(engine: Engine, image: str) -> None:
    box = await LiveContainer.create(engine, wanted(image))
    mapping = await box.open_port(PORT)
    await box.aclose()

    assert await is_shut(mapping)
    assert box.ports() == []
    with pytest.raises(SandboxClosedError):
        await box.open_port(PORT)


async def test_ports_end_when_the_container_dies(
    engine: Engine, image: str, own: LiveContainer, deadline: Deadline
) -> None:
    mapping = await own.open_port(PORT)
    await engine.remove(own.name)

    await eventually(lambda: is_shut(mapping), deadline(15))
    assert own.ports() == []


@pytest.fixture
async def kept(engine: Engine, image: str, deadline: Deadline) -> AsyncIterator[Kept]:
    async with keeping(engine, image, deadline) as kept:
        yield kept


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_reboot_leaves_the_ports_where_they_are(kept: Kept, fresh: bool) -> None:
    box = await kept.create()
    mapping = await box.open_port(PORT)
    await serve(box)
    async with client(mapping, b"echo\nhere") as one:
        assert await one.receive() == b"here"
        await box.reboot(fresh=fresh)
        with pytest.raises(ConnectionResetError):
            await one.rest()

    assert box.ports() == [mapping]
    await serve(box)
    async with client(mapping, b"echo\nhere") as one:
        assert await one.receive() == b"here"


@pytest.mark.parametrize("how", ["detach", "stop"])
async def test_ports_are_closed_when_a_kept_one_is_let_go_of(kept: Kept, how: str) -> None:
    box = await kept.create()
    mapping = await box.open_port(PORT)
    await serve(box)
    async with client(mapping, b"echo\nhere") as one:
        assert await one.receive() == b"here"
        await getattr(box, how)()
        with pytest.raises(ConnectionResetError):
            await one.rest()
    assert await is_shut(mapping)
