"""Pools whose process is killed: what it had created and not started goes, and nothing else does."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.container import abandoned
from pocket_dock_mcp.container.abandoned import (
    POOL_LABEL,
    Maker,
    find_abandoned,
    find_doubtful,
    mark,
    remove_abandoned,
    this_process,
)
from pocket_dock_mcp.container.pool import LivePool
from pocket_dock_mcp.diagnosis import leftovers
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import EngineResponseError, EngineUnavailableError
from pocket_dock_mcp.manager.access import EngineAccess
from pocket_dock_mcp.models import Limits
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine
from tests.engines import LABELS, Target, eventually, is_gone, unique

pytestmark = [pytest.mark.anyio]

DRIVER = """
import asyncio, json, os, sys
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.container.pool import LivePool

class Stuck:
    def __init__(self, engine):
        self._engine = engine
    def __getattr__(self, name):
        return getattr(self._engine, name)
    async def create(self, spec):
        print(await self._engine.create(spec), flush=True)
        await asyncio.sleep(600)

async def main():
    url, image = json.loads(sys.argv[1])
    async with LivePool(image, size=1, engine=Stuck(await DockerApiEngine.connect(url))):
        await asyncio.sleep(600)

asyncio.run(main())
"""

Remover = Callable[[Engine, str, Path, str], Awaitable[None]]


async def by_a_pool(engine: Engine, image: str, _state: Path, _name: str) -> None:
    async with LivePool(image, size=0, engine=engine):
        await eventually(lambda: _none(engine), within=20)


async def _none(engine: Engine) -> bool:
    return not await find_abandoned(engine)


async def by_a_manager(engine: Engine, _image: str, state: Path, _name: str) -> None:
    async def reach() -> Engine:
        return engine

    access = EngineAccess(Settings(state_dir=state), reach)
    await access.sweep(engine)
    assert access.is_clean


async def by_the_doctor(engine: Engine, _image: str, state: Path, name: str) -> None:
    assert name in (await leftovers.look(engine, state)).objects
    assert f"removed {name}" in await leftovers.mend(engine, state)
    assert name not in (await leftovers.look(engine, state)).objects


@pytest.mark.parametrize("remove", [by_a_pool, by_a_manager, by_the_doctor])
async def test_what_a_killed_pool_had_only_created_is_removed(
    engine: Engine, target: Target, image: str, tmp_path: Path, remove: Remover
) -> None:
    arguments = json.dumps([target.url, image])
    with subprocess.Popen([sys.executable, "-c", DRIVER, arguments], stdout=subprocess.PIPE) as driver:
        try:
            assert driver.stdout is not None
            left = driver.stdout.readline().decode().strip()
            assert left not in {found.id for found in await find_abandoned(engine)}, "its maker lives"
        finally:
            driver.send_signal(signal.SIGKILL)

    try:
        state = await engine.inspect(left)
        assert state.status == "created"
        await remove(engine, image, tmp_path, state.name)
        await eventually(lambda: is_gone(engine, left), within=10)
    finally:
        await engine.remove(left)


def us() -> Maker:
    maker = this_process()
    assert maker is not None
    return maker


def dead() -> Maker:
    """A process that has ended; its id may be anybody's by now."""
    with subprocess.Popen(["true"]) as process:
        pass
    return replace(us(), pid=process.pid, start=us().start - 1)


def elsewhere(*, boot: str | None = None, pids: str | None = None, clocks: str | None = None) -> Maker:
    """A dead process that cannot be seen to be dead from here."""
    ours = us().space.split("/")
    return replace(
        dead(), space="/".join(new or old for new, old in zip((boot, pids, clocks), ours, strict=True))
    )


NOT_OURS: dict[str, Callable[[str], str]] = {
    "a living process's": lambda name: mark(name, us()),
    "another boot's, or machine's": lambda name: mark(name, elsewhere(boot=secrets.token_hex(16))),
    "one of another namespace of processes": lambda name: mark(name, elsewhere(pids="1")),
    "one of another clock": lambda name: mark(name, elsewhere(clocks="1")),
    "one of an image that was committed of one of ours": lambda name: mark(f"{name}-before", dead()),
    "one whose name only begins so": lambda name: mark(name[:-1], dead()),
    "one of nobody": lambda name: mark(name, None),
    "an earlier version's, or a user's": lambda name: name,
    "one with more on it": lambda name: f"{mark(name, dead())} 1",
    "one with an absurd id": lambda name: f"{name} {us().space} 9999999999 1",
    "one with none": lambda name: f"{name} {us().space} 0 1",
    "an empty one": lambda _name: "",
}


