"""Our filter of system calls on real engines: in force, looked for from inside, and no hindrance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.bundle import agent_argv
from pocket_dock_mcp.container.launch import Launch, dispose, launch, start_agent
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import LimitsNotEnforcedError
from pocket_dock_mcp.models import Confinement, Limits
from tests.engines import LABELS, unique
from tests.lab import Lab

OWN = Confinement(seccomp="engine")
LIMITS = Limits(pids=64)


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
