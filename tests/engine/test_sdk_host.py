"""What the SDK shares per event loop: it comes with the first need and goes with the last, come what may."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from pocket_dock_mcp.async_ import (
    AsyncContainer,
    ContainerNotRunning,
    PodmanNotRunning,
    create_new_container,
    destroy_container,
    list_containers,
    resume_container,
)
from pocket_dock_mcp.async_ import host as hosts
from pocket_dock_mcp.async_.host import host_of, settings_for
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import EngineUnavailableError, InvalidArgumentError, SandboxClosedError
from pocket_dock_mcp.testing import FakeEngine
from tests.engines import FAKE, Deadline, Target, connect, eventually, is_gone
from tests.sdk import prepare

pytestmark = [pytest.mark.anyio, pytest.mark.front]


@pytest.fixture(autouse=True)
def prepared(target: Target, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, target, image, tmp_path)


@pytest.fixture
def name() -> str:
    return f"sdk-{secrets.token_hex(6)}"


async def no_host() -> bool:
    return not hosts._hosts


async def gone(engine: Engine, *names: str) -> None:
    """Wait until the engine has none of these."""
    for one in names:
        await eventually(lambda one=one: is_gone(engine, one), within=20)  # type: ignore[misc]


def in_a_thread(work: Callable[[], None]) -> None:
    """Run it in a thread of its own, with an event loop of its own if it wants one, and see it succeed."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(60)


async def test_the_host_ends_with_the_last_container_and_comes_again(engine: Engine) -> None:
    async with await create_new_container() as first:
        (host,) = hosts._hosts[asyncio.get_running_loop()].values()
        second = await create_new_container()
        await first.shutdown()
        was_open = host.is_open
        await second.shutdown()
        assert (was_open, host.is_open) == (True, False)
        assert asyncio.get_running_loop() not in hosts._hosts
    async with await create_new_container() as third:
        assert (await third.run("echo again")).stdout == "again\n"
    with pytest.raises(SandboxClosedError):
        await first.run("true")


async def test_a_loop_that_ends_without_a_shutdown_leaves_nothing(
    engine: Engine, tmp_path: Path, name: str
) -> None:
    async def forgetful() -> None:
        await create_new_container(name=name)
        kept = await create_new_container(name=f"{name}-kept", persist=True)
        await kept.write_file("note", "here")

    # In a thread: this one has a loop already.
    in_a_thread(lambda: asyncio.run(forgetful()))

    await gone(engine, name)
    assert not list((tmp_path / "instances").glob("*")), "a journal says that something may be left"
    assert not [loop for loop in hosts._hosts if loop.is_closed()]
    kept = await resume_container(f"{name}-kept")
    assert await kept.read_file("note") == b"here"
    # The last of a host's containers may also go by another hand.
    await engine.remove(kept.container_id)
    await eventually(no_host, within=20)


async def test_a_main_that_fails_leaves_nothing_and_its_error_is_its_own(engine: Engine, name: str) -> None:
    async def failing() -> None:
        c = await create_new_container(name=name)
        async with c:
            assert c.name == ""

    with pytest.raises(AssertionError):
        in_a_thread(lambda: asyncio.run(failing()))
    await gone(engine, name)


async def test_two_loops_in_two_threads_have_hosts_of_their_own(name: str) -> None:
    both = threading.Barrier(2, timeout=60)

    def work(number: int) -> Callable[[], None]:
        async def use() -> None:
            async with await create_new_container(name=f"{name}-{number}") as c:
                both.wait()
                assert (await c.run(f"echo {number}")).stdout == f"{number}\n"
                both.wait()

        return lambda: asyncio.run(use())

    async with anyio.create_task_group() as group:
        for number in (1, 2):
            group.start_soon(anyio.to_thread.run_sync, in_a_thread, work(number))


