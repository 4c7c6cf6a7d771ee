"""`Host`: what the SDK's calls of one event loop share, an engine's connection and those it looks after.

It is there from the first need to the end of the last container, or of the loop, and there is one for each
engine and each set of settings. What outlives it is what was asked to persist.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from pocket_dock_mcp.async_.errors import told_in_sdk_words
from pocket_dock_mcp.async_.pieces import Piece
from pocket_dock_mcp.engine.connect import connect
from pocket_dock_mcp.engine.endpoint import ENGINE_VARIABLE, candidates
from pocket_dock_mcp.errors import InvalidArgumentError, SandboxClosedError
from pocket_dock_mcp.manager.access import Connect
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner
from pocket_dock_mcp.projects import project_defaults
from pocket_dock_mcp.settings import Settings

T = TypeVar("T")
logger = logging.getLogger(__name__)

FOREVER_S = 365 * 86_400.0
"""What never expires does so after a year."""
_NO_QUOTAS: Mapping[str, object] = {
    "max_sandboxes": sys.maxsize,
    "max_snapshots": sys.maxsize,
    "max_persistent": sys.maxsize,
    "quotas": (),
    "max_total_sandboxes": sys.maxsize,
    "max_total_memory_mb": 1 << 30,
    "max_creates": sys.maxsize,
    "max_runs": sys.maxsize,
    "max_total_runs": sys.maxsize,
    "max_memory_mb": 1 << 30,
    "max_cpus": 1024.0,
    "max_pids": 4096,
    "max_disk_mb": 1 << 40,
    "idle_ttl_s": FOREVER_S,
    "max_lifetime_s": FOREVER_S,
    "pool_mb": 0,
}
"""Those of the settings say what a model may have of this machine; here it is its user who asks."""

_hosts: dict[asyncio.AbstractEventLoop, dict[Settings, Host]] = {}


def settings_for(engine: str | None = None, socket_path: str | None = None) -> Settings:
    """Return the settings of the environment, with another engine if one is named, and without quotas.

    Raises:
        ConfigError: the environment is not valid, or the file of the project or the user.
        InvalidArgumentError: both are given.
    """
    if engine is not None and socket_path is not None:
        message = "Both engine and socket_path are given."
        raise InvalidArgumentError(message, hint="Give one: they name the same thing.")
    settings = Settings.from_environ(os.environ)
    wanted = f"unix://{Path(socket_path).absolute()}" if socket_path is not None else engine
    if wanted is None:
        # The environment's, or else the project's.
        wanted = project_defaults().engine
    return settings.model_copy(update={**_NO_QUOTAS, "engine": wanted})


def engine_environ(settings: Settings, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return an environment in which the engine of the settings is the one that is connected to."""
    return environ if settings.engine is None else {**environ, ENGINE_VARIABLE: settings.engine}


def _without_engine(settings: Settings) -> Settings:
    return settings.model_copy(update={"engine": None})


