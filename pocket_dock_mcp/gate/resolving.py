"""Names become addresses here, on the host, and nowhere else: a sandbox has no resolver."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import anyio

MAX_THREADS = 64
"""Look-ups at once of all sandboxes together: one that hangs is a thread that does."""
MAX_EACH = 4
"""Those of one sandbox, so that names whose servers are silent stop nobody else's."""

_PLACES = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.Semaphore]()


_Settle = Callable[[list[str], "Exception | None"], None]


class Resolver(Protocol):
    """How names are looked up."""

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a name, the best first. Raises `OSError` if there is none."""


def system_look_up(host: str) -> list[str]:
    """Ask the system, and wait for it."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # Without the scope of a link-local one: those are denied, whatever they are on.
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for _, _, _, _, address in found))


class HostResolver:
    """The way of this host's programs, its hosts file and name servers included. Each sandbox has one."""

    def __init__(self, look_up: Callable[[str], list[str]] = system_look_up) -> None:
        self._look_up = look_up
        self._own = anyio.Semaphore(MAX_EACH)

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a name."""
        loop = asyncio.get_running_loop()
        places = _PLACES.setdefault(loop, anyio.Semaphore(MAX_THREADS))
        await self._own.acquire()
        try:
            await places.acquire()
        except BaseException:
            self._own.release()
            raise
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str], error: Exception | None) -> None:
            # Whoever has asked may have left meanwhile; the place is taken until the system answers.
            places.release()
            self._own.release()
            if answer.done():
                return
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        # A daemon: nobody may have to wait for a name server when the process ends.
        threading.Thread(
            target=_work, args=(self._look_up, host, loop, settle), name="look-up", daemon=True
        ).start()
        return await answer


def _work(
    look_up: Callable[[str], list[str]], host: str, loop: asyncio.AbstractEventLoop, settle: _Settle
) -> None:
    found: list[str] = []
    error: Exception | None = None
    try:
        found = look_up(host)
    except (OSError, UnicodeError) as problem:
        error = problem
    with contextlib.suppress(RuntimeError):
        # The loop may have been closed.
        loop.call_soon_threadsafe(settle, found, error)
