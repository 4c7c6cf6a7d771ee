"""The files of a sandbox against an earlier state, which is looked at in a container that is made for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import anyio
from typing_extensions import Unpack

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.diffing import TreeDiff, compare
from pocket_dock_mcp.container.inventory import where
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.manager.access import EngineAccess
from pocket_dock_mcp.manager.keeping import SnapshotKeeper
from pocket_dock_mcp.manager.making import Maker
from pocket_dock_mcp.manager.sandbox import Sandbox

START = "start"
_AT_ONCE = 2
"""Containers of earlier states: they are in no owner's quota."""


class DiffOptions(TypedDict, total=False):
    """What to compare; all may be left out."""

    since: str
    """``start``, or a snapshot of the principal."""
    path: str | None
    """A file or directory; None for all files."""
    max_paths: int
    """Changed paths to return; 1000 unless given."""
    max_diff: int
    """Characters of diffs to return; 64 Ki unless given."""


_DEFAULTS: DiffOptions = {"since": START, "path": None, "max_paths": 1000, "max_diff": 64 * 1024}


class Comparer:
    """Compares, for all owners."""

    def __init__(self, maker: Maker, access: EngineAccess, keeper: SnapshotKeeper) -> None:
        self._maker = maker
        self._access = access
        self._keeper = keeper
        self._slots = anyio.Semaphore(_AT_ONCE)

    async def diff(self, sandbox: Sandbox, principal: str, **options: Unpack[DiffOptions]) -> TreeDiff:
        """Compare a sandbox's files; see `Manager.diff`."""
        wanted: DiffOptions = {**_DEFAULTS, **options}
        with sandbox.use() as container:
            root = where(container, wanted["path"])
            info = await container.info()
            if info.python is None:
                message = "A comparison needs python3, which this sandbox's image has not."
                raise InvalidArgumentError(message, hint="Use run_command with find -newer.")
            async with self._slots, self._earlier(container, principal, wanted["since"]) as earlier:
                return await compare(
                    earlier, container, root, max_paths=wanted["max_paths"], max_diff=wanted["max_diff"]
                )

    @asynccontextmanager
    async def _earlier(self, now: LiveContainer, principal: str, since: str) -> AsyncIterator[LiveContainer]:
        """Hold a container with the files of another time, as nobody's sandbox."""
        image, uid = now.launched.image, now.uid
        if since != START:
            found = self._keeper.find(principal, (await self._access.ready()).engine, since)
            image, uid = found.image_id, found.uid
        made = await self._maker.make(
            Launch(
                "",
                image,
                {},
                uid=uid,
                enforce="best-effort",
                warm_python=False,
                confinement=now.launched.confinement,
            )
        )
        earlier = LiveContainer(made.engine, made.wanted, made.running)
        try:
            yield earlier
        finally:
            await earlier.aclose()
            self._maker.over(earlier.name, earlier.removed)
