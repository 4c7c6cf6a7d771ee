"""A home directory in memory, on its way into an image and out of it again.

An engine makes an image of what is on the disk. So before it does, a program of the user puts the home
directory into a parcel there, which goes into the image and is then removed; and who is made from such an
image finds the parcel and unpacks it, into memory or onto the disk.
"""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.bundle import source_of
from pocket_dock_mcp.agent.inside import facts
from pocket_dock_mcp.agent.transport import Program, Transport
from pocket_dock_mcp.container.asking import ask
from pocket_dock_mcp.container.endings import status_of
from pocket_dock_mcp.errors import (
    AgentError,
    DiskFullError,
    InvalidArgumentError,
    PocketDockError,
    WorkspaceError,
)
from pocket_dock_mcp.models import MIB, Facts, Limits, Workspace

PACK_TIMEOUT_S = 120.0
_REMOVE_TIMEOUT_S = 10.0
_MAX_ANSWER = 1000
_PAGE = 64 * 1024
"""The largest that there is: a kernel rounds up to whole ones."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM})


class Wanted(Protocol):
    """What of a `Launch` matters here."""

    @property
    def workspace(self) -> Workspace:
        """Where the home directory is."""

    @property
    def limits(self) -> Limits:
        """What the sandbox may use."""


def memory_home_bytes(limits: Limits) -> int:
    """Return how large a home directory in memory is.

    With it full there must be memory left for programs, and on some engines for the container to be usable at
    all: all file systems in memory together have half of it.

    Raises:
        InvalidArgumentError: the sandbox has too little memory for any.
    """
    size = limits.memory_bytes // 2 - limits.shm_bytes
    if size < policy.MIN_MEMORY_HOME_BYTES:
        least = 2 * (policy.MIN_MEMORY_HOME_BYTES + limits.shm_bytes) // MIB
        message = f"A workspace in memory takes memory_mb of at least {least}."
        raise InvalidArgumentError(message)
    return size


def memory_of(workspace: Workspace, limits: Limits) -> dict[str, int]:
    """Return which directories are to be in memory, and how large. Raises what `memory_home_bytes` raises."""
    return {policy.HOME: memory_home_bytes(limits)} if workspace == "memory" else {}


def check_memory(workspace: Workspace, limits: Limits, facts: Facts) -> tuple[str, ...]:
    """Name what does not hold of a workspace in memory: it is one, and no larger than it may be."""
    if workspace != "memory":
        return ()
    holds = facts.home_bytes is not None and facts.home_bytes <= memory_home_bytes(limits) + _PAGE
    return () if holds else ("workspace",)


@asynccontextmanager
async def parked(transport: Transport, wanted: Wanted) -> AsyncIterator[None]:
    """While the block runs, have a copy of a home directory in memory lie on the disk.

    Raises:
        DiskFullError: there is no room for it.
        WorkspaceError: it cannot be read as a whole, or something in the sandbox tampers with it.
    """
    if wanted.workspace != "memory":
        yield
        return
    try:
        # Names take room in a parcel, and not in memory.
        room = 2 * memory_home_bytes(wanted.limits)
        await _ask(transport, {"op": "pack", "room": room}, PACK_TIMEOUT_S)
        yield
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_REMOVE_TIMEOUT_S):
            try:
                await _ask(transport, {"op": "remove"}, _REMOVE_TIMEOUT_S)
            except (AgentError, PocketDockError):
                # It is dying, or something in it is in the way: the next time removes it.
                pass


async def put_back(transport: Transport) -> None:
    """Unpack a home directory that lies on the disk.

    Raises: what `parked` raises.
    """
    if transport.facts.parked:
        await _ask(transport, {"op": "unpack"}, PACK_TIMEOUT_S)


async def _ask(transport: Transport, order: dict[str, Any], timeout_s: float) -> None:
    whole = {**order, "root": transport.facts.home, "places": facts.PARKED}
    program = Program(
        "python", source_of("parcel"), cwd="/", stdin=json.dumps(whole).encode("ascii"), timeout_s=timeout_s
    )
    end, answer = await ask(transport, program, _MAX_ANSWER)
    number = _errno(answer) if status_of(end) == "ok" else None
    if number in _FULL:
        message = "The files of the home directory do not fit: no space is left where they are to go."
        raise DiskFullError(message, hint=_FULL_HINTS[order["op"]])
    if number != 0:
        what = f"error {errno.errorcode.get(number, number)}" if number else f"it ended as {status_of(end)}"
        message = f"The files of the home directory could not be moved ({what})."
        raise WorkspaceError(message)


_FULL_HINTS = {
    "pack": "Delete files, in the home directory or elsewhere.",
    "unpack": "Start with more memory_mb, or with workspace='disk'.",
    "remove": "",
}


def _errno(answer: bytes) -> int | None:
    """Return what went wrong, 0 for nothing, None for an answer that is none."""
    try:
        reply = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    match reply:
        case {"done": True}:
            return 0
        case {"errno": int(number)} if number > 0:
            return number
    return None
