"""Which TCP ports are listened on in here, from the kernel's socket table."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Dict, List, Optional, Set

from . import killing, wire

if TYPE_CHECKING:
    from .main import Agent

PAUSE = 0.01
"""Seconds between two looks while somebody waits."""
BENEFIT_OF_DOUBT = 0.5
"""Seconds for which a process that may not be looked into is not the one: nor may one that just exits."""
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = "0A"


def listening() -> Dict[int, Set[str]]:
    """Return the ports, each with the numbers of its sockets."""
    found: Dict[int, Set[str]] = {}
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
                found.setdefault(int(fields[1].rpartition(":")[2], 16), set()).add(fields[9])
    return found


def sockets_of(agent: Agent, marker: int) -> Optional[Set[str]]:
    """Return the numbers of the sockets of a run's processes; None if one of them does not let us look."""
    found: Set[str] = set()
    with agent.user:
        for pid in killing.marked(marker):
            folder = "/proc/%d/fd/" % pid
            try:
                links = [os.readlink(folder + name) for name in os.listdir(folder)]
            except FileNotFoundError:
                # It has just ended, or closed one.
                continue
            except OSError:
                return None
            found.update(link[len("socket:[") : -1] for link in links if link.startswith("socket:["))
    return found


class Waiter:
    """Somebody who waits for one port, or for any that was not there before."""

    def __init__(self, agent: Agent, request_id: int, header: wire.Header) -> None:
        self._agent = agent
        self.id = request_id
        self.wanted: Optional[int] = header.get("port")
        self.known: Set[int] = set(header.get("known", ()))
        self.run: Optional[int] = header.get("run")
        """The run that is to listen; None for anybody."""
        self.is_over = False
        self._closed_since: Optional[float] = None

    def look(self, ports: Dict[int, Set[str]]) -> None:
        there = set(ports)
        found = there - self.known if self.wanted is None else there.intersection([self.wanted])
        if found and self._are_the_runs(set().union(*(ports[port] for port in found))):
            self._leave()
            self._agent.send({"kind": "reply", "id": self.id, "ports": sorted(found)})

    def _are_the_runs(self, sockets: Set[str]) -> bool:
        marker = None if self.run is None else self._agent.marker_of(self.run)
        if self.run is None:
            return True
        if marker is None:
            return False
        own = sockets_of(self._agent, marker)
        if own is not None:
            self._closed_since = None
            return bool(own & sockets)
        now = time.monotonic()
        if self._closed_since is None:
            self._closed_since = now
        return now - self._closed_since > BENEFIT_OF_DOUBT

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
        if self._agent.way_out is not None:
            # That one is ours.
            ports.pop(self._agent.way_out.port, None)
        for waiter in self._waiters:
            if not waiter.is_over:
                waiter.look(ports)
        self._waiters = [waiter for waiter in self._waiters if not waiter.is_over]
        if self._waiters:
            self._agent.loop.later(PAUSE, self._look)
