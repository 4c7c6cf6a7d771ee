"""Names become addresses here, on the host, and nowhere else: a sandbox has no resolver."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

import anyio
import anyio.to_thread

MAX_THREADS = 16
"""Look-ups at once in this process: one that hangs is a thread that does."""


class Resolver(Protocol):
    """How names are looked up."""

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a name, the best first. Raises `OSError` if there is none."""


class HostResolver:
    """The way of this host's own programs, its hosts file and its name servers included."""

    def __init__(self) -> None:
        """Look nothing up."""
        self._limiter = anyio.CapacityLimiter(MAX_THREADS)

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a name."""
        found = await anyio.to_thread.run_sync(_look_up, host, abandon_on_cancel=True, limiter=self._limiter)
        return list(dict.fromkeys(found))


def _look_up(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # Without the scope of a link-local one: those are denied, whatever they are on.
    return [str(address[0]).partition("%")[0] for _, _, _, _, address in found]
