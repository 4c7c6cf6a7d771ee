"""`pocket-dock forward`, as a user calls it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pocket_dock_mcp.cli.forward import _pair
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner, SandboxRequest
from pocket_dock_mcp.outside import PortMapping
from pocket_dock_mcp.settings import Settings
from tests.behaviours import PORT, SERVER
from tests.engines import Target, connect, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.front]

OWNER = Owner(session="s", principal=LOCAL_PRINCIPAL)
Forward = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture
def forward(target: Target, tmp_path: Path) -> Forward:
    """Return what runs `pocket-dock forward` with a state directory of the test's own."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "POCKET_DOCK_ENGINE": target.url,
        "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
    }

    @contextmanager
    def forward(*argv: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "pocket_dock_mcp.cli.main", "forward", *argv]
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return forward


@pytest.fixture
async def box(target: Target, tmp_path: Path, image: str) -> object:
    """Have a sandbox of the name `mine` in which a server runs, and nobody who holds it."""
    settings = Settings(state_dir=tmp_path / "state")
    request = SandboxRequest(image=image, persist=True, name="mine", ports=(PortMapping(PORT),))
    async with Manager(settings, lambda: connect(target)) as manager:
        sandbox = await manager.create(OWNER, request, lambda _line: None)
        run = await sandbox.runs.start(SERVER, key=None, background=True, language="python")

        async def listens() -> bool:
            return "listening" in run.run.peek()

        await eventually(listens, 30)
    yield
    async with Manager(settings, lambda: connect(target)) as manager:
        await manager.kill(OWNER, sandbox.id)


def echo(host_port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", host_port), timeout=30) as client:
        client.sendall(b"echo\nhere")
        return client.recv(100)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.usefixtures("box")
async def test_ports_are_open_until_ctrl_c(forward: Forward) -> None:
    with forward("mine", str(PORT)) as process:
        where, _, inside = line_of(process).strip().partition(" -> ")
        host_port = int(where.removeprefix("127.0.0.1:"))
        assert int(inside) == PORT
        assert echo(host_port) == b"here"

        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        with pytest.raises(ConnectionRefusedError):
            echo(host_port)

    # The very same port of the host, and the sandbox has gone on meanwhile.
    with forward("mine", f"{host_port}:{PORT}", "--json") as process:
        said = "".join(line_of(process) for _ in range(7))
        assert json.loads(said) == [{"port": PORT, "address": "127.0.0.1", "host_port": host_port}]
        assert echo(host_port) == b"here"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@pytest.mark.usefixtures("box")
async def test_those_of_its_creation_need_not_be_named(forward: Forward) -> None:
    with forward("mine") as process:
        assert echo(int(line_of(process).split(" ")[0].rpartition(":")[2])) == b"here"
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.usefixtures("box")
async def test_a_port_that_is_taken_is_said_to_be(forward: Forward) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        forward("mine", f"{taken.getsockname()[1]}:{PORT}") as process,
    ):
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "Use another port" in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80", (0, 80)), ("0:80", (0, 80)), ("8080:80", (8080, 80)), ("65535:1", (65535, 1))],
)
def test_ports_are_read(text: str, expected: tuple[int, int]) -> None:
    assert _pair(text) == expected


@pytest.mark.parametrize("text", ["", "x", "0", "70000", "1:2:3", ":", "8080:", "-1:80", "\u0664:80", "80 "])
def test_what_is_no_port_is_wrong_usage(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no port"):
        _pair(text)
