"""Places for sandboxes that are being made or taken up: they count in their owner's quota as if they were."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from contextlib import contextmanager

from pocket_dock_mcp import telemetry
from pocket_dock_mcp.errors import QuotaError
from pocket_dock_mcp.manager.sandbox import Owner


class Places:
    """As many for each session as are allowed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._reserved: collections.Counter[str] = collections.Counter()

    @property
    def taken(self) -> int:
        """How many are reserved, by whomever."""
        return sum(self._reserved.values())

    @contextmanager
    def reserved(self, owner: Owner, held: int, count: int) -> Iterator[None]:
        """Hold places for one who has `held` sandboxes. Nothing is awaited between the look and the taking.

        Raises:
            QuotaError: there are not so many.
        """
        there = held + self._reserved[owner.session]
        if there + count > self._most:
            telemetry.refused("quota")
            raise QuotaError(
                f"You have {there} sandbox{'' if there == 1 else 'es'} in use and want {count} more; "
                f"{self._most} are allowed.",
                hint="Use one of them (list_sandboxes), or kill one first.",
            )
        self._reserved[owner.session] += count
        try:
            yield
        finally:
            self._reserved[owner.session] -= count
