"""Engines of a trial's own, which it may kill and start again."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio

from pocket_dock_mcp.engine import service
from pocket_dock_mcp.engine.docker_api import DockerApiEngine
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.images import moving
from tests.engines import eventually

_END_DEADLINE = 30.0


class OwnEngine(ABC):
    """A process that can be killed and started again; `url` stays."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = f"unix://{directory}/own.sock"
        self._process: asyncio.subprocess.Process | None = None

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """What is started."""

    async def start(self) -> None:
        """Start it and wait until it answers."""
        Path(self.url.removeprefix("unix://")).unlink(missing_ok=True)
        with Path(self._directory, "own.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        await eventually(self._answers, within=60)

    async def _answers(self) -> bool:
        try:
            await (await DockerApiEngine.connect(self.url)).aclose()
        except PocketDockError:
            return False
        return True

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def end(self) -> None:
        """End it as a system does, with all that it has begun: also what has outlived one that was killed."""
        if self._process is None or self._process.returncode is not None:
            await self.start()
        if self._process is not None:
            self._process.terminate()
            with anyio.move_on_after(_END_DEADLINE):
                await self._process.wait()
        await self.kill()


class OwnPodman(OwnEngine):
    """A `podman system service` over the machine's storage."""

    def _command(self) -> Sequence[str]:
        return service.command("podman", self.url, os.environ)


class OwnDocker(OwnEngine):
    """A `dockerd` with storage of its own, beside the machine's. It ends what runs when it starts again."""

    def _command(self) -> Sequence[str]:
        # The bridge and the rules of the host's packet filter belong to the machine's.
        beside = ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        places = [f"--{name}={self._directory / name}" for name in ("data-root", "exec-root", "pidfile")]
        # What it mounts goes with its mount namespace.
        apart = ["unshare", "--mount", "--propagation", "slave"]
        return [*apart, "dockerd", f"--host={self.url}", *places, *beside]

    async def kill(self) -> None:
        """SIGKILL; its containerd, which is told to die with it, is gone too when this returns."""
        await super().kill()
        record = self._directory / "exec-root" / "containerd" / "containerd.pid"
        try:
            process = Path("/proc", record.read_text())
        except FileNotFoundError:
            return
        # A dockerd that finds it alive waits for it for ever.
        await eventually(lambda: _is_over(process), within=30)
        record.unlink(missing_ok=True)

    async def give(self, image: str, url: str) -> None:
        """Have an image of another engine in its storage."""
        theirs = await DockerApiEngine.connect(url)
        ours = await DockerApiEngine.connect(self.url)

        async def pieces() -> AsyncGenerator[bytes, None]:
            async with aclosing(moving.save(theirs, [image])) as archive:
                async for piece in archive:
                    yield piece

        def unheard(_count: int) -> None:
            pass

        try:
            await moving.load(ours, pieces, checking=unheard, loading=unheard)
        finally:
            await ours.aclose()
            await theirs.aclose()


async def _is_over(process: Path) -> bool:
    try:
        return "containerd" not in (process / "comm").read_text()
    except OSError:
        return True


@asynccontextmanager
async def own_engine(directory: Path, url: str, image: str) -> AsyncIterator[OwnEngine]:
    """Have an engine like the one at `url`, which has the image, for as long as the block runs."""
    theirs = await DockerApiEngine.connect(url)
    kind = theirs.info.kind
    await theirs.aclose()
    own = OwnDocker(directory) if kind == "docker" else OwnPodman(directory)
    await own.start()
    try:
        if isinstance(own, OwnDocker):
            await own.give(image, url)
        yield own
    finally:
        with anyio.CancelScope(shield=True):
            await own.end()
