"""The trial of `sigkill`, with a small count; and that it would see what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL
from pocket_dock_mcp.models import Limits
from tests.engines import LABELS, Target, unique
from tests.trials.sigkill import Chain, Report, trial

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PHASES = ("creating again", "snapshotting", "filling")
"""A few of the many, so that a run of all tests stays short: the script takes the others, and the count."""


async def test_killed_servers_leave_nothing_and_touch_nothing(target: Target, image: str) -> None:
    report = await trial(target.url, len(PHASES), seed=4, parallel=2, phases=PHASES, image=image)

    assert report.violations == []
    assert report.kills.total() == len(PHASES)


async def test_the_trial_sees_what_is_left(
    target: Target, engine: Engine, image: str, tmp_path: Path
) -> None:
    chain = Chain(target.url, tmp_path, 1, Report())
    journal = Journal(tmp_path / "state" / "instances")
    left = journal.intend("container", unique("left"))
    journal.made(left.name)
    labels = {**LABELS, INSTANCE_LABEL: journal.instance, NONCE_LABEL: left.nonce}
    container_id = await engine.create(policy.exec_spec(left.name, image, labels, Limits(), "none"))
    (tmp_path / "tmp" / "scratch").touch()
    journal.close()
    try:
        chain.learn_dead()

        seen = await chain.left()

        assert {line.partition(" ")[0] for line in seen} == {"container", "file", "journal"}
        assert left.name in seen[0]
    finally:
        await engine.remove(container_id)
