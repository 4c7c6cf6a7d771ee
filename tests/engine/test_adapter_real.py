"""What the adapter makes of real engines beyond the port: things that only their own inspection shows."""

from __future__ import annotations

from typing import Any

import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.bundle import agent_argv
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from tests.agents import LIMITS, Agent
from tests.engines import LABELS, Deadline, unique
from tests.lab import Lab

pytestmark = pytest.mark.anyio


async def test_a_commit_of_a_sandbox_keeps_nothing_of_ours_in_its_configuration(
    engine: Engine, image: str, deadline: Deadline, lab: Lab
) -> None:
    """Neither the agent nor the environment of init nor a label with content: only files."""
    agent = await Agent.start(engine, image, deadline)
    tag = lab.tag()
    try:
        await agent.write(f"{agent.home}/file", b"content")
        await engine.commit(agent.container_id, tag, labels=LABELS)
    finally:
        await agent.aclose()

    config = await _config(engine, tag)
    base = await _config(engine, image)

    assert [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())] == ["/bin/sh"]
    names = {pair.partition("=")[0] for pair in set(config.get("Env") or ()) - set(base.get("Env") or ())}
    assert names <= {"PATH", "HOSTNAME", "TERM", "container"}, "more than the engines' own"
    assert not config.get("Volumes")
    assert not config.get("ExposedPorts")
    assert not config.get("OnBuild")
    assert (config.get("Healthcheck") or {"Test": ["NONE"]})["Test"] == ["NONE"]
    assert agent_argv()[-1] not in str(config)
    assert "FROM_INIT" not in str(config)


async def test_a_sandbox_of_a_snapshot_has_its_files_for_the_same_user(
    engine: Engine, image: str, deadline: Deadline, lab: Lab
) -> None:
    """Written by the agent, committed, and there again."""
    first = await Agent.start(engine, image, deadline)
    tag = lab.tag()
    try:
        await first.write(f"{first.home}/folder/file", b"content", mode=0o600)
        await first.run("ln -s folder/file link; mkfifo fifo")
        await engine.commit(first.container_id, tag, labels=LABELS)
    finally:
        await first.aclose()

    second = await Agent.start(engine, tag, deadline, uid=first.facts["uid"])
    try:
        data, found = await second.read(f"{second.home}/link")
        assert (data, found["mode"], found["uid"]) == (b"content", 0o600, second.facts["uid"])
        assert second.home == first.home
        assert (await second.call("stat", path=f"{second.home}/fifo"))["type"] == "fifo"
        await second.write(f"{second.home}/folder/file", b"changed")
    finally:
        await second.aclose()


async def test_a_container_is_as_hardened_as_the_engine_says_it_is(lab: Lab) -> None:
    """What inspection shows of what was asked for, where the engines agree on how to say it."""
    spec = policy.agent_spec(unique("hard"), lab.image, agent_argv(), LABELS, LIMITS, "none")
    container_id = await lab.create(spec)

    host = (await _adapter(lab.engine)._client.containers.container(container_id).show())["HostConfig"]

    assert host["NetworkMode"] == "none"
    assert host["AutoRemove"]
    assert not host["Privileged"]
    assert not host.get("Binds")
    assert not host.get("Devices")
    assert host["Memory"] == host["MemorySwap"] == LIMITS.memory_bytes
    assert host["PidsLimit"] == LIMITS.pids
    assert host["LogConfig"]["Type"] == "none"
    assert any("no-new-privileges" in option for option in host["SecurityOpt"])


def _adapter(engine: Engine) -> DockerApiEngine:
    assert isinstance(engine, DockerApiEngine)
    return engine


async def _config(engine: Engine, reference: str) -> dict[str, Any]:
    image = await _adapter(engine)._client.images.inspect(reference)
    config: dict[str, Any] = image["Config"]
    return config
