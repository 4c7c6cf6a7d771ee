"""The life of one container from the side of who holds it: reached, lost, let go of, begun again."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NoReturn

import anyio

from pocket_dock_mcp.agent.link import RemoteError
from pocket_dock_mcp.container.launch import ADOPT_DEADLINE, Launch, Running, launch
from pocket_dock_mcp.container.provisioning import admit
from pocket_dock_mcp.container.taking_up import resume, visit
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import (
    AgentError,
    ContainerGoneError,
    EngineError,
    PocketDockError,
    SandboxClosedError,
    SandboxDetachedError,
    SandboxError,
    SandboxHaltedError,
    SandboxLostError,
    SandboxStateError,
)
from pocket_dock_mcp.models import RunStatus

logger = logging.getLogger(__name__)

GONE_DEADLINE = 2.0
"""Seconds to find out whether a container whose stream broke is really gone."""
SETTLE = 0.5
"""Seconds that an engine may take to notice that a container has ended."""
LEFT = "The sandbox was left, and the run was not to stay."
_PAUSE = 0.02
_AFTER_HALT = {
    "stopped": "Its files are kept: resume it.",
    "rebooted": "Attach to it again.",
    "destroyed": "Create a new one.",
}


class Life:
    """Holds one container, and after a reboot the next one of the same name."""

    def __init__(self, engine: Engine, wanted: Launch, running: Running, *, visits: bool = False) -> None:
        self.engine = engine
        self.wanted = wanted
        self.running = running
        self.visits = visits
        """Whether another may hold it, so that it is only left where others end it."""
        self.halted: str | None = None
        """What another client has done with it, as its agent says; see `SandboxHaltedError.WORDS`."""
        self.removed = False
        """Whether it was closed and the engine has confirmed that it is gone."""
        self._ended: SandboxError | None = None
        """Why it cannot be used, if it was ended or let go of on purpose."""
        self._lost: SandboxLostError | None = None
        self.let_go = False
        self._may_come = False
        """Whether a container was asked for of which nobody knows whether it will be made."""
        self._changing = anyio.Lock()
        self.on_renewal: Callable[[bool], None] = lambda _begins: None
        """Hears when a fresh container begins to take the place of this one, and when it has."""

    @property
    def state(self) -> str:
        """Return it in one word."""
        return "lost" if self._lost else "running" if self._ended is None else "closed"

    # -- while it is reached ----------------------------------------------------------------------

    def require_open(self) -> None:
        """Raise what is in the way of using it."""
        # Lost first: whoever owns it closes it then, and that is not why it cannot be used.
        for error in (self._lost, self._ended):
            if error is not None:
                raise type(error)(error.message, hint=error.hint)

    @asynccontextmanager
    async def reaching(self) -> AsyncIterator[None]:
        """Ask the transport something; when it is found dead, the sandbox is lost."""
        self.require_open()
        running = self.running
        try:
            yield
        except AgentError as error:
            await self._raise_lost(running, error)

    async def _raise_lost(self, running: Running, error: AgentError) -> NoReturn:
        _, why = await self.fate(running, error)
        self.require_open()
        # It was begun again meanwhile.
        raise SandboxClosedError(why, hint="Try again.") from error

    async def fate(
        self, running: Running, error: AgentError, *, goes_on: bool = True
    ) -> tuple[RunStatus, str]:
        """Say what became of a run whose stream broke, and which was to outlive us if it `goes_on`."""
        if running.ended is not None:
            was_left = self.visits and running.ended[0] == "indeterminate"
            return ("killed", LEFT) if was_left and not goes_on else running.ended
        self.note(error)
        if isinstance(error, SandboxHaltedError):
            return "killed", error.message
        with anyio.move_on_after(GONE_DEADLINE):
            try:
                return await self._fate_of_it(), str(self._lost)
            except EngineError:
                pass
        return "indeterminate", str(self._lost)

    async def _fate_of_it(self) -> RunStatus:
        """Lost if its container is gone; else nobody knows."""
        if self.wanted.keep:
            return "lost" if await self._has_exited(SETTLE) else "indeterminate"
        # Nothing will ever be heard of it again, so it must not go on either.
        await self.engine.remove(self.running.id)
        return "lost"

    async def _has_exited(self, within: float) -> bool:
        """Whether it does not run, or not for longer than `within` seconds."""
        deadline = anyio.current_time() + within
        try:
            while (await self.engine.inspect(self.running.id)).status in ("running", "paused"):
                if anyio.current_time() > deadline:
                    return False
                await anyio.sleep(_PAUSE)
        except ContainerGoneError:
            pass
        return True

    async def is_gone(self, within: float) -> bool:
        """Whether the engine knows it no more, after so many seconds at the latest."""
        with anyio.move_on_after(within):
            try:
                while True:
                    await self.engine.inspect(self.running.id)
                    await anyio.sleep(_PAUSE)
            except ContainerGoneError:
                return True
            except EngineError as error:
                logger.debug("whether a container is gone cannot be known: %s", error)
        return False

    def note(self, error: AgentError) -> None:
        """Note that its agent cannot be reached any more; the first reason counts."""
        if self._lost is None and isinstance(error, SandboxHaltedError):
            self.halted = error.word
            self._lost = SandboxDetachedError(error.message, hint=_AFTER_HALT[error.word])
        self.mark_lost(error.message)

    def mark_lost(self, why: str) -> SandboxLostError:
        """Note that it cannot be reached any more, and why; the first reason counts."""
        if self._lost is None and self.wanted.keep:
            self._lost = SandboxDetachedError(f"The connection to the sandbox was lost: {why}")
        elif self._lost is None:
            self._lost = SandboxLostError(f"The sandbox died: {why}")
        return type(self._lost)(self._lost.message, hint=self._lost.hint)

    async def wait_lost(self) -> None:
        """Return when the container cannot be reached any more, for whatever reason but a reboot."""
        running: Running | None = self.running
        while running is not None:
            reason = await running.transport.wait_broken()
            running = await self.successor(running)
        if self._ended is None:
            self.note(reason)

    async def successor(self, broken: Running) -> Running | None:
        """Return what has taken the place of a container that is reached no more; None if nothing has."""
        async with self._changing:
            return None if self.running is broken else self.running

    # -- endings ----------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End and remove it, unless it was let go of on purpose, or only visited. Idempotent, and quiet."""
        if self.visits:
            await self.leave()
        elif not self.let_go:
            await self.destroy()

    async def leave(self) -> None:
        """Be its client no more, and do nothing to it. Idempotent, and quiet."""
        with anyio.CancelScope(shield=True):
            async with self._changing:
                if self._ended is None:
                    self._ended = SandboxClosedError("The sandbox was left.", hint="Attach to it again.")
                if self._lost is None and self.running.ended is None:
                    self.running.ended = ("indeterminate", "The sandbox was left while it ran.")
                self.let_go = True
                await self.running.transport.aclose()

    async def destroy(self) -> None:
        """End and remove it, in whatever state it is. Idempotent, and quiet when the engine is not there."""
        if self.removed:
            return
        if self._ended is None:
            self._ended = SandboxClosedError("The sandbox was closed.", hint="Create a new one.")
        self.let_go = True
        with anyio.CancelScope(shield=True):
            async with self._changing:
                if self._lost is None and self.running.ended is None:
                    self._end_runs("The sandbox was closed.")
                    await self.running.transport.farewell("destroyed")
                await self.running.transport.aclose()
                try:
                    await self.engine.remove(self.running.id)
                    self.removed = not self._may_come
                except EngineError as error:
                    # Its lease is closed, so it ends by itself when the engine is able to, unless it is kept.
                    logger.warning("could not remove container %s: %s", self.wanted.name, error)

    async def detach(self) -> None:
        """Let go of it and leave it running."""
        self._require_kept("detached from")
        async with self._changing:
            if not isinstance(self._lost, SandboxDetachedError):
                self.require_open()
            why = "The sandbox was detached from."
            if self.halted is None:
                self.running.ended = ("indeterminate", f"{why} Attach again to see how the run ends.")
            self._ended = SandboxDetachedError(why)
            self.let_go = True
            with anyio.CancelScope(shield=True):
                await self.running.transport.aclose()

    async def stop(self) -> None:
        """End everything in it and leave its files."""
        if not self.wanted.keep:
            raise _not_kept("stopped")
        async with self._changing:
            if not isinstance(self._lost, SandboxDetachedError):
                self.require_open()
            self._end_runs("The sandbox was stopped.")
            self._ended = SandboxClosedError("The sandbox was stopped.", hint="Resume it.")
            with anyio.CancelScope(shield=True):
                await self._halt("stopped")
            self.let_go = True

    def _end_runs(self, why: str) -> None:
        self.running.ended = ("killed", why)

    async def _halt(self, why: str) -> None:
        """Have it exit: its first program by itself, or else by the engine's hand."""
        transport = self.running.transport
        try:
            await transport.halt(why)
        except (AgentError, RemoteError):
            # It ended before it could answer, or does not listen.
            pass
        await transport.aclose()
        if not await self._has_exited(SETTLE):
            await self.engine.stop(self.running.id)

    async def reboot(self, *, fresh: bool) -> None:
        """End all processes and begin again: with the files that are there, or with those of the image."""
        async with self._changing:
            self.require_open()
            if not fresh and not self.wanted.keep:
                async with self.reaching():
                    await self.running.transport.kill_all()
                return
            # Half a reboot is of no use to anybody, so it is not cut off.
            with anyio.CancelScope(shield=True):
                await self._begin_again(fresh)

    async def _begin_again(self, fresh: bool) -> None:
        # Before anything is ended: what it sees of its host may not be there any more.
        await admit(self.engine, self.wanted)
        if fresh:
            # What cannot be put on record is not begun.
            self.on_renewal(True)
        self._end_runs("The sandbox was rebooted.")
        self._ended = SandboxClosedError("The sandbox is being rebooted.", hint="Try again in a moment.")
        uid, shared = self.running.transport.facts.uid, self.wanted.has_shared_uid
        wanted = replace(self.wanted, uid=uid, shares_uid=shared)
        try:
            if fresh:
                await self.running.transport.farewell("rebooted")
                await self.running.transport.aclose()
                await self.engine.remove(self.running.id)
                self.running = await launch(self.engine, wanted)
                if wanted.keep:
                    await self.running.transport.adopt({}, ADOPT_DEADLINE)
                self.on_renewal(False)
            else:
                await self._halt("rebooted")
                self.running = await resume(self.engine, wanted)
            if self.visits:
                # Whoever holds it is to be able to hold it again.
                await self.running.transport.aclose()
                self.running, _ = await visit(self.engine, wanted)
        except PocketDockError as error:
            self._may_come = fresh and isinstance(error, EngineError)
            hint = "Its files are kept: resume it." if not fresh else None
            self._lost = SandboxLostError(f"The sandbox could not be rebooted: {error.message}", hint=hint)
            raise
        if self.let_go:
            # It was closed meanwhile; whoever did waits for us.
            raise SandboxClosedError("The sandbox was closed.", hint="Create a new one.")
        self._ended = None

    def _require_kept(self, what: str) -> None:
        if not self.wanted.keep or self.running.transport.kind != "agent":
            raise _not_kept(what)


def _not_kept(what: str) -> SandboxStateError:
    message = f"This sandbox cannot be {what}: it does not outlive who uses it."
    return SandboxStateError(message, hint="Create one that is kept, of an image with python3.")
