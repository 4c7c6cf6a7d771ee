"""Where cases are run: one engine, canaries, a neighbour, and servers, which cases share where they can."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pocket_dock_mcp.images import ImageStore
from tests.abuse.canaries import Canaries
from tests.abuse.neighbour import Neighbour
from tests.abuse.over_http import Served, serving
from tests.abuse.server import Server
from tests.abuse.weakening import Weakener
from tests.engines import LABELS, Target, connect, image_override
from tests.trials.api import Api

MAX_SANDBOXES = 4
Settings = Mapping[str, str]


class Ground:
    """An engine under test and what is around it."""

    def __init__(self, target: Target, home: Path, image: str, version: str) -> None:
        self.target = target
        self.version = version
        """Of the engine."""
        self.api = Api(target.url)
        self.home = home
        self.canaries = Canaries(home)
        self.image = image
        self._servers: dict[str, Server] = {}
        self._states = iter(range(1_000_000))
        self._images: dict[tuple[str, ...], str] = {}
        self._neighbour: Neighbour | None = None
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
            version = f"{engine.info.kind} {engine.info.version}"
        finally:
            await engine.aclose()
        ground = cls(target, home, image, version)
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

    async def server(self) -> Server:
        """Return the server that cases share."""
        return await self._shared("plain", None, {})

    async def own_server(self, settings: Settings) -> Server:
        """Start one for a single case; the case ends it."""
        return await Server.start(self.environ(settings))

    async def over_http(self) -> Served:
        """Return the server over HTTP that cases share."""
        if self._served is None:
            self._served = await self._exits.enter_async_context(serving(self.target, self.environ()))
        return self._served

    async def weak_server(self, names: Sequence[str], limits: str = "best-effort") -> Server:
        """Return a server whose containers are weakened from now on, and which takes them as they are."""
        weakener = await self.weakener()
        weakener.weaken(names)
        return await self._shared(limits, weakener.url, {"limits": limits})

    async def weakener(self) -> Weakener:
        """Return the proxy that weakens."""
        if self._weakener is None:
            made = Weakener(self._made("run") / "weak.sock", self.target.url)
            self._weakener = await self._exits.enter_async_context(made.listening())
        return self._weakener

    async def neighbour(self) -> Neighbour:
        """Return the other session."""
        if self._neighbour is None:
            self._neighbour = await Neighbour.start(self.environ())
        return self._neighbour

    async def image_with(self, instructions: Sequence[str]) -> str:
        """Return an image that is the minimal one with more instructions of a Containerfile."""
        key = tuple(instructions)
        if key not in self._images:
            name = f"pocket-dock-test-abuse-{secrets.token_hex(6)}"
            body = {"Image": self.image, "Cmd": ["true"], "Labels": LABELS}
            made = await self.api.call("POST", "containers/create", body)
            try:
                await self.api.call(
                    "POST",
                    "commit",
                    {},
                    container=made["Id"],
                    repo=name,
                    tag="latest",
                    changes="\n".join(key),
                )
            finally:
                await self.api.call("DELETE", f"containers/{made['Id']}", force="1", v="1")
            self._images[key] = f"localhost/{name}:latest" if await self._is_local(name) else f"{name}:latest"
        return self._images[key]

    def values(self) -> dict[str, Any]:
        """Return what cases may name in their places."""
        return {
            **self.canaries.values,
            "host": _host_facts(),
            "image": self.image,
            "engine": self.target.name,
        }

    async def _is_local(self, name: str) -> bool:
        return await self.api.inspect("images", f"localhost/{name}:latest") is not None

    async def _shared(self, key: str, url: str | None, settings: Settings) -> Server:
        found = self._servers.get(key)
        if found is None or not found.is_alive:
            found = self._servers[key] = await Server.start(self.environ(settings, url))
        return found

    def _made(self, name: str) -> Path:
        path = self.home / name
        path.mkdir(exist_ok=True)
        return path

    async def _close(self) -> None:
        try:
            if self._neighbour is not None:
                await self._neighbour.aclose()
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
