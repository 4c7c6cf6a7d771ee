"""How much a sandbox may do through its gate, and how long it may take over it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio

from pocket_dock_mcp.models import GIB


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Of one sandbox."""

    connections: int = 64
    """From inside at once."""
    sent_bytes: int = GIB
    """To the network in all."""
    received_bytes: int = 16 * GIB
    """From the network in all."""
    connect_s: float = 20.0
    """For finding a host and connecting to it."""
    idle_s: float = 300.0
    """A connection over which nothing goes either way for so long ends."""
    request_s: float = 60.0
    """For a whole request's head, or a TLS greeting; and between two requests."""
    names: int = 500
    """Different ones below wildcards. Each is told to the name servers of its domain, with what it says."""
    per_second: float = 100.0
    """Connections and requests. What comes faster waits."""
    burst: float = 400.0
    """So many may come at once before that."""


class Pace:
    """Lets things through at a rate. Whoever comes too early waits."""

    def __init__(self, per_second: float, burst: float) -> None:
        """Begin with a whole burst."""
        self._per_second, self._burst = per_second, burst
        self._left, self._at = burst, time.monotonic()

    async def take(self) -> None:
        """Return when it is one's turn."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second) - 1
        self._at = now
        # A debt, so that those who wait are served in the order in which they came.
        if self._left < 0:
            await anyio.sleep(-self._left / self._per_second)


class SpentError(Exception):
    """A sandbox has used up what it may send or receive."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Meter:
    """What has gone through one gate."""

    def __init__(self, limits: GateLimits) -> None:
        """Begin at nothing."""
        self._limits = limits
        self.sent_bytes = 0
        self.received_bytes = 0

    def add_sent(self, count: int) -> None:
        """Take note of bytes that are to go out. Raises `SpentError` if they may not."""
        _require(self.sent_bytes + count, self._limits.sent_bytes, "sent")
        self.sent_bytes += count

    def add_received(self, count: int) -> None:
        """Take note of bytes that have come in. Raises `SpentError` if they are too many."""
        self.received_bytes += count
        _require(self.received_bytes, self._limits.received_bytes, "received")

    def check(self) -> None:
        """Raise `SpentError` if nothing more may go either way."""
        _require(self.sent_bytes + 1, self._limits.sent_bytes, "sent")
        _require(self.received_bytes + 1, self._limits.received_bytes, "received")


def _require(count: int, most: int, what: str) -> None:
    if count > most:
        raise SpentError(f"the sandbox may have {what} {most / (1 << 20):.10g} MiB, and has")
