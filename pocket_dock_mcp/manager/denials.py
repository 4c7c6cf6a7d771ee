"""Calls that were refused for whose they are, or for how much they ask: on a log of their own.

A line says who wanted what with which tool and id, and nothing of what was in the call besides. Somebody who
guesses ids for hours must not push everything else off the log: of each principal it has so many a minute,
and of the rest the number.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pocket_dock_mcp.errors import (
    CapacityError,
    CheckpointNotFoundError,
    HttpSessionNotFoundError,
    PocketDockError,
    QuotaError,
    RunNotFoundError,
    SandboxNotFoundError,
    SnapshotNotFoundError,
)
from pocket_dock_mcp.manager.audit import AuditLog, redacted
from pocket_dock_mcp.manager.sandbox import Owner

LOG = "denied"
"""The log's name; sandboxes have theirs."""
EACH_MINUTE = 60
PRINCIPALS = 1000
"""Of whom is remembered how many they had lately."""
NAMING = ("sandbox_id", "run_id", "snapshot_id", "snapshot", "since", "checkpoint")
"""Arguments that name something of somebody's."""

_DENIED = (
    SandboxNotFoundError,
    RunNotFoundError,
    SnapshotNotFoundError,
    CheckpointNotFoundError,
    HttpSessionNotFoundError,
    QuotaError,
    CapacityError,
)
_MINUTE = 60.0


@dataclass
class _Lately:
    began: float
    count: int = 0


class Denials:
    """Writes them down, as many as are of use."""

    def __init__(self, log: AuditLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lately: collections.OrderedDict[str, _Lately] = collections.OrderedDict()

    def note(self, owner: Owner, tool: str, error: PocketDockError, arguments: Mapping[str, object]) -> None:
        """Write a refused call down; errors of another kind are none."""
        if not isinstance(error, _DENIED):
            return
        lately = self._of(owner)
        lately.count += 1
        if lately.count > EACH_MINUTE:
            return
        named = {name: _shown(arguments[name]) for name in NAMING if arguments.get(name) is not None}
        self._write(owner, tool=tool, reason=error.code, **named)

    def _of(self, owner: Owner) -> _Lately:
        now = self._clock()
        lately = self._lately.pop(owner.principal, None)
        if lately is None or now - lately.began >= _MINUTE:
            if lately is not None and lately.count > EACH_MINUTE:
                self._write(owner, left_out=lately.count - EACH_MINUTE)
            lately = _Lately(now)
        self._lately[owner.principal] = lately
        while len(self._lately) > PRINCIPALS:
            self._lately.popitem(last=False)
        return lately

    def _write(self, owner: Owner, **fields: object) -> None:
        log = self._log.open(LOG, owner.principal, owner.session)
        # It is about what is asked for, and that is among the fields.
        log.write("denied", **{"sandbox_id": None, **fields})
        log.close()


def _shown(value: object) -> str:
    """Return an id as it was given; it may be anything, also a secret in the wrong place."""
    return redacted(str(value)[:200])
