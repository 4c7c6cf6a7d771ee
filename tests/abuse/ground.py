"""Where cases are run: one engine, canaries, a neighbour, and servers, which cases share where they can."""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from pocket_dock_mcp.images import ImageStore
from tests.abuse.canaries import Canaries
from tests.abuse.case import CaseError
from tests.abuse.http_server import HttpServer
from tests.abuse.neighbour import Neighbour
from tests.abuse.over_http import Served, serving
from tests.abuse.server import Server
from tests.abuse.weakening import Weakener
from tests.engines import LABELS, Target, connect, image_override
from tests.trials.api import Api

MAX_SANDBOXES = 4
Settings = Mapping[str, str]
Transport = Literal["stdio", "http"]
_KINDS: Mapping[Transport, type[Server]] = {"stdio": Server, "http": HttpServer}


class Ground:
    """An engine under test and what is around it."""

    def __init__(self, target: Target, home: Path, image: str, kind: str, version: str) -> None:
        self.target = target
        self.kind = kind
        self.version = version
        """Of the engine."""
        self.api = Api(target.url)
        self.home = home
        self.canaries = Canaries(home)
        self.image = image
        self.unweakened: str | None = None
        """What a server says that refuses an unweakened sandbox behind the proxy; empty if it does not."""
        self._servers: dict[str, Server] = {}
        self._states = iter(range(1_000_000))
        self._images: dict[tuple[str, ...], str] = {}
        self._neighbours: dict[int, Neighbour] = {}
        self._weakener: Weakener | None = None
        self._served: Served | None = None
        self._exits = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def on(cls, target: Target, home: Path) -> AsyncIterator[Ground]:
        """Prepare an engine for cases, and clear up after them."""
        engine = await connect(target)
        try:
            image = image_override() or (await ImageStore(engine).ensure("minimal", print)).id
            kind, version = engine.info.kind, f"{engine.info.kind} {engine.info.version}"
        finally:
            await engine.aclose()
        ground = cls(target, home, image, kind, version)
        try:
            yield ground
        finally:
            await ground._close()

    def environ(self, settings: Settings | None = None, url: str | None = None) -> dict[str, str]:
        """Return the environment of a server: a user's, with secrets, and a state directory of its own."""
        state = self.home / "state" / str(next(self._states))
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self._made("tmp")),
            "XDG_RUNTIME_DIR": str(self._made("run")),
            **self.canaries.environment,
            "POCKET_DOCK_ENGINE": url or self.target.url,
            "POCKET_DOCK_STATE_DIR": str(state),
            "POCKET_DOCK_PROFILE": self.image,
            "POCKET_DOCK_MAX_SANDBOXES": str(MAX_SANDBOXES),
            # What is launched ahead of demand would look like something that a case has left.
            "POCKET_DOCK_POOL_MB": "0",
            **{f"POCKET_DOCK_{name.upper()}": str(value) for name, value in (settings or {}).items()},
        }

    async def server(self, transport: Transport = "stdio") -> Server:
        """Return the server that cases share."""
        return await self._shared(transport, None, {})

    async def own_server(self, settings: Settings, transport: Transport = "stdio") -> Server:
        """Start one for a single case; the case ends it."""
        return await _KINDS[transport].start(self.environ(settings))

    async def over_http(self) -> Served:
        """Return the server over HTTP that cases share."""
        if self._served is None:
            self._served = await self._exits.enter_async_context(serving(self.target, self.environ()))
        return self._served

    async def weak_server(
        self, names: Sequence[str], limits: str = "best-effort", settings: Settings | None = None
    ) -> Server:
        """Return a server whose containers are weakened from now on: with settings, one for a single case."""
        weakener = await self.weakener()
        weakener.weaken(names)
        said = {"limits": limits, **(settings or {})}
        if settings is not None:
            return await Server.start(self.environ(said, weakener.url))
        return await self._shared(limits, weakener.url, said)

    async def weakener(self) -> Weakener:
        """Return the proxy that weakens."""
        if self._weakener is None:
            made = Weakener(self._made("run") / "weak.sock", self.target.url)
            self._weakener = await self._exits.enter_async_context(made.listening())
        return self._weakener

    async def neighbour(self, server: Server) -> Neighbour:
        """Return the other session: with the same server where that can have several."""
        key = server.pid if isinstance(server, HttpServer) else 0
        if key not in self._neighbours:
            if isinstance(server, HttpServer):
                other: Server = await server.as_principal("neighbour")
            else:
                other = await Server.start(self.environ())
            self._neighbours[key] = await Neighbour.settle(other)
        return self._neighbours[key]

    async def image_with(self, instructions: Sequence[str]) -> str:
        """Return an image that is the minimal one with more instructions of a Containerfile."""
        key = tuple(instructions)
        if key not in self._images:
            name = f"localhost/pocket-dock-test-abuse-{secrets.token_hex(6)}:latest"
            said = await self.api.call(
                "POST",
                "build",
                _context("\n".join([f"FROM {self.image}", *key, ""])),
                t=name,
                labels=json.dumps(LABELS),
                networkmode="none",
                pull="0",
            )
            if await self.api.inspect("images", name) is None:
                raise CaseError(f"the engine has not built an image with {key}: {str(said)[-600:]}")
            self._images[key] = name
        return self._images[key]

    def values(self) -> dict[str, Any]:
        """Return what cases may name in their places."""
        return {
            **self.canaries.values,
            "host": _host_facts(),
            "image": self.image,
            "engine": self.target.name,
        }

    async def _shared(self, key: str, url: str | None, settings: Settings) -> Server:
        found = self._servers.get(key)
        if found is None or not found.is_alive:
            kind = HttpServer if key == "http" else Server
            found = self._servers[key] = await kind.start(self.environ(settings, url))
        return found

    def _made(self, name: str) -> Path:
        path = self.home / name
        path.mkdir(exist_ok=True)
        return path

    async def _close(self) -> None:
        try:
            for neighbour in self._neighbours.values():
                await neighbour.aclose()
            for server in self._servers.values():
                await server.close()
            for name in self._images.values():
                await self.api.call("DELETE", f"images/{name}", force="1")
        finally:
            await self._exits.aclose()
            self.canaries.close()


def _host_facts() -> dict[str, Any]:
    """Return what would tell that something is the host's."""
    names = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {
        "namespace": {name: str(Path("/proc/self/ns", name).readlink()) for name in names},
        "uname": os.uname().nodename,
    }


def _context(containerfile: str) -> bytes:
    """Return what an engine builds an image from."""
    data = containerfile.encode()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()
