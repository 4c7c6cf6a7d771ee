"""How much of what programs print may be kept at all."""

from __future__ import annotations

import threading
import weakref

_SHARE = 3
"""How many times what is free one may use: alone three quarters of all, and of n each 3 parts of 3n + 1."""


class SpoolBudget:
    """A number of bytes, in memory and on disk together, that spools share.

    Budgets nest (all sandboxes, one sandbox, one run): what is taken from one is taken from all above it too.
    Any thread may take and give back.
    """

    __slots__ = ("__weakref__", "levels", "lock", "total_bytes", "used_bytes")

    def __init__(self, total_bytes: int, parent: SpoolBudget | None = None) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0
        self.levels: tuple[SpoolBudget, ...] = (self, *(parent.levels if parent else ()))
        """This one and all above it."""
        # One for the whole tree: something is taken from all levels or from none.
        self.lock: threading.Lock = parent.lock if parent else threading.Lock()

    def left(self) -> int:
        """Return how many bytes this level still gives, whatever those above it do."""
        return self.total_bytes - self.used_bytes

    @property
    def is_short(self) -> bool:
        """Whether its user should let old bytes go, so that there is room for new ones."""
        return self.left() < self.total_bytes // 4 or any(level.is_short for level in self.levels[1:2])

    def take(self, wanted: int) -> int:
        """Take up to `wanted` bytes and return how many: as many as every level has left."""
        with self.lock:
            for level in self.levels:
                left = level.left()
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


class _Share(SpoolBudget):
    """What one of several may use: as much as is left to the others in the same measure."""

    __slots__ = ()

    def _most(self) -> int:
        return _SHARE * max(0, self.levels[1].left())

    def left(self) -> int:
        # What is taken is not free any more, so that the measure shrinks with it.
        return (self._most() - self.used_bytes) // (1 + _SHARE)

    @property
    def is_short(self) -> bool:
        # Only for what it uses itself: nobody has to let go of anything because others have taken much.
        return 4 * self.used_bytes > 3 * self._most()


class FairBudget:
    """A number of bytes for several who know nothing of each other: none can use up all.

    Whoever comes late finds something free, and nothing is taken from those who are there.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total = SpoolBudget(total_bytes)
        self._shares: weakref.WeakValueDictionary[str, SpoolBudget] = weakref.WeakValueDictionary()

    def share(self, name: str) -> SpoolBudget:
        """Return the part of somebody: always the same one as long as anything uses it."""
        found = self._shares.get(name)
        if found is None:
            found = self._shares[name] = _Share(self.total.total_bytes, self.total)
        return found
