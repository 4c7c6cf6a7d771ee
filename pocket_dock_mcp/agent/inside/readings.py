"""What this container uses now: the kernel's counters, read when somebody asks and not before."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Dict, List, Optional

from . import cells, killing, runs, wire
from .facts import disk_free, room

if TYPE_CHECKING:
    from .main import Agent

MAX_INTERFACES = 16
_SIOCGIFADDR = 0x8915


def collect(agent: Agent) -> wire.Header:
    """Return the numbers of now."""
    cgroup = agent.cgroup
    now = time.monotonic()
    return {
        "now": now,
        "uptime": now - cgroup.began,
        "cpu_before": cgroup.cpu_before,
        "cpu_s": cgroup.cpu_seconds(),
        "memory": cgroup.number("memory_now"),
        "memory_peak": cgroup.number("memory_peak"),
        "memory_limit": cgroup.number("memory_limit"),
        "pids": cgroup.number("pids_now"),
        "pids_limit": cgroup.number("pids_limit"),
        "processes": sum(1 for _ in killing.owned(agent.user.uid)),
        "network": interfaces(),
        "disk_free": disk_free(agent.user.home),
        "root_free": room("/"),
        "runs": sum(isinstance(work, (runs.Run, cells.Cell)) for work in agent.work.values()),
        "sessions": len(agent.sessions.describe()),
        "clients": 1 if agent.keep is None else len(agent.keep.clients),
    }


def interfaces() -> List[Dict[str, object]]:
    """The network interfaces besides loopback, with what has gone through them."""
    try:
        with open("/proc/net/dev", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return []
    found: List[Dict[str, object]] = []
    for line in lines:
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        if name.strip() != "lo" and len(fields) >= 9 and len(found) < MAX_INTERFACES:
            found.append(
                {
                    "name": name.strip(),
                    "received": int(fields[0]),
                    "sent": int(fields[8]),
                    "address": _address(name.strip()),
                }
            )
    return found


def _address(interface: str) -> Optional[str]:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFADDR, interface.encode()[:15].ljust(256, b"\0"))
        except OSError:
            # It has none.
            return None
    return socket.inet_ntoa(answer[20:24])
