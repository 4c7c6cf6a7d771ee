"""How a container of the SDK is held, and what ending it means: for one of the manager's, or of a pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import anyio

from pocket_dock_mcp.async_.errors import told_in_sdk_words
from pocket_dock_mcp.async_.host import Host
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.errors import SandboxLostError, SandboxNotFoundError
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import Sandbox
from pocket_dock_mcp.projects.instances import DATA, instance_path


class Hold(Protocol):
    """What an `AsyncContainer` needs of whoever holds its container."""

    @property
    def live(self) -> LiveContainer:
        """What can be done with it."""

    @property
    def id(self) -> str:
        """Names the sandbox for good; empty for a pool's."""

    @property
    def created(self) -> float:
        """When it was made, in seconds since the epoch."""

    @property
    def image(self) -> str:
        """What it began with, as it was asked for: a profile, an image reference, or a snapshot's id."""

    @property
    def persists(self) -> bool:
        """Whether it outlives the process, and ends only when it is destroyed."""

    @property
    def project(self) -> str:
        """The project that it belongs to; empty if it belongs to none."""

    @property
    def data_path(self) -> Path | None:
        """The directory of the host that its project has for its data; None if it belongs to none."""

    @property
    def workdir(self) -> str:
        """Where runs begin that do not say; empty for the home directory."""

    def use(self) -> AbstractContextManager[LiveContainer]:
        """Hold it for a call: it does not count as idle meanwhile."""

    async def end(self) -> None:
        """End it, or stop one that persists. Idempotent, and quiet when it is gone."""

    async def save_as(self, tag: str) -> str:
        """Make an image of its files and return the image's id."""


class Managed:
    """A sandbox of this event loop's manager."""

    def __init__(self, host: Host, sandbox: Sandbox) -> None:
        self._host = host
        self._sandbox = sandbox

    @property
    def live(self) -> LiveContainer:
        """What can be done with it."""
        return self._sandbox.container

    @property
    def id(self) -> str:
        """Names the sandbox for good."""
        return self._sandbox.id

    @property
    def created(self) -> float:
        """When it was made."""
        claim = self._sandbox.claim
        return self._sandbox.created if claim is None else claim.kept.created

    @property
    def image(self) -> str:
        """What it began with, as it was asked for."""
        return self._sandbox.request.snapshot or self._sandbox.request.image

    @property
    def persists(self) -> bool:
        """Whether it outlives the process, and ends only when it is destroyed."""
        return self._sandbox.request.persist and not self._sandbox.request.disposable

    @property
    def project(self) -> str:
        """The project that it belongs to."""
        return self._sandbox.request.project

    @property
    def data_path(self) -> Path | None:
        """The directory of the host that its project has for its data."""
        root = self._sandbox.request.project_root
        return instance_path(Path(root), self._sandbox.container.name) / DATA if root else None

    @property
    def workdir(self) -> str:
        """Where runs begin that do not say."""
        return self._sandbox.request.workdir

    @contextmanager
    def use(self) -> Iterator[LiveContainer]:
        """Hold it for a call."""
        self._host.require_here()
        with told_in_sdk_words(), self._sandbox.use() as container:
            yield container

    async def end(self) -> None:
        """End it, or stop one that persists."""
        if not self._host.is_open:
            # It has ended with its event loop or runs on without, or it is another process's to end; or it
            # was the last and has died, and what is left of it is just being ended.
            await self._host.wait_ended()
            return
        await self._host.do(self._end)

    async def _end(self, manager: Manager) -> None:
        owner = self._host.owner
        # Whoever has begun to end it may be cancelled, and it ends.
        with anyio.CancelScope(shield=True):
            try:
                if manager.get(owner, self.id) is not self._sandbox:
                    return
                if self.persists:
                    await manager.stop(owner, self.id)
                else:
                    await manager.kill(owner, self.id)
            except (SandboxLostError, SandboxNotFoundError):
                # Gone already, by whatever hand.
                pass

    async def save_as(self, tag: str) -> str:
        """Make an image of its files."""
        return await self._host.do(lambda manager: manager.save_as(self._sandbox, tag))
