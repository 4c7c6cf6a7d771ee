"""Snapshots as images on the engine: made, listed and deleted, and nothing unfinished left of them."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import anyio

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.translate import image_not_found
from pocket_dock_mcp.errors import (
    EngineConflictError,
    EngineError,
    ImageNotFoundError,
    QuotaError,
    SnapshotNotFoundError,
    StateError,
)
from pocket_dock_mcp.images.base import Progress
from pocket_dock_mcp.images.references import kept_as
from pocket_dock_mcp.manager import snapshots
from pocket_dock_mcp.manager.access import Access, EngineAccess
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.manager.mending import Mender
from pocket_dock_mcp.manager.naming import check_title
from pocket_dock_mcp.manager.sandbox import Sandbox, SandboxRequest
from pocket_dock_mcp.manager.snapshots import (
    SNAPSHOTS,
    UID_LABEL,
    Snapshot,
    is_of_files,
    require_no_snapshot,
    uid_of,
)
from pocket_dock_mcp.manager.sweep import NONCE_LABEL
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.settings import Settings

logger = logging.getLogger(__name__)


class SnapshotKeeper:
    """All snapshots of this account, on the engine that is in use."""

    def __init__(self, settings: Settings, access: EngineAccess, mender: Mender) -> None:
        self._settings = settings
        self._access = access
        self._mender = mender
        self._snapshots = access.snapshots
        self._coming: collections.Counter[str] = collections.Counter()
        self._deleted: dict[str, Engine] = {}
        """Tags of snapshots that nobody has any more, and some sandbox still lives on."""

    async def keep(self, sandbox: Sandbox, principal: str, name: str) -> Snapshot:
        """Make a snapshot of a sandbox; see `Manager.snapshot`."""
        check_title(name)
        access = await self._access.ready()
        engine, journal = access.engine, access.journal
        with self._reserved_for(principal, engine):
            return await self._keep(engine, journal, sandbox, principal, name)

    async def begun_with(
        self, access: Access, principal: str, request: SandboxRequest, progress: Progress
    ) -> tuple[SandboxRequest, str, int | None]:
        """Return a request with the image that it means, and whose the files in it are, if anybody's.

        An image of a sandbox's files is nobody's but its principal's, by whatever name or id it is asked for.

        Raises: what `find` and `ImageStore.ensure` raise.
        """
        if request.snapshot is None:
            require_no_snapshot(request.image)
            image = await access.images.ensure(request.image, progress)
            if is_of_files(image) and not self._snapshots.has_image(
                principal, access.engine.info.identity, image
            ):
                raise image_not_found(request.image)
            return request, image.id, uid_of(image)
        found = self.find(principal, access.engine, request.snapshot)
        workspace = found.workspace_for(request.workspace)
        return replace(request, workspace=workspace), found.image_id, found.uid

    async def save_as(self, sandbox: Sandbox, tag: str) -> str:
        """Make an image of a sandbox's files under a name that its user has chosen, and return its id.

        It is the user's: nobody here has it on record, counts it or removes it. A sandbox that is made of it
        can use the files, because the image says whose they are.

        Raises: what `keep` raises, and none of its quotas.
        """
        access = await self._access.ready()
        tag = kept_as(tag, access.engine.info.kind)
        with sandbox.use() as container:
            written = await container.disk.used() or 0
            await container.disk.require_free(self._settings.min_free_mb * MIB + written)
            intent = access.journal.intend("image", tag)
            labels = {NONCE_LABEL: intent.nonce, UID_LABEL: str(container.uid)}
            try:
                image_id = await container.commit(tag, labels=labels)
            except BaseException as error:
                self._access.note(error)
                # One that still comes is not what anybody has asked for any more.
                self._mender.owe(tag)
                raise
        access.journal.settled(tag)
        return image_id

    @contextmanager
    def _reserved_for(self, principal: str, engine: Engine) -> Iterator[None]:
        """Hold a place among a principal's snapshots. Nothing is awaited between the look and the taking."""
        count = len(self._snapshots.of(principal, engine.info.identity)) + self._coming[principal]
        if count >= (self._settings.quota_of(principal).snapshots or 0):
            raise QuotaError(
                f"There are {count} snapshots already, as many as allowed.",
                hint="Delete one with kill(snapshot_id=...), or raise POCKET_DOCK_MAX_SNAPSHOTS.",
            )
        self._coming[principal] += 1
        try:
            yield
        finally:
            self._coming[principal] -= 1

    async def _keep(
        self, engine: Engine, journal: Journal, sandbox: Sandbox, principal: str, name: str
    ) -> Snapshot:
        with sandbox.use() as container:
            await self.require_room(engine, container)
        snapshot_id = snapshots.new_id()
        intent = journal.intend("image", f"{SNAPSHOTS}:{snapshot_id}")
        labels = {NONCE_LABEL: intent.nonce, "pocket-dock.snapshot": snapshot_id}
        with sandbox.use() as container:
            try:
                image_id = await container.commit(intent.name, labels=labels)
                journal.made(intent.name)
                size = (await engine.image(image_id)).size_bytes
                self._check_size(size)
            except BaseException as error:
                self._access.note(error)
                # Perhaps there is no image, or it is still coming.
                self._mender.owe(intent.name)
                raise
        made = Snapshot(
            id=snapshot_id,
            name=name,
            principal=principal,
            engine=engine.info.identity,
            tag=intent.name,
            image_id=image_id,
            uid=sandbox.container.uid,
            created=time.time(),
            size_bytes=size,
            workspace=sandbox.container.launched.workspace,
        )
        try:
            self._snapshots.add(made)
        except OSError as error:
            self._mender.owe(intent.name)
            raise StateError(f"The snapshot cannot be put on record: {error.strerror}.") from error
        journal.settled(intent.name)
        return made

    async def require_room(self, engine: Engine, container: LiveContainer) -> None:
        """See that an image of its files would not be too large, and would leave the engine's disk room.

        Raises:
            QuotaError, EngineDiskError: it would.
            And what `LiveContainer.info` raises.
        """
        # First of all: who is lost says so.
        info = await container.info()
        image = (await engine.image(info.image)).size_bytes
        floor = self._settings.min_free_mb * MIB
        if await container.disk.is_bound(self._settings.max_snapshot_mb * MIB - image, floor=floor):
            return
        written = await container.disk.used() or 0
        self._check_size(image + written)
        await container.disk.require_free(floor + written)

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_snapshot_mb * MIB:
            raise QuotaError(
                f"The image of its files would have {size // MIB} MiB, and "
                f"{self._settings.max_snapshot_mb} MiB are allowed.",
                hint="Delete files that need not be in it, or raise POCKET_DOCK_MAX_SNAPSHOT_MB.",
            )

    async def list(self, principal: str) -> list[Snapshot]:
        """Return a principal's snapshots on this engine, oldest first."""
        if self._snapshots.empty():
            return []
        engine = (await self._access.ready()).engine
        return self._snapshots.of(principal, engine.info.identity)

    async def delete(self, principal: str, snapshot_id: str) -> Snapshot:
        """Delete one of a principal's snapshots; see `Manager.delete_snapshot`."""
        access = await self._access.ready()
        found = self.find(principal, access.engine, snapshot_id)
        try:
            image = await access.engine.image(found.tag)
            # Noted first: should this process die, a sweep goes on with it.
            access.journal.intend("image", found.tag, image.labels.get(NONCE_LABEL))
            access.journal.made(found.tag)
            self._deleted[found.tag] = access.engine
        except ImageNotFoundError:
            pass
        self._snapshots.remove(found.id)
        await self.remove_deleted(access.journal)
        return found

    def leave(self, tag: str, engine: Engine) -> None:
        """Have an image that is in the journal removed as soon as no sandbox is made of it any more."""
        self._deleted[tag] = engine

    @property
    def has_deleted(self) -> bool:
        """Whether images wait for the end of a sandbox, or the engine has not let go of one yet."""
        return bool(self._deleted)

    async def remove_deleted(self, journal: Journal, pauses: Iterable[float] = ()) -> None:
        """Remove the images of deleted snapshots, as far as no sandbox is made of them any more.

        Args:
            journal: where they are noted.
            pauses: seconds after which it is tried again: Docker says of a container that its removal is in
                progress, and for a moment after that its image is still in use.
        """
        await self._remove_deleted(journal)
        for pause in pauses:
            if not self._deleted:
                return
            await anyio.sleep(pause)
            await self._remove_deleted(journal)

    async def _remove_deleted(self, journal: Journal) -> None:
        for tag, engine in tuple(self._deleted.items()):
            try:
                await engine.remove_image(tag)
            except EngineConflictError as error:
                logger.debug("the deleted snapshot %s stays for now: %s", tag, error)
            except EngineError as error:
                self._access.note(error)
                self._deleted.pop(tag, None)
                self._mender.owe(tag)
            else:
                self._deleted.pop(tag, None)
                journal.settled(tag)

    def find(self, principal: str, engine: Engine, snapshot_id: str) -> Snapshot:
        """Return a principal's snapshot.

        Raises:
            SnapshotNotFoundError: there is none of that id.
        """
        found = self._snapshots.find(principal, engine.info.identity, snapshot_id)
        if found is None:
            raise SnapshotNotFoundError
        return found
