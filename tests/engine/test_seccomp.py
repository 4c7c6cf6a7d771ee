"""Our filter of system calls on real engines: in force, looked for from inside, and no hindrance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.bundle import agent_argv
from pocket_dock_mcp.agent.inside.filtered import MARK
from pocket_dock_mcp.container.launch import Launch, dispose, launch, start_agent
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.engine.docker_filter import VOLUME
from pocket_dock_mcp.errors import FilterMissingError, LimitsNotEnforcedError
from pocket_dock_mcp.models import Confinement, Limits
from tests.engines import LABELS, Deadline, Target, unique
from tests.kept import keeping
from tests.lab import Lab
from tests.trials.api import Api

OWN = Confinement(seccomp="engine")
LIMITS = Limits(pids=64)
MARKED = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(180 if os.uname().machine == "x86_64" else 42)
print(ctypes.get_errno())
"""


def wanted(image: str) -> Launch:
    return Launch(unique("filter"), image, LABELS, limits=LIMITS)


@pytest.mark.lease
async def test_our_filter_is_in_force(engine: Engine, image: str) -> None:
    running = await launch(engine, wanted(image))
    try:
        assert running.unenforced == ()
        assert running.transport.facts.let_through == ()
    finally:
        assert await dispose(engine, running)


async def test_the_engines_own_filter_is_not_taken_for_ours(engine: Engine, image: str, lab: Lab) -> None:
    asked = wanted(image)
    spec = policy.agent_spec(asked.name, image, agent_argv(), LABELS, LIMITS, "none", confinement=OWN)
    container_id = await lab.create(spec)

    with pytest.raises(LimitsNotEnforcedError, match="seccomp"):
        await start_agent(engine, container_id, asked, policy.random_uid())


async def test_the_engines_own_filter_will_do_where_it_was_asked_for(engine: Engine, image: str) -> None:
    running = await launch(engine, replace(wanted(image), confinement=OWN))
    try:
        assert running.unenforced == ()
        assert "mark" in (running.transport.facts.let_through or ())
    finally:
        assert await dispose(engine, running)


async def test_a_kept_one_has_it_after_a_resume_and_for_what_the_engine_starts_in_it(
    engine: Engine, image: str, deadline: Deadline
) -> None:
    async with keeping(engine, image, deadline) as kept:
        container = await kept.create()
        stream = await engine.exec(container.container_id, ["python3", "-c", MARKED], user="0:0")
        received = b""
        while (piece := await stream.receive()) is not None:
            received += piece[1]
        await stream.aclose()
        assert received.decode().strip() == str(MARK)

        await container.stop()
        facts = (await (await kept.resume()).info()).facts
        assert facts is not None
        assert facts.let_through == ()


async def test_one_that_was_made_without_it_says_what_to_do(
    engine: Engine, image: str, deadline: Deadline
) -> None:
    async with keeping(engine, image, deadline, confinement=OWN) as kept:
        container = await kept.create()
        as_made, kept.wanted = kept.wanted, replace(kept.wanted, confinement=Confinement())

        with pytest.raises(FilterMissingError, match="POCKET_DOCK_SECCOMP=engine"):
            await kept.visit()
        await container.stop()
        with pytest.raises(FilterMissingError, match="Its files are untouched"):
            await kept.resume()

        kept.wanted = as_made
        await kept.resume()


async def test_an_engine_that_cannot_read_our_files_is_brought_the_filter(
    target: Target, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in a virtual machine: what we call this directory is another one for its process."""
    monkeypatch.chdir(tmp_path)
    elsewhere = await DockerApiEngine.connect(target.url, state_dir=Path("/proc/self/cwd/state"))
    try:
        running = await launch(elsewhere, wanted(image))
        try:
            assert running.transport.facts.let_through == ()
        finally:
            assert await dispose(elsewhere, running)
    finally:
        await elsewhere.aclose()

    assert await Api(target.url).inspect("volumes", VOLUME) is None


async def test_users_of_the_filter_come_and_go_and_do_not_take_it_from_each_other(
    target: Target, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def come_and_go() -> None:
        for _ in range(6):
            elsewhere = await DockerApiEngine.connect(target.url, state_dir=Path("/proc/self/cwd/state"))
            try:
                spec = policy.agent_spec(unique("filter"), image, agent_argv(), LABELS, LIMITS, "none")
                await elsewhere.remove(await elsewhere.create(spec))
            finally:
                await elsewhere.aclose()

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(come_and_go)

    assert await Api(target.url).inspect("volumes", VOLUME) is None
