"""What a sandbox was denied: kept for its owner, in a bounded list, and told on at a bounded rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

MAX_KEPT = 256
"""Different ones. A program can make up as many names as it likes."""
MAX_HOST = 253
_BURST = 30.0
_TOLD_PER_S = 1.0


@dataclass(frozen=True, slots=True)
class Denial:
    """Something that was not allowed, with how often so far. What it names is from inside: data."""

    host: str
    """Printable; empty where it was not about one."""
    port: int
    reason: str
    """A few words, in the same words each time."""
    at: float
    """When it was last, by `time.monotonic`."""
    count: int = 1

    def __str__(self) -> str:
        if not self.host:
            return self.reason
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} {self.reason}"


class Denials:
    """Those of one sandbox."""

    def __init__(self, tell: Callable[[Denial], None]) -> None:
        """Begin with none.

        Args:
            tell: is called with one that is new, or has been 10, 100, 1000 ... times; no more often than
                the rate allows. Must not raise.
        """
        self._tell = tell
        self._kept: dict[tuple[str, int, str], tuple[int, Denial]] = {}
        self._last = 0
        self._budget, self._budget_at = _BURST, time.monotonic()

    @property
    def total(self) -> int:
        """Return how often something was denied."""
        return self._last

    def add(self, host: str, port: int, reason: str) -> None:
        """Take note of one."""
        host = "".join(c if c.isprintable() else "?" for c in host[:MAX_HOST])
        key = (host, port, reason)
        now = time.monotonic()
        _, before = self._kept.pop(key, (0, None))
        denial = Denial(host, port, reason, now, 1 if before is None else before.count + 1)
        self._last += 1
        # At the end: the order is that of the last time.
        self._kept[key] = (self._last, denial)
        if len(self._kept) > MAX_KEPT:
            # Out of the middle: neither what came first nor what came last can be hidden by more of it.
            del self._kept[next(islice(self._kept, MAX_KEPT // 2, None))]
        if _is_power_of_ten(denial.count) and self._may_tell(now):
            self._tell(denial)

    def since(self, count: int) -> list[Denial]:
        """Return those that happened, again or for the first time, after the first so many; oldest first."""
        return [denial for number, denial in self._kept.values() if number > count]

    def _may_tell(self, now: float) -> bool:
        self._budget = min(_BURST, self._budget + (now - self._budget_at) * _TOLD_PER_S)
        self._budget_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


def excerpt(names: Sequence[str], most: int) -> list[str]:
    """Return at most so many of what was denied: the first, the last, and how many there are in between."""
    if len(names) <= most:
        return list(names)
    first, last = most // 2, most - most // 2 - 1
    return [*names[:first], f"and {len(names) - first - last} more", *names[len(names) - last :]]


def _is_power_of_ten(count: int) -> bool:
    while count % 10 == 0:
        count //= 10
    return count == 1