async def test_an_engine_that_is_named_by_its_socket_is_the_same_engine(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKET_DOCK_ENGINE", "docker")
    monkeypatch.setenv("DOCKER_HOST", target.url)
    if "podman" in target.name:
        monkeypatch.setenv("POCKET_DOCK_ENGINE", "podman")
        monkeypatch.setenv("CONTAINER_HOST", target.url)
    async with await create_new_container() as c:
        (item,) = await list_containers(socket_path=c.socket_path)
        assert (item.sandbox_id, item.held_elsewhere) == (c.sandbox_id, False)
        same = await resume_container(c.name, socket_path=c.socket_path)
        assert same._live is c._live


async def test_a_container_is_used_in_its_own_loop_only() -> None:
    async with await create_new_container() as c:

        async def elsewhere() -> None:
            with pytest.raises(InvalidArgumentError, match="event loop"):
                await c.run("true")
            with pytest.raises(InvalidArgumentError, match="event loop"):
                await c.shutdown()

        await anyio.to_thread.run_sync(in_a_thread, lambda: asyncio.run(elsewhere()))
        assert (await c.run("true")).ok


async def test_an_engine_that_does_not_answer_is_a_typed_error_and_may_come_back(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKET_DOCK_ENGINE", "unix:///nobody/listens/here.sock")
    for act in (create_new_container, list_containers):
        with pytest.raises(PodmanNotRunning, match=r"here\.sock"):
            await act()
    assert not hosts._hosts
    assert await list_containers(socket_path=target.url.removeprefix("unix://")) is not None
    monkeypatch.setenv("POCKET_DOCK_ENGINE", target.url)
    async with await create_new_container() as c:
        assert (await c.run("true")).ok


@pytest.mark.parametrize("step", range(6))
async def test_a_create_that_is_cancelled_leaves_nothing(
    engine: Engine, tmp_path: Path, name: str, step: int, deadline: Deadline
) -> None:
    creating = asyncio.ensure_future(create_new_container(name=name, workdir="work"))
    await asyncio.sleep(0.05 * step)
    creating.cancel()
    try:
        made = await creating
    except asyncio.CancelledError:
        pass
    else:
        await made.shutdown()
    await gone(engine, name)
    assert not hosts._hosts
    assert not list((tmp_path / "instances").glob("*"))
    async with await create_new_container(name=name):
        pass


async def test_a_run_whose_caller_is_cancelled_is_killed() -> None:
    async with await create_new_container() as c:
        running = asyncio.ensure_future(c.run("sleep 600"))
        await eventually(lambda: has_processes(c, 1), within=20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await c.processes() == []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(c.run("sleep 600"), 0.3)
        assert await c.processes() == []


async def has_processes(c: AsyncContainer, count: int) -> bool:
    return len(await c.processes()) >= count


async def test_a_forked_child_cannot_use_or_end_what_its_parent_has() -> None:
    async with await create_new_container() as c:
        assert (await c.run("echo before")).ok
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            said = b"used it"
            try:
                with contextlib.suppress(StopIteration):
                    c.run("echo child").send(None)
            except SandboxClosedError:
                said = b"refused"
            with contextlib.suppress(StopIteration):
                c.shutdown().send(None)
            os.write(writing, said)
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        assert os.read(reading, 100) == b"refused"
        os.close(reading)
        assert (await c.run("echo after")).stdout == "after\n"


async def test_what_another_process_holds_is_listed_and_not_to_be_had(
    target: Target, image: str, tmp_path: Path, name: str, engine: Engine
) -> None:
    program = (
        "import asyncio, sys\n"
        "from pocket_dock_mcp.async_ import create_new_container\n"
        "async def main():\n"
        f"    c = await create_new_container(name={name!r}, project='theirs', labels={{'team': 'x'}})\n"
        f"    kept = await create_new_container(name='{name}-kept', persist=True, project='both')\n"
        "    await kept.write_file('note', 'theirs')\n"
        "    print('made', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert await anyio.to_thread.run_sync(other.stdout.readline) == "made\n"
        (item,) = await list_containers(project="theirs")
        assert (item.name, item.status, item.image) == (name, "running", image)
        assert item.held_elsewhere
        assert not item.persist
        for wanted in (name, item.id):
            with pytest.raises(ContainerNotRunning, match="another process"):
                await resume_container(wanted)
        assert (await engine.inspect(name)).labels["team"] == "x"
        (item,) = await list_containers(project="both")
        assert (item.name, item.busy, item.held_elsewhere) == (f"{name}-kept", True, False)
        kept = await resume_container(item.name)
        assert await kept.read_file("note") == b"theirs"
        other.send_signal(signal.SIGKILL)
    finally:
        other.kill()
        await anyio.to_thread.run_sync(other.wait)
        if other.stdout is not None:
            other.stdout.close()
    await gone(engine, name)
    assert (await kept.run("cat note")).stdout == "theirs"
    await destroy_container(f"{name}-kept")


@pytest.mark.fake_too
async def test_a_manager_that_cannot_reach_its_engine_is_tried_anew(target: Target) -> None:
    fake, attempts = FakeEngine(), []

    def lazily() -> Awaitable[Engine]:
        async def reach() -> Engine:
            attempts.append(1)
            if len(attempts) == 1:
                message = "Nobody is there."
                raise EngineUnavailableError(message)
            return fake if target.is_fake else await connect(target)

        return reach()

    for _ in range(2):
        host_of(settings_for(), lazily)
        try:
            async with await create_new_container() as c:
                assert await c.read_file(c.name) == b""
        except EngineUnavailableError:
            assert attempts == [1]
        except FileNotFoundError:
            assert attempts == [1, 1]
        assert not hosts._hosts


class SlowToClose(FakeEngine):
    """An engine whose connection is closed when somebody says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closing, self.may_close = asyncio.Event(), asyncio.Event()

    async def aclose(self) -> None:
        self.is_closing.set()
        await self.may_close.wait()
        await super().aclose()


async def test_the_last_container_can_be_shut_down_while_what_it_leaves_is_being_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has died, and its host is on its way out."""
    prepare(monkeypatch, FAKE, FakeEngine.IMAGE, tmp_path)
    engine = SlowToClose()

    async def connected() -> Engine:
        return engine

    async with host_of(settings_for(), connected).working():
        c = await create_new_container()
    await engine.remove(c.container_id)
    with anyio.fail_after(20):
        await engine.is_closing.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(c.shutdown)
            await anyio.lowlevel.checkpoint()
            engine.may_close.set()

    assert await no_host()
