"""Places for sandboxes: how many a principal may have, and how many there may be, with how much memory.
And how many runs may go on at once.

A sandbox that is being made, or taken up, counts as if it were there, and one that is being ended until it is
gone. So nobody gets more than his quota by making and killing at the same time. What counts is the principal:
opening another session gives nobody another quota.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import anyio

from pocket_dock_mcp import telemetry
from pocket_dock_mcp.errors import CapacityError, QuotaError
from pocket_dock_mcp.manager.sandbox import Owner, Sandbox
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.settings import Settings

TURN_PATIENCE = 20.0
"""Seconds that a container waits to be made while as many others are as may be."""

Held = Callable[[], Iterable[Sandbox]]


@dataclass(eq=False)
class Reservation:
    """Places for sandboxes that are on their way, each with so much memory."""

    owner: Owner
    count: int
    memory_bytes: int

    def taken(self) -> None:
        """One of them is held as a sandbox from now on, and counts as that."""
        self.count -= 1


Reservations = Callable[[Owner, int, int], AbstractContextManager[Reservation]]
"""For an owner, so many, each with so many bytes of memory; see `Places.reserved`."""


@dataclass(frozen=True, slots=True)
class _Use:
    count: int
    memory_bytes: int


class Places:
    """Decides who gets a place. Nothing is awaited between the look and the taking."""

    def __init__(self, settings: Settings, held: Held) -> None:
        """Give no place yet; `held` returns all sandboxes that are there, and those that are being ended."""
        self._settings = settings
        self._held = held
        self._reserved: set[Reservation] = set()

    @property
    def taken(self) -> int:
        """How many are reserved, by whomever."""
        return sum(reservation.count for reservation in self._reserved)

    @property
    def is_idle(self) -> bool:
        """Whether nobody is just having sandboxes made."""
        return not self._reserved

    @contextmanager
    def reserved(self, owner: Owner, count: int, memory_bytes: int) -> Iterator[Reservation]:
        """Hold places for sandboxes that may use so much memory each.

        Raises:
            QuotaError: the principal may not have so many, or so much memory.
            CapacityError: this server has no room for them.
        """
        self._require_quota(owner.principal, count, memory_bytes)
        self._require_room(count, memory_bytes)
        reservation = Reservation(owner, count, memory_bytes)
        self._reserved.add(reservation)
        try:
            yield reservation
        finally:
            self._reserved.discard(reservation)

    def require_run(self, principal: str) -> None:
        """See that one more run may go on.

        Raises:
            QuotaError: the principal has as many as it may have at once.
            CapacityError: all together have.
        """
        most, total = self._settings.max_runs, self._settings.total_runs
        going = [(one.owner.principal, one.runs.going) for one in self._held()]
        mine = sum(count for whose, count in going if whose == principal)
        if mine >= most:
            telemetry.refused("quota")
            raise QuotaError(
                f"You have {mine} runs that go on; {most} are allowed at once.",
                hint="Wait for some of them (wait_run), or kill what is not needed any more.",
            )
        if sum(count for _, count in going) >= total:
            telemetry.refused("capacity")
            raise CapacityError(f"This server has no room for more: {total} runs of all its users go on.")

    def _require_quota(self, principal: str, count: int, memory_bytes: int) -> None:
        quota, use = self._settings.quota_of(principal), self._use(principal)
        left = (quota.sandboxes or 0) - use.count
        if count > left:
            fewer = f"Ask for {left} at most, use" if left > 0 else "Use"
            telemetry.refused("quota")
            raise QuotaError(
                f"You have {use.count} sandbox{'' if use.count == 1 else 'es'} in use and want {count} more; "
                f"{quota.sandboxes} are allowed.",
                hint=f"{fewer} one of them (list_sandboxes) or kill one. Those of other sessions end "
                "with these. Whoever runs this server can raise POCKET_DOCK_MAX_SANDBOXES.",
            )
        wanted = use.memory_bytes + count * memory_bytes
        if quota.memory_mb is not None and wanted > quota.memory_mb * MIB:
            telemetry.refused("quota")
            raise QuotaError(
                f"Your sandboxes may use {use.memory_bytes // MIB} MiB of memory, and you want "
                f"{count * memory_bytes // MIB} MiB more; {quota.memory_mb} MiB are allowed.",
                hint="Ask for less with memory_mb, or kill one first.",
            )

    def _require_room(self, count: int, memory_bytes: int) -> None:
        # What all have together is nobody's business: only the limits are told.
        use, most, memory = self._use(None), self._settings.total_sandboxes, self._settings.total_memory_bytes
        if use.count + count > most:
            telemetry.refused("capacity")
            raise CapacityError(
                f"This server has no room for {count} more: all its users together may have {most} sandboxes."
            )
        if use.memory_bytes + count * memory_bytes > memory:
            telemetry.refused("capacity")
            raise CapacityError(
                f"This server has no room for {count * memory_bytes // MIB} MiB more: the sandboxes of all "
                f"its users together may use {memory // MIB} MiB of memory."
            )

    def _use(self, principal: str | None) -> _Use:
        """Return what a principal has; None for all together."""
        reserved = [one for one in self._reserved if principal in (None, one.owner.principal)]
        held = [one for one in self._held() if principal in (None, one.owner.principal)]
        return _Use(
            len(held) + sum(one.count for one in reserved),
            sum(one.request.limits.memory_bytes for one in held)
            + sum(one.count * one.memory_bytes for one in reserved),
        )


class Turns:
    """So many at once; the others wait in line, and not for ever."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = anyio.Semaphore(most)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn and have it.

        Raises:
            CapacityError: all are taken, and were for `TURN_PATIENCE`.
        """
        with anyio.move_on_after(TURN_PATIENCE) as waiting:
            await self._free.acquire()
        if waiting.cancelled_caught:
            telemetry.refused("capacity")
            raise CapacityError(
                f"This server makes {self._most} container{'' if self._most == 1 else 's'} at once, and "
                f"others were at it for {TURN_PATIENCE:g} s."
            )
        try:
            yield
        finally:
            self._free.release()
