"""Another session, with a sandbox of its own on the same engine, that must not notice an attack."""

from __future__ import annotations

import asyncio
import statistics
import time

import anyio

from tests.abuse.server import DiedError, Server
from tests.trials.host import slowness

PAUSE_S = 0.1
LONGEST_S = 20.0
"""For one heartbeat on a machine with nothing else to do; longer is a failure."""
NOTICEABLE_S = 1.0
FACTOR = 3


class Neighbour:
    """Runs a command in its sandbox now and then."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seconds: list[float] = []
        self._failures: list[str] = []
        self._baseline = 0.0
        self._beating: asyncio.Future[None] | None = None

    @classmethod
    async def settle(cls, server: Server) -> Neighbour:
        """Make a sandbox in a session, and see how long a heartbeat takes."""
        neighbour = cls(server)
        made = await neighbour._server.call("create_sandbox", name="neighbour")
        assert not made.is_error, made.text
        for _ in range(8):
            await neighbour._beat()
        neighbour._baseline = statistics.median(neighbour._seconds)
        return neighbour

    def listen(self) -> None:
        """Let its heart beat from now on."""
        if self._beating is not None:
            # Nobody has asked for it after a case that ended badly.
            self._beating.cancel()
        self._seconds, self._failures = [], []
        self._beating = asyncio.ensure_future(self._go_on())

    async def violations(self) -> tuple[list[str], dict[str, float]]:
        """Stop; say what it has noticed since `listen`, and its times in milliseconds."""
        assert self._beating is not None
        if not self._seconds and not self._failures:
            await self._beat()
        self._beating.cancel()
        await asyncio.wait([self._beating])
        found = self._failures[:3]
        middle = statistics.median(self._seconds) if self._seconds else 0.0
        if middle > max(FACTOR * self._baseline, NOTICEABLE_S * slowness()):
            found.append(f"a heartbeat took {middle:.1f} s instead of {self._baseline:.3f} s")
        most = max(self._seconds, default=0.0)
        times = {"baseline": self._baseline, "median": middle, "most": most}
        return found, {name: round(seconds * 1000, 1) for name, seconds in times.items()}

    async def aclose(self) -> None:
        """End its session."""
        await self._server.close()

    async def _go_on(self) -> None:
        while True:
            await self._beat()
            await anyio.sleep(PAUSE_S)

    async def _beat(self) -> None:
        began = time.monotonic()
        try:
            with anyio.fail_after(LONGEST_S * slowness()):
                reply = await self._server.call("run_command", command="echo beat")
        except (DiedError, TimeoutError) as error:
            self._failures.append(f"a heartbeat failed: {error!r}")
            return
        if reply.structured.get("stdout") != "beat\n":
            self._failures.append(f"a heartbeat failed: {reply.text[:300]}")
        self._seconds.append(time.monotonic() - began)
