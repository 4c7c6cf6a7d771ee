"""How a command reaches sandboxes: through a manager of its own, which leaves them running when it ends."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocket_dock_mcp.cli.console import plain
from pocket_dock_mcp.cli.surroundings import engine_named_by, environ
from pocket_dock_mcp.errors import (
    InvalidArgumentError,
    PocketDockError,
    SandboxNotFoundError,
    SandboxPausedError,
    SandboxStateError,
    SnapshotNotFoundError,
)

if TYPE_CHECKING:
    from pocket_dock_mcp.container.core import LiveContainer
    from pocket_dock_mcp.manager.core import Manager
    from pocket_dock_mcp.manager.persistence import KeptSandbox
    from pocket_dock_mcp.manager.sandbox import Owner, Sandbox
    from pocket_dock_mcp.settings import Settings

_SETTLE = 2.0


@dataclass(frozen=True, slots=True)
class Reached:
    """A sandbox that a command uses, and by whose leave."""

    manager: Manager
    owner: Owner
    sandbox: Sandbox
    live: LiveContainer
    """What can be done with it. It does not count as idle while the command has it."""

    @property
    def name(self) -> str:
        """What the user calls it: safe to show on one line."""
        return plain(self.sandbox.request.name or self.live.name)


@asynccontextmanager
async def managing(settings: Settings | None = None) -> AsyncIterator[tuple[Manager, Owner]]:
    """Have a manager. What persists is left as it is at the end, all else is removed.

    `settings` are those of the environment unless given.

    Raises:
        ConfigError: the environment is not valid.
    """
    from pocket_dock_mcp.async_.host import engine_environ, settings_for
    from pocket_dock_mcp.engine.connect import connect
    from pocket_dock_mcp.engine.endpoint import candidates
    from pocket_dock_mcp.manager.core import Manager
    from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL, Owner

    settings = settings or settings_for()
    surrounding = engine_environ(settings, environ())
    # Refused now, also where no engine is needed.
    named_by = engine_named_by()
    candidates(surrounding, uid=os.getuid(), home=Path.home(), platform=sys.platform, named_by=named_by)
    async with Manager(settings, lambda: connect(surrounding, named_by)) as manager:
        yield manager, Owner(session=secrets.token_hex(16), principal=LOCAL_PRINCIPAL)


@asynccontextmanager
async def reaching(wanted: str, settings: Settings | None = None) -> AsyncIterator[Reached]:
    """Use the running sandbox of a name or id for as long as the context lasts. It is left running.

    One that is stopped is not started: that is for its user to say.

    Raises:
        SandboxNotFoundError: there is none.
        SandboxStateError, SandboxPausedError: it does not run.
        InvalidArgumentError: several are called so.
        And what `Manager.open` and `managing` raise.
    """
    async with managing(settings) as (manager, owner):
        found = await find(manager, owner, wanted)
        require_running(found, wanted)
        sandbox = await manager.open(owner, found.kept.id)
        with sandbox.use() as live:
            try:
                yield Reached(manager, owner, sandbox, live)
            finally:
                await _settle(live)


async def _settle(live: LiveContainer) -> None:
    """See that all we have said has arrived: an engine may drop what is under way when we hang up."""
    import anyio

    with anyio.CancelScope(shield=True), anyio.move_on_after(_SETTLE):
        # What is said from callbacks goes out first.
        await anyio.lowlevel.checkpoint()
        try:
            await live.list_sessions()
        except PocketDockError:
            # It is gone, or was stopped meanwhile.
            pass


async def find(manager: Manager, owner: Owner, wanted: str) -> KeptSandbox:
    """Return what is known of the sandbox of a name or id, without reaching it.

    Raises: what `reaching` raises, but for the state that it is in.
    """
    found = await manager.list_kept(owner)
    sandbox_id = id_of(wanted, found)
    for one in found:
        if one.kept.id == sandbox_id:
            return one
    raise not_found(wanted, "To see what there is: pocket-dock list")


def not_found(wanted: str, hint: str) -> SandboxNotFoundError:
    """Return what is said of a sandbox that is not there: by its name, since a script has many."""
    return SandboxNotFoundError(f"There is no such sandbox: {plain(wanted)}.", hint=hint)


@asynccontextmanager
async def needing_snapshot(manager: Manager, owner: Owner, wanted: str | None) -> AsyncIterator[None]:
    """Have it said what there is instead, if the snapshot that is wanted is not there.

    Raises:
        SnapshotNotFoundError: it is not there.
    """
    try:
        yield
    except SnapshotNotFoundError as error:
        there = await manager.list_snapshots(owner)
        hint = (
            f"The latest is {there[-1].id}; to see all: pocket-dock snapshots"
            if there
            else "There is none yet. To make one: pocket-dock snapshot SANDBOX. For an image: --image"
        )
        raise no_such_snapshot(wanted or "", hint) from error


def no_such_snapshot(wanted: str, hint: str) -> SnapshotNotFoundError:
    """Return what is said of a snapshot that is not there: by its id, since a script has many."""
    error = SnapshotNotFoundError()
    error.message, error.hint = f"There is no such snapshot: {plain(wanted)}.", hint
    return error


def require_running(found: KeptSandbox, wanted: str) -> None:
    """Refuse one that does not run.

    Raises:
        SandboxStateError, SandboxPausedError: with the command that helps.
    """
    name = plain(wanted)
    if found.status == "paused":
        message = f"The container of {name} is paused."
        raise SandboxPausedError(
            message, hint=f"Have it go on: podman or docker unpause {found.kept.container}"
        )
    if found.status != "running":
        gone = found.status == "gone"
        message = f"The container of {name} is gone." if gone else f"{name} is stopped."
        hint = f"Forget it: pocket-dock destroy {name}" if gone else f"Start it: pocket-dock resume {name}"
        raise SandboxStateError(message, hint=hint)


def id_of(wanted: str, found: Sequence[KeptSandbox]) -> str:
    """Return the id that is meant: an id, the name of a container, or a name that one sandbox has.

    Raises:
        InvalidArgumentError: nothing is meant, or more than one.
    """
    if not wanted.strip():
        # Those without a name are not meant by that.
        raise InvalidArgumentError(
            "This is neither an id nor a name.", hint="To see what there is: pocket-dock list"
        )
    for one in found:
        if wanted in (one.kept.id, one.kept.container):
            return one.kept.id
    # A name is also known as it is shown.
    named = [one.kept.id for one in found if wanted in (one.kept.request.name, plain(one.kept.request.name))]
    if len(named) == 1:
        return named[0]
    if named:
        message = f"{len(named)} sandboxes have this name."
        raise InvalidArgumentError(message, hint=f"Say which: {', '.join(named)}.")
    return wanted
