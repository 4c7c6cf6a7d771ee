"""Weakened containers on real engines: refused, one field at a time, and found by the audit if taken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch, dispose, launch
from pocket_dock_mcp.diagnosis.auditing import audit
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import LimitsNotEnforcedError, RuntimeNotThereError, SandboxNotFoundError
from pocket_dock_mcp.models import Confinement
from tests.abuse.weakening import Weakener
from tests.commands import Commands
from tests.engines import LABELS, Target, unique

pytestmark = [pytest.mark.anyio, pytest.mark.front]


@pytest.fixture
async def weakener(target: Target, tmp_path: Path) -> AsyncIterator[Weakener]:
    async with Weakener(tmp_path / "weak.sock", target.url).listening() as weakener:
        yield weakener


@pytest.fixture
async def weak(weakener: Weakener, tmp_path: Path) -> AsyncIterator[DockerApiEngine]:
    """Reach the engine under test through what weakens what it is asked for."""
    engine = await DockerApiEngine.connect(weakener.url, state_dir=tmp_path / "state")
    yield engine
    await engine.aclose()


@pytest.fixture
def pd(target: Target, image: str, tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(target, image, tmp_path)
    yield commands
    commands.end()


@pytest.mark.parametrize(
    ("change", "named", "rule"),
    [
        ("cap-drop", "capabilities", "5.4"),
        ("bind", "mounts: /host", "5.6"),
        ("memory", "memory", "5.11"),
        ("device", "devices: kmsg", "5.18"),
        ("unconfined", "seccomp", "5.22"),
        ("new-privileges", "no_new_privs", "5.26"),
        ("pids", "pids", "5.29"),
        ("network-bridge", "network", "5.30"),
        ("log", None, "P2"),
        ("user", None, "P4"),
    ],
)
async def test_a_weakened_container_is_refused_and_breaks_its_rule(
    weak: DockerApiEngine, weakener: Weakener, image: str, change: str, named: str | None, rule: str
) -> None:
    """The abuse suite has all fields of the request."""
    weakener.weaken([change])
    if named is not None:
        with pytest.raises(LimitsNotEnforcedError) as refused:
            await launch(weak, Launch(unique("weak"), image, LABELS))
        assert named in refused.value.missing

    taken = await LiveContainer.create(weak, Launch(unique("weak"), image, LABELS, enforce="best-effort"))
    try:
        found = await audit(taken, Confinement())
    finally:
        await taken.aclose()
        # What has lost its auto-removal as well.
        await weak.remove(taken.container_id)

    assert rule in {one.id for one in found.verdicts if one.status == "fail"}


async def test_an_engine_is_told_of_a_runtime_that_it_does_not_have(
    weak: DockerApiEngine, image: str
) -> None:
    name = unique("runtime")

    with pytest.raises(RuntimeNotThereError, match="nobodys-runtime"):
        await launch(weak, Launch(name, image, LABELS, confinement=Confinement(runtime="nobodys-runtime")))

    assert not [state for state in await weak.containers(next(iter(LABELS))) if state.name == name]


async def test_the_runtime_that_it_has_can_be_named(weak: DockerApiEngine, image: str) -> None:
    runtime = (await weak.details()).runtime
    named = Launch(unique("runtime"), image, LABELS, confinement=Confinement(runtime=runtime))
    running = await launch(weak, named)
    try:
        assert (await weak.setup(running.id)).runtime == runtime
    finally:
        assert await dispose(weak, running)


def test_the_command_audits_a_new_sandbox(pd: Commands) -> None:
    done = pd("audit", "--json")
    document = json.loads(done.stdout)

    assert done.returncode == 0, document
    assert document["passed"] is True
    assert document["profile"]["system_calls"] == "ours"
    assert document["profile"]["network"] == "none"
    assert {one["id"] for one in document["rules"]} >= {"5.1", "5.22", "5.32", "P1"}
    assert pd.document("list") == []


def test_the_command_audits_one_that_runs_and_leaves_it_running(pd: Commands) -> None:
    pd.out("create", "--name", "audited")

    text = pd.out("audit", "audited")

    assert "System calls are filtered" in text
    assert "passed" in text.splitlines()[-1]
    assert [one["status"] for one in pd.document("list")] == ["running"]


def test_the_command_says_which_rule_is_broken(pd: Commands) -> None:
    pd.environ["POCKET_DOCK_SECCOMP"] = "engine"
    pd.out("create", "--name", "weaker")
    del pd.environ["POCKET_DOCK_SECCOMP"]

    done = pd("audit", "weaker")

    assert done.returncode == 1
    [line] = [line for line in done.stdout.decode().splitlines() if line.startswith("FAIL")]
    assert "5.22" in line


def test_the_command_knows_no_sandbox_of_others(pd: Commands) -> None:
    done = pd("audit", "nobodys", "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == SandboxNotFoundError.code
