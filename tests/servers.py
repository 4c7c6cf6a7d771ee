"""A server under test, as a client sees it: over its standard streams, or over HTTP.

Over HTTP, for several principals::

    async with http_server(target, environ, principals=["alice", "bob"]) as server:
        async with server.client("alice") as alice, server.client("bob", transport="sse") as bob:
            await call(alice, "create_sandbox")

Without `principals` there are no tokens, and everybody is the local principal. `server.url` and
`server.headers(principal)` are for requests made by hand, `server.process` to end it in some other way and
`server.log()` is what it has said on standard error.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import CallToolResult, TextContent

from pocket_dock_mcp.testing import FakeEngine
from tests.engines import Target, eventually

Era = Literal["auto", "legacy"]
ERAS: list[Era] = ["auto", "legacy"]
"""What the SDK's client speaks: the newest revision, or one with a handshake."""
Transport = Literal["http", "sse"]
TRANSPORTS: list[Transport] = ["http", "sse"]

ROOT = Path(__file__).parent.parent


def environment(target: Target, home: Path, image: str) -> dict[str, str]:
    """Return what a server under test gets as its environment."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        **({} if target.is_fake else {"POCKET_DOCK_ENGINE": target.url}),
        "POCKET_DOCK_STATE_DIR": str(home / "state"),
        "POCKET_DOCK_PROFILE": FakeEngine.IMAGE if target.is_fake else image,
        "POCKET_DOCK_MAX_SANDBOXES": "3",
    }


@asynccontextmanager
async def client(environ: dict[str, str], era: Era = "auto") -> AsyncIterator[Client]:
    """Start a server and connect to it."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "pocket_dock_mcp"], env=environ)
    async with Client(server, mode=era) as connected:
        yield connected


@dataclass
class HttpServer:
    """A server process that listens on loopback."""

    address: str
    """Host and port."""
    path: str
    process: subprocess.Popen[bytes]
    tokens: dict[str, str]
    """By principal."""
    stderr: Path

    @property
    def url(self) -> str:
        """Where streamable HTTP is."""
        return f"http://{self.address}{self.path}"

    def at(self, path: str) -> str:
        """Return the URL of some other path."""
        return f"http://{self.address}{path}"

    def headers(self, principal: str | None) -> dict[str, str]:
        """Return what a principal has to send with each request."""
        return {} if principal is None else {"Authorization": f"Bearer {self.tokens[principal]}"}

    def log(self) -> str:
        """Return what it has said on standard error."""
        return self.stderr.read_text()

    @asynccontextmanager
    async def client(
        self, principal: str | None = None, era: Era = "auto", transport: Transport = "http"
    ) -> AsyncIterator[Client]:
        """Connect the SDK's client."""
        headers = self.headers(principal)
        if transport == "sse":
            async with Client(sse_client(self.at("/sse"), headers), mode=era) as connected:
                yield connected
            return
        async with (
            create_mcp_http_client(headers) as sending,
            Client(streamable_http_client(self.url, http_client=sending), mode=era) as connected,
        ):
            yield connected


@asynccontextmanager
async def http_server(
    target: Target,
    environ: dict[str, str],
    *options: str,
    principals: Sequence[str] = (),
    module: str | None = None,
) -> AsyncIterator[HttpServer]:
    """Start a server with `options` and with a token for each of `principals`, and end it by SIGTERM.

    `environ` is that of `environment`. On the fake engine it is a process as well, with the engine in it.
    Another `module` is another program that says where it listens.
    """
    module = module or ("tests.fake_server" if target.is_fake else "pocket_dock_mcp")
    home = Path(environ["HOME"])
    tokens = {name: secrets.token_urlsafe(24) for name in principals}
    arguments = ["--transport", "http", "--port", "0", *options]
    if tokens:
        file = home / f"tokens-{secrets.token_hex(4)}"
        file.touch(0o600)
        file.write_text("".join(f"{name} {token}\n" for name, token in tokens.items()))
        arguments += ["--token-file", str(file)]
    stderr = home / f"stderr-{secrets.token_hex(4)}"
    with stderr.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environ,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        address, path = await _listened_on(process, stderr)
        yield HttpServer(address, path, process, tokens, stderr)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


async def _listened_on(process: subprocess.Popen[bytes], stderr: Path) -> tuple[str, str]:
    async def said() -> re.Match[str] | None:
        if process.poll() is not None:
            raise AssertionError(f"The server has ended with {process.returncode}: {stderr.read_text()}")
        return re.search(r"listening on http://([^/\s]+)(/\S*) ", stderr.read_text())

    found = await eventually(said, within=60)
    assert found is not None
    return found[1].replace("0.0.0.0", "127.0.0.1"), found[2]


def server_process() -> int:
    """Return the process id of the server that this process has started."""
    children = Path("/proc/self/task", str(os.getpid()), "children").read_text().split()
    (pid,) = [
        int(pid) for pid in children if b"pocket_dock_mcp" in Path("/proc", pid, "cmdline").read_bytes()
    ]
    return pid


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that is to succeed and return its structured result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    assert result.structured_content is not None
    return dict(result.structured_content)


async def failure(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that is to fail, quickly, and return what the model is told."""
    with anyio.fail_after(2):
        result = await client.call_tool(tool, arguments)
    assert result.is_error, text(result)
    return text(result)


def text(result: CallToolResult) -> str:
    """Return what the model reads of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