class Host:
    """A manager in a task of its own, for as long as somebody needs it. See `working`."""

    def __init__(self, settings: Settings, connect: Connect) -> None:
        self.settings = settings
        self.owner = Owner(session=secrets.token_hex(16), principal=LOCAL_PRINCIPAL)
        self._connect = connect
        self._manager: Manager | None = None
        self._tasks: TaskGroup
        self._working = 0
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()
        self._enough = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def manager(self) -> Manager:
        """The manager, for what is done within `working`.

        Raises:
            SandboxClosedError: the loop is ending.
        """
        self.require_here()
        if self._manager is None or self._enough.is_set():
            message = "The event loop of this container has ended, and the container with it."
            raise SandboxClosedError(message, hint="Create a new one.")
        return self._manager

    @property
    def is_open(self) -> bool:
        """Whether it is at work, and in this process."""
        return self._manager is not None and not self._enough.is_set() and os.getpid() == self._pid

    async def wait_ended(self) -> None:
        """Wait until one that is just ending has ended everything. Returns at once for any other."""
        if self._enough.is_set() and self._task is not None and running_loop() is self._loop:
            # Not the task itself: who waits may be cancelled, and it ends all the same.
            await asyncio.wait([self._task])

    def reaches(self, settings: Settings) -> bool:
        """Whether it has containers on the engine that these settings name, which say the same otherwise."""
        if self._manager is None or _without_engine(settings) != _without_engine(self.settings):
            return False
        held = self._manager.list_sandboxes(self.owner)
        return any(sandbox.container.engine_info.url == settings.engine for sandbox in held)

    def require_here(self) -> None:
        """See that these are the process and the event loop that it belongs to.

        Raises:
            SandboxClosedError: this process was forked from the one that made it, and has inherited it only.
            InvalidArgumentError: this is another event loop, in another thread perhaps.
        """
        if os.getpid() != self._pid:
            message = "This container belongs to the process that this one was forked from."
            hint = "Create or resume containers in the process that uses them."
            raise SandboxClosedError(message, hint=hint)
        if self._manager is not None and running_loop() not in (None, self._loop):
            message = "This container belongs to another event loop, which is still running."
            raise InvalidArgumentError(message, hint="Use it there, or resume one that persists here.")

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Manager]:
        """Have it there for a piece of work; when nobody works and no container is left, it ends."""
        self.require_here()
        self._working += 1
        try:
            self._begin()
            await self._begun.wait()
            with told_in_sdk_words():
                yield self.manager
        finally:
            self._working -= 1
            self._end_if_unused()
            await self.wait_ended()

    async def aclose(self) -> None:
        """End it now: what persists is left running, all else is removed."""
        self._leave()
        self._enough.set()
        await self.wait_ended()

    async def do(
        self,
        work: Callable[[Manager], Awaitable[T]],
        undo: Callable[[Manager, T], Awaitable[object]] | None = None,
    ) -> T:
        """Do a piece of work in a task of the host, and return what it returns.

        Whoever is cancelled while waiting for it has it cancelled, and waits for that; see `pieces` for why.

        Args:
            work: what to do.
            undo: called with what came of it when nobody waits for that any more.
        """
        async with self.working() as manager:
            piece: Piece[T] = Piece(partial(work, manager), None if undo is None else partial(undo, manager))
            self._tasks.start_soon(piece.run)
            return await piece.wait()

    def _end_if_unused(self) -> None:
        if self._working or self._enough.is_set():
            return
        if self._manager is None or not self._manager.list_sandboxes(self.owner):
            # Whoever comes from now on gets another.
            self._leave()
            self._enough.set()

    def _begin(self) -> None:
        if self._task is None:
            # It serves many callers and outlives each, so no task group of theirs can own it. It ends with
            # the last container, and is cancelled with all other tasks at the end of the loop. In a context
            # of its own: the spans and variables of whoever came first are not everybody's.
            self._task = contextvars.Context().run(self._loop.create_task, self._serve())

    def _leave(self) -> None:
        hosts = _hosts.get(self._loop, {})
        if hosts.get(self.settings) is self:
            del hosts[self.settings]
        if not hosts:
            _hosts.pop(self._loop, None)

    async def _serve(self) -> None:
        try:
            manager = Manager(self.settings, self._connect)
            async with manager, anyio.create_task_group() as self._tasks:
                self._manager = manager
                # Containers also die by themselves.
                manager.when_one_ends(self._end_if_unused)
                self._begun.set()
                await self._enough.wait()
                self._tasks.cancel_scope.cancel()
        except Exception:
            logger.exception("what looked after containers has failed, and they have ended")
        finally:
            self._manager = None
            self._leave()
            # Those who wait are told that there is none.
            self._begun.set()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop of this thread, if one is running."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def host_for(engine: str | None = None, socket_path: str | None = None) -> Host:
    """Return the running loop's host for an engine; None is the one that the environment names.

    Raises:
        ConfigError: the environment, or the engine that is named, makes no sense.
        InvalidArgumentError: both are given.
    """
    settings = settings_for(engine, socket_path)
    environ = engine_environ(settings, os.environ)
    is_given = engine is not None or socket_path is not None
    named_by = "the engine that is given" if is_given else project_defaults().engine_named_by
    # Refused now, also where no engine is needed.
    candidates(environ, uid=os.getuid(), home=Path.home(), platform=sys.platform, named_by=named_by)
    return host_of(settings, lambda: connect(environ, named_by))


def host_of(settings: Settings, connect: Connect) -> Host:
    """Return the running loop's host for these settings; `connect` is how a new one reaches its engine."""
    loop = asyncio.get_running_loop()
    for other in tuple(_hosts):
        # Closed without its tasks having been ended.
        if other.is_closed():
            _hosts.pop(other, None)
    hosts = _hosts.setdefault(loop, {})
    for host in hosts.values():
        # The same engine, by its address now.
        if settings not in hosts and host.reaches(settings):
            return host
    if settings not in hosts:
        hosts[settings] = Host(settings, connect)
    return hosts[settings]
