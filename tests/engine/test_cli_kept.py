"""`pocket-dock list`, `stop`, `resume`, `destroy` and `prune`, as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner, SandboxRequest
from pocket_dock_mcp.settings import Settings
from tests.engines import Target, connect

pytestmark = [pytest.mark.anyio, pytest.mark.front]

OWNER = Owner(session="s", principal=LOCAL_PRINCIPAL)
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def dock(target: Target, tmp_path: Path) -> Callable[..., Done]:
    """Return what runs `pocket-dock` with a state directory of the test's own."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "POCKET_DOCK_ENGINE": target.url,
        "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
    }

    def dock(*argv: str) -> Done:
        command = [sys.executable, "-m", "pocket_dock_mcp.cli.main", *argv]
        return subprocess.run(
            command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
        )

    return dock


async def made(target: Target, tmp_path: Path, image: str, *names: str) -> list[str]:
    """Make persistent sandboxes with a file in each, and leave them running."""
    settings = Settings(state_dir=tmp_path / "state")
    ids = []
    async with Manager(settings, lambda: connect(target)) as manager:
        for name in names:
            sandbox = await manager.create(
                OWNER, SandboxRequest(image=image, persist=True, name=name), lambda _line: None
            )
            with sandbox.use() as box:
                await box.write_file("name", name)
            ids.append(sandbox.id)
    return ids


async def test_they_are_listed_stopped_resumed_and_destroyed(
    target: Target, tmp_path: Path, image: str, dock: Callable[..., Done]
) -> None:
    assert json.loads(dock("list", "--json").stdout) == []
    first, second = await made(target, tmp_path, image, "first", "second")

    listed = dock("list")
    assert listed.returncode == 0
    rows = [line.split() for line in listed.stdout.splitlines()[1:]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("first", "running", first),
        ("second", "running", second),
    ]

    def statuses() -> list[str]:
        return [one["status"] for one in json.loads(dock("list", "--json").stdout)]

    assert dock("stop", "first", second).stdout == f"stopped first\nstopped {second}\n"
    assert statuses() == ["stopped", "stopped"]
    assert dock("resume", "first").stdout == "resumed first\n"
    assert statuses() == ["running", "stopped"]

    assert dock("prune").stdout == "No sandbox is stopped that may go.\n", "those of MCP clients persist"
    refused = dock("prune", "--all")
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    refused = dock("prune", "--all", "--json")
    assert refused.returncode == 1
    assert "nothing was destroyed" in refused.stderr
    assert [(one["sandbox_id"], one["destroyed"]) for one in json.loads(refused.stdout)] == [(second, False)]
    assert dock("prune", "--all", "--yes").stdout == "destroyed second\n"
    assert dock("destroy", "first").stdout == "destroyed first\n"
    assert statuses() == []
    assert dock("prune", "--all").stdout == "No sandbox is stopped that may go.\n"


async def test_what_cannot_be_done_is_said_in_one_line_and_the_rest_is_done(
    target: Target, tmp_path: Path, image: str, dock: Callable[..., Done]
) -> None:
    await made(target, tmp_path, image, "only")

    done = dock("destroy", "nothing\x1b[2J", "", "only")

    assert done.returncode == 1
    assert done.stdout == "destroyed only\n"
    unknown, empty = done.stderr.splitlines()
    assert unknown.startswith("pocket-dock: nothing: There is no such sandbox")
    assert empty.startswith("pocket-dock: '': ")
    assert "create_sandbox" not in done.stderr
    assert "\x1b" not in done.stderr


async def test_one_in_use_can_be_used_and_ended_from_here(
    target: Target, tmp_path: Path, image: str, dock: Callable[..., Done]
) -> None:
    async with Manager(Settings(state_dir=tmp_path / "state"), lambda: connect(target)) as manager:
        request = SandboxRequest(image=image, persist=True, name="busy")
        sandbox = await manager.create(OWNER, request, lambda _line: None)

        used = await anyio.to_thread.run_sync(dock, "run", "busy", "echo hi")
        assert (used.returncode, used.stdout) == (0, "hi\n")
        done = await anyio.to_thread.run_sync(dock, "destroy", "busy")
        assert (done.returncode, done.stdout) == (0, "destroyed busy\n")
        with sandbox.use() as box, pytest.raises(PocketDockError):
            await box.run("echo hi")


def test_an_engine_that_is_down_has_an_exit_status_of_its_own(tmp_path: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "POCKET_DOCK_ENGINE": f"unix://{tmp_path}/nobody.sock",
        "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
    }
    command = [sys.executable, "-m", "pocket_dock_mcp.cli.main", "destroy", "x"]

    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)

    assert done.returncode in (1, 3)
    assert len(done.stderr.splitlines()) == 1
