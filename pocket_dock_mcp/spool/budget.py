"""How much of what programs print may be kept at all."""

from __future__ import annotations

import threading


class SpoolBudget:
    """A number of bytes, in memory and on disk together, that spools share.

    Budgets nest (all sandboxes, one sandbox, one run): what is taken from one is taken from all above it too.
    Any thread may take and give back.
    """

    __slots__ = ("levels", "lock", "total_bytes", "used_bytes")

    def __init__(self, total_bytes: int, parent: SpoolBudget | None = None) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.levels: tuple[SpoolBudget, ...] = (self, *(parent.levels if parent else ()))
        """This one and all above it."""
        # One for the whole tree: something is taken from all levels or from none.
        self.lock: threading.Lock = parent.lock if parent else threading.Lock()

    def take(self, wanted: int) -> int:
        """Take up to `wanted` bytes and return how many: as many as every level has left."""
        with self.lock:
            for level in self.levels:
                left = level.total_bytes - level.used_bytes
                if left < wanted:
                    wanted = left
            if wanted <= 0:
                return 0
            for level in self.levels:
                level.used_bytes += wanted
        return wanted

    def give_back(self, count: int) -> None:
        """Give back bytes that were taken."""
        with self.lock:
            for level in self.levels:
                level.used_bytes -= count
