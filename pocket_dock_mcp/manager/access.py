"""The engine as the manager reaches it: at the first need, again after it was lost, with its journal open."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import EngineError, EngineTimeoutError, EngineUnavailableError
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.manager.journal import Intent, Journal
from pocket_dock_mcp.manager.locking import remove_torn
from pocket_dock_mcp.manager.records import KeptStore
from pocket_dock_mcp.manager.snapshots import SnapshotStore
from pocket_dock_mcp.manager.sweep import sweep
from pocket_dock_mcp.settings import Settings

logger = logging.getLogger(__name__)

SWEEP_DEADLINE = 20.0

Connect = Callable[[], Awaitable[Engine]]


@dataclass(frozen=True, slots=True)
class Access:
    """What making something on an engine takes."""

    engine: Engine
    images: ImageStore
    journal: Journal


class EngineAccess:
    """Connects when it is first asked to, and not before."""

    def __init__(self, settings: Settings, connect: Connect) -> None:
        self._state = settings.state_dir
        self._instances = settings.state_dir / "instances"
        self.snapshots = SnapshotStore(settings.state_dir / "snapshots")
        self.kept = KeptStore(settings.state_dir / "sandboxes")
        self._connect = connect
        self._lock = anyio.Lock()
        self._access: Access | None = None
        self._suspect = False
        self.journal: Journal | None = None

    async def ready(self) -> Access:
        """Return the engine, connecting at the first call and again after it was lost.

        Raises:
            EngineError: none answers.
            ConfigError: the one that is configured cannot be.
        """
        async with self._lock:
            if self._suspect and self._access is not None and not await _answers(self._access.engine):
                lost, self._access = self._access, None
                await lost.engine.aclose()
            self._suspect = False
            if self._access is None:
                self._access = await self._open(await self._connect())
            return self._access

    def note(self, error: BaseException) -> None:
        """Hear of a failure: after one of the engine's, look whether it is still there before using it."""
        if isinstance(error, (EngineUnavailableError, EngineTimeoutError)):
            self._suspect = True

    async def aclose(self) -> None:
        """Let go of the engine and of the journal. Idempotent."""
        if self._access is not None:
            access, self._access = self._access, None
            await access.engine.aclose()

    def close_journal(self) -> None:
        """Close the journal; its file stays if something of ours may be left."""
        if self.journal is not None:
            self.journal.close()

    async def _open(self, engine: Engine) -> Access:
        """Sweep up after dead processes, then begin a journal; a failing sweep is no reason not to serve."""
        with anyio.move_on_after(SWEEP_DEADLINE):
            try:
                await sweep(engine, self._instances, self._is_kept)
            except EngineError as error:
                logger.warning("could not sweep up after earlier processes: %s", error)
        for directory in ("instances", "snapshots", "sandboxes"):
            remove_torn(self._state / directory)
        if self.journal is None:
            self.journal = Journal(self._instances)
        self.journal.use_engine(engine.info.identity)
        return Access(engine, ImageStore(engine), self.journal)

    def _is_kept(self, intent: Intent) -> bool:
        if intent.kind == "image":
            return self.snapshots.has_tag(intent.name)
        return self.kept.has_container(intent.name, intent.nonce)


async def _answers(engine: Engine) -> bool:
    try:
        await engine.ping()
    except EngineError:
        return False
    return True
