"""Which sandbox is meant: by its name, its id, or the id of its container."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pocket_dock_mcp.async_.host import Host
from pocket_dock_mcp.container.arguments import is_of
from pocket_dock_mcp.engine.base import ContainerState
from pocket_dock_mcp.errors import InvalidArgumentError, SandboxNotFoundError, SandboxStateError
from pocket_dock_mcp.images.references import is_id, is_reference
from pocket_dock_mcp.manager.core import Manager
from pocket_dock_mcp.manager.persistence import KeptSandbox
from pocket_dock_mcp.manager.sandbox import Sandbox

_OURS = "localhost/pocket-dock/"
_SHORT_ID = 12
_SANDBOX_ID = re.compile(r"sb-[0-9a-f]{32}")
_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}")


def new_name() -> str:
    """Return a name for a container whose maker has none for it."""
    return f"pd-{secrets.token_hex(4)}"


def checked_image_name(name: str) -> str:
    """Return the name and tag of an image that a user may make.

    Raises:
        InvalidArgumentError: it is none, or one of ours.
    """
    if not is_of(name, str) or not is_reference(name) or is_id(name) or "@" in name:
        message = f"{name!r} is no name for an image."
        raise InvalidArgumentError(message, hint="Use one such as 'my-tools' or 'localhost/my-tools:v2'.")
    if name.startswith(_OURS):
        message = f"Images below {_OURS} are those of the profiles, and ours."
        raise InvalidArgumentError(message, hint="Use another name.")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass(frozen=True, slots=True)
class Known:
    """A sandbox that can be reached from here, and what it goes by."""

    id: str
    container: str
    title: str
    """As its maker has called it for people."""
    container_id: str = ""

    def is_called(self, wanted: str) -> bool:
        """Whether this is its name or its id."""
        if wanted in (self.id, self.container):
            return True
        return _CONTAINER_ID.fullmatch(wanted) is not None and self.container_id.startswith(wanted)


def known(sandboxes: Iterable[Sandbox], kept: Iterable[KeptSandbox]) -> Iterator[Known]:
    """Return those that this process holds, and those that are kept and it does not."""
    for sandbox in sandboxes:
        live = sandbox.container
        yield Known(sandbox.id, live.name, sandbox.request.name, live.container_id)
    for one in kept:
        yield Known(one.kept.id, one.kept.container, one.kept.request.name, one.container_id)


async def find(host: Host, manager: Manager, wanted: str) -> str:
    """Return the id of the sandbox that is meant, held or kept.

    Raises:
        SandboxNotFoundError: there is none, or it is somebody else's.
        SandboxStateError: another process holds it, and it is not kept.
        InvalidArgumentError: several are meant, or no name is given.
    """
    if not is_of(wanted, str) or not wanted.strip():
        message = f"{wanted!r} is neither a name nor an id."
        raise InvalidArgumentError(message, hint="list_containers() shows what there is.")
    candidates = list(known(manager.list_sandboxes(host.owner), await manager.list_kept(host.owner)))
    named = [one.id for one in candidates if one.is_called(wanted)]
    named = named or [one.id for one in candidates if one.title == wanted]
    if len(named) == 1:
        return named[0]
    if named:
        message = f"{len(named)} containers are called {wanted[:80]!r}."
        raise InvalidArgumentError(message, hint=f"Say which: {', '.join(named)}.")
    if _SANDBOX_ID.fullmatch(wanted):
        # Of one that has ended, perhaps, and then it is known why.
        return wanted
    if any(_is_called(state, wanted) for state in await manager.list_others()):
        message = f"The container {wanted[:80]!r} belongs to another process and is not kept."
        hint = "It ends with that process. Use persist=True for one that others can resume."
        raise SandboxStateError(message, hint=hint)
    missing = SandboxNotFoundError()
    missing.hint = "list_containers() shows what there is; create_new_container() makes a new one."
    raise missing


def _is_called(state: ContainerState, wanted: str) -> bool:
    return state.name == wanted or (len(wanted) >= _SHORT_ID and state.id.startswith(wanted))
