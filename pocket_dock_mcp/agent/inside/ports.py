"""Which TCP ports are listened on in here, from the kernel's socket table."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Set

from . import wire

if TYPE_CHECKING:
    from .main import Agent

PAUSE = 0.01
"""Seconds between two looks while somebody waits."""
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = "0A"


def listening() -> Set[int]:
    """Return the ports."""
    found = set()
    for table in _TABLES:
        try:
            with open(table, encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            # No IPv6 here.
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


class Waiter:
    """Somebody who waits for one port, or for any that was not there before."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self._agent = agent
        self.id = request_id
        self.wanted: Optional[int] = header.get("port")
        self.known: Set[int] = set(header.get("known", ()))
        self.is_over = False

    def look(self, ports: Set[int]) -> None:
        found = ports & {self.wanted} if self.wanted is not None else ports - self.known
        if found:
            self._leave()
            self._agent.send({"kind": "reply", "id": self.id, "ports": sorted(found)})

    def abort(self) -> None:
        self._leave()

    def _leave(self) -> None:
        self.is_over = True
        self._agent.drop(self.id)


class Waiters:
    """All who wait; nobody looks at the table for nobody."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._waiters: List[Waiter] = []

    def add(self, waiter: Waiter) -> None:
        self._waiters.append(waiter)
        if len(self._waiters) == 1:
            self._look()

    def _look(self) -> None:
        ports = listening()
        for waiter in self._waiters:
            if not waiter.is_over:
                waiter.look(ports)
        self._waiters = [waiter for waiter in self._waiters if not waiter.is_over]
        if self._waiters:
            self._agent.loop.later(PAUSE, self._look)
