"""`pocket-dock push` and `pull`, as a user calls them: in a pipe, on a terminal, and interrupted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner, SandboxRequest
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.settings import Settings
from tests.engines import Target, connect

pytestmark = [pytest.mark.anyio, pytest.mark.front]

OWNER = Owner(session="s", principal=LOCAL_PRINCIPAL)


@dataclass
class Dock:
    """Runs `pocket-dock` with a state directory of the test's own, and a sandbox called box."""

    environ: dict[str, str]

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(argv), env=self.environ, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=100,
        )  # fmt: skip

    def on_a_terminal(self, *argv: str, until: bytes, then: int | None = None) -> tuple[int, bytes]:
        """Run with a terminal as standard error; when `until` is shown there, send a signal."""
        ours, theirs = os.openpty()
        environ = {**self.environ, "TERM": "xterm"}
        process = subprocess.Popen(
            self._command(argv),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        shown, sent = b"", False
        for piece in pieces(ours):
            shown += piece
            if until in shown and then is not None and not sent:
                sent = True
                process.send_signal(then)
        os.close(ours)
        assert until in shown, shown
        return process.wait(60), shown

    @staticmethod
    def _command(argv: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "pocket_dock_mcp.cli.main", *argv]


def pieces(fd: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            return
        if not data:
            return
        yield data


@pytest.fixture
async def dock(target: Target, tmp_path: Path, image: str) -> AsyncIterator[Dock]:
    settings = Settings(state_dir=tmp_path / "state")
    async with Manager(settings, lambda: connect(target)) as manager:
        await manager.create(OWNER, SandboxRequest(image=image, persist=True, name="box"), lambda _line: None)
    made = Dock({
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "POCKET_DOCK_ENGINE": target.url,
        "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
    })  # fmt: skip
    yield made
    assert made("destroy", "box").returncode == 0


async def test_files_go_in_and_out_and_what_is_left_out_is_said(dock: Dock, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "file").write_text("content")
    (root / "out").symlink_to("/etc/passwd")

    done = dock("push", "box", f"{root}/", "there")
    assert (done.returncode, done.stdout) == (0, "pushed 1 file, 7 bytes to /home/sandbox/there\n")
    assert done.stderr == (
        "pocket-dock: out: a link that is absolute, or may lead out of the tree: left out\n"
    )
    done = dock("pull", "box", "there", str(tmp_path / "back"), "--json")
    told = json.loads(done.stdout)
    assert (told["path"], told["files"], told["directories"], told["skipped"]) == (
        str(tmp_path / "back"), 1, 2, []
    )  # fmt: skip
    assert (tmp_path / "back" / "sub" / "file").read_text() == "content"

    for argv, said in (
        (("pull", "box", "nothing", "x"), "'nothing' does not exist."),
        (("push", "box", "nothing", "x"), "does not exist on this machine."),
        (("push", "box", str(root), "/etc/x"), "not accessible"),
        (("pull", "box", "there", str(tmp_path / "y"), "--max-files", "1"), "max_files"),
    ):
        done = dock(*argv)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""
    assert not (tmp_path / "y").exists()


async def test_an_interrupted_one_leaves_nothing_on_either_side(dock: Dock, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(random.Random(4).randbytes(MIB) * 150)
    status, shown = dock.on_a_terminal("push", "box", str(big), "big", until=b"100%")
    assert status == 0
    assert b"MB of 157 MB" in shown
    assert b"MB/s" in shown

    status, _ = dock.on_a_terminal("push", "box", str(big), "new", until=b"push:", then=signal.SIGINT)
    assert status == 130
    old = tmp_path / "old"
    old.write_text("old")
    status, _ = dock.on_a_terminal("pull", "box", "big", str(old), until=b"pull:", then=signal.SIGINT)
    assert status == 130
    assert old.read_text() == "old"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".pocket-dock")]
    status, _ = dock.on_a_terminal(
        "pull", "box", "big", str(tmp_path / "x"), until=b"pull:", then=signal.SIGKILL
    )
    assert status == -signal.SIGKILL
    assert not (tmp_path / "x").exists()
    status, _ = dock.on_a_terminal("push", "box", str(big), "gone", until=b"push:", then=signal.SIGKILL)
    assert status == -signal.SIGKILL

    # What a killed one has left here goes with the next one, and inside it has removed it itself.
    done = dock("pull", "box", ".", str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["big"]
    assert ".part" not in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".pocket-dock")]