DOUBTFUL = {
    "another boot's, or machine's",
    "one of another namespace of processes",
    "one of another clock",
    "one of nobody",
    "an earlier version's, or a user's",
}


@pytest.fixture
async def made(engine: Engine, image: str) -> AsyncIterator[Callable[[str, str], Awaitable[str]]]:
    """Return what creates a container with that on its label; it is gone afterwards."""
    ids = []

    async def make(name: str, label: str) -> str:
        labels = {**LABELS, POOL_LABEL: label}
        ids.append(await engine.create(policy.exec_spec(name, image, labels, Limits(), "none")))
        return ids[-1]

    yield make
    for container_id in ids:
        await engine.remove(container_id)


@pytest.mark.fake_too
async def test_only_what_is_proved_to_be_abandoned_is_removed(
    engine: Engine, made: Callable[[str, str], Awaitable[str]]
) -> None:
    foreign = {}
    for what, label in NOT_OURS.items():
        name = unique("foreign")
        foreign[what] = await made(name, label(name))
    names = [unique("abandoned") for _ in range(3)]
    ids = [await made(names[0], mark(names[0], dead())), await made(names[1], mark(names[1], dead()))]
    # Its id is in use again.
    ids.append(await made(names[2], mark(names[2], replace(us(), start=us().start - 1))))

    doubtful = {state.id for state in await find_doubtful(engine)}
    done = await remove_abandoned(engine)

    assert {what for what, container_id in foreign.items() if container_id in doubtful} == DOUBTFUL
    assert set(names) <= set(done.removed)
    for container_id in ids:
        await eventually(partial(is_gone, engine, container_id), within=10)
    for what, container_id in foreign.items():
        assert (await engine.inspect(container_id)).status == "created", what


@pytest.mark.fake_too
async def test_one_that_runs_is_left_to_its_lease(
    engine: Engine, made: Callable[[str, str], Awaitable[str]]
) -> None:
    name = unique("running")
    container_id = await made(name, mark(name, dead()))
    stream = await engine.attach(container_id)
    try:
        await engine.start(container_id)
        assert name not in (await remove_abandoned(engine)).removed
        assert (await engine.inspect(container_id)).status == "running"
    finally:
        await stream.aclose()


async def test_a_maker_that_nobody_has_waited_for_is_dead() -> None:
    script = (
        "from pocket_dock_mcp.container.abandoned import mark, this_process\n"
        "import signal; print(mark('x', this_process()), flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        _, space, pid, start = process.stdout.readline().decode().split()
        assert space == us().space
        assert abandoned._is_alive(int(pid), int(start))
        process.kill()

        async def ended() -> bool:
            return not abandoned._is_alive(int(pid), int(start))

        await eventually(ended, within=10)


async def test_an_engine_that_refuses_fails_no_pool_and_is_told() -> None:
    fake = FakeEngine()
    name = unique("stuck")
    spec = policy.exec_spec(name, FakeEngine.IMAGE, {POOL_LABEL: mark(name, dead())}, Limits(), "none")
    await fake.create(spec)
    fake.fail("remove", EngineResponseError("It is stuck."))
    assert (await remove_abandoned(fake)).left == [name]

    fake.fail("containers", EngineUnavailableError("Nobody answers."))
    async with LivePool(FakeEngine.IMAGE, size=1, engine=fake) as pool:
        await pool.wait_ready()
        assert (await (await pool.claim()).run("echo hi")).stdout == "hi\n"
    assert [state.name for state in await find_abandoned(fake)] == [name]

    async with LivePool(FakeEngine.IMAGE, size=0, engine=fake):
        await eventually(lambda: _none(fake), within=5)
    await fake.aclose()


async def test_leaving_a_pool_does_not_wait_for_what_is_swept() -> None:
    fake = FakeEngine()
    never = anyio.Event()
    fake.delay("containers", never)
    with anyio.fail_after(5):
        async with LivePool(FakeEngine.IMAGE, size=1, engine=fake) as pool:
            await pool.wait_ready()
    await fake.aclose()


async def test_the_doctor_tells_of_what_it_cannot_judge_and_leaves_it(tmp_path: Path) -> None:
    fake = FakeEngine()
    name = unique("rebooted")
    label = mark(name, elsewhere(boot=secrets.token_hex(16)))
    await fake.create(policy.exec_spec(name, FakeEngine.IMAGE, {POOL_LABEL: label}, Limits(), "none"))

    assert await leftovers.mend(fake, tmp_path) == []
    left = await leftovers.look(fake, tmp_path)
    (found,) = [one for one in leftovers.told(left, fake, tmp_path) if one.id == "leftovers.doubtful"]
    assert (left.objects, found.severity) == ([], "info")
    assert f"rm {name}" in found.remedy
    await fake.aclose()
