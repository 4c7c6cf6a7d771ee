"""Which sandboxes this process holds, and what it remembers of those that have ended."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from pocket_dock_mcp.errors import (
    InvalidArgumentError,
    RunNotFoundError,
    SandboxLostError,
    SandboxNotFoundError,
)
from pocket_dock_mcp.manager.runs import SandboxRun
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox

REMEMBERED = 256
"""Ended sandboxes whose owners can still be told why."""

REMEMBERED_RUNS = 4096
"""Their runs, likewise."""


class Table:
    """Looks sandboxes and runs up, for their owners and for nobody else."""

    def __init__(self) -> None:
        self._sandboxes: dict[str, Sandbox] = {}
        self._going: dict[str, Sandbox] = {}
        """Those that are being ended: nobody finds them any more, and they still take their place."""
        self._ended: collections.OrderedDict[str, tuple[Owner, str]] = collections.OrderedDict()
        self._ended_runs: collections.OrderedDict[str, str] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._sandboxes)

    def __contains__(self, sandbox_id: object) -> bool:
        return sandbox_id in self._sandboxes

    def add(self, sandbox: Sandbox) -> None:
        """Hold a sandbox."""
        self._sandboxes[sandbox.id] = sandbox
        # A kept one that was lost may have been reached again.
        self._ended.pop(sandbox.id, None)

    def take(self, sandbox: Sandbox) -> bool:
        """Hold a sandbox no more; False if it was not held. It counts until it is `gone`."""
        if self._sandboxes.pop(sandbox.id, None) is None:
            return False
        self._going[sandbox.id] = sandbox
        return True

    def gone(self, sandbox: Sandbox) -> None:
        """One that was taken has ended."""
        self._going.pop(sandbox.id, None)

    def remember(self, sandbox: Sandbox, why: str) -> None:
        """Note why a sandbox has ended."""
        self._ended[sandbox.id] = (sandbox.owner, why)
        self._ended_runs.update(dict.fromkeys(sandbox.runs.ids(), sandbox.id))
        while len(self._ended_runs) > REMEMBERED_RUNS:
            self._ended_runs.popitem(last=False)
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def all(self) -> list[Sandbox]:
        """Return everybody's."""
        return list(self._sandboxes.values())

    def counted(self) -> list[Sandbox]:
        """Return everybody's, also those that are being ended."""
        return [*self._sandboxes.values(), *self._going.values()]

    def of(self, owner: Owner) -> list[Sandbox]:
        """Return the owner's, oldest first."""
        mine = [sandbox for sandbox in self._sandboxes.values() if sandbox.belongs_to(owner)]
        return sorted(mine, key=lambda sandbox: sandbox.created)

    def of_session(self, owner: Owner) -> list[Sandbox]:
        """Return those that end with the owner's session."""
        mine = (sandbox for sandbox in self._sandboxes.values() if sandbox.owner.session == owner.session)
        return [sandbox for sandbox in mine if not sandbox.is_kept]

    def get(self, owner: Owner, sandbox_id: str | None) -> Sandbox:
        """Return one of the owner's; see `Manager.get`."""
        sandbox = self._sandboxes.get(self.only(owner) if sandbox_id is None else sandbox_id)
        if sandbox is not None and sandbox.belongs_to(owner):
            return sandbox
        if (why := self._why(owner, sandbox_id)) is not None:
            raise SandboxLostError(f"This sandbox has ended: {why}.")
        raise SandboxNotFoundError

    def find_run(self, owner: Owner, run_id: str) -> tuple[Sandbox, SandboxRun]:
        """Return one of the owner's runs with its sandbox; see `Manager.find_run`."""
        for sandbox in self._sandboxes.values():
            if sandbox.belongs_to(owner) and (run := sandbox.runs.get(run_id)) is not None:
                return sandbox, run
        if (why := self._why(owner, self._ended_runs.get(run_id))) is not None:
            raise SandboxLostError(f"The sandbox of this run has ended: {why}.")
        raise RunNotFoundError

    def only(self, owner: Owner, kept: Sequence[str] = ()) -> str:
        """Return the id of the owner's only sandbox; `kept` are ids of those that nobody holds.

        Raises:
            InvalidArgumentError: there is not exactly one.
        """
        mine = [*(sandbox.id for sandbox in self.of(owner)), *kept]
        if len(mine) == 1:
            return mine[0]
        raise InvalidArgumentError(
            f"sandbox_id was left out and you have {len(mine)} sandboxes.",
            hint="Say which; list_sandboxes shows them." if mine else "Call create_sandbox first.",
        )

    def _why(self, owner: Owner, sandbox_id: str | None) -> str | None:
        ended = self._ended.get(sandbox_id or "")
        return ended[1] if ended is not None and ended[0] == owner else None
