"""The engine as the manager reaches it: at the first need, again after it was lost, with its journal open."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from pocket_dock_mcp.container.abandoned import remove_abandoned
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    SandboxClosedError,
)
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.manager.journal import Intent, Journal, dead_records
from pocket_dock_mcp.manager.locking import remove_torn
from pocket_dock_mcp.manager.records import KeptStore
from pocket_dock_mcp.manager.snapshots import SnapshotStore
from pocket_dock_mcp.manager.sweep import sweep
from pocket_dock_mcp.settings import Settings

logger = logging.getLogger(__name__)

SWEEP_DEADLINE = 5.0
"""Seconds that a first call waits for the removal of what dead processes left. What takes longer is gone on
with meanwhile; see `pocket_dock_mcp.manager.mending`."""
RETIRED = 3
"""Lost engines that are kept open for the sandboxes that may still live on them."""

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
        self._closed = False
        self._retired: list[Engine] = []
        self.journal: Journal | None = None
        self.is_clean = False
        """Whether nothing of dead processes is left on the engine, as far as is known."""

    async def ready(self) -> Access:
        """Return the engine, connecting at the first call and again after it was lost.

        Raises:
            EngineError: none answers.
            ConfigError: the one that is configured cannot be.
            StateError: what is made cannot be put on record.
            SandboxClosedError: it was closed.
        """
        async with self._lock:
            if self._suspect and self._access is not None and not await _answers(self._access.engine):
                await self._retire(self._access.engine)
                self._access = None
            self._suspect = False
            self._require_open()
            if self._access is None:
                self._access = await self._open(await self._connect())
            return self._access

    def note(self, error: BaseException) -> None:
        """Hear of a failure: after one of the engine's, look whether it is still there before using it."""
        if isinstance(error, (EngineUnavailableError, EngineTimeoutError)):
            self._suspect = True

    async def aclose(self) -> None:
        """Let go of the engine and of the journal. Idempotent."""
        self._closed = True
        engines, self._retired = self._retired, []
        if self._access is not None:
            engines.append(self._access.engine)
            self._access = None
        for engine in engines:
            await engine.aclose()

    def close_journal(self) -> None:
        """Close the journal; its file stays if something of ours may be left."""
        if self.journal is not None:
            self.journal.close()

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosedError("The server is shutting down.")

    async def _open(self, engine: Engine) -> Access:
        """Sweep up after dead processes, then begin a journal; a failing sweep is no reason not to serve."""
        try:
            with anyio.move_on_after(SWEEP_DEADLINE):
                await self.sweep(engine)
            # Nothing is awaited from here on: who closes us finds a journal to close, or none is begun.
            self._require_open()
            if self.journal is not None and self.journal.is_open_about_another(engine.info.identity):
                # It stays for whoever reaches that engine again.
                self.journal.close()
                self.journal = None
            if self.journal is None:
                self.journal = Journal(self._instances)
            self.journal.use_engine(engine.info.identity)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await engine.aclose()
            raise
        return Access(engine, ImageStore(engine), self.journal)

    async def sweep(self, engine: Engine) -> None:
        """Remove what dead processes have left; `is_clean` says whether that was all. Never fails."""
        self.is_clean = False
        try:
            swept = await sweep(engine, self._instances, self._is_kept)
            for directory in ("instances", "snapshots", "sandboxes"):
                remove_torn(self._state / directory)
            abandoned = await remove_abandoned(engine)
            self.is_clean = not swept.left and not abandoned.left
        except (EngineError, OSError) as error:
            logger.warning("could not sweep up after earlier processes: %s", error)

    @property
    def is_in_use(self) -> bool:
        """Whether there is a connection to the engine by now."""
        return self._access is not None

    def has_dead(self) -> bool:
        """Whether a dead process has left a journal."""
        with dead_records(self._instances) as records:
            return next(records, None) is not None

    async def _retire(self, engine: Engine) -> None:
        """Put away an engine that does not answer.

        It is not closed: perhaps it is only slow, and then sandboxes live on its streams. Those of it that
        are idle cost nothing; a service of ours that is stuck does, so not many are kept.
        """
        self._retired.append(engine)
        if len(self._retired) > RETIRED:
            await self._retired.pop(0).aclose()

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
